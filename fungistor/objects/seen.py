"""Which CIDs a walk has met: in memory while they are few, in a scratch table of SQLite's own when they are not."""

from __future__ import annotations

import sqlite3

from fungistor.dag.cid import CID

HELD_MAX = 20_000
"""Some 3 MiB. A table costs more to open than most walks take."""


class SeenCids:
    """CIDs that were written. The same bytes under another codec are another block: other links may lead on.

    Used by one thread at a time, though not always the same one. Close it after use.
    """

    def __init__(self) -> None:
        self._held: set[bytes] = set()
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        """Forget them."""
        self._held.clear()
        if self._db is not None:
            self._db.close()
            self._db = None

    def add(self, cid: CID) -> bool:
        """Note a CID; False if it was noted before."""
        key = cid.to_v1().encode()
        if self._db is not None:
            return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1
        if key in self._held:
            return False
        self._held.add(key)
        if len(self._held) > HELD_MAX:
            self._spill()
        return True

    def __contains__(self, cid: CID) -> bool:
        key = cid.to_v1().encode()
        if self._db is not None:
            return self._db.execute("SELECT 1 FROM seen WHERE cid=?", (key,)).fetchone() is not None
        return key in self._held

    def _spill(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA cache_size=-8192")
        self._db.execute("CREATE TABLE seen(cid BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO seen VALUES (?)", ((key,) for key in self._held))
        self._held.clear()
