"""A catalog is rebuilt from its members alone: the home is gone, four members with it, and another is a day old."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.catalog.issuers import Scope
from fungistor.catalog.removal import Keep
from fungistor.ids import TenantNumber
from fungistor.node.enrolment import add_node
from fungistor.node.home import Home
from fungistor.node.network import Network
from fungistor.node.removal import Removal
from fungistor.node.wiring import open_catalog, open_network
from fungistor.objects.results import PublishOptions, PublishOutcome
from tests.contracts.etcd_world import etcd_cluster
from tests.e2e.pool_world import Members, members
from tests.e2e.running import fungistor
from tests.unit.objects.trees import noise

COUNT = 10
GONE = ("s01", "s04", "s06", "s09")
STALE = "s07"
BEFORE = 2
"""How many of the objects are older than the stale member's folder."""

Line = dict[str, object]


def lines(home: Path, *words: str) -> list[Line]:
    done = fungistor(home, "--json", *words)
    assert done.returncode == 0, (words, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def opened(home: Path) -> Iterator[Network]:
    with contextlib.closing(open_network(Home(str(home)))) as network:
        yield network


def publish(network: Network, folder: Path, name: str, size: int, **options: int) -> str:
    """Publish a file as `fungistor publish` does; its CID."""
    (folder / name).write_bytes(noise(len(name) + size, size))
    (done,) = network.publish([str(folder / name)], PublishOptions(**options))  # type: ignore[arg-type]
    assert isinstance(done, PublishOutcome), done
    return done.cid


def told(home: Path) -> list[object]:
    """All that the catalog holds: objects, names with their history, what is kept, layouts, nodes, windows, keys."""
    with opened(home) as network:
        catalog = network.catalog
        catalog.catch_up()
        kept = [(line.cid, line.pinned, line.locked) for line in Removal(network.parts).kept()]
        names = [(line.cid, line.name, line.size, line.published) for line in network.objects()]
        return [
            sorted(names),
            [(past.path, past.sequence) for past in network.names.history("site")],
            kept,
            catalog.layouts(),
            {issuer.name: issuer.scopes for issuer in catalog.issuers() if issuer.name == "paris"},
            [(record.object_id, until) for record, until in catalog.removal.windows()],
            catalog.highest_member(),
            network.parts.key_table.tenant_rows(),
            list(catalog.records()),
        ]


def read(home: Path, contents: dict[str, bytes]) -> None:
    with opened(home) as network:
        for cid, content in contents.items():
            assert b"".join(network.cat(cid)) == content


def fill(world: Members, home: Path, catalog: tuple[str, ...]) -> dict[str, bytes]:
    """A network with something of everything, whose last commits a stale member has not; the content by CID."""
    lines(home, "pool", "apply", str(world.pool), "--yes", *catalog)
    folder = world.folder / "content"
    folder.mkdir()
    with opened(home) as network:
        first = publish(network, folder, "first", 4_000)
        second = publish(network, folder, "second", 300_000, expires_s=30 * 86_400)
        gone = publish(network, folder, "gone", 20_000)
        window = publish(network, folder, "window", 20_000)
        network.names.publish("site", f"/ipfs/{first}")
        Removal(network.parts).unpublish(window, grace_s=7 * 86_400)
    aside = world.copy_of(STALE)
    with opened(home) as network:
        removal = Removal(network.parts)
        assert removal.unpublish(gone).pending == ()
        removal.keep(second, Keep.PIN)
        removal.keep(first, Keep.LOCK, until=2_000_000_000)
        with open_catalog(Home(str(home))) as (log, _, table):
            add_node(
                Home(str(home)), log, table, "paris", str(world.folder / "paris.key"), Scope.PUBLISH, [TenantNumber(0)]
            )
        third = publish(network, folder, "third", 70_000)
        network.names.publish("site", f"/ipfs/{third}")
        last = publish(network, folder, "last", 5_000)
    named = {first: "first", second: "second", third: "third", last: "last"}
    world.put_back(STALE, aside)
    return {cid: (folder / name).read_bytes() for cid, name in named.items()}


@pytest.mark.parametrize("engine", ["sqlite", "etcd"])
def test_everything_comes_back_from_the_members(tmp_path: Path, engine: str) -> None:
    """Right after the last acknowledgement the home (and etcd) is gone, four of ten members are, and one has the folder
    of another day. With the root key alone an empty machine has the same objects, names and policies, and every byte
    reads; a wrong root key, and a fifth member gone, are told before anything is made."""
    old, new = tmp_path / "old", tmp_path / "new"
    with members(tmp_path / "members", COUNT) as world, contextlib.ExitStack() as ending:
        catalog: tuple[str, ...] = ()
        if engine == "etcd":
            cluster = ending.enter_context(etcd_cluster(tmp_path / "etcd", 1))
            cluster.wait_ready()
            catalog = ("--catalog", f"etcd://127.0.0.1:{cluster.client_ports[0]}/net")
        contents = fill(world, old, catalog)
        before = told(old)
        root = (old / "keys" / "root.key").read_bytes()
        shutil.rmtree(old)
        ending.close()
        for name in GONE:
            world.kill(name)

        said = fungistor(new, "catalog", "rebuild", "--pool", str(world.pool))
        assert (said.returncode, "keys import" in said.stderr) == (4, True)
        (new / "keys").mkdir(mode=0o700, parents=True)
        (new / "keys" / "root.key").write_bytes(root)
        (new / "keys" / "root.key").chmod(0o600)
        os.chmod(new, 0o700)
        [foretold] = lines(new, "catalog", "rebuild", "--pool", str(world.pool), "--dry-run")
        assert (foretold["objects"], foretold["dry_run"]) == (len(contents), True)
        assert not (new / "catalog").exists()

        [found] = lines(new, "catalog", "rebuild", "--pool", str(world.pool))
        assert (found["objects"], found["names"], found["proven"], found["keys_missing"]) == (4, 1, True, 0)
        assert found["missing"] == list(GONE)
        assert told(new) == before
        read(new, dict(list(contents.items())[:BEFORE]))
        with opened(new) as network:
            assert publish(network, tmp_path, "more", 6_000)
        # What the stale member has not lacks a fifth shard, which objects do not survive: one of the four comes back.
        world.start(GONE[0])
        world.write_pool()
        read(new, contents)
        again = fungistor(new, "catalog", "rebuild", "--pool", str(world.pool))
        assert (again.returncode, "already" in again.stderr) == (6, True)
