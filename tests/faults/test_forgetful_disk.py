"""The forgetful disk itself: it forgets what was not synced, all of it, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk.client import ForgetfulDisk, forgetful_disk
from tests.faults.disk.inodes import PAGE, Inodes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    with forgetful_disk(tmp_path / "disk") as disk:
        yield disk


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_bytes_and_sizes_need_a_sync_of_their_file(disk: ForgetfulDisk) -> None:
    """After a cut a file holds what it held at its last fsync: appends, overwrites and cuts since then are gone."""
    file = disk.folder / "file"
    file.write_bytes(b"a" * 3 * PAGE)
    sync(file)
    sync(disk.folder)
    with file.open("r+b") as opened:
        opened.write(b"b" * 10)
        opened.truncate(PAGE + 5)
        opened.seek(9 * PAGE)
        opened.write(b"c")
    assert file.stat().st_size == 9 * PAGE + 1
    disk.cut(None)
    assert file.read_bytes() == b"a" * 3 * PAGE


def test_names_need_a_sync_of_their_folder(disk: ForgetfulDisk) -> None:
    """After a cut a folder holds the names it had at its last fsync: new, renamed and removed ones are undone."""
    for name in ("renamed", "removed", "replaced"):
        (disk.folder / name).write_bytes(name.encode())
        sync(disk.folder / name)
    sync(disk.folder)
    (disk.folder / "new").write_bytes(b"new")
    sync(disk.folder / "new")
    (disk.folder / "renamed").rename(disk.folder / "elsewhere")
    (disk.folder / "removed").unlink()
    (disk.folder / "new").replace(disk.folder / "replaced")
    (disk.folder / "folder").mkdir()
    disk.cut(None)
    assert sorted(path.name for path in disk.folder.iterdir()) == ["removed", "renamed", "replaced"]
    assert (disk.folder / "replaced").read_bytes() == b"replaced"


def test_what_was_synced_stays(disk: ForgetfulDisk) -> None:
    """A file synced with its name outlives any number of cuts, with chance and without."""
    file = disk.folder / "file"
    file.write_bytes(b"kept")
    sync(file)
    sync(disk.folder)
    for seed in (None, "1", "2", None):
        disk.cut(seed)
        assert file.read_bytes() == b"kept"


def test_sqlite_loses_no_commit_under_full_and_some_without(disk: ForgetfulDisk) -> None:
    """SQLite keeps its word on this disk with `synchronous=FULL`, and with OFF the disk takes what it had said."""
    for level, kept in (("FULL", 7), ("OFF", 1)):
        path = disk.folder / f"{level}.sqlite"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n INTEGER)")
        connection.execute("INSERT INTO t VALUES (0)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync(disk.folder)
        connection.execute(f"PRAGMA synchronous={level}")
        for number in range(6):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        disk.cut(None)
        connection.close()
        again = sqlite3.connect(path)
        assert again.execute("SELECT count(*) FROM t").fetchone() == (kept,), level
        again.close()


def test_it_freezes_before_the_moment_it_was_armed_for(disk: ForgetfulDisk) -> None:
    """Armed for a sync, it answers the write before it and not the sync: what was written is gone after the cut."""
    file = disk.folder / "file"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"one")
    sync(disk.folder)
    disk.arm("other-sync", 1)

    def go_on() -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, b"two")
            os.fsync(descriptor)

    thread = threading.Thread(target=go_on)
    thread.start()
    counts = disk.frozen(20)
    assert counts is not None
    assert counts["other-write"] == 1
    assert "other-sync" not in counts
    disk.cut(None)
    thread.join()
    with contextlib.suppress(OSError):
        os.close(descriptor)  # it belongs to the disk that is gone
    assert file.read_bytes() == b""


def test_with_chance_every_page_is_as_before_or_as_after() -> None:
    """A cut with chance leaves each unsynced page old, new or (beyond the synced end) zeros, and does leave each."""
    seen: set[bytes] = set()
    for seed in range(40):
        inodes = Inodes()
        inode = inodes.make(inodes.all[1], b"file", 0o100600, (0, 0))
        inode.write(0, b"a" * 2 * PAGE)
        inode.sync()
        inodes.all[1].sync()
        inode.write(0, b"b" * 4 * PAGE)
        inodes.cut(random.Random(seed))
        data = bytes(inode.data)
        assert len(data) in (2 * PAGE, 4 * PAGE)
        pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        assert all(page in (b"a" * PAGE, b"b" * PAGE) for page in pages[:2])
        assert all(page in (bytes(PAGE), b"b" * PAGE) for page in pages[2:])
        seen.update(page[:1] for page in pages)
    assert seen == {b"a", b"b", b"\0"}
