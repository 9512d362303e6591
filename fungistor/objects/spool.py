"""What one publish has learned so far: its stored blocks, inner nodes and stripes, on disk and out of memory.

A tree of a million files has a million block keys; held as Python objects they would cost hundreds of MiB. The
spool is a throw-away SQLite file in the session's journal folder: never synced, deleted with the session.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fungistor.coding.manifest import Stored

KEYS_A_STATEMENT = 512

_SCHEMA = """
CREATE TABLE blocks(mh BLOB PRIMARY KEY, slot INTEGER, number INTEGER, plain INTEGER, compression INTEGER, key BLOB)
    WITHOUT ROWID;
CREATE TABLE nodes(mh BLOB PRIMARY KEY, codec INTEGER, data BLOB, number INTEGER);
CREATE TABLE small(mh BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID;
CREATE TABLE slots(slot INTEGER PRIMARY KEY, packed BLOB);
"""


_ENTRIES_SCHEMA = """CREATE TABLE entries
    (mh BLOB PRIMARY KEY, object BLOB, slot INTEGER, number INTEGER, plain INTEGER, compression INTEGER, key BLOB)
    WITHOUT ROWID"""


class EntryTable:
    """Entries of whole block maps, in a file without a name: what is shared with a large object is found here, since
    page after page of its map, in the order of our blocks, would be opened again and again. Not thread-safe."""

    def __init__(self) -> None:
        # An empty path is SQLite's private temporary file: it holds keys, is the owner's alone and never has a name.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode=OFF", "cache_size=-4096"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(_ENTRIES_SCHEMA)
        weakref.finalize(self, self._db.close)

    def add(self, object_id: bytes, entries: Iterable[tuple[bytes, Stored]]) -> None:
        """Learn an object's stored blocks; of a block learned twice the first counts."""
        rows = ((mh, object_id, e.slot, e.number, e.plain_bytes, int(e.compression), e.key) for mh, e in entries)
        self._db.execute("BEGIN")
        try:
            self._db.executemany("INSERT OR IGNORE INTO entries VALUES (?,?,?,?,?,?,?)", rows)
        finally:
            # Each entry is right by itself, whatever ended the map early.
            self._db.execute("COMMIT")

    def find(self, multihashes: Sequence[bytes]) -> dict[bytes, tuple[bytes, Stored]]:
        """Object id and entry of those of some blocks that were learned."""
        rows = _among(self._db, "SELECT mh, object, slot, number, plain, compression, key FROM entries", multihashes)
        return {row[0]: (row[1], Stored(*row[2:])) for row in rows}


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Where one block lies: the stripe's slot in this object, its number there, and how to open it."""

    slot: int
    number: int
    plain_bytes: int
    compression: int
    key: bytes

    def __repr__(self) -> str:
        return f"StoredBlock(slot={self.slot}, number={self.number}, plain_bytes={self.plain_bytes})"


class Spool:
    """Thread-safe; one a publish. `claim` makes sure that a block met twice is sealed once."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        self._in_flight: set[bytes] = set()
        # Losing the spool loses a publish that was not acknowledged: nothing here is worth a sync.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-8192"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._db.close()

    def clear(self) -> None:
        """Forget all, for another object."""
        with self._lock:
            for table in ("blocks", "nodes", "small", "slots"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 constant names

    def claim(self, multihashes: Iterable[bytes]) -> set[bytes]:
        """Return those not yet stored nor being stored by another thread; the caller now has to store them."""
        with self._lock:
            mine = set(multihashes) - self._in_flight
            mine.difference_update([row[0] for row in _among(self._db, "SELECT mh FROM blocks", sorted(mine))])
            self._in_flight |= mine
        return mine

    def store(self, blocks: Iterable[tuple[bytes, StoredBlock]]) -> None:
        """Record claimed blocks as stored."""
        rows = [(mh, b.slot, b.number, b.plain_bytes, b.compression, b.key) for mh, b in blocks]
        with self._lock:
            self._db.executemany("INSERT OR IGNORE INTO blocks VALUES (?,?,?,?,?,?)", rows)
            self._in_flight.difference_update(row[0] for row in rows)

    def block(self, multihash: bytes) -> StoredBlock | None:
        """Where a block was stored, if it was."""
        with self._lock:
            row = self._db.execute(
                "SELECT slot, number, plain, compression, key FROM blocks WHERE mh=?", (multihash,)
            ).fetchone()
        return StoredBlock(*row) if row else None

    def blocks(self, multihashes: Sequence[bytes]) -> dict[bytes, StoredBlock]:
        """Where those of some blocks lie that were stored."""
        with self._lock:
            rows = _among(self._db, "SELECT mh, slot, number, plain, compression, key FROM blocks", multihashes)
            return {row[0]: StoredBlock(*row[1:]) for row in rows}

    def node_numbers(self, multihashes: Sequence[bytes]) -> dict[bytes, int]:
        """The numbers of those of some blocks that are inner nodes and have one."""
        with self._lock:
            rows = _among(self._db, "SELECT mh, number FROM nodes", multihashes)
            return {mh: number for mh, number in rows if number is not None}

    def blocks_count(self) -> int:
        """How many distinct blocks the object has, of all kinds."""
        with self._lock:
            return sum(
                int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 constant names
                for table in ("blocks", "nodes", "small")
            )

    def add_node(self, multihash: bytes, codec: int, data: bytes) -> None:
        """Keep an inner node: its bytes travel in the block map."""
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO nodes VALUES (?,?,?,NULL)", (multihash, codec, data))

    def add_small(self, multihash: bytes, data: bytes) -> None:
        """Keep a block that is so small that it lies in the block map itself."""
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO small VALUES (?,?)", (multihash, data))

    def small(self, multihash: bytes) -> bytes | None:
        """The bytes of a block kept by `add_small`."""
        with self._lock:
            row = self._db.execute("SELECT data FROM small WHERE mh=?", (multihash,)).fetchone()
        return row[0] if row else None

    def node(self, multihash: bytes) -> tuple[int, bytes, int | None] | None:
        """Codec, bytes and number (None before numbering) of an inner node."""
        with self._lock:
            row = self._db.execute("SELECT codec, data, number FROM nodes WHERE mh=?", (multihash,)).fetchone()
        return row if row else None

    def number_node(self, multihash: bytes, number: int) -> None:
        """Give an inner node its place in the order of the block map."""
        with self._lock:
            self._db.execute("UPDATE nodes SET number=? WHERE mh=?", (number, multihash))

    def node_number(self, multihash: bytes) -> int | None:
        """The number of an inner node, None where there is no such node."""
        with self._lock:
            row = self._db.execute("SELECT number FROM nodes WHERE mh=?", (multihash,)).fetchone()
        return row[0] if row else None

    def nodes_in_order(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, codec and bytes of each numbered node, by number."""
        with self._lock:
            self._db.execute("CREATE UNIQUE INDEX IF NOT EXISTS by_number ON nodes(number)")
        number = 0
        while True:
            with self._lock:
                row = self._db.execute("SELECT number, codec, data FROM nodes WHERE number=?", (number,)).fetchone()
            if row is None:
                return
            yield row
            number += 1

    def add_slot(self, slot: int, packed: bytes) -> None:
        """Keep what the stripe list will say of one stripe."""
        with self._lock:
            self._db.execute("INSERT INTO slots VALUES (?,?)", (slot, packed))

    def slots_in_order(self) -> Iterator[tuple[int, bytes]]:
        """All kept stripes by slot."""
        last = -1
        while True:
            with self._lock:
                row = self._db.execute(
                    "SELECT slot, packed FROM slots WHERE slot>? ORDER BY slot LIMIT 1", (last,)
                ).fetchone()
            if row is None:
                return
            yield row
            last = row[0]


def _among(db: sqlite3.Connection, select: str, multihashes: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """Rows of some blocks, by statements of a bounded number of them."""
    for first in range(0, len(multihashes), KEYS_A_STATEMENT):
        some = multihashes[first : first + KEYS_A_STATEMENT]
        yield from db.execute(f"{select} WHERE mh IN ({','.join('?' * len(some))})", some)
