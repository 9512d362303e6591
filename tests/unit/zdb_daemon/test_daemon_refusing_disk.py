"""The disk refuses at every call that a command makes: an error, no value lost or mixed, and all goes on afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fungistor.errors import FailedError
from fungistor.zdb.daemon.compaction import PassEnded, compact_now
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.wire import ReplyError
from tests.unit.zdb_daemon.refusing_disk import FAILING, FULL, refusing
from tests.unit.zdb_daemon.test_daemon_recovery import abandon, contents

DATASIZE = 9000
NAME = b"n"
OLD, GONE, BIG = b"old value" * 50, b"to be deleted", bytes(range(256)) * 34

Values = dict[bytes, bytes]
KINDS = pytest.mark.parametrize("kind", [FULL, FAILING], ids=["full", "failing"])
MODES = pytest.mark.parametrize("mode", [MODE_USER, MODE_SEQUENTIAL], ids=["user", "sequential"])


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes are only counted here: nothing of this is about what a power cut leaves."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


def open_store(home: Path) -> Store:
    return Store(str(home / "data"), str(home / "index"), datasize=DATASIZE, durable=True)


def build(home: Path, mode: int) -> None:
    store = open_store(home)
    namespace = store.create(NAME)
    namespace.set_mode(mode)
    store.save_descriptor(namespace, replace(namespace.descriptor, password=b"secret"))
    for number in range(6):
        put(namespace, b"" if mode else b"key-%d" % number, OLD + bytes([number]))
    namespace.rotate()
    keys = sorted(namespace.live.keys)
    put(namespace, keys[0], GONE)
    put(namespace, keys[1], GONE * 2)
    namespace.rotate()
    put(namespace, keys[2], GONE * 3)
    put(store.create(b"third"), b"key", OLD)
    abandon(store)


def put(namespace: Namespace, key: bytes, value: bytes) -> None:
    [answer] = namespace.put_many([Put(key, value, 7)])
    if isinstance(answer, ReplyError):
        raise answer


def delete(namespace: Namespace, key: bytes) -> None:
    entry = namespace.entry(key)
    assert entry is not None
    namespace.delete(key, entry, 8)


def compact(store: Store, namespace: Namespace) -> None:
    list(compact_now(store, namespace, percent=1))


def create(store: Store) -> None:
    store.create(b"another")


def remove(store: Store) -> None:
    store.remove(store.namespaces[b"third"])


@dataclass(frozen=True)
class Command:
    """What is asked, and what is there when it was done."""

    do: Callable[[Store, Namespace, list[bytes]], None]
    after: Callable[[Values, list[bytes]], Values]


def _with(values: Values, key: bytes, value: bytes) -> Values:
    return {**values, key: value}


def _fresh(namespace: Namespace) -> bytes:
    return b"" if namespace.slots is not None else b"fresh"


def _told(values: Values, value: bytes) -> Values:
    key = (9).to_bytes(8, "little") if all(len(key) == 8 for key in values) else b"fresh"
    return {**values, key: value}


COMMANDS = {
    "set": Command(lambda _, n, k: put(n, _fresh(n), b"fresh value"), lambda v, k: _told(v, b"fresh value")),
    "set with rotation": Command(lambda _, n, k: put(n, _fresh(n), BIG), lambda v, k: _told(v, BIG)),
    "update": Command(lambda _, n, k: put(n, k[3], b"updated"), lambda v, k: _with(v, k[3], b"updated")),
    "update with rotation": Command(lambda _, n, k: put(n, k[3], BIG), lambda v, k: _with(v, k[3], BIG)),
    "delete": Command(lambda _, n, k: delete(n, k[4]), lambda v, k: {a: b for a, b in v.items() if a != k[4]}),
    "rotate": Command(lambda _, n, k: n.rotate(), lambda v, k: v),
    "compact": Command(lambda s, n, k: compact(s, n), lambda v, k: v),
    "flush": Command(lambda s, n, k: s.flush(n), lambda v, k: {}),
    "properties": Command(
        lambda s, n, k: s.save_descriptor(n, replace(n.descriptor, password=b"other", maxsize=1 << 30)), lambda v, k: v
    ),
    "create": Command(lambda s, n, k: create(s), lambda v, k: v),
    "remove": Command(lambda s, n, k: remove(s), lambda v, k: v),
}


def refused_at(home: Path, command: Command, kind: Sequence[str], point: int, patch: pytest.MonkeyPatch) -> bool:
    """Refuse from that call on, look around, ask again, start again; return whether the command was refused."""
    store = open_store(home)
    namespace = store.namespaces[NAME]
    before = contents(namespace)
    keys = sorted(before)
    after = command.after(before, keys)
    password = namespace.descriptor.password
    refused = False
    with refusing(point, kind, patch):
        try:
            command.do(store, namespace, keys)
        except (ReplyError, OSError, PassEnded):
            refused = True
        now = contents(namespace)
        assert now == (before if refused and (now or not before) else after), "while it refuses"
        if refused:
            assert namespace.descriptor.password == password
    if refused:
        if command is COMMANDS["delete"]:
            assert namespace.entry(keys[4]) is not None
        command.do(store, namespace, keys)
    assert contents(namespace) == after, "asked again"
    put(namespace, keys[5] if keys[5] in after else _fresh(namespace), b"life goes on")
    expected = contents(namespace)
    assert b"life goes on" in expected.values()
    password, names = namespace.descriptor.password, set(store.namespaces)
    if point % 2:
        store.close()
    else:
        abandon(store)
    store = open_store(home)
    namespace = store.namespaces[NAME]
    assert contents(namespace) == expected, "started again"
    assert (namespace.descriptor.password, set(store.namespaces)) == (password, names)
    assert (namespace.slots is not None) == all(len(key) == 8 for key in before)
    assert not any("damaged" in line for line in store.report), store.report
    store.close()
    return refused


@KINDS
@MODES
@pytest.mark.parametrize("name", COMMANDS)
def test_a_refusal_at_any_call_changes_nothing(
    tmp_path: Path, name: str, mode: int, kind: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full or failing at the first, second, third call of a command: it is an error and all is as before (a FLUSH that
    had begun leaves the namespace empty), reads go on, the same command succeeds afterwards, and a start finds that."""
    build(tmp_path / "built", mode)
    point = 0
    while True:
        home = tmp_path / "z"
        shutil.copytree(tmp_path / "built", home)
        refused = refused_at(home, COMMANDS[name], kind, point, monkeypatch)
        shutil.rmtree(home)
        if not refused and point > 60:
            break
        point += 1 if refused else 20
    assert point > 2


@KINDS
@MODES
def test_a_start_finishes_what_a_refusing_disk_left(
    tmp_path: Path, mode: int, kind: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FLUSH is refused half-way and the daemon dies; a start on the same disk serves an empty namespace or names the
    cause, and one with a working disk takes writes: all or nothing, in the mode it had."""
    build(tmp_path / "built", mode)
    for point in range(30):
        home = tmp_path / "z"
        shutil.copytree(tmp_path / "built", home)
        store = open_store(home)
        namespace = store.namespaces[NAME]
        before = contents(namespace)
        refused = False
        with refusing(point, kind, monkeypatch):
            try:
                store.flush(namespace)
            except OSError:
                refused = True
            left = contents(namespace)
            assert left in ({}, before)
            abandon(store)
            try:
                store = open_store(home)
            except FailedError as error:
                assert str(error)
            else:
                assert contents(store.namespaces[NAME]) == left
                abandon(store)
        store = open_store(home)
        namespace = store.namespaces[NAME]
        assert contents(namespace) == left
        assert (namespace.slots is not None) == bool(mode)
        put(namespace, _fresh(namespace), b"new")
        store.close()
        shutil.rmtree(home)
        if not refused:
            return
    raise AssertionError("a FLUSH makes fewer calls")


def test_an_unfinished_flush_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a FLUSH cannot be finished the namespace is empty and refuses writes, and others store; then it goes on."""
    build(tmp_path, MODE_USER)
    store = open_store(tmp_path)
    namespace, other = store.namespaces[NAME], store.namespaces[b"default"]
    with refusing(1 << 30, FAILING, monkeypatch) as calls:
        store.flush(namespace)
    put(namespace, b"key", b"value")
    with refusing(calls[0] // 2, FAILING, monkeypatch), pytest.raises(OSError):
        store.flush(namespace)
    assert namespace.unfinished is not None
    with refusing(0, ("unlink",), monkeypatch):
        put(other, b"key", b"value")
        with pytest.raises(ReplyError, match="Cannot write data right now"):
            put(namespace, b"key", b"value")
        assert namespace.entry(b"key") is None
        assert not namespace.recovers()
    assert namespace.recovers()
    put(namespace, b"key", b"new")
    assert contents(namespace) == {b"key": b"new"}
    store.close()
