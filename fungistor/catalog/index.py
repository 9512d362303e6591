"""The block index: which objects hold a block, and where in their block maps. Rebuilt from the maps, never the truth.

A row is (keyed hash, object number, node, position), 31 bytes on disk and no key. An object's rows count from the
moment that the object is `ready`; before that, and after a drop, they are dead weight that merges and `sweep` take
away, so that neither adding a million blocks nor dropping them ever holds the write lock for long.

Hashes are random: in one large tree every row dirties a page of its own, and 10 million rows came at 60,000 a second.
So rows lie in *runs* (see `fungistor.catalog.runs`), each sorted and written in one go; a lookup asks every run. Small
objects go to the small tree `fresh`, which becomes a run when it is full.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fungistor.catalog import runs
from fungistor.catalog.database import BUSY_TIMEOUT_S_MAX, Database, Schema
from fungistor.catalog.record import Record
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import ObjectId, Revision

HASH_BYTES = 16

ROWS_A_CHUNK = 65536
"""Sorted and inserted at once: 12 MiB of Python objects, 120 ms under the write lock."""

FRESH_ROWS_MAX = 2 * ROWS_A_CHUNK
"""4 MiB of pages, made a run in a quarter of a second."""

HOLDERS_MAX = 64
"""A reader tries them one by one. An empty directory may have a million holders."""

RECORDS_A_CHECK = 256

HASHES_A_STATEMENT = 512

SCHEMA = Schema(
    what="block index",
    application_id=0x46537432,
    version=1,
    statements=(
        """CREATE TABLE object (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            object_id BLOB NOT NULL,
            manifest_id BLOB NOT NULL,
            ready INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX ready_object ON object (object_id) WHERE ready",
        """CREATE TABLE fresh (
            hash BLOB,
            object INTEGER,
            node INTEGER NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (hash, object)
        ) WITHOUT ROWID""",
        "CREATE TABLE fresh_rows (count INTEGER NOT NULL)",
        "INSERT INTO fresh_rows VALUES (0)",
        "CREATE TABLE followed (revision INTEGER NOT NULL)",
        "INSERT INTO followed VALUES (0)",
        *runs.STATEMENTS,
    ),
    remedy="stop every process of this home and delete the folder `index`: it is rebuilt from the block maps",
    synchronous="NORMAL",
    cache_kib=8192,
)

_HOLDERS = """SELECT b.object, o.object_id, b.node, b.position
    FROM {} b CROSS JOIN object o ON o.number = b.object AND o.ready
    WHERE b.run = ?1 AND b.hash = ?2 ORDER BY b.object DESC LIMIT ?3"""
_IN_RUN = _HOLDERS.format("block")
_IN_FRESH = _HOLDERS.format("(SELECT 0 AS run, * FROM fresh)")


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
            return _holders(connection, block_hash, limit)

    def holders_of(self, hashes: Sequence[bytes], limit: int) -> dict[bytes, list[Holder]]:
        """As `holders` for many hashes at once; those without a holder are left out."""
        with self._database.read() as connection:
            found = {block_hash: _holders(connection, block_hash, limit) for block_hash in _held(connection, hashes)}
        return {block_hash: holders for block_hash, holders in found.items() if holders}

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
                _insert_fresh(connection, number, chunk)
                _make_ready(connection, number, object_id)
            else:
                runs.append(connection, number, chunk)
        if len(chunk) < ROWS_A_CHUNK:
            self._make_run_if_full(len(chunk))
            return
        while chunk := _sorted_chunk(rows):
            with self._database.write() as connection:
                runs.append(connection, number, chunk)
            self._merge(len(chunk))
        with self._database.write() as connection:
            _make_ready(connection, number, object_id)

    def _make_run_if_full(self, added: int) -> None:
        with self._database.write() as connection:
            connection.execute("UPDATE fresh_rows SET count = count + ?", (added,))
            full = connection.execute("SELECT count FROM fresh_rows").fetchone()[0] >= FRESH_ROWS_MAX
            if full:
                runs.append_fresh(connection)
        if full:
            self._merge(FRESH_ROWS_MAX)

    def _merge(self, rows: int) -> None:
        """Do the share of merging that falls to whoever added so many rows, a slice a transaction."""
        for _ in range(runs.slices_due(rows)):
            with self._database.write() as connection:
                if not runs.merge_slice(connection):
                    return

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

    def begin_again(self) -> None:
        """Look at every object once more: some could not be read before, as of a tenant whose key was not here."""
        with self._database.write() as connection:
            connection.execute("UPDATE followed SET revision = 0")

    def pending(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those records whose object is not indexed under the manifest it has now."""
        remaining = iter(records)
        while checked := list(itertools.islice(remaining, RECORDS_A_CHECK)):
            with self._database.read() as connection:
                missing = [r for r in checked if not _is_indexed(connection, r.object_id, r.manifest_id)]
            yield from missing

    def sweep(self, *, abandoned: bool = False) -> int:
        """Delete the rows of dropped and replaced objects; return how many the runs lost.

        `abandoned` takes those that some process began to add and never finished, too; an `add` that is under way
        elsewhere then ends with ConflictError.
        """
        if abandoned:
            with self._database.write() as connection:
                connection.execute("DELETE FROM object WHERE NOT ready")
        with self._database.write() as connection:
            runs.append_fresh(connection)
            sizes = runs.sizes(connection)
        swept = 0
        for run, rows in sizes:
            # What a merge moves meanwhile needs no sweep: it takes along only what lives.
            for low, high in runs.slices_of(rows):
                with self._database.write() as connection:
                    swept += runs.sweep_slice(connection, run, low, high)
        return swept

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _holders(connection: sqlite3.Connection, block_hash: bytes, limit: int) -> list[Holder]:
    rows = connection.execute(_IN_FRESH, (0, block_hash, limit)).fetchall()
    # Each run is asked for its newest alone: an empty directory may have a million holders.
    for run in runs.holding(connection, block_hash):
        rows += connection.execute(_IN_RUN, (run, block_hash, limit)).fetchall()
    newest: dict[int, Holder] = {}
    for number, *holder in sorted(rows, reverse=True):
        newest[number] = Holder(*holder)
    return list(newest.values())[:limit]


def _held(connection: sqlite3.Connection, hashes: Sequence[bytes]) -> set[bytes]:
    """Those hashes that have rows, of live objects or not: a few statements for all, since most have none."""
    found: set[bytes] = set()
    trees = [("(SELECT 0 AS run, hash FROM fresh)", 0), *(("block", number) for number in runs.numbers(connection))]
    for first in range(0, len(hashes), HASHES_A_STATEMENT):
        some = hashes[first : first + HASHES_A_STATEMENT]
        marks = ",".join("?" * len(some))
        for tree, run in trees:
            statement = f"SELECT hash FROM {tree} WHERE run = ? AND hash IN ({marks})"  # noqa: S608 - our own words
            found.update(row[0] for row in connection.execute(statement, (run, *some)))
    return found


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


def _insert_fresh(connection: sqlite3.Connection, number: int, chunk: list[tuple[bytes, int, int]]) -> None:
    # Written into the statement, the object's number saves building a tuple a row.
    connection.executemany(f"INSERT OR IGNORE INTO fresh VALUES (?, {number:d}, ?, ?)", chunk)  # noqa: S608 - our own


def _make_ready(connection: sqlite3.Connection, number: int, object_id: ObjectId) -> None:
    connection.execute("DELETE FROM object WHERE object_id = ? AND ready", (object_id,))
    if connection.execute("UPDATE object SET ready = 1 WHERE number = ?", (number,)).rowcount != 1:
        raise ConflictError("the object was dropped from the block index while it was added", hint="index it again")


def _is_indexed(connection: sqlite3.Connection, object_id: ObjectId, manifest_id: bytes) -> bool:
    row = connection.execute("SELECT manifest_id FROM object WHERE object_id = ? AND ready", (object_id,)).fetchone()
    return row is not None and row[0] == manifest_id
