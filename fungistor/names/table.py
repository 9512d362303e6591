"""The records that this node serves, in the home: those it was given, whose newest counts and older ones are history,
and those of the network's own names, which have an alias and are signed anew by this node."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from fungistor.dag.cid import CID, LIBP2P_KEY
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import OWN_TENANT, TenantNumber
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
_SCHEMA_OWN = """
CREATE TABLE IF NOT EXISTS own_names (
    name_id BLOB PRIMARY KEY,
    tenant INTEGER NOT NULL,
    alias TEXT NOT NULL,
    name BLOB NOT NULL,
    renew_s REAL NOT NULL,
    UNIQUE (tenant, alias)
) WITHOUT ROWID
"""


class NameTable:
    """One SQLite file, shared by the commands that write and the gateway workers that read.

    Its names of the network's own are those of one tenant; of others' only their records are found, by key.

    Every use opens the file for itself: names are asked for far less often than blocks, a worker's threads share no
    connection, and a table that a later command creates is seen.
    """

    def __init__(self, path: str, tenant: TenantNumber = OWN_TENANT) -> None:
        self._path = path
        self._tenant = tenant

    def put(self, record: Record, now_s: float) -> bool:
        """Keep a verified record durably; False where the very same is held already.

        Raises: InvalidError where it has expired; ConflictError where a newer one is held, or the name is the
        network's own.
        """
        if record.expires_s <= now_s:
            raise InvalidError("the record has expired", hint="publish the name anew and import that record")
        with self._open(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            held = self._newest(connection, record.name)
            if held is not None and held.encoded == record.encoded:
                return False
            if (alias := _alias(connection, record.name)) is not None:
                raise ConflictError(
                    f"this key is the one of {alias}, a name that this network publishes itself",
                    hint=f"`fungistor name publish {alias} CID` changes what it means",
                )
            if held is not None and not record.is_newer_than(held):
                raise ConflictError(
                    f"a record of this name with sequence {held.sequence} is held, this one has {record.sequence}",
                    hint="the higher sequence wins, then the later end",
                )
            _insert(connection, record, now_s)
            connection.execute(
                "DELETE FROM records WHERE name = ? AND (sequence, expires_s) NOT IN (SELECT sequence, expires_s"
                " FROM records WHERE name = ? ORDER BY sequence DESC, expires_s DESC LIMIT ?)",
                (record.name.multihash, record.name.multihash, HISTORY_MAX),
            )
            connection.execute("COMMIT")
        return True

    # -- names of the network's own ---------------------------------------------------------------------------

    def put_own(self, name_id: bytes, alias: str, record: Record, renew_s: float, now_s: float) -> None:
        """Keep a record of the network's own in place of the one before it; of two the later sequence stays.

        Raises: ConflictError where a later one of its key was imported.
        """
        with self._open(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            held = self._newest(connection, record.name)
            if held is not None and held.sequence > record.sequence:
                if _alias(connection, record.name) is not None:
                    return  # another process of this home was ahead
                raise _overtaken(held, record.sequence)
            connection.execute("DELETE FROM records WHERE name = ?", (record.name.multihash,))
            connection.execute(
                "DELETE FROM own_names WHERE tenant = ? AND alias = ? AND name_id != ?", (self._tenant, alias, name_id)
            )
            self._forget_key(connection, name_id, unless=record.name)
            connection.execute(
                "INSERT OR REPLACE INTO own_names VALUES (?, ?, ?, ?, ?)",
                (name_id, self._tenant, alias, record.name.multihash, renew_s),
            )
            _insert(connection, record, now_s)
            connection.execute("COMMIT")

    def own(self, name_id: bytes) -> Record | None:
        """Return the record that is kept of a name of the network's own."""
        if not os.path.exists(self._path):
            return None
        with self._open() as connection:
            row = connection.execute("SELECT name FROM own_names WHERE name_id = ?", (name_id,)).fetchone()
            return None if row is None else self._newest(connection, CID(1, LIBP2P_KEY, row[0]))

    def drop_own(self, name_id: bytes) -> None:
        """Forget a name of the network's own, and its record."""
        if not os.path.exists(self._path):
            return
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._forget_key(connection, name_id, unless=None)
            connection.execute("DELETE FROM own_names WHERE name_id = ?", (name_id,))
            connection.execute("COMMIT")

    def own_due(self, now_s: float) -> list[bytes]:
        """Return the names of the network's own whose records are to be signed again."""
        if not os.path.exists(self._path):
            return []
        with self._open() as connection:
            query = "SELECT name_id FROM own_names WHERE tenant = ? AND renew_s <= ?"
            return [row[0] for row in connection.execute(query, (self._tenant, now_s))]

    def check_free(self, key: CID, sequence: int) -> None:
        """Raises: ConflictError where a record of a later sequence was imported for a key of the network's own."""
        if not os.path.exists(self._path):
            return
        with self._open() as connection:
            held = self._newest(connection, key)
            if held is not None and held.sequence > sequence and _alias(connection, key) is None:
                raise _overtaken(held, sequence)

    def key_of(self, alias: str) -> CID | None:
        """Return the key that a name of the network's own stands for."""
        if not os.path.exists(self._path):
            return None
        with self._open() as connection:
            query = "SELECT name FROM own_names WHERE tenant = ? AND alias = ?"
            row = connection.execute(query, (self._tenant, alias)).fetchone()
        return None if row is None else CID(1, LIBP2P_KEY, row[0])

    def aliases(self) -> dict[CID, str]:
        """Return the network's own names by their keys."""
        if not os.path.exists(self._path):
            return {}
        with self._open() as connection:
            return {
                CID(1, LIBP2P_KEY, name): alias
                for name, alias in connection.execute(
                    "SELECT name, alias FROM own_names WHERE tenant = ?", (self._tenant,)
                )
            }

    def _forget_key(self, connection: sqlite3.Connection, name_id: bytes, unless: CID | None) -> None:
        """Drop the record under the key that the name had."""
        row = connection.execute("SELECT name FROM own_names WHERE name_id = ?", (name_id,)).fetchone()
        if row is not None and (unless is None or row[0] != unless.multihash):
            connection.execute("DELETE FROM records WHERE name = ?", (row[0],))

    # -- all --------------------------------------------------------------------------------------------------

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
        """Return the newest record of every name, but for those of other tenants."""
        if not os.path.exists(self._path):
            return []
        with self._open() as connection:
            others = "SELECT name FROM own_names WHERE tenant != ?"
            query = f"SELECT DISTINCT name FROM records WHERE name NOT IN ({others}) ORDER BY name"  # noqa: S608
            names = [row[0] for row in connection.execute(query, (self._tenant,))]
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
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'own_names'").fetchone():
                _lay_out_own(connection)
            yield connection
        finally:
            connection.close()


def _lay_out_own(connection: sqlite3.Connection) -> None:
    """Make the table of own names; of an earlier program's table all are the network's own tenant's."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_SCHEMA_OWN)
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'own'").fetchone():
        connection.execute(
            "INSERT OR IGNORE INTO own_names SELECT name_id, ?, alias, name, renew_s FROM own", (OWN_TENANT,)
        )
        connection.execute("DROP TABLE own")
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, record: Record, now_s: float) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
        (record.name.multihash, _key(record.sequence), record.expires_s, now_s, record.encoded),
    )


def _alias(connection: sqlite3.Connection, key: CID) -> str | None:
    row = connection.execute("SELECT alias FROM own_names WHERE name = ?", (key.multihash,)).fetchone()
    return None if row is None else str(row[0])


def _overtaken(held: Record, sequence: int) -> ConflictError:
    return ConflictError(
        f"a record of this name with sequence {held.sequence} was imported, the catalog is at {sequence}",
        hint="somebody else has the key, or the catalog is older than the record: remove the name and publish another",
    )


def _key(sequence: int) -> bytes:
    """Write an unsigned number of 64 bits so that SQLite sorts it: its own numbers are signed."""
    return sequence.to_bytes(8, "big")
