"""The log in one SQLite file: a row an entry, ordered by the file's write lock, durable when `append` returns."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fungistor.catalog.database import BUSY_TIMEOUT_S_MAX, Database, Schema
from fungistor.catalog.log import START, Entry, FenceMovedError, LogTrimmedError, Position, check_batch
from fungistor.errors import ConflictError, CorruptError, InvalidError, UnavailableError

WATCH_POLL_S = 0.01
"""A poll of `data_version` costs 5 us, so a watcher costs 0.05 % of a core and hears of an append in 5 ms."""

READ_ENTRIES = 256
READ_BYTES = 4 << 20
"""A chunk of a read ends with the entry that reaches either: no snapshot is held while the reader works."""

SCHEMA = Schema(
    what="catalog log",
    application_id=0x46537430,
    version=0,
    statements=(
        # AUTOINCREMENT: a position is never drawn twice, not even when all entries were trimmed.
        "CREATE TABLE entry (position INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL)",
        "CREATE TABLE log (identity BLOB NOT NULL, epoch INTEGER NOT NULL, trimmed INTEGER NOT NULL)",
        "INSERT INTO log VALUES (randomblob(16), 0, 0)",
    ),
    remedy="the log is the catalog: restore it from a copy, never delete it",
    synchronous="FULL",
    cache_kib=2048,
)


class SqliteLog:
    """`fungistor.catalog.log.Log` on a file. `sync=False` waits for no disk: for trials and benchmarks only."""

    def __init__(self, path: str, *, sync: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S_MAX) -> None:
        schema = SCHEMA if sync else replace(SCHEMA, synchronous="OFF")
        self._database = Database(path, schema, busy_timeout_s=busy_timeout_s)
        self._closed = threading.Event()

    def identity(self) -> bytes:
        with self._database.read() as connection:
            return bytes(connection.execute("SELECT identity FROM log").fetchone()[0])

    def epoch(self) -> int:
        with self._database.read() as connection:
            return _epoch(connection)

    def raise_epoch(self, expected: int) -> int:
        with self._database.write() as connection:
            _check_fence(connection, expected)
            connection.execute("UPDATE log SET epoch = ?", (expected + 1,))
        return expected + 1

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        check_batch(batch)
        with self._database.write() as connection:
            _check_fence(connection, fence)
            for payload in batch:
                cursor = connection.execute("INSERT INTO entry (payload) VALUES (?)", (payload,))
            row = cursor.lastrowid
        assert row is not None
        return _position(row)

    def last(self) -> Position:
        with self._database.read() as connection:
            return _position(_last(connection))

    def trimmed(self) -> Position:
        with self._database.read() as connection:
            return _position(_trimmed(connection))

    def read(self, after: Position) -> Iterator[Entry]:
        row = _row(after)
        while chunk := self._chunk(row):
            for row, payload in chunk:
                yield Entry(_position(row), payload)

    def _chunk(self, after: int) -> list[tuple[int, bytes]]:
        with self._database.read() as connection:
            if after < _trimmed(connection):
                raise LogTrimmedError(self._database.path)
            if after > _last(connection):
                raise CorruptError(
                    f"{self._database.path} ends at entry {_last(connection)}, but entry {after} was read before",
                    hint="an older copy stands in its place: bring the newest one back",
                )
            chunk: list[tuple[int, bytes]] = []
            size = 0
            for row, payload in connection.execute(
                "SELECT position, payload FROM entry WHERE position > ? ORDER BY position LIMIT ?",
                (after, READ_ENTRIES),
            ):
                chunk.append((row, payload))
                size += len(payload)
                if size >= READ_BYTES:
                    break
            return chunk

    def watch(self, after: Position, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        row = _row(after)
        seen: tuple[int, int] | None = None
        while not self._closed.is_set():
            try:
                # Read the version first: a commit between the two is then seen by the next poll.
                version = self._database.data_version()
                if version != seen and self._newer(row):
                    return True
            except UnavailableError:
                if self._closed.is_set():
                    return False
                raise
            seen = version
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._closed.wait(min(WATCH_POLL_S, left))
        return False

    def _newer(self, row: int) -> bool:
        with self._database.read() as connection:
            return _last(connection) > row

    def trim(self, before: Position) -> None:
        row = _row(before)
        with self._database.write() as connection:
            if row > _last(connection):
                raise InvalidError(f"{self._database.path} has {_last(connection)} entries, cannot trim before {row}")
            connection.execute("DELETE FROM entry WHERE position < ?", (row,))
            connection.execute("UPDATE log SET trimmed = max(trimmed, ?)", (row - 1,))

    def adopt(self, identity: bytes, trimmed: Position = START) -> None:
        """Make this empty log the one of that identity, whose entries up to a position lie elsewhere.

        Raises:
            ConflictError: it holds entries of another log.
        """
        row = _row(trimmed)
        with self._database.write() as connection:
            (found,) = connection.execute("SELECT identity FROM log").fetchone()
            if bytes(found) == identity:
                return
            if _last(connection):
                raise ConflictError(f"{self._database.path} holds another catalog", hint="give an empty home")
            connection.execute("UPDATE log SET identity = ?, trimmed = ?", (identity, row))
            # Where the next position is drawn from.
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'")
            connection.execute("INSERT INTO sqlite_sequence VALUES ('entry', ?)", (row,))

    def become(self, identity: bytes) -> None:
        """Be another log from here on, with the same entries: who followed the one before is not to follow this."""
        with self._database.write() as connection:
            connection.execute("UPDATE log SET identity = ?", (identity,))

    def close(self) -> None:
        self._closed.set()
        self._database.close()


def _check_fence(connection: sqlite3.Connection, fence: int) -> None:
    found = _epoch(connection)
    if found != fence:
        raise FenceMovedError(expected=fence, found=found)


def _epoch(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT epoch FROM log").fetchone()[0])


def _trimmed(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT trimmed FROM log").fetchone()[0])


def _last(connection: sqlite3.Connection) -> int:
    newest = connection.execute("SELECT max(position) FROM entry").fetchone()[0]
    return _trimmed(connection) if newest is None else int(newest)


def _position(row: int) -> Position:
    return Position(row.to_bytes(8, "big")) if row else START


def _row(position: Position) -> int:
    if position == START:
        return 0
    if len(position) != 8:
        raise InvalidError("the position is not one of this log")
    return int.from_bytes(position, "big")
