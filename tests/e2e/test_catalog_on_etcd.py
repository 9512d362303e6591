"""A network with its catalog on a real etcd: readers need no quorum, publishers hear of a loss, a file moves there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fungistor.node.children import wait_until
from tests.contracts.etcd_world import EtcdCluster, etcd_cluster
from tests.e2e.running import Up, fungistor, new_home, published, running

WAIT_S = 60.0
MEMBERS = ("--members", "6")
MIGRATIONS_KILLED = 4


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd", 1) as cluster:
        cluster.wait_ready()
        yield cluster


def url(etcd: EtcdCluster) -> str:
    return f"etcd://127.0.0.1:{etcd.client_ports[0]}/e2e"


def write(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(f"{name}, from many places\n")
    return path


def publish(up: Up, name: str) -> str:
    (line,) = up.lines("publish", str(write(up.home.parent, name)))
    return str(line["cid"])


def readable(up: Up, cid: str, name: str) -> bool:
    """Whether a command started now and the gateway both give the content."""
    return up.command("cat", cid).stdout == f"{name}, from many places\n" and served(up, cid, name)


def served(up: Up, cid: str, name: str) -> bool:
    return httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=WAIT_S).text == f"{name}, from many places\n"


def test_reads_need_no_quorum(tmp_path: Path, etcd: EtcdCluster) -> None:
    """With etcd dead all is read, by workers, by commands and an `up` started meanwhile; a publish exits 3, says why,
    and succeeds when etcd is back."""
    home = tmp_path / "home"
    with running(home, (*MEMBERS, "--catalog", url(etcd))) as up:
        assert up.ready["catalog"] == url(etcd)
        first = publish(up, "first")
        etcd.stop(0)
        assert readable(up, first, "first")
        refused = up.command("publish", str(home.with_name("first")))
        assert refused.returncode == 3
        assert "etcd" in refused.stderr
    with running(home) as up:
        assert readable(up, first, "first")
        etcd.start(0)
        etcd.wait_ready()
        second = publish(up, "second")
        assert readable(up, first, "first")
        assert readable(up, second, "second")
        assert {line["cid"] for line in up.lines("objects")} == {first, second}


def killed_until_moved(home: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Migrate, killed (`kill -9`) ever later on its way, until a run is through."""
    for kills, fatal in enumerate(range(2, 1000, 2)):
        words = ["--home", str(home), "--json", "catalog", "migrate", target]
        argv = [sys.executable, "-m", "tests.e2e.killed_at", "", str(fatal), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=False)
        if done.returncode != -signal.SIGKILL:
            print(done.stderr, f"{kills} kills")
            assert (done.returncode, kills >= MIGRATIONS_KILLED) == (0, True), done.stderr
            return done
    raise AssertionError("it never ended")


def test_a_catalog_moves_from_its_file_to_etcd(tmp_path: Path, etcd: EtcdCluster) -> None:
    """`catalog migrate` is refused while the network runs; after it all objects are there, and new ones are on etcd."""
    home = tmp_path / "home"
    with running(home) as up:
        first = publish(up, "first")
        (named,) = up.lines("name", "publish", "site", first)
        assert up.lines("catalog", "snapshot")[0]["members"] == 6
        refused = up.command("catalog", "migrate", url(etcd))
        assert refused.returncode == 1
        assert "already runs" in refused.stderr
    wrong = fungistor(home, "up", "--catalog", url(etcd))
    assert wrong.returncode == 2
    assert "catalog migrate" in wrong.stderr
    moved = fungistor(home, "--json", "catalog", "migrate", url(etcd))
    assert moved.returncode == 0, moved.stderr
    assert json.loads(moved.stdout)["target"] == url(etcd)
    assert not (home / "catalog" / "log.sqlite").exists()
    again = fungistor(home, "catalog", "migrate", url(etcd))
    assert again.returncode == 2
    with running(home) as up:
        second = publish(up, "second")
        assert {line["cid"] for line in up.lines("objects")} == {first, second}
        assert readable(up, first, "first")
        (again_named,) = up.lines("name", "publish", "site", second)
        assert (again_named["key"], again_named["sequence"]) == (named["key"], 2)
    # Keys on etcd are wrapped anew in place; what a home knew of state and names is made again from the log.
    for words in (("keys", "rotate"), ("keys", "rotate", "--root")):
        rotated = fungistor(home, *words)
        assert rotated.returncode == 0, rotated.stderr
    (home / "catalog" / "state.sqlite").unlink()
    (home / "catalog" / "names.sqlite").unlink()
    with running(home) as up:
        assert wait_until(lambda: len(up.lines("objects")) == 2, WAIT_S, 0.1)
        assert readable(up, second, "second")
        (listed,) = up.lines("name", "list")
        assert (listed["name"], listed["key"], listed["cid"], listed["sequence"]) == ("site", named["key"], second, 2)


def test_a_trimmed_log_moves_with_its_snapshots_in_the_pool(tmp_path: Path, etcd: EtcdCluster) -> None:
    """What was committed before two snapshots is in no entry any more, and what moves is the tail alone, also when
    the move is killed again and again. After it a home that joins with a node key alone knows all of it, reads it, and
    publishes for the first, as that for it."""
    home, other, pool = tmp_path / "home", tmp_path / "other", tmp_path / "pool.toml"
    with running(home) as up:
        first = publish(up, "first")
        up.lines("name", "publish", "site", first)
        assert int(str(up.lines("catalog", "snapshot")[0]["trimmed"])) > 0
        second = publish(up, "second")
        (named,) = up.lines("name", "publish", "site", second)
        snapshot = up.lines("catalog", "snapshot")[0]
        third = publish(up, "third")
        numbers = [int(str(line["number"])) for line in up.lines("log")]
        objects = up.lines("objects")
    assert numbers[0] > int(str(snapshot["trimmed"])) > 0, "the log begins at a snapshot"
    moved = killed_until_moved(home, url(etcd))
    assert json.loads(moved.stdout)["entries"] <= numbers[-1] - numbers[0] + 2
    with running(home) as up:
        assert up.command("pool", "export", "-o", str(pool)).returncode == 0
        joining = ("--pool", str(pool), "--catalog", url(etcd))
        fourth = published(new_home(up, other), write(tmp_path, "fourth"), *joining)
        with running(other, ("--no-sync",)) as node:
            told = node.lines("objects")
            assert [line for line in objects if line not in told] == []
            for cid, name in ((first, "first"), (second, "second"), (third, "third"), (fourth, "fourth")):
                assert served(node, cid, name)
            assert [line["sequence"] for line in node.lines("name", "history", "site")] == [2, 1]
            (again,) = node.lines("name", "publish", "site", fourth)
            assert (again["key"], again["sequence"]) == (named["key"], 3)
            assert node.lines("catalog", "snapshot")[0]["members"] == 6
            assert readable(up, fourth, "fourth")
            assert readable(node, publish(up, "fifth"), "fifth")
            assert node.lines("status")[0]["catalog_differs"] == []


def test_another_network_s_log_is_not_taken_over(tmp_path: Path, etcd: EtcdCluster) -> None:
    """A prefix that holds a catalog already is refused as a place to move to, and nothing changes."""
    with running(tmp_path / "one", (*MEMBERS, "--catalog", url(etcd))) as up:
        publish(up, "mine")
    with running(tmp_path / "other") as up:
        kept = publish(up, "theirs")
    refused = fungistor(tmp_path / "other", "catalog", "migrate", url(etcd))
    assert refused.returncode == 6
    with running(tmp_path / "other") as up:
        assert readable(up, kept, "theirs")
