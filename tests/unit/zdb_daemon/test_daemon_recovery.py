"""A namespace opens after any end: cut, flipped, missing or half-written files. Only the torn tail is ever lost."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fungistor.errors import ConflictError, FailedError
from fungistor.zdb.daemon.format import Descriptor
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.scanning import scan
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.values import DamagedError

DATASIZE = 600_000


def open_store(home: Path) -> Store:
    return Store(str(home / "data"), str(home / "index"), datasize=DATASIZE, durable=False)


def put(namespace: Namespace, key: bytes, value: bytes) -> None:
    assert namespace.put_many([Put(key, value, 7)]) in ([key], [None])


@dataclass
class History:
    """What was done, with where in the data files each step ended."""

    state: dict[bytes, bytes] = field(default_factory=dict)
    steps: list[tuple[int, int, bytes, bytes | None]] = field(default_factory=list)
    versions: dict[bytes, set[bytes]] = field(default_factory=dict)

    def after_cut(self, file_id: int, size: int) -> dict[bytes, bytes]:
        """Return the state if everything in that file behind `size` had never been."""
        state: dict[bytes, bytes] = {}
        for step_file, end, key, value in self.steps:
            if step_file == file_id and end > size:
                continue
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        return state


def work(namespace: Namespace, seed: int, steps: int, history: History | None = None) -> History:
    history = history or History()
    rng = random.Random(seed)
    for _ in range(steps):
        key = b"key-%d" % rng.randrange(25)
        if key in history.state and rng.random() < 0.25:
            entry = namespace.entry(key)
            assert entry is not None
            namespace.delete(key, entry, 8)
            del history.state[key]
            value = None
        else:
            value = rng.randbytes(rng.choice([0, 3, 200, 3000, 20_000, 90_000]))
            if history.state.get(key) == value:
                continue
            put(namespace, key, value)
            history.state[key] = value
            history.versions.setdefault(key, set()).add(value)
        ends = namespace.segments.ends
        history.steps.append((ends.file_id, ends.data_end, key, value))
    return history


def contents(namespace: Namespace) -> dict[bytes, bytes]:
    found = {}
    for key in namespace.live.keys:
        entry = namespace.entry(key)
        assert entry is not None
        found[key] = namespace.read(key, entry)
    return found


def abandon(store: Store) -> None:
    """Leave the files as a crash does: nothing is written any more."""
    for namespace in store.namespaces.values():
        namespace.unflagged = True
    store.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def build(home: Path, seed: int, steps: int = 60, *, clean: bool = False) -> History:
    store = open_store(home)
    history = work(store.namespaces[b"default"], seed, steps)
    if clean:
        store.close()
    else:
        abandon(store)
    return history


def reopened(home: Path) -> tuple[dict[bytes, bytes], list[str]]:
    """Open, check that what is in memory is what a scan and a second opening see, and return it."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    found = contents(namespace)
    scanned: list[bytes] = []
    if found:
        cursor, entries = scan(namespace, None)
        scanned = [key for key, _, _ in entries]
        assert cursor
    assert sorted(scanned) == sorted(found)
    report = store.report
    abandon(store)
    store = open_store(home)
    assert contents(store.namespaces[b"default"]) == found
    assert [line for line in store.report if "missing" not in line] == []
    store.close()
    store = open_store(home)
    assert contents(store.namespaces[b"default"]) == found
    assert store.report == []
    store.close()
    return found, report


@pytest.mark.parametrize("clean", [False, True])
def test_everything_is_back_after_any_end(home: Path, clean: bool) -> None:
    """After a clean stop and after a crash alike every key has its last value, over several segments."""
    history = build(home, 1, 120, clean=clean)
    assert len(list((home / "data" / "default").iterdir())) > 2
    found, report = reopened(home)
    assert found == history.state
    assert report == []


@pytest.mark.parametrize("seed", range(20))
def test_cut_data_loses_the_torn_record_only(home: Path, seed: int) -> None:
    """With the last 1 to 200 bytes of the data file gone, exactly the records that they belonged to are gone."""
    rng = random.Random(seed)
    history = build(home, seed, rng.randrange(3, 60), clean=bool(seed % 2))
    folder = home / "data" / "default"
    newest = max(int(path.name[1:]) for path in folder.iterdir())
    path = folder / f"d{newest}"
    size = max(path.stat().st_size - rng.randint(1, 200), 28)
    os.truncate(path, size)
    found, report = reopened(home)
    assert found == history.after_cut(newest, size)
    if found != history.state:
        assert report


@pytest.mark.parametrize("seed", range(12))
def test_cut_index_loses_nothing(home: Path, seed: int) -> None:
    """With the end of an index file gone every value is still there: the data files alone suffice."""
    rng = random.Random(seed)
    history = build(home, seed, rng.randrange(3, 60), clean=bool(seed % 2))
    folder = home / "index" / "default"
    path = rng.choice(sorted(folder.glob("i*")))
    os.truncate(path, max(path.stat().st_size - rng.randint(1, 200), 0))
    found, _ = reopened(home)
    assert found == history.state


@pytest.mark.parametrize("lost", ["one", "all", "zero", "header", "garbage", "folder"])
def test_lost_index_is_rebuilt(home: Path, lost: str) -> None:
    """Index files that are missing, empty or no index files at all are rebuilt from the data files."""
    history = build(home, 5, 80, clean=True)
    folder = home / "index" / "default"
    files = sorted(folder.glob("i*"))
    if lost == "one":
        files[1].unlink()
    elif lost == "all":
        for path in files:
            path.unlink()
    elif lost == "folder":
        shutil.rmtree(folder)
    else:
        files[-1].write_bytes({"zero": b"", "header": b"ID0\x04", "garbage": b"\xa5" * 500}[lost])
    found, report = reopened(home)
    assert found == history.state
    assert any("rebuilt" in line for line in report)


@pytest.mark.parametrize("where", ["data", "index"])
def test_zero_byte_pair_of_a_crashed_rotation_is_taken_over(home: Path, where: str) -> None:
    """A crash between creating a file and writing its header does not brick the namespace."""
    history = build(home, 6, 40)
    number = len(list((home / "data" / "default").iterdir()))
    (home / where / "default" / f"{where[0]}{number}").write_bytes(b"")
    found, report = reopened(home)
    assert found == history.state
    assert report


def test_append_before_flag_survives_a_crash_between_them(home: Path) -> None:
    """A crash after a new version was appended and before the old one was marked leaves the new one, for good."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    put(namespace, b"k", b"old")
    old = namespace.entry(b"k")
    assert old is not None
    put(namespace, b"k", b"new")
    abandon(store)
    with (home / "index" / "default" / "i0").open("r+b") as file:
        file.seek(old[5] + 13)
        file.write(b"\0")
    assert reopened(home)[0] == {b"k": b"new"}
    store = open_store(home)
    entry = store.namespaces[b"default"].entry(b"k")
    assert entry is not None
    store.namespaces[b"default"].delete(b"k", entry, 9)
    abandon(store)
    assert reopened(home)[0] == {}


def test_data_without_index_record_is_indexed(home: Path) -> None:
    """A crash between data and index record keeps the value: the next start indexes it."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    put(namespace, b"a", b"1")
    end = namespace.segments.ends.index_end
    put(namespace, b"b", b"2")
    abandon(store)
    os.truncate(home / "index" / "default" / "i0", end)
    found, report = reopened(home)
    assert found == {b"a": b"1", b"b": b"2"}
    assert any("added" in line for line in report)


def test_tombstone_without_flag_stays_deleted(home: Path) -> None:
    """A crash between a deletion and its mark in the index leaves the key deleted."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    put(namespace, b"a", b"1")
    entry = namespace.entry(b"a")
    assert entry is not None
    namespace.delete(b"a", entry, 9)
    abandon(store)
    with (home / "index" / "default" / "i0").open("r+b") as file:
        file.seek(entry[5] + 13)
        file.write(b"\0")
    assert reopened(home)[0] == {}


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_are_never_served(home: Path, seed: int) -> None:
    """With a byte flipped anywhere, every key answers its value or an error, or the start has named the damage."""
    rng = random.Random(seed)
    history = build(home, seed, rng.randrange(3, 50), clean=bool(seed % 2))
    paths = sorted(path for path in home.rglob("*") if path.is_file() and path.name[0] in "dif" and path.stat().st_size)
    path = rng.choice(paths)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        store = open_store(home)
    except FailedError as error:
        assert "version" in str(error) or "mode" in str(error)
        return
    namespace = store.namespaces[b"default"]
    for key in {*history.versions, *namespace.live.keys}:
        entry = namespace.entry(key)
        expected = history.state.get(key)
        if entry is None:
            assert expected is None or store.report, key
            continue
        try:
            value = namespace.read(key, entry)
        except DamagedError:
            continue
        if value != expected:
            # A flip that turned a newer record or deletion into another key's: an older version, and it was said.
            assert value in history.versions.get(key, set())
            assert store.report
    put(namespace, b"after", b"life")
    abandon(store)
    store = open_store(home)
    entry = store.namespaces[b"default"].entry(b"after")
    assert entry is not None
    assert store.namespaces[b"default"].read(b"after", entry) == b"life"
    abandon(store)


def test_damage_in_the_middle_never_cuts_what_follows(home: Path) -> None:
    """A damaged length in the middle of a data file costs that record and none behind it, even without an index."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    for number in range(20):
        put(namespace, b"k%d" % number, bytes([number]) * 1000)
    entry = namespace.entry(b"k7")
    assert entry is not None
    abandon(store)
    shutil.rmtree(home / "index" / "default")
    for new_length in (0xFFFFFF, 900, 1100, 0):
        with (home / "data" / "default" / "d0").open("r+b") as file:
            file.seek(entry[1] + 1)
            file.write(new_length.to_bytes(4, "little"))
        store = open_store(home)
        namespace = store.namespaces[b"default"]
        for number in range(20):
            found = namespace.entry(b"k%d" % number)
            if number != 7:
                assert found is not None, (new_length, number)
                assert namespace.read(b"k%d" % number, found) == bytes([number]) * 1000
        assert any("damaged" in line for line in store.report)
        abandon(store)
        shutil.rmtree(home / "index" / "default")


def test_pages_that_never_reached_the_disk_end_the_log(home: Path) -> None:
    """After a power cut zeros stand where pages were not written: the log ends there and older versions hold."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    put(namespace, b"k", b"first version, flushed")
    put(namespace, b"k", os.urandom(20_000))
    entry = namespace.entry(b"k")
    assert entry is not None
    abandon(store)
    with (home / "data" / "default" / "d0").open("r+b") as file:
        file.seek(8192)
        file.write(bytes(8192))
    found, report = reopened(home)
    assert found == {b"k": b"first version, flushed"}
    assert any("dropped" in line for line in report)


def test_a_hole_costs_its_record_only(home: Path) -> None:
    """A value with zeros in it that rots, or a record with a lost page, costs that record and none behind it."""
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    put(namespace, b"k", b"before")
    put(namespace, b"k", bytes(20_000))
    put(namespace, b"last", b"still here")
    entry = namespace.entry(b"k")
    assert entry is not None
    abandon(store)
    with (home / "data" / "default" / "d0").open("r+b") as file:
        file.seek(entry[1] + 18 + 1 + 5000)
        file.write(b"\x01")
    found, report = reopened(home)
    assert found == {b"k": b"before", b"last": b"still here"}
    assert any("never wholly written" in line for line in report)


def test_half_written_descriptor_is_restored_from_its_copy(home: Path) -> None:
    """A namespace whose descriptor was cut anywhere keeps its password and quota."""
    store = open_store(home)
    namespace = store.create(b"ns")
    store.save_descriptor(namespace, Descriptor(b"ns", b"secret", 12345, public=False))
    store.close()
    path = home / "index" / "ns" / "zdb-namespace"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        store = open_store(home)
        assert store.namespaces[b"ns"].descriptor == Descriptor(b"ns", b"secret", 12345, public=False)
        assert store.report
        store.close()


def test_lost_password_closes_the_namespace(home: Path) -> None:
    """Where nobody can know whether there was a password, a namespace with values is closed, not open to all."""
    store = open_store(home)
    namespace = store.create(b"ns")
    store.save_descriptor(namespace, Descriptor(b"ns", b"secret"))
    put(namespace, b"k", b"v")
    abandon(store)
    (home / "index" / "ns" / "zdb-namespace").write_bytes(b"\x01\0\0")
    (home / "index" / "ns" / "fungistor-checkpoint").unlink()
    store = open_store(home)
    descriptor = store.namespaces[b"ns"].descriptor
    assert descriptor.password not in (b"", b"secret")
    assert not descriptor.public
    abandon(store)


def test_missing_old_data_file_costs_its_values_only(home: Path) -> None:
    """A data file that is elsewhere leaves its keys known and its values an error, and comes back as it was."""
    history = build(home, 9, 100, clean=True)
    away = home / "away"
    (home / "data" / "default" / "d0").rename(away)
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    assert sorted(namespace.live.keys) == sorted(history.state)
    for key, value in history.state.items():
        entry = namespace.entry(key)
        assert entry is not None
        if entry[0] == 0:
            with pytest.raises(DamagedError):
                namespace.read(key, entry)
        else:
            assert namespace.read(key, entry) == value
    store.close()
    away.rename(home / "data" / "default" / "d0")
    assert reopened(home)[0] == history.state


def test_missing_newest_data_file_is_not_written_over(home: Path) -> None:
    """When the newest data file is gone its keys answer errors, and new values go to a new pair of files."""
    build(home, 10, 5, clean=True)
    (home / "data" / "default" / "d0").unlink()
    store = open_store(home)
    namespace = store.namespaces[b"default"]
    assert namespace.live.keys
    for key in list(namespace.live.keys):
        entry = namespace.entry(key)
        assert entry is not None
        with pytest.raises(DamagedError):
            namespace.read(key, entry)
    put(namespace, b"new", b"value")
    assert namespace.segments.ends.file_id == 1
    store.close()


def test_two_daemons_never_share_a_folder(home: Path) -> None:
    """The second to open the folders is refused, whichever of the two it shares."""
    store = open_store(home)
    with pytest.raises(ConflictError, match="in use"):
        open_store(home)
    with pytest.raises(ConflictError):
        Store(str(home / "data"), str(home / "other"), datasize=DATASIZE, durable=False)
    store.close()
    open_store(home).close()


def test_newer_version_is_left_alone(home: Path) -> None:
    """A file of another version stops the start and is not touched."""
    build(home, 1, 3, clean=True)
    path = home / "data" / "default" / "d0"
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    with pytest.raises(FailedError, match="version 9"):
        open_store(home)
    assert path.read_bytes() == bytes(data)
