"""The block index: which objects hold a block, and where in their block maps. Rebuilt from the maps, never the truth.

A row is (keyed hash, object number, node, position), 28 bytes and no key. An object's rows count from the moment that
the object is `ready`; before that, and after a drop, they are dead weight that `sweep` takes away, so that neither
adding a million blocks nor dropping them ever holds the write lock for long.

Hashes are random, so a small object's rows would each dirty another page of a large tree: 10,000 rows into a million
cost as much disk as 300,000. Small objects go to the small tree `fresh`, which is merged into `block`, in order, when
it is full (88,000 rows a second became 170,000). A lookup asks both.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fungistor.catalog.database import BUSY_TIMEOUT_S_MAX, Database, Schema
from fungistor.catalog.record import Record
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import ObjectId, Revision

HASH_BYTES = 16

ROWS_A_CHUNK = 32768
"""Sorted and inserted at once: 6 MiB of Python objects, 80 ms under the write lock, and pages touched in order."""

FRESH_ROWS_MAX = 4 * ROWS_A_CHUNK
"""4 MiB of pages, merged in half a second."""

HOLDERS_MAX = 64
"""A reader tries them one by one. An empty directory may have a million holders."""

RECORDS_A_CHECK = 256
SWEEP_SLICES = 256

_TREE = """CREATE TABLE {} (
    hash BLOB,
    object INTEGER,
    node INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (hash, object)
) WITHOUT ROWID"""

SCHEMA = Schema(
    what="block index",
    application_id=0x46537432,
    version=0,
    statements=(
        """CREATE TABLE object (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            object_id BLOB NOT NULL,
            manifest_id BLOB NOT NULL,
            ready INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX ready_object ON object (object_id) WHERE ready",
        _TREE.format("block"),
        _TREE.format("fresh"),
        "CREATE TABLE fresh_rows (count INTEGER NOT NULL)",
        "INSERT INTO fresh_rows VALUES (0)",
        "CREATE TABLE followed (revision INTEGER NOT NULL)",
        "INSERT INTO followed VALUES (0)",
    ),
    remedy="stop every process of this home and delete the folder `index`: it is rebuilt from the block maps",
    synchronous="NORMAL",
    cache_kib=16384,
)


class BlockPlace(NamedTuple):
    """Where an object's block map has a block: `position` in the entries of inner node number `node`."""

    hash: bytes
    node: int
    position: int


class Holder(NamedTuple):
    """One object that holds a block."""

    object_id: ObjectId
    node: int
    position: int


class BlockIndex:
    """Thread-safe, several processes at once. Errors as `fungistor.catalog.database.Database` gives them."""

    def __init__(self, path: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S_MAX) -> None:
        self._database = Database(path, SCHEMA, busy_timeout_s=busy_timeout_s)

    def holders(self, block_hash: bytes, limit: int = HOLDERS_MAX) -> list[Holder]:
        """Objects that hold a block, those indexed last first, at most `limit`; one place each."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT o.object_id, b.node, b.position FROM"
                " (SELECT * FROM block WHERE hash = ?1 UNION ALL SELECT * FROM fresh WHERE hash = ?1) b"
                " JOIN object o ON o.number = b.object AND o.ready ORDER BY b.object DESC LIMIT ?2",
                (block_hash, limit),
            ).fetchall()
        return [Holder(*row) for row in rows]

    def add(self, object_id: ObjectId, manifest_id: bytes, places: Iterable[tuple[bytes, int, int]]) -> None:
        """Index an object, all of it or nothing, in the place of what was indexed of it. `places` (hash, node,
        position) are taken as they come, a chunk in memory, no lock held meanwhile; of equal hashes the first counts.

        Raises:
            InvalidError: a hash is not 16 bytes.
            ConflictError: the object was dropped or swept meanwhile.
        """
        rows = iter(places)
        chunk = _sorted_chunk(rows)
        with self._database.write() as connection:
            number = connection.execute(
                "INSERT INTO object (object_id, manifest_id, ready) VALUES (?, ?, 0)", (object_id, manifest_id)
            ).lastrowid
            assert number is not None
            if len(chunk) < ROWS_A_CHUNK:
                _insert(connection, "fresh", number, chunk)
                _make_ready(connection, number, object_id)
                _merge_if_full(connection, len(chunk))
                return
            _insert(connection, "block", number, chunk)
        while chunk := _sorted_chunk(rows):
            with self._database.write() as connection:
                _insert(connection, "block", number, chunk)
        with self._database.write() as connection:
            _make_ready(connection, number, object_id)

    def drop(self, object_id: ObjectId) -> None:
        """Forget an object at once. Its rows are hidden from here on, those of other holders stay."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM object WHERE object_id = ?", (object_id,))

    def indexed(self) -> Iterator[tuple[ObjectId, bytes]]:
        """Object id and manifest id of all that is indexed, by rising object id."""
        after = b""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT object_id, manifest_id FROM object WHERE ready AND object_id > ?"
                    " ORDER BY object_id LIMIT ?",
                    (after, RECORDS_A_CHECK),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield from rows

    def is_indexed(self, object_id: ObjectId, manifest_id: bytes) -> bool:
        """Whether an object is indexed under this manifest."""
        with self._database.read() as connection:
            return _is_indexed(connection, object_id, manifest_id)

    def followed(self) -> Revision:
        """The catalog's revision up to which every object is indexed."""
        with self._database.read() as connection:
            return Revision(connection.execute("SELECT revision FROM followed").fetchone()[0])

    def follow(self, revision: Revision) -> None:
        """Say that every object is indexed up to a revision; an older one than was said before changes nothing."""
        with self._database.write() as connection:
            connection.execute("UPDATE followed SET revision = max(revision, ?)", (revision,))

    def pending(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those records whose object is not indexed under the manifest it has now."""
        remaining = iter(records)
        while checked := list(itertools.islice(remaining, RECORDS_A_CHECK)):
            with self._database.read() as connection:
                missing = [r for r in checked if not _is_indexed(connection, r.object_id, r.manifest_id)]
            yield from missing

    def sweep(self, *, abandoned: bool = False) -> int:
        """Delete the rows of dropped and replaced objects; return how many the large tree lost.

        `abandoned` takes those that some process began to add and never finished, too; an `add` that is under way
        elsewhere then ends with ConflictError.
        """
        if abandoned:
            with self._database.write() as connection:
                connection.execute("DELETE FROM object WHERE NOT ready")
        swept = 0
        for first in range(SWEEP_SLICES):
            low = bytes([first])
            high = bytes([first + 1]) if first + 1 < SWEEP_SLICES else b"\xff" * (HASH_BYTES + 1)
            with self._database.write() as connection:
                if first == 0:
                    _merge(connection)
                swept += connection.execute(
                    "DELETE FROM block WHERE hash >= ? AND hash < ? AND object NOT IN (SELECT number FROM object)",
                    (low, high),
                ).rowcount
        return swept

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _sorted_chunk(rows: Iterator[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
    # In the order of the hash a chunk touches each page of the tree once. The sort must look at nothing else: of equal
    # hashes the first that came counts.
    chunk = list(itertools.islice(rows, ROWS_A_CHUNK))
    if any(len(row[0]) != HASH_BYTES for row in chunk):
        raise InvalidError(f"a block's hash has {HASH_BYTES} bytes")
    chunk.sort(key=_hash_of)
    return chunk


def _hash_of(row: tuple[bytes, int, int]) -> bytes:
    return row[0]


def _insert(connection: sqlite3.Connection, tree: str, number: int, chunk: list[tuple[bytes, int, int]]) -> None:
    # Written into the statement, the object's number saves building a tuple a row.
    statement = f"INSERT OR IGNORE INTO {tree} VALUES (?, {number:d}, ?, ?)"  # noqa: S608 - both are our own
    connection.executemany(statement, chunk)


def _merge_if_full(connection: sqlite3.Connection, added: int) -> None:
    connection.execute("UPDATE fresh_rows SET count = count + ?", (added,))
    if connection.execute("SELECT count FROM fresh_rows").fetchone()[0] >= FRESH_ROWS_MAX:
        _merge(connection)


def _merge(connection: sqlite3.Connection) -> None:
    # Rows of objects dropped in the meantime need not move.
    connection.execute(
        "INSERT OR IGNORE INTO block SELECT * FROM fresh"
        " WHERE object IN (SELECT number FROM object) ORDER BY hash, object"
    )
    connection.execute("DELETE FROM fresh")
    connection.execute("UPDATE fresh_rows SET count = 0")


def _make_ready(connection: sqlite3.Connection, number: int, object_id: ObjectId) -> None:
    connection.execute("DELETE FROM object WHERE object_id = ? AND ready", (object_id,))
    if connection.execute("UPDATE object SET ready = 1 WHERE number = ?", (number,)).rowcount != 1:
        raise ConflictError("the object was dropped from the block index while it was added", hint="index it again")


def _is_indexed(connection: sqlite3.Connection, object_id: ObjectId, manifest_id: bytes) -> bool:
    row = connection.execute("SELECT manifest_id FROM object WHERE object_id = ? AND ready", (object_id,)).fetchone()
    return row is not None and row[0] == manifest_id
