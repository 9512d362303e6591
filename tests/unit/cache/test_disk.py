from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fungistor.cache.disk import DiskCache
from fungistor.limits import MIB

SEED = 20261121


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    with closing(DiskCache(str(tmp_path / "spans"), 8 * MIB)) as cache:
        yield cache


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.segment"))


def test_what_is_put_is_there_for_every_process(cache: DiskCache, tmp_path: Path) -> None:
    """A second opener of the folder reads what the first one put, and the first what the second did."""
    cache.put({_key(1): b"one" * 100})
    with closing(DiskCache(str(tmp_path / "spans"), 8 * MIB)) as other:
        assert other.get(_key(1)) == b"one" * 100
        other.put({_key(2): b"two", _key(1): b"ignored"})
    assert cache.get(_key(2)) == b"two"
    assert cache.get(_key(1)) == b"one" * 100
    assert cache.get(_key(3)) is None


def test_it_is_bounded_and_keeps_what_is_used(cache: DiskCache, tmp_path: Path) -> None:
    """Ten times what it may hold is put in: the folder stays within its bound, and what was used all along is there."""
    chance = random.Random(SEED)
    hot = chance.randbytes(100_000)
    cache.put({_key(0): hot})
    for number in range(1, 800):
        cache.put({_key(number): chance.randbytes(100_000)})
        assert cache.get(_key(0)) == hot, f"seed {SEED}, after {number}"
        assert _folder_bytes(tmp_path / "spans") <= 8 * MIB + MIB + 200_000
    assert cache.get(_key(1)) is None
    assert cache.status().bytes <= 8 * MIB


def test_a_purge_gives_the_disk_back_and_is_told_to_others(cache: DiskCache, tmp_path: Path) -> None:
    """After a purge by one process the files are gone, nothing is found, and the other process sees a new epoch."""
    cache.put({_key(number): bytes(100_000) for number in range(30)})
    epoch = cache.epoch()
    with closing(DiskCache(str(tmp_path / "spans"), 8 * MIB)) as other:
        assert other.purge() == 30
    assert cache.epoch() > epoch
    assert cache.get(_key(1)) is None
    assert _folder_bytes(tmp_path / "spans") == 0
    cache.put({_key(1): b"again"})
    assert cache.get(_key(1)) == b"again"


def _removed_but_open(folder: Path) -> list[str]:
    links = [os.readlink(f"/proc/self/fd/{number}") for number in _descriptors()]
    return [link for link in links if link.startswith(str(folder)) and link.endswith("(deleted)")]


def _descriptors() -> list[str]:
    return [number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")]


def test_what_others_removed_is_let_go(cache: DiskCache, tmp_path: Path) -> None:
    """A process that has segments open which another one removed closes them, so that the disk has its bytes back."""
    folder = tmp_path / "spans"
    cache.put({_key(number): bytes([number]) * 900_000 for number in range(5)})
    assert cache.get(_key(0)) == bytes(900_000)
    with closing(DiskCache(str(folder), 8 * MIB)) as other:
        other.purge()
    assert len(_removed_but_open(folder)) >= 2  # one that is read, one that is written
    cache.let_go()
    assert _removed_but_open(folder) == []
    cache.put({_key(7): b"again"})
    assert cache.get(_key(7)) == b"again"


def test_single_spans_are_dropped(cache: DiskCache) -> None:
    """Dropping names what goes and leaves the rest."""
    cache.put({_key(number): bytes(10) for number in range(3)})
    assert cache.drop([_key(0), _key(9)]) == 1
    assert cache.get(_key(0)) is None
    assert cache.get(_key(2)) == bytes(10)


def test_a_segment_cut_short_is_a_miss(cache: DiskCache, tmp_path: Path) -> None:
    """Bytes that a power cut took are not made up."""
    cache.put({_key(1): bytes(1000), _key(2): bytes(1000)})
    (segment,) = (tmp_path / "spans").glob("*.segment")
    os.truncate(segment, 1500)
    assert cache.get(_key(1)) == bytes(1000)
    assert cache.get(_key(2)) is None


def test_a_damaged_table_starts_anew(tmp_path: Path) -> None:
    """A table that is no database costs what was kept, and nothing else."""
    folder = tmp_path / "spans"
    with closing(DiskCache(str(folder), 8 * MIB)) as cache:
        cache.put({_key(1): b"x"})
    (folder / "spans.sqlite").write_bytes(b"no database" * 1000)
    for name in ("spans.sqlite-wal", "spans.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    with closing(DiskCache(str(folder), 8 * MIB)) as cache:
        assert cache.get(_key(1)) is None
        cache.put({_key(1): b"y"})
        assert cache.get(_key(1)) == b"y"


def test_others_may_not_look(cache: DiskCache, tmp_path: Path) -> None:
    """Folder, table and segments are the owner's alone."""
    cache.put({_key(1): b"x"})
    folder = tmp_path / "spans"
    assert folder.stat().st_mode & 0o077 == 0
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


_WRITER = """
import sys
from fungistor.cache.disk import DiskCache
cache = DiskCache(sys.argv[1], 8 << 20)
print("ready", flush=True)
number = 0
while True:
    number += 1
    cache.put({(number % 500).to_bytes(16, "big"): (number % 500).to_bytes(4, "big") * 20_000})
"""


def test_kill_nine_leaves_a_cache_that_is_right(tmp_path: Path) -> None:
    """Two writers are killed in the middle of their work, twice over: whatever is found afterwards is right."""
    folder = tmp_path / "spans"
    found = 0
    for _ in range(2):
        argv = [sys.executable, "-c", _WRITER, str(folder)]
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE)) for _ in range(2)]
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
            with closing(DiskCache(str(folder), 8 * MIB)) as watcher:
                while watcher.status().spans < 20:
                    pass
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
        with closing(DiskCache(str(folder), 8 * MIB)) as cache:
            for number in range(500):
                span = cache.get(_key(number))
                if span is not None:
                    found += 1
                    assert span == number.to_bytes(4, "big") * 20_000
            cache.put({_key(1000): b"goes on"})
            assert cache.get(_key(1000)) == b"goes on"
    assert found > 0
