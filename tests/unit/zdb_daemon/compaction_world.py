"""A namespace of small files with much that is dead in it, and a kill at any call that changes the disk."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fungistor.zdb.daemon.compaction import Outcome, compact_now
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.store import Store
from tests.unit.zdb_daemon.test_daemon_recovery import abandon, contents

DATASIZE = 3000
CHANGING = ("pwrite", "pwritev", "unlink", "rename", "ftruncate", "truncate", "fdatasync", "fsync")


class Killed(BaseException):
    """The process is gone."""


def open_store(home: Path, mode: int | None = None) -> Store:
    return Store(str(home / "data"), str(home / "index"), datasize=DATASIZE, durable=True, mode=mode)


@dataclass
class World:
    """What must be there."""

    values: dict[bytes, bytes]
    gone: set[bytes]
    next_id: int


def build(home: Path, mode: int, steps: int, seed: int) -> World:
    """Fill some twenty files with versions, deletions and survivors, and leave them as a stop does."""
    store = open_store(home, mode)
    namespace = store.namespaces[DEFAULT]
    chance, values, gone = random.Random(seed), dict[bytes, bytes](), set[bytes]()
    for step in range(steps):
        old = sorted(values)
        if old and chance.random() < 0.25:
            key = chance.choice(old)
            entry = namespace.entry(key)
            assert entry is not None
            namespace.delete(key, entry, step)
            del values[key]
            gone.add(key)
            continue
        value = b"%d:" % step + chance.randbytes(chance.choice((0, 5, 90, 400)))
        key = b"k%d" % chance.randrange(30)
        if mode == MODE_SEQUENTIAL:
            key = chance.choice(old) if old and chance.random() < 0.5 else b""
        got = namespace.put(Put(key, value, 1000 + step))
        assert got is not None
        values[got] = value
        gone.discard(got)
    world = World(values, gone, namespace.next_id)
    store.close()
    return world


def run(store: Store, percent: int = 1) -> Outcome:
    """One whole pass."""
    outcomes = list(compact_now(store, store.namespaces[DEFAULT], percent=percent))
    return outcomes[-1]


@contextlib.contextmanager
def killed_at(point: int, patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let that many calls that change the disk happen, then none; yields how many there were."""
    calls = [0]

    def wrap(original: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] > point:
                raise Killed
            return original(*args, **options)

        return counted

    with patch.context() as patched:
        for name in CHANGING:
            patched.setattr(os, name, wrap(getattr(os, name)))
        yield calls


def check(namespace: Namespace, world: World) -> None:
    """All values, none of the deleted, no id twice."""
    assert contents(namespace) == world.values
    if namespace.slots is not None:
        assert namespace.next_id >= world.next_id
    for key in world.gone:
        assert namespace.entry(key) is None


def survives(home: Path, place: Path, world: World, point: int, patch: pytest.MonkeyPatch) -> bool:
    """Kill a pass at that call; everything must be there after it, after another pass, and without any index."""
    shutil.copytree(home, place)
    store = open_store(place)
    whole = True
    try:
        with killed_at(point, patch):
            run(store)
    except Killed:
        whole = False
    abandon(store)
    store = open_store(place)
    check(store.namespaces[DEFAULT], world)
    run(store)
    check(store.namespaces[DEFAULT], world)
    user = store.namespaces[DEFAULT].slots is None
    abandon(store)
    if user:
        for path in (place / "index" / "default").iterdir():
            path.unlink()
    store = open_store(place)
    check(store.namespaces[DEFAULT], world)
    store.close()
    shutil.rmtree(place)
    return whole
