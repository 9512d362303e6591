"""Both files of a pair are gone in sequential mode: what the others hold is served, and no id is given twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from fungistor.zdb.daemon.format import MODE_SEQUENTIAL
from fungistor.zdb.daemon.namespace import Put
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.store import Store
from tests.unit.zdb_daemon.test_daemon_recovery import abandon


def open_store(home: Path) -> Store:
    return Store(str(home / "data"), str(home / "index"), datasize=1 << 20, durable=True, mode=MODE_SEQUENTIAL)


def build(home: Path, seed: int) -> tuple[dict[bytes, tuple[int, bytes]], int]:
    """Four pairs of new ids, updates and deletions; where each value lies, and the next id."""
    store, chance = open_store(home), random.Random(seed)
    namespace = store.namespaces[DEFAULT]
    values: dict[bytes, tuple[int, bytes]] = {}
    for pair in range(4):
        for step in range(chance.randrange(2, 12)):
            keys = sorted(values)
            key = chance.choice(keys) if keys and step and chance.random() < 0.5 else b""
            value = b"%d-%d" % (pair, step)
            got = namespace.put(Put(key, value, 7))
            assert got is not None
            values[got] = (pair, value)
        if chance.random() < 0.5:
            gone = chance.choice(sorted(values))
            entry = namespace.entry(gone)
            assert entry is not None
            namespace.delete(gone, entry, 8)
            del values[gone]
        if pair < 3:
            namespace.rotate()
    unsynced = namespace.segments.take_unsynced()
    unsynced.sync()
    store.note_durable(namespace, unsynced.newest, unsynced.end)
    next_id = namespace.next_id
    if seed % 2:
        store.close()
    else:
        abandon(store)
    return values, next_id


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "unnoted"])
@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (1, 2), (3,)], ids=str)
def test_ids_of_a_lost_pair_are_not_given_again(tmp_path: Path, lost: tuple[int, ...], noted: bool) -> None:
    """Any pair is removed, of a stopped or a killed daemon, with its notes or without: the report names it, all values
    in other pairs are served, and the next id is a new one; also after another start. Without
    a note nobody can know that the newest pair was there."""
    if lost == (3,) and not noted:
        pytest.skip("nothing speaks of it any more")
    for seed in range(12):
        home = tmp_path / f"{seed}"
        home.mkdir()
        values, next_id = build(home, seed)
        for number in lost:
            (home / "data" / "default" / f"d{number}").unlink()
            (home / "index" / "default" / f"i{number}").unlink()
        if not noted:
            for path in (home / "index" / "default").glob("fungistor-*"):
                path.unlink()
        for turn in range(2):
            store = open_store(home)
            namespace = store.namespaces[DEFAULT]
            if not turn:
                assert all(any(f"d{number}" in line for line in store.report) for number in lost), store.report
            assert namespace.next_id >= next_id, (seed, turn, store.report)
            for key, (pair, value) in values.items():
                entry = namespace.entry(key)
                if pair not in lost:
                    assert entry is not None, (seed, turn, key, store.report)
                    assert namespace.read(key, entry) == value
            given = namespace.put(Put(b"", b"new", 9))
            assert given is not None
            assert int.from_bytes(given, "little") >= next_id
            next_id = namespace.next_id
            files = sorted(path.name for path in (home / "index" / "default").glob("i*"))
            assert files == [f"i{number}" for number in range(len(files))]
            abandon(store)
        shutil.rmtree(home)
