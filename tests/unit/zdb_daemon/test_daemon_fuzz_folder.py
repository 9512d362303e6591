"""Folders to which anything was done: a start serves what is intact, names what is not, and answers no wrong value."""

from __future__ import annotations

import hashlib
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fungistor.errors import FailedError
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.values import DamagedError
from fungistor.zdb.daemon.wire import ReplyError
from tests.unit.zdb_daemon.test_daemon_recovery import abandon

DATASIZE = 12_000


@dataclass
class Facts:
    """What was written: all versions of each key, oldest first (None: deleted), and each key's files."""

    versions: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    files: dict[bytes, set[int]] = field(default_factory=dict)

    def all_files(self) -> set[int]:
        return set().union(*self.files.values())

    def told(self, key: bytes) -> set[bytes | None]:
        return {*self.versions.get(key, ()), None}


def open_store(home: Path) -> Store:
    return Store(str(home / "data"), str(home / "index"), datasize=DATASIZE, durable=False)


def build(home: Path, mode: int, chance: random.Random) -> Facts:
    """Some ten files. No key is another with one bit flipped, and a value says whose it is."""
    facts = Facts()
    store = Store(str(home / "data"), str(home / "index"), datasize=DATASIZE, durable=False, mode=mode)
    namespace = store.namespaces[DEFAULT]
    for step in range(chance.randrange(5, 90)):
        live = sorted(key for key, versions in facts.versions.items() if versions[-1] is not None)
        if live and chance.random() < 0.2:
            key = chance.choice(live)
            entry = namespace.entry(key)
            assert entry is not None
            namespace.delete(key, entry, step)
            value = None
        else:
            key = hashlib.sha256(b"%d" % chance.randrange(20)).digest()[:12]
            if mode == MODE_SEQUENTIAL:
                key = chance.choice(live) if live and chance.random() < 0.5 else b""
            value = b"%d:" % step + chance.randbytes(chance.choice((0, 30, 700, 5000)))
            reply = namespace.put(Put(key, value, step))
            assert reply is not None
            key = reply
        facts.versions.setdefault(key, []).append(value)
        facts.files.setdefault(key, set()).add(namespace.segments.ends.file_id)
    if chance.random() < 0.5:
        store.close()
    else:
        abandon(store)
    return facts


def damage(path: Path, others: list[Path], chance: random.Random) -> str:
    """Do something to a file; say what."""
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 7, 100, 4096)))
    kind = chance.choice(("cut", "flip", "zero", "repeat", "drop", "junk", "copy", "delete", "empty"))
    match kind:
        case "cut":
            del data[at:]
        case "flip":
            for _ in range(chance.randrange(1, 4) if data else 0):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "zero":
            data[at:end] = bytes(end - at)
        case "repeat":
            data[at:at] = data[at:end]
        case "drop":
            del data[at:end]
        case "junk":
            data += chance.randbytes(chance.choice((1, 30, 5000)))
        case "copy":
            data = bytearray(chance.choice([other for other in others if other.exists()]).read_bytes())
        case "delete":
            path.unlink()
            return f"{kind} {path.name}"
        case "empty":
            data.clear()
    path.write_bytes(data)
    return f"{kind} {path.name} at {at}"


def served(namespace: Namespace, key: bytes) -> bytes | DamagedError | None:
    entry = namespace.entry(key)
    if entry is None:
        return None
    try:
        return namespace.read(key, entry)
    except DamagedError as error:
        return error


def campaign(home: Path, seed: int) -> None:
    """Damage one to three files of a folder and start on it; then write, and start again."""
    chance = random.Random(seed)
    mode = chance.choice((MODE_USER, MODE_SEQUENTIAL))
    facts = build(home, mode, chance)
    files = sorted(path for path in home.rglob("*") if path.is_file() and path.name != ".lockfile")
    kinds = chance.choice((("d",), ("i",), ("d", "i", "f", "z")))
    files = [path for path in files if path.name[0] in kinds]
    hurt = chance.sample(files, min(len(files), chance.choice((1, 1, 2, 3))))
    done = [damage(path, files, chance) for path in hurt]
    try:
        store = open_store(home)
    except FailedError as error:
        assert str(error), (seed, done)
        return
    namespace = store.namespaces[DEFAULT]
    lost = {int(path.name[1:]) for path in hurt if path.name[0] == "d"}
    if namespace.slots is not None and any(path.name[0] == "i" for path in hurt) and lost:
        # Where a pair is gone, nothing says how many ids it had: later ones may be refused, which the report says.
        lost = set(facts.all_files())
    judge(namespace, facts, (seed, done, store.report), lost)
    if namespace.broken:
        abandon(store)
        return
    try:
        after = namespace.put(Put(b"" if namespace.slots is not None else b"after", b"life goes on", 1))
    except ReplyError as error:
        # A password or quota that nobody set, out of a damaged descriptor.
        assert "zdb-namespace" in str(done), (seed, done, error)
        abandon(store)
        return
    assert after is not None
    if len(hurt) == 1 and namespace.slots is not None:
        assert after not in facts.versions, (seed, done, "an id was given twice")
    before = {key: served(namespace, key) for key in facts.versions}
    abandon(store)
    try:
        store = open_store(home)
    except FailedError as error:
        # The first start took a checkpoint's word for a file that this one looked into.
        assert "is a copy of" in str(error), (seed, done)
        return
    namespace = store.namespaces[DEFAULT]
    assert served(namespace, after) == b"life goes on", (seed, done)
    for key, value in before.items():
        again = served(namespace, key)
        if isinstance(value, DamagedError) or isinstance(again, DamagedError) or again == value:
            continue
        # The first start took a checkpoint's word; this one walked the data, met the damage, and said so. Where that
        # was a deletion's own record, or the newest version's, an older version stands again.
        assert again in facts.told(key) and store.report, (seed, done, key, value, again)
    store.close()


def judge(namespace: Namespace, facts: Facts, context: object, lost: set[int]) -> None:
    """No wrong value; and what lies in data files that nobody touched is there."""
    for key, versions in facts.versions.items():
        value = served(namespace, key)
        if isinstance(value, DamagedError):
            continue
        assert value in facts.told(key), (context, key, value)
        if not facts.files[key] & lost:
            assert value == versions[-1], (context, key, value)


@pytest.mark.parametrize("block", range(6))
def test_folders_damaged_at_random(tmp_path: Path, block: int) -> None:
    """Forty folders: files cut, flipped, zeroed, repeated, shortened in the middle, swapped, deleted."""
    for seed in range(block * 40, block * 40 + 40):
        home = tmp_path / str(seed)
        home.mkdir()
        campaign(home, seed)
        shutil.rmtree(home)


def test_zeros_over_a_head_are_no_value_of_the_first_id(tmp_path: Path) -> None:
    """Zeros from a head's checksum to the end of its payload, which have the checksum 0, never pass for a value."""
    campaign(tmp_path, 12894)


@pytest.mark.soak
def test_many_folders_damaged_at_random(tmp_path: Path) -> None:
    """The long form: ten thousand folders."""
    for seed in range(10_000, 20_000):
        home = tmp_path / str(seed)
        home.mkdir()
        campaign(home, seed)
        shutil.rmtree(home)
