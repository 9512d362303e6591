"""Where each block of some CAR files lies: a throw-away table on disk, so that millions of blocks take no memory.

Blocks stay in their files until somebody wants them. Every read is checked against the hash again: a file that
changes meanwhile must not get under a CID that is not its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fungistor.dag.cid import CID, verify
from fungistor.errors import BlockMismatchError, FailedError

_SCHEMA = """
CREATE TABLE blocks(mh BLOB PRIMARY KEY, file INTEGER, start INTEGER, length INTEGER, linkless INTEGER,
    mark INTEGER, content INTEGER) WITHOUT ROWID
"""
_ABSENT = -1
_CONTENT_BYTES_MAX = 2**63 - 1
"""A DAG of a few blocks may speak of more bytes than there are; sums stop here."""


@dataclass(frozen=True, slots=True)
class Place:
    """One block in a file. `file` is the number that `add_file` gave."""

    multihash: bytes
    file: int
    start: int
    length: int


class Row(NamedTuple):
    """What is known of one block. `linkless`: a codec under which it has no links, 0 if none is known to be one.

    `mark` is the walker's. `content`: bytes of files at and below it, None while that is not known.
    """

    file: int
    start: int
    length: int
    linkless: int
    mark: int
    content: int | None

    @property
    def absent(self) -> bool:
        """Whether this block was asked for and is nowhere."""
        return self.file == _ABSENT


class CarIndex:
    """One thread adds, looks up and marks; `read` may be called from any thread."""

    def __init__(self, folder: str) -> None:
        self._files: list[tuple[int, str]] = []
        self._extra = -1
        self._extra_bytes = 0
        self._extra_path = os.path.join(folder, "held-already")
        self._db = sqlite3.connect(os.path.join(folder, "car-index.db"), isolation_level=None)
        # Losing it loses an import that was not acknowledged: nothing here is worth a sync.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-16384"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(_SCHEMA)
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Close the files and forget everything."""
        self._db.close()
        for fd, _ in self._files:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._files.clear()

    def add_file(self, fd: int, name: str) -> int:
        """Take over an open file; return its number."""
        self._files.append((fd, name))
        return len(self._files) - 1

    def add(self, blocks: Iterable[tuple[Place, int]]) -> None:
        """Add blocks with their `linkless`; one that is there already stays where it is."""
        rows = [(p.multihash, p.file, p.start, p.length, linkless) for p, linkless in blocks]
        self._db.executemany("INSERT OR IGNORE INTO blocks VALUES (?,?,?,?,?,0,NULL)", rows)

    def add_held(self, multihash: bytes, data: bytes) -> Row:
        """Add a block that no file has, and that was found elsewhere."""
        if self._extra < 0:
            fd = os.open(self._extra_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._extra = self.add_file(fd, "blocks of this network")
        fd, _ = self._files[self._extra]
        place = Place(multihash, self._extra, self._extra_bytes, len(data))
        self._extra_bytes += os.pwrite(fd, data, self._extra_bytes)
        self.add([(place, 0)])
        return Row(place.file, place.start, place.length, 0, 0, None)

    def add_absent(self, multihash: bytes) -> Row:
        """Note that a block is linked to and nowhere."""
        self.add([(Place(multihash, _ABSENT, 0, 0), 0)])
        return Row(_ABSENT, 0, 0, 0, 0, None)

    def row(self, multihash: bytes) -> Row | None:
        """What is known of a block."""
        row = self._db.execute(
            "SELECT file, start, length, linkless, mark, content FROM blocks WHERE mh=?", (multihash,)
        ).fetchone()
        return None if row is None else Row(*row)

    def mark(self, multihash: bytes, mark: int) -> None:
        """Leave a mark on a block."""
        self._db.execute("UPDATE blocks SET mark=? WHERE mh=?", (mark, multihash))

    def set_content(self, multihash: bytes, content: int) -> int:
        """Keep how many bytes of files lie at and below a block; return what is kept."""
        content = min(content, _CONTENT_BYTES_MAX)
        self._db.execute("UPDATE blocks SET content=? WHERE mh=?", (content, multihash))
        return content

    def unmarked(self) -> int:
        """How many blocks of the files no walk has met."""
        count: int = self._db.execute("SELECT count(*) FROM blocks WHERE mark=0 AND file>=0").fetchone()[0]
        return count

    def absent(self) -> int:
        """How many blocks are linked to and nowhere."""
        count: int = self._db.execute("SELECT count(*) FROM blocks WHERE file<0").fetchone()[0]
        return count

    def read(self, place: Place, cid: CID | None = None) -> bytes:
        """Bytes of a block, checked. `cid` is for the message.

        Raises:
            FailedError: the file is not what it was when the block was added.
        """
        buffer = bytearray(place.length)
        self.read_into(place, memoryview(buffer), cid)
        return bytes(buffer)

    def read_into(self, place: Place, view: memoryview, cid: CID | None = None) -> None:
        """Fill a view of the block's length. Raises as `read`."""
        fd, name = self._files[place.file]
        done = 0
        while done < place.length and (got := os.preadv(fd, [view[done:]], place.start + done)):
            done += got
        try:
            verify(place.multihash, view)
        except BlockMismatchError:
            raise FailedError(
                f"{name}: changed while it was read: block {cid or place.multihash.hex()} is not what it was",
                hint="import again when nothing writes to it",
            ) from None
