"""Two homes of one network on a real etcd: each publishes and reads what the other did, also with the quorum dead."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from fungistor.catalog.claims import CLAIMED_BYTES, claim_in
from fungistor.catalog.engines.etcd_client import EtcdClient, packed, unpacked
from fungistor.node.children import wait_until
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster
from tests.e2e.running import Up, fungistor, new_home, published, running, waiting_publish

WAIT_S = 60.0


@dataclass(frozen=True)
class World:
    folder: Path
    etcd: EtcdCluster
    first: Up
    pool: Path
    joining: tuple[str, ...]

    @property
    def url(self) -> str:
        return self.joining[3]

    def new_home(self, name: str) -> Path:
        """A home with the node key of the network, and nothing else."""
        return new_home(self.first, self.folder / name)

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.write_text(said(name))
        return path


def said(name: str) -> str:
    return f"{name}: one of many publishers\n" * 3


def reads(home: Path, cid: str, name: str, *words: str) -> bool:
    done = fungistor(home, "cat", cid, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout == said(name)


def served(up: Up, cid: str, name: str) -> bool:
    answer = httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=WAIT_S)
    return answer.text == said(name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("homes")
    with etcd_cluster(folder / "etcd", 1) as etcd, contextlib.ExitStack() as stack:
        etcd.wait_ready()
        url = f"etcd://127.0.0.1:{etcd.client_ports[0]}/two"
        first = stack.enter_context(running(folder / "first", ("--members", "6", "--no-sync", "--catalog", url)))
        pool = folder / "pool.toml"
        done = first.command("pool", "export", "-o", str(pool))
        assert done.returncode == 0, done.stderr
        assert pool.stat().st_mode & 0o777 == 0o600
        yield World(folder, etcd, first, pool, ("--pool", str(pool), "--catalog", url))


def test_commands_of_a_joined_home_publish_and_read(world: World) -> None:
    """A home with a node key, `--pool` and `--catalog` reads what the first published and publishes what the first and
    its gateway read; the second time the options need not be said."""
    home = world.new_home("commands")
    mine = published(world.first.home, world.file("mine"))
    assert reads(home, mine, "mine", *world.joining)
    theirs = published(home, world.file("theirs"))
    assert reads(world.first.home, theirs, "theirs")
    assert served(world.first, theirs, "theirs")
    assert {line["cid"] for line in world.first.lines("objects")} >= {mine, theirs}


def test_a_joined_node_serves_with_the_quorum_dead(world: World) -> None:
    """With etcd dead both nodes give all that was published: by commands, by a gateway worker respawned meanwhile and
    by an `up` started meanwhile. Publishing exits 3; a publish that waits goes on by itself when etcd is back."""
    home = world.new_home("node")
    with running(home, world.joining) as up:
        assert [line["id"] for line in up.ready["members"]] == [f"m0{n}" for n in range(1, 7)]  # type: ignore[attr-defined]
        mine = published(world.first.home, world.file("before"))
        theirs = published(home, world.file("beside"))
        assert wait_until(lambda: len(fungistor(home, "objects").stdout.splitlines()) > 2, WAIT_S, 0.1)
        assert served(up, mine, "before")
        world.etcd.stop(0)
        try:
            worker = next(p for p in up.processes() if "gateway" in " ".join(p.cmdline()) and "--fd" in p.cmdline())
            worker.send_signal(signal.SIGKILL)
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.wait(WAIT_S)
            for node in (up, world.first):
                for cid, name in ((mine, "before"), (theirs, "beside")):
                    assert all(served(node, cid, name) for _ in range(4))
                    assert reads(node.home, cid, name)
            for words in ((), ("--wait", "--wait-max", "1s")):
                refused = fungistor(home, "publish", str(world.file("late")), *words)
                assert refused.returncode == 3
                assert "etcd" in refused.stderr
            waiting = waiting_publish(home, world.file("late"))
            assert up.end() == 0
            with running(home, ()) as again:
                assert served(again, mine, "before")
                assert served(again, theirs, "beside")
                assert waiting.poll() is None
                world.etcd.start(0)
                world.etcd.wait_ready()
                told, _ = waiting.communicate(timeout=WAIT_S)
                assert waiting.returncode == 0
                late = str(json.loads(told)["cid"])
                # The first looks for etcd by itself, and has it again some moments later.
                assert wait_until(lambda: served(world.first, late, "late"), WAIT_S, 0.1)
        finally:
            if 0 not in world.etcd.processes:
                world.etcd.start(0)
                world.etcd.wait_ready()


def test_what_etcd_has_of_many_objects_is_a_claim(world: World) -> None:
    """A folder's worth of objects published at once is one short entry of etcd, and the rest is on members. A home that
    begins reads them all by their CIDs, and its commands that need no member have the same log."""
    paths = [str(world.file(f"many {number}")) for number in range(60)]
    done = fungistor(world.first.home, "publish", "--json", *paths)
    assert done.returncode == 0, done.stderr
    cids = [json.loads(line)["cid"] for line in done.stdout.splitlines()]
    assert len(set(cids)) == 60
    address = world.etcd.address("two")
    client = EtcdClient(address)
    with contextlib.closing(client):
        start, end = packed(b"two/log/entry/"), packed(b"two/log/entry0")
        rows = client.ask("kv/range", {"key": start, "range_end": end})["kvs"]
    entries = [unpacked(row["value"]) for row in rows]
    assert max(map(len, entries)) < CLAIMED_BYTES
    assert any(claim is not None for claim in map(claim_in, entries))
    home = world.new_home("claiming")
    assert reads(home, cids[0], "many 0", *world.joining)
    for number in (1, 30, 59):
        assert reads(home, cids[number], f"many {number}")
    logs = [fungistor(node, "log", "--json") for node in (home, world.first.home)]
    assert [log.returncode for log in logs] == [0, 0]
    assert logs[0].stdout == logs[1].stdout
    assert sum('"publish"' in line for line in logs[0].stdout.splitlines()) >= 60


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("no catalog", 2, "--catalog"),
        ("no pool", 2, "--pool"),
        ("no key", 4, "node key"),
        ("prefix", 4, "mind the prefix"),
        ("member", 2, "no member m99"),
        ("network", 5, "another network"),
        ("own members", 2, "another --home"),
        ("both", 2, "--members"),
    ],
)
def test_a_join_that_cannot_be_is_refused(world: World, change: str, code: int, words: str) -> None:
    """Missing options, a wrong prefix, another network's key and unknown members are told, with the right exit code."""
    home = world.new_home(change.replace(" ", "-"))
    pool, url = str(world.pool), world.url
    asked = ["objects", "--pool", pool, "--catalog", url]
    if change == "no catalog":
        asked = ["objects", "--pool", pool]
    elif change == "no pool":
        asked = ["objects", "--catalog", url]
    elif change == "no key":
        (home / "keys" / "node.key").unlink()
    elif change == "prefix":
        asked[-1] = url.replace("/two", "/tow")
    elif change == "member":
        other = world.folder / "other.toml"
        other.write_text(world.pool.read_text().replace('"m03"', '"m99"'))
        asked[2] = str(other)
    elif change == "network":
        stranger = world.folder / "stranger"
        with running(stranger, ("--members", "5", "--no-sync")):
            shutil.copy(stranger / "keys" / "node.key", home / "keys" / "node.key")
    elif change == "own members":
        home = world.first.home
        asked[-1] = url + "x"
    elif change == "both":
        asked = ["up", "--members", "5", "--pool", pool, "--catalog", url]
    done = fungistor(home, *asked)
    assert done.returncode == code, done.stderr
    assert words in done.stderr


def test_an_export_overwrites_nothing(world: World) -> None:
    """`pool export` leaves a file that exists alone unless it is told otherwise."""
    there = world.file("there.toml")
    assert world.first.command("pool", "export", "-o", str(there)).returncode == 6
    assert there.read_text() == said("there.toml")
