"""The records that this node was given, in the home: the newest of a name counts, older ones are its history."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from fungistor.dag.cid import CID, LIBP2P_KEY
from fungistor.errors import ConflictError, InvalidError
from fungistor.names.record import Record, parse

HISTORY_MAX = 64
"""Records kept of one name; a name that changes each minute must not grow the table for ever."""

BUSY_S = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    name BLOB NOT NULL,
    sequence BLOB NOT NULL,
    expires_s REAL NOT NULL,
    imported_s REAL NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (name, sequence, expires_s)
) WITHOUT ROWID
"""


class NameTable:
    """One SQLite file, shared by the commands that write and the gateway workers that read.

    Every use opens the file for itself: names are asked for far less often than blocks, a worker's threads share no
    connection, and a table that a later command creates is seen.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def put(self, record: Record, now_s: float) -> bool:
        """Keep a verified record durably; False where the very same is held already.

        Raises: InvalidError where it has expired; ConflictError where a newer one is held.
        """
        if record.expires_s <= now_s:
            raise InvalidError("the record has expired", hint="publish the name anew and import that record")
        with self._open(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            held = self._newest(connection, record.name)
            if held is not None and not record.is_newer_than(held):
                if held.encoded == record.encoded:
                    return False
                raise ConflictError(
                    f"a record of this name with sequence {held.sequence} is held, this one has {record.sequence}",
                    hint="the higher sequence wins, then the later end",
                )
            connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                (record.name.multihash, _key(record.sequence), record.expires_s, now_s, record.encoded),
            )
            connection.execute(
                "DELETE FROM records WHERE name = ? AND (sequence, expires_s) NOT IN (SELECT sequence, expires_s"
                " FROM records WHERE name = ? ORDER BY sequence DESC, expires_s DESC LIMIT ?)",
                (record.name.multihash, record.name.multihash, HISTORY_MAX),
            )
            connection.execute("COMMIT")
        return True

    def newest(self, name: CID) -> Record | None:
        """Return the record of a name that counts, verified again, expired or not.

        Raises: CorruptError where the file was changed by other hands.
        """
        if not os.path.exists(self._path):
            return None
        with self._open() as connection:
            return self._newest(connection, name)

    def history(self, name: CID) -> list[tuple[Record, float]]:
        """Return a name's records, the newest first, each with the time it was imported."""
        if not os.path.exists(self._path):
            return []
        query = "SELECT record, imported_s FROM records WHERE name = ? ORDER BY sequence DESC, expires_s DESC"
        with self._open() as connection:
            rows = connection.execute(query, (name.multihash,)).fetchall()
        return [(parse(name, encoded), imported_s) for encoded, imported_s in rows]

    def all(self) -> list[Record]:
        """Return the newest record of every name."""
        if not os.path.exists(self._path):
            return []
        with self._open() as connection:
            names = [row[0] for row in connection.execute("SELECT DISTINCT name FROM records ORDER BY name")]
            found = [self._newest(connection, CID(1, LIBP2P_KEY, name)) for name in names]
        return [record for record in found if record is not None]

    def _newest(self, connection: sqlite3.Connection, name: CID) -> Record | None:
        query = "SELECT record FROM records WHERE name = ? ORDER BY sequence DESC, expires_s DESC LIMIT 1"
        row = connection.execute(query, (name.multihash,)).fetchone()
        return None if row is None else parse(name, row[0])

    @contextlib.contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        if create and not os.path.exists(self._path):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            if create:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_SCHEMA)
            yield connection
        finally:
            connection.close()


def _key(sequence: int) -> bytes:
    """Write an unsigned number of 64 bits so that SQLite sorts it: its own numbers are signed."""
    return sequence.to_bytes(8, "big")
