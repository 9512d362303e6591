"""`python -m benchmarks.catalog [--records N] [--engine sqlite|etcd]`: many small objects through the log, in groups.

Records as a publish of a small object makes them; on etcd with their wrapped keys put before, a transaction a hundred.
What an object costs in the log, what etcd needs for it, and how long after a commit a second node has it. One JSON line
an engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import psutil

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command, Publish, encode_command
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress
from fungistor.catalog.engines.etcd_keys import EtcdKeys
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.record import Record, Sizes
from fungistor.catalog.state import State
from fungistor.ids import ObjectId, SessionId, TenantNumber
from fungistor.keys.mirror import ROWS_AT_ONCE, MirroredKeys
from fungistor.keys.ring import WRAPPED_KEY_BYTES
from fungistor.keys.table import KeyTable
from fungistor.limits import COMMAND_BYTES_MAX, MIB

GROUP = 2000
NETWORK = b"benchmark of it!"
SMALL_NAME_BYTES = 100
ROOT_BYTES = 70


def main(words: Sequence[str] | None = None) -> int:
    """Measure the engines asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--engine", choices=("sqlite", "etcd"), action="append")
    options = parser.parse_args(words)
    for engine in options.engine or ("sqlite", "etcd"):
        with tempfile.TemporaryDirectory(prefix="fungistor-catalog-") as place, _engine(engine, Path(place)) as etcd:
            found = _measure(Path(place), etcd, options.records)
            print(json.dumps({"engine": engine, "records": options.records, **found}))
    return 0


def _measure(place: Path, etcd: Etcd | None, records: int) -> dict[str, float]:
    writer, reader = _node(place, "writer", etcd), _node(place, "reader", etcd)
    shared = None if etcd is None else EtcdKeys(etcd.address)
    seen: dict[int, float] = {}
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(reader, seen, ended))
    follower.start()
    chance = random.Random(1)
    committed: list[tuple[int, float]] = []
    size = 0
    started = time.monotonic()
    try:
        for start in range(0, records, GROUP):
            commands = [_command(chance) for _ in range(min(GROUP, records - start))]
            size += sum(len(encode_command(command)) for command in commands)
            assert size / (start + len(commands)) * GROUP < COMMAND_BYTES_MAX
            if shared is not None:
                _put_keys(shared, commands)
            writer.commit_all(commands)
            committed.append((int(writer.revision), time.monotonic()))
        took = time.monotonic() - started
        while max(seen, default=0) < records:
            time.sleep(0.01)
    finally:
        ended.set()
        follower.join()
        writer.close()
        reader.close()
        if shared is not None:
            shared.close()
    late = sorted(min(at for revision, at in seen.items() if revision >= wanted) - at_ for wanted, at_ in committed)
    found = {
        "objects_per_s": round(records / took, 1),
        "log_bytes_per_object": round(size / records, 1),
        "state_bytes_per_object": round(os.path.getsize(place / "writer" / "state.sqlite") / records, 1),
        "readable_elsewhere_s_p50": round(max(0.0, statistics.median(late)), 3),
        "readable_elsewhere_s_p99": round(max(0.0, late[int(0.99 * (len(late) - 1))]), 3),
        "own_rss_mib": round(psutil.Process().memory_info().rss / MIB, 1),
    }
    return found | ({} if etcd is None else etcd.figures())


def _node(place: Path, name: str, etcd: Etcd | None) -> Catalog:
    home = place / name
    home.mkdir()
    state = State(str(home / "state.sqlite"))
    if etcd is None:
        return Catalog(SqliteLog(str(place / "log.sqlite")), state)
    keys = MirroredKeys(KeyTable(str(home / "keys.sqlite")), EtcdKeys(etcd.address), NETWORK)
    return Catalog(EtcdLog(etcd.address), state, is_remote=True, prepare=keys.follow)


def _follow(catalog: Catalog, seen: dict[int, float], ended: threading.Event) -> None:
    while not ended.is_set():
        if catalog.wait(0.5):
            seen[int(catalog.revision)] = time.monotonic()


def _put_keys(shared: EtcdKeys, commands: Sequence[Command]) -> None:
    rows = [
        (command.body.record.object_id, TenantNumber(0), os.urandom(WRAPPED_KEY_BYTES))
        for command in commands
        if isinstance(command.body, Publish)
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        shared.put_all(rows[start : start + ROWS_AT_ONCE])


def _command(chance: random.Random) -> Command:
    made = Record(
        object_id=ObjectId(chance.randbytes(32)),
        tenant=TenantNumber(0),
        policy="default",
        private=False,
        profile=0,
        sizes=Sizes(size=3000, sealed=3100, stored=16_000, blocks=1, stripes=1),
        manifest=chance.randbytes(ROOT_BYTES),
        salt=chance.randbytes(32),
        list_key=chance.randbytes(32),
        sealed_name=chance.randbytes(SMALL_NAME_BYTES),
        published=1_790_000_000,
    )
    return Command(SessionId(chance.randbytes(16)), 0, Publish(made))


class Etcd:
    """One etcd of this machine, and what it needs."""

    def __init__(self, folder: Path, port: int, process: psutil.Popen) -> None:
        self.folder, self.process = folder, process
        self.address = EtcdAddress((f"http://127.0.0.1:{port}",), "benchmark")

    def figures(self) -> dict[str, float]:
        """Its file and its memory."""
        return {
            "etcd_db_mib": round((self.folder / "member" / "snap" / "db").stat().st_size / MIB, 1),
            "etcd_rss_mib": round(self.process.memory_info().rss / MIB, 1),
        }


@contextlib.contextmanager
def _engine(name: str, place: Path) -> Iterator[Etcd | None]:
    if name == "sqlite":
        yield None
        return
    program = shutil.which("etcd")
    if program is None:
        raise SystemExit("etcd is not on PATH: apt-get install etcd-server")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, peer = one.getsockname()[1], two.getsockname()[1]
    own, among = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    folder = place / "etcd"
    words = [program, "--data-dir", str(folder), "--listen-client-urls", own, "--advertise-client-urls", own]
    words += ["--listen-peer-urls", among, "--initial-advertise-peer-urls", among]
    words += ["--initial-cluster", f"default={among}"]
    process = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{own}/health", trust_env=False).json().get("health") == "true":
                    break
            time.sleep(0.05)
        yield Etcd(folder, port, process)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
