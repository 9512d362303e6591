"""Compaction gives space back and loses nothing, wherever it is killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fungistor.zdb.daemon.compaction import PassEnded
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.namespace import Put
from fungistor.zdb.daemon.properties import DEFAULT
from tests.unit.zdb_daemon.compaction_world import build, check, killed_at, open_store, run, survives
from tests.unit.zdb_daemon.harness import daemon
from tests.unit.zdb_daemon.test_daemon_recovery import abandon

MODES = pytest.mark.parametrize("mode", [MODE_USER, MODE_SEQUENTIAL], ids=["user", "sequential"])


def _data_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "data" / "default").iterdir())


@MODES
def test_a_pass_leaves_what_is_live_and_little_else(tmp_path: Path, mode: int) -> None:
    """All values, times and deletions stand, the files shrink to what is live, a second pass is idle."""
    world = build(tmp_path, mode, 400, 1)
    before = _data_bytes(tmp_path)
    store = open_store(tmp_path)
    namespace = store.namespaces[DEFAULT]
    times = {key: namespace.entry(key)[4] for key in world.values}  # type: ignore[index]
    outcome = run(store)
    check(namespace, world)
    assert {key: namespace.entry(key)[4] for key in world.values} == times  # type: ignore[index]
    assert outcome.dropped > 5
    assert outcome.freed - outcome.copied >= before - _data_bytes(tmp_path)
    live = sum(len(value) + 18 + len(key) for key, value in world.values.items())
    assert _data_bytes(tmp_path) < live + 3 * 3000
    again = run(store, percent=25)
    assert again.dropped == 0
    store.close()
    store = open_store(tmp_path)
    assert store.report == []
    check(store.namespaces[DEFAULT], world)
    store.close()


@MODES
def test_killed_anywhere_nothing_is_lost(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at any of the calls that change the disk (some here, all in the long form) costs nothing."""
    home = tmp_path / "z"
    world = build(home, mode, 120, 2)
    for point in (0, 1, 2, 3, 5, 8, 13, 21, 34, 40, 48, 55, 70, 89):
        survives(home, tmp_path / "copy", world, point, monkeypatch)


@pytest.mark.soak
@MODES
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_every_call_nothing_is_lost(
    tmp_path: Path, mode: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some thousand kills over all seeds, one at each call that a pass makes."""
    home = tmp_path / "z"
    world = build(home, mode, 250, 100 + seed)
    point = 0
    while not survives(home, tmp_path / "copy", world, point, monkeypatch):
        point += 1
    assert point > 40


def test_a_deletion_outlives_its_record(tmp_path: Path) -> None:
    """The record of a deletion is dropped; the older value in a file that stays is not alive again without an index."""
    store = open_store(tmp_path)
    namespace = store.namespaces[DEFAULT]
    namespace.put(Put(b"old", bytes(100), 1))
    for number in range(20):
        namespace.put(Put(b"stays-%d" % number, bytes(100), 1))
    namespace.rotate()
    entry = namespace.entry(b"old")
    assert entry is not None
    namespace.delete(b"old", entry, 2)
    for _ in range(30):
        namespace.put(Put(b"hot", random.randbytes(80), 3))
    namespace.rotate()
    run(store, percent=50)
    assert sorted(path.name for path in (tmp_path / "data" / "default").iterdir())[:2] == ["d0", "d2"]
    abandon(store)
    for path in (tmp_path / "index" / "default").iterdir():
        path.unlink()
    store = open_store(tmp_path)
    assert store.namespaces[DEFAULT].entry(b"old") is None
    assert len(store.namespaces[DEFAULT].live.keys) == 21
    store.close()


def test_a_damaged_file_is_kept(tmp_path: Path) -> None:
    """A file with a value that cannot be read stays as it is; the others are compacted."""
    world = build(tmp_path, MODE_USER, 200, 4)
    store = open_store(tmp_path)
    namespace = store.namespaces[DEFAULT]
    key = min(world.values, key=lambda name: namespace.entry(name)[0])  # type: ignore[index]
    entry = namespace.entry(key)
    assert entry is not None
    path = tmp_path / "data" / "default" / f"d{entry[0]}"
    data = bytearray(path.read_bytes())
    data[entry[1] + 18 + len(key)] ^= 1
    path.write_bytes(data)
    outcome = run(store)
    assert outcome.kept_damaged == 1
    assert outcome.dropped > 0
    assert path.read_bytes() == bytes(data)
    store.close()


def test_a_pass_ends_when_its_namespace_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLUSH during a pass ends it, and what was flushed stays flushed."""
    from fungistor.zdb.daemon.compaction import Outcome, compact

    build(tmp_path, MODE_USER, 200, 5)
    store = open_store(tmp_path)
    namespace = store.namespaces[DEFAULT]
    steps = compact(store, namespace, Outcome(), percent=1)
    next(steps)
    store.flush(namespace)
    with pytest.raises(PassEnded):
        list(steps)
    assert len(namespace.live.keys) == 0
    store.close()


def test_a_full_disk_ends_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written any more a pass says so, and all values are there."""
    import os

    world = build(tmp_path, MODE_USER, 200, 6)
    store = open_store(tmp_path)

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        patched.setattr(os, "pwritev", full)
        with pytest.raises(PassEnded, match=r"nothing more can be copied|Cannot write"):
            run(store)
    check(store.namespaces[DEFAULT], world)
    run(store)
    check(store.namespaces[DEFAULT], world)
    store.close()


def test_compact_over_the_wire(tmp_path: Path) -> None:
    """COMPACT answers what it dropped while other clients are served; history ends there; scans go on."""
    home = tmp_path / "z"
    with daemon(home, "--admin", "root", "--datasize", "524288") as running:
        client, other = running.client(), running.client()
        assert client.error("COMPACT") == "Permission denied"
        assert client.call("AUTH", "root") == b"OK"
        assert client.call("NSNEW", "n") == b"OK"
        for connection in (client, other):
            assert connection.call("SELECT", "n") == b"OK"
        chance = random.Random(1)
        values = {}
        for number in range(120):
            key = b"k%d" % (number % 50)
            values[key] = chance.randbytes(30_000)
            assert other.call("SET", key, values[key]) == key
        page = other.call("HISTORY", "k3")
        assert isinstance(page, list)
        scanned = other.call("SCAN")
        cursor = other.call("KEYCUR", "k30")
        assert isinstance(scanned, list) and isinstance(cursor, bytes) and isinstance(page[0], bytes)
        assert client.error("COMPACT", "200").startswith("Invalid argument")
        assert client.call("NSSET", "n", "history", "1") == b"OK"
        assert "keeps its history" in client.error("COMPACT", "1")
        client.send("COMPACT", "1", "FORCE")
        for key, value in values.items():
            assert other.call("GET", key) == value
        reply = client.read()
        assert isinstance(reply, list), reply
        dropped, freed, copied = reply
        assert isinstance(dropped, int) and isinstance(freed, int) and isinstance(copied, int)
        assert dropped >= 4
        assert freed > 2_000_000
        assert other.error("HISTORY", "k3", page[0]) == "No more history"
        now = other.call("HISTORY", "k3")
        assert isinstance(now, list)
        assert now[0] is None and now[2] == values[b"k3"]
        assert isinstance(other.call("SCAN", cursor), list)
        assert client.call("COMPACT", "1", "FORCE") == [0, 0, 0]
        running.kill()
    with daemon(home, "--datasize", "524288") as running:
        client = running.client()
        assert client.call("SELECT", "n") == b"OK"
        for key, value in values.items():
            assert client.call("GET", key) == value
        assert "keeps its history" in client.error("COMPACT", "1")


def test_ids_are_not_given_again_after_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In sequential mode the next id is above all that were ever given, also when every value was deleted."""
    world = build(tmp_path, MODE_SEQUENTIAL, 60, 7)
    store = open_store(tmp_path)
    namespace = store.namespaces[DEFAULT]
    for key in sorted(world.values):
        entry = namespace.entry(key)
        assert entry is not None
        namespace.delete(key, entry, 9)
    with killed_at(1 << 30, monkeypatch) as calls:
        run(store)
    assert calls[0] > 0
    abandon(store)
    store = open_store(tmp_path)
    assert store.namespaces[DEFAULT].next_id == world.next_id
    assert store.namespaces[DEFAULT].put(Put(b"", b"new", 1)) == world.next_id.to_bytes(8, "little")
    store.close()
