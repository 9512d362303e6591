"""Names of key copies that are to go from the pool: noted before a key is dropped, until every member has said so."""

from __future__ import annotations

from collections.abc import Iterable

from fungistor.catalog.database import Database, Schema

NAMES_A_TURN = 512

SCHEMA = Schema(
    what="list of keys to be erased in the pool",
    application_id=0x46536572,
    version=0,
    statements=(
        "CREATE TABLE wanted (name BLOB PRIMARY KEY) WITHOUT ROWID",
        # What was deleted is in members' files until they compact.
        "CREATE TABLE wipe (due INTEGER NOT NULL)",
        "INSERT INTO wipe VALUES (0)",
    ),
    remedy="delete it, and run `fungistor gc` when all members are up",
    synchronous="FULL",
    cache_kib=256,
)


class Erasures:
    """Thread-safe, several processes at once."""

    def __init__(self, path: str) -> None:
        self._database = Database(path, SCHEMA)

    def want(self, names: Iterable[bytes]) -> None:
        """Note names durably."""
        with self._database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(name,) for name in names])
            connection.execute("UPDATE wipe SET due = 1")

    def wanted(self, after: bytes = b"") -> list[bytes]:
        """Some of those that are still to go, by rising name."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name FROM wanted WHERE name > ? ORDER BY name LIMIT ?", (after, NAMES_A_TURN)
            ).fetchall()
        return [bytes(name) for (name,) in rows]

    def done(self, names: Iterable[bytes]) -> None:
        """They are gone from every member."""
        with self._database.write() as connection:
            connection.executemany("DELETE FROM wanted WHERE name = ?", [(name,) for name in names])

    def wipe_is_due(self) -> bool:
        """Whether members hold bytes of what was deleted."""
        with self._database.read() as connection:
            return bool(connection.execute("SELECT due FROM wipe").fetchone()[0])

    def want_wipe(self) -> None:
        """Members hold something that was replaced or deleted, and should not."""
        with self._database.write() as connection:
            connection.execute("UPDATE wipe SET due = 1")

    def wiped(self) -> None:
        """Every member has compacted since."""
        with self._database.write() as connection:
            connection.execute("UPDATE wipe SET due = 0")

    def close(self) -> None:
        self._database.close()
