"""A power cut after a barrier: pages behind it may be lost in any order, index files may be of any age."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fungistor.zdb.daemon.checkpoint import note_flushed
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER, decode_checkpoint, encode_checkpoint
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.values import DamagedError
from tests.unit.zdb_daemon import test_daemon_recovery as recovery
from tests.unit.zdb_daemon.test_daemon_recovery import History, abandon, open_store, work

PAGE_BYTES = 4096


def file_sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def cut_power(home: Path, durable: dict[str, int], ages: list[Path], rng: random.Random) -> None:
    """Leave of the data files what a barrier covered and a random part of the rest, and of the index anything."""
    for path in (home / "data" / "default").iterdir():
        kept = durable.get(path.name, 0)
        size = path.stat().st_size
        if not kept and rng.random() < 0.3:
            path.unlink()
            continue
        data = bytearray(path.read_bytes()[: rng.randint(kept, size)] if rng.random() < 0.5 else path.read_bytes())
        for page in range(kept // PAGE_BYTES, len(data) // PAGE_BYTES + 1):
            start = max(page * PAGE_BYTES, kept)
            if rng.random() < 0.15 and start < len(data):
                end = min((page + 1) * PAGE_BYTES, len(data))
                data[start:end] = bytes(end - start)
        path.write_bytes(data)
    folder = home / "index" / "default"
    for path in sorted(folder.glob("i*")):
        older = rng.choice(ages) / path.name
        choice = rng.random()
        if choice < 0.1:
            path.unlink()
        elif choice < 0.5 and older.exists():
            shutil.copy(older, path)
        elif choice < 0.6:
            os.truncate(path, rng.randint(0, path.stat().st_size))


def value_of(namespace: Namespace, key: bytes) -> bytes | None:
    entry = namespace.entry(key)
    return None if entry is None else namespace.read(key, entry)


def power_cut(home: Path, seed: int) -> None:
    rng = random.Random(seed)
    history = History()
    ages: list[Path] = []
    for session in range(rng.randint(1, 2)):
        store = open_store(home)
        namespace = store.namespaces[b"default"]
        for part in range(2):
            work(namespace, seed * 7 + session * 3 + part, rng.randrange(5, 50), history)
            ages.append(home / f"age{session}{part}")
            shutil.copytree(home / "index" / "default", ages[-1])
        if session == 0 and rng.random() < 0.5:
            store.close()
        else:
            abandon(store)
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    covered = dict(history.state)
    durable = file_sizes(home / "data" / "default")
    at = len(history.steps)
    work(namespace, seed + 1_000_000, rng.randrange(0, 60), history)
    abandon(store)
    cut_power(home, durable, ages, rng)

    allowed: dict[bytes, set[bytes | None]] = {key: {value} for key, value in covered.items()}
    for _, _, key, value in history.steps[at:]:
        allowed.setdefault(key, {None}).add(value)
    for _ in range(2):
        store = open_store(home)
        namespace = store.namespaces[b"default"]
        for key in {*allowed, *namespace.live.keys}:
            assert value_of(namespace, key) in allowed.get(key, {None}), (seed, key)
        recovery.put(namespace, b"after", b"life")
        assert value_of(namespace, b"after") == b"life"
        allowed[b"after"] = {b"life"}
        abandon(store)


@pytest.mark.parametrize("seed", [*range(25), 1748])
def test_what_a_barrier_covered_survives_a_power_cut(tmp_path: Path, seed: int) -> None:
    """Every key has the value that the barrier covered or a later one, whole, whatever was lost behind it."""
    power_cut(tmp_path, seed)


@pytest.mark.parametrize("second_bytes", [5000, 5001, 200_000])
def test_an_index_of_an_older_tail_condemns_no_newer_value(tmp_path: Path, second_bytes: int) -> None:
    """A tail is lost, another covered by a barrier takes its place, and the index of the first comes back: the values
    under the barrier are served, whether they begin where the index says or around it."""
    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    recovery.put(namespace, b"kept", b"k" * 5000)
    durable = file_sizes(tmp_path / "data" / "default")
    for number in range(3):
        recovery.put(namespace, b"first-%d" % number, bytes((65 + number,)) * 5000)
    recovery.put(namespace, b"kept", b"l" * 5000)
    abandon(store)
    older = tmp_path / "older"
    shutil.copytree(tmp_path / "index" / "default", older)
    os.truncate(tmp_path / "data" / "default" / "d0", durable["d0"])

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    for number in range(4):
        recovery.put(namespace, b"second-%d" % number, bytes((97 + number,)) * second_bytes)
    abandon(store)
    shutil.copy(older / "i0", tmp_path / "index" / "default" / "i0")

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    assert value_of(namespace, b"kept") == b"k" * 5000
    for number in range(4):
        assert value_of(namespace, b"second-%d" % number) == bytes((97 + number,)) * second_bytes
    store.close()


@pytest.mark.parametrize("rot", [False, True])
def test_what_follows_a_lost_head_is_found_without_its_index(tmp_path: Path, rot: bool) -> None:
    """The last record's head is lost (never on disk, or rotten), values are written after it and covered by a barrier,
    and then the index goes: those values are served, and so is what came before."""
    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    recovery.put(namespace, b"before", b"b" * 5000)
    at = file_sizes(tmp_path / "data" / "default")["d0"]
    recovery.put(namespace, b"lost", b"l" * 20_000)
    abandon(store)
    with (tmp_path / "data" / "default" / "d0").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 30 if rot else bytes(PAGE_BYTES))

    store = open_store(tmp_path)
    for number in range(3):
        recovery.put(store.namespaces[b"default"], b"after-%d" % number, b"a" * 5000)
    abandon(store)
    os.truncate(tmp_path / "index" / "default" / "i0", 0)

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    assert value_of(namespace, b"before") == b"b" * 5000
    for number in range(3):
        assert value_of(namespace, b"after-%d" % number) == b"a" * 5000
    store.close()


def cut_index(folder: Path, opened: Path, ages: list[Path], rng: random.Random) -> None:
    """Leave of the index files what they were at the start, which flushed them, and of the rest anything."""
    for path in sorted(folder.glob("i*")):
        flushed = opened / path.name
        kept = flushed.stat().st_size if flushed.exists() else 0
        if not kept and rng.random() < 0.3:
            path.unlink()
            continue
        older = rng.choice(ages) / path.name
        data = bytearray((older if older.exists() and rng.random() < 0.5 else path).read_bytes())
        if rng.random() < 0.3:
            del data[rng.randint(kept, len(data)) :]
        for page in range(kept // PAGE_BYTES, len(data) // PAGE_BYTES + 1):
            start, end = max(page * PAGE_BYTES, kept), min((page + 1) * PAGE_BYTES, len(data))
            if start < end and rng.random() < 0.3:
                data[start:end] = bytes(end - start)
        path.write_bytes(data)


def some_power_cuts(home: Path, seed: int) -> None:
    """Cut the power again and again, with work and a barrier between: what a barrier covered is there at the end."""
    rng = random.Random(seed)
    allowed: dict[bytes, set[bytes | None]] = {}
    folder, saved = home / "index" / "default", home / "saved"
    for cut in range(rng.randint(2, 5)):
        store = open_store(home)
        namespace = store.namespaces[b"default"]
        history = History()
        for key in sorted({*allowed, *namespace.live.keys}):
            values = allowed.get(key, {None})
            try:
                value = value_of(namespace, key)
            except DamagedError:
                # Nobody relied on it; but an error is not a value, and the key is written anew.
                assert len(values) > 1, (seed, cut, key)
                recovery.put(namespace, key, b"anew")
                value = b"anew"
                values = {value}
            assert value in values, (seed, cut, key)
            if value is not None:
                history.state[key] = value
        ages = [home / f"age-{cut}-{part}" for part in range(3)]
        shutil.copytree(folder, ages[0])
        work(namespace, seed * 31 + cut * 2, rng.randrange(12), history)
        shutil.copytree(folder, ages[1])
        allowed = {key: {history.state.get(key)} for key in {*allowed, *history.state}}
        durable, at = file_sizes(home / "data" / "default"), len(history.steps)
        work(namespace, seed * 31 + cut * 2 + 1, rng.randrange(12), history)
        shutil.copytree(folder, ages[2])
        abandon(store)
        shutil.copytree(folder, saved)
        cut_power(home, durable, ages, rng)
        shutil.rmtree(folder)
        saved.rename(folder)
        cut_index(folder, ages[0], ages, rng)
        for _, _, key, value in history.steps[at:]:
            allowed.setdefault(key, {None}).add(value)
    store = open_store(home)
    for key, values in allowed.items():
        if len(values) == 1:
            assert value_of(store.namespaces[b"default"], key) in values, (seed, "at the end", key)
    store.close()


@pytest.mark.parametrize("seed", [*range(12), 1144])
def test_what_a_barrier_covered_survives_some_power_cuts(tmp_path: Path, seed: int) -> None:
    """After a second, third and fourth cut, each with work since the last, no value under a barrier is lost."""
    some_power_cuts(tmp_path, seed)


@pytest.mark.soak
def test_many_power_cuts_cuts_and_flips(tmp_path: Path) -> None:
    """The long form: hundreds of seeds of power cuts, cut files and flipped bytes."""
    for seed in range(1000, 1500):
        for scenario in (
            power_cut,
            some_power_cuts,
            recovery.test_cut_data_loses_the_torn_record_only,
            recovery.test_cut_index_loses_nothing,
            recovery.test_flipped_bytes_are_never_served,
        ):
            home = tmp_path / f"{seed}-{scenario.__name__}"
            home.mkdir()
            scenario(home, seed)
            shutil.rmtree(home)
    print("seeds 1000 to 1499: each a power cut, some power cuts, cut data, cut index, flipped bytes")


def overwrite(home: Path, file_id: int, at: int, data: bytes) -> None:
    with (home / "data" / "default" / f"d{file_id}").open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_what_follows_a_hole_begins_a_new_file(tmp_path: Path) -> None:
    """Two torn heads in a row, then a deletion and values that a barrier covers, then all index files go in a second
    cut: the deletion holds and the values are served, because nothing was appended behind the hole."""
    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    recovery.put(namespace, b"gone", b"g" * 5000)
    first = file_sizes(tmp_path / "data" / "default")["d0"]
    recovery.put(namespace, b"torn-1", b"t" * 9000)
    second = file_sizes(tmp_path / "data" / "default")["d0"]
    recovery.put(namespace, b"torn-2", b"u" * 9000)
    recovery.put(namespace, b"kept", b"k" * 5000)
    abandon(store)
    overwrite(tmp_path, 0, first, bytes(PAGE_BYTES))
    overwrite(tmp_path, 0, second, bytes(PAGE_BYTES))

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    assert namespace.segments.ends.file_id == 1
    assert any("d1 begun" in line for line in store.report)
    entry = namespace.entry(b"gone")
    assert entry is not None
    namespace.delete(b"gone", entry, 9)
    recovery.put(namespace, b"after", b"a" * 5000)
    abandon(store)
    for path in (tmp_path / "index" / "default").glob("i*"):
        os.truncate(path, 29 if path.name == "i0" else 0)
    (tmp_path / "index" / "default" / "fungistor-checkpoint").unlink()

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    assert value_of(namespace, b"gone") is None
    assert value_of(namespace, b"after") == b"a" * 5000
    assert namespace.segments.ends.file_id == 1
    store.close()


@pytest.mark.parametrize("mode", [MODE_USER, MODE_SEQUENTIAL], ids=["user", "sequential"])
def test_a_deletion_behind_a_hole_outlives_a_second_cut(tmp_path: Path, mode: int) -> None:
    """A deletion that only the index led to is written again by the start that found it: without that index, too, the
    value is gone for good."""
    store = Store(str(tmp_path / "data"), str(tmp_path / "index"), datasize=600_000, durable=False, mode=mode)
    namespace = store.namespaces[b"default"]
    keys: list[bytes] = []
    ends: list[int] = []
    for value in (b"g" * 5000, b"t" * 9000, b"u" * 9000):
        [key] = namespace.put_many([Put(b"" if mode else b"key-%d" % len(keys), value, 7)])
        assert isinstance(key, bytes)
        keys.append(key)
        ends.append(namespace.segments.ends.data_end)
    entry = namespace.entry(keys[0])
    assert entry is not None
    namespace.delete(keys[0], entry, 8)
    [last] = namespace.put_many([Put(b"" if mode else b"last", b"l" * 100, 9)])
    assert isinstance(last, bytes)
    abandon(store)
    overwrite(tmp_path, 0, ends[0], bytes(PAGE_BYTES))
    overwrite(tmp_path, 0, (ends[1] // PAGE_BYTES + 1) * PAGE_BYTES, bytes(PAGE_BYTES))
    for turn in range(3):
        store = open_store(tmp_path)
        namespace = store.namespaces[b"default"]
        assert namespace.entry(keys[0]) is None, turn
        if not turn:
            assert value_of(namespace, last) == b"l" * 100
        written = [line for line in store.report if "written again" in line]
        assert len(written) == (not turn), store.report
        abandon(store)
        (tmp_path / "index" / "default" / "fungistor-checkpoint").unlink()
        if turn:
            for path in (tmp_path / "index" / "default").glob("i*"):
                os.truncate(path, 29)


@pytest.mark.parametrize("head", [False, True], ids=["payload", "head"])
@pytest.mark.parametrize("covered", [False, True], ids=["unpromised", "promised"])
def test_an_unpromised_damaged_version_gives_way_to_the_one_before(tmp_path: Path, covered: bool, head: bool) -> None:
    """A newer version is damaged: behind the last barrier the older one is served, under it reads answer an error."""
    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    recovery.put(namespace, b"key", b"old" * 50)
    note_flushed(namespace.segments.index_path, 0, namespace.segments.ends.data_end)
    at = namespace.segments.ends.data_end
    recovery.put(namespace, b"key", b"new" * 50)
    recovery.put(namespace, b"other", b"o" * 100)
    if covered:
        note_flushed(namespace.segments.index_path, 0, namespace.segments.ends.data_end)
    abandon(store)
    overwrite(tmp_path, 0, at + (0 if head else 60), b"\xff\xfe\xfd")

    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    assert value_of(namespace, b"other") == b"o" * 100
    if covered:
        with pytest.raises(DamagedError):
            value_of(namespace, b"key")
    else:
        assert value_of(namespace, b"key") == b"old" * 50
        assert any(f"record at {at}" in line for line in store.report)
    store.close()


def test_a_version_once_found_unwritten_stays_so(tmp_path: Path) -> None:
    """A version whose pages never reached the disk, left without an index record by the start that found it, hides the
    one before neither then nor later, when its file counts as flushed and is walked again."""
    store = open_store(tmp_path)
    namespace = store.namespaces[b"default"]
    recovery.put(namespace, b"kept", b"k" * 5000)
    namespace.rotate()
    recovery.put(namespace, b"other", b"o" * 500)
    at = file_sizes(tmp_path / "data" / "default")["d1"]
    known = (tmp_path / "index" / "default" / "i1").stat().st_size
    recovery.put(namespace, b"kept", b"n" * 9000)
    namespace.rotate()
    recovery.put(namespace, b"last", b"l" * 500)
    store.close()
    with (tmp_path / "data" / "default" / "d1").open("r+b") as file:
        file.seek(at + 300)
        file.write(b"\xff" * 200)
    os.truncate(tmp_path / "index" / "default" / "i1", known)
    checkpoint = tmp_path / "index" / "default" / "fungistor-checkpoint"
    found = decode_checkpoint(checkpoint.read_bytes())
    checkpoint.write_bytes(encode_checkpoint(replace(found, segments=(), durable=2)))
    for _ in range(2):
        store = open_store(tmp_path)
        namespace = store.namespaces[b"default"]
        assert value_of(namespace, b"kept") == b"k" * 5000
        assert value_of(namespace, b"other") == b"o" * 500
        assert value_of(namespace, b"last") == b"l" * 500
        store.close()
