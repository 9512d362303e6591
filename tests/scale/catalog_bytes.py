"""What objects cost in the log: CPU time and bytes by group, and etcd's file before and after a trim.

Run `python -m tests.scale.catalog_bytes [OBJECTS]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import httpx

from fungistor.catalog.catalog import Catalog, sign
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.issuers import ALL_SCOPES, RegisterIssuer
from fungistor.catalog.log import Log
from fungistor.catalog.state import State
from fungistor.keys.ring import SigningKey
from tests.contracts.etcd_world import etcd_cluster
from tests.unit.catalog.samples import command, drawn, publish, record

OBJECTS = 100_000
ALONE = 1_000
GROUP = 1_000


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fill(log: Log, folder: Path, objects: int, group: int, *, signed: bool) -> None:
    """Commit objects of a small file's record, a group at a time, and tell what that took."""
    node, root = SigningKey(drawn("node")), SigningKey(drawn("root"))
    catalog = Catalog(log, State(str(folder / log.identity().hex())), signer=node if signed else None)
    if signed:
        catalog.commit(sign(command(RegisterIssuer(root.issuer, node.issuer, "node", ALL_SCOPES)), root, 1))
    name, manifest = record(0).sealed_name[:100], record(0).manifest[:80]
    started = time.process_time()
    for first in range(0, objects, group):
        numbers = range(first, min(objects, first + group))
        catalog.commit_all([command(publish(n, sealed_name=name, manifest=manifest)) for n in numbers])
    took = time.process_time() - started
    size = sum(len(entry.payload) for entry in log.read(log.trimmed())) / objects
    how = "signed" if signed else "unsigned"
    say(f"{how}, groups of {group}: {1e6 * took / objects:.0f} us of CPU and {size:.0f} bytes an object")


def on_etcd(folder: Path, objects: int) -> None:
    """Tell etcd's file with all objects in the tail, and when they were trimmed, compacted and defragmented."""
    with etcd_cluster(folder / "etcd", 1) as cluster:
        cluster.wait_ready()
        url = f"http://127.0.0.1:{cluster.client_ports[0]}/v3"
        log = EtcdLog(cluster.address("scale"))
        fill(log, folder, objects, GROUP, signed=True)
        status = httpx.post(f"{url}/maintenance/status", json={}, timeout=60).json()
        say(f"etcd's file with {objects} objects: {int(status['dbSize']) / 1e6:.1f} MB")
        log.trim(log.last())
        revision = httpx.post(f"{url}/maintenance/status", json={}, timeout=60).json()["header"]["revision"]
        httpx.post(f"{url}/kv/compaction", json={"revision": revision, "physical": True}, timeout=120)
        httpx.post(f"{url}/maintenance/defragment", json={}, timeout=120)
        status = httpx.post(f"{url}/maintenance/status", json={}, timeout=60).json()
        say(f"after trim, compaction and defragmentation: {int(status['dbSize']) / 1e6:.1f} MB")
        log.close()


def main(objects: int) -> None:
    """Measure on a file, then on etcd."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for signed in (False, True):
            for group, count in ((1, ALONE), (GROUP, min(objects, 10 * GROUP))):
                log = SqliteLog(str(folder / f"{group}{signed}.log"), sync=False)
                fill(log, folder, count, group, signed=signed)
                log.close()
        on_etcd(folder, objects)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else OBJECTS)
