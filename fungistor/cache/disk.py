"""Spans of stripes on disk, sealed as members hold them, shared by all processes of a home.

Bytes lie in segments, files that are only appended to; a SQLite table says what lies where. Each process appends to a
segment of its own, and the oldest segment goes first, with what was not used in it. Nothing is synced: a power cut may
leave rows whose bytes never came, and those fail their seal when they are opened, as every damaged one does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fungistor.cache.segments import OpenSegments, WritableSegment, segment_path
from fungistor.limits import MIB

SEGMENTS = 16
"""A full cache has about so many; one of them goes at a time."""

SEGMENT_BYTES_MIN = 1 * MIB
SEGMENT_BYTES_MAX = 64 * MIB
KEPT_SHARE = 0.5
"""Of a segment that goes, at most this much is written again because it was used."""

USED_NOTED_MAX = 4096
BUSY_S = 0.2
"""A cache that is busy is no cache: better to ask the members."""

REST_S = 30.0
"""After the disk was full."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS spans (
    key BLOB PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spans_of_segment ON spans (segment);
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """What it holds. `bytes` are those of its segments, dropped spans included."""

    bytes: int
    bytes_max: int
    spans: int
    epoch: int


class DiskCache:
    """Thread-safe. Where the disk or the table fails it holds nothing, and says so in the log."""

    def __init__(self, folder: str, bytes_max: int) -> None:
        self._folder = folder
        self.bytes_max = bytes_max
        self._segment_bytes = min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES_MIN, bytes_max // SEGMENTS))
        self._lock = threading.Lock()
        self._used: OrderedDict[bytes, None] = OrderedDict()
        self._rest_until = 0.0
        self._segments = OpenSegments(folder)
        self._own: WritableSegment | None = None
        self.hits = 0
        self.misses = 0
        try:
            self._table = self._open()
        except sqlite3.DatabaseError as error:
            log.warning("the cache in %s is damaged (%s) and starts anew", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
            self._table = self._open()

    # -- using ------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """The span's bytes, to be opened by its seal; None where they are not held."""
        with self._lock:
            try:
                row = self._table.execute("SELECT segment, start, length FROM spans WHERE key = ?", (key,)).fetchone()
                found = None if row is None else self._segments.read(*row)
            except (sqlite3.Error, OSError):
                found = None
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._used[key] = None
            if len(self._used) > USED_NOTED_MAX:
                self._used.popitem(last=False)
            return found

    def put(self, spans: Mapping[bytes, bytes]) -> None:
        """Take sealed spans. What is there already stays as it is."""
        with self._lock:
            if time.monotonic() < self._rest_until:
                return
            try:
                with self._transaction():
                    self._note_used()
                    self._append(spans.items())
                    self._make_room()
            except (sqlite3.Error, OSError) as error:
                self._fail(error)

    def drop(self, keys: Iterable[bytes]) -> int:
        """Forget spans; how many were held. Their bytes go with their segment, sealed as they are."""
        with self._lock, self._transaction():
            dropped = sum(self._table.execute("DELETE FROM spans WHERE key = ?", (key,)).rowcount for key in keys)
            self._advance_epoch()
        return dropped

    def forget(self, key: bytes) -> None:
        """Drop a span that proved damaged."""
        with self._lock, contextlib.suppress(sqlite3.Error), self._transaction():
            self._table.execute("DELETE FROM spans WHERE key = ?", (key,))

    def purge(self) -> int:
        """Forget everything, and give the disk back; how many spans were held."""
        with self._lock, self._transaction():
            count = int(self._table.execute("SELECT count(*) FROM spans").fetchone()[0])
            numbers = [number for (number,) in self._table.execute("SELECT number FROM segments")]
            self._table.execute("DELETE FROM spans")
            self._table.execute("DELETE FROM segments")
            self._advance_epoch()
            for number in numbers:
                self._remove(number)
        return count

    def let_go(self) -> None:
        """Close what other processes removed. To be called now and then by whoever lives long."""
        with self._lock:
            self._segments.forget_removed()
            if self._own is not None and self._own.is_removed:
                self._own.close()
                self._own = None

    def status(self) -> DiskStatus:
        """What it holds now."""
        with self._lock:
            held = int(self._table.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()[0])
            spans = int(self._table.execute("SELECT count(*) FROM spans").fetchone()[0])
            return DiskStatus(held, self.bytes_max, spans, self._epoch())

    def epoch(self) -> int:
        """Counts purges: whoever holds what was read from here keeps it only while this stays the same."""
        with self._lock:
            try:
                return self._epoch()
            except sqlite3.Error:
                return -1

    def close(self) -> None:
        """Close files and table."""
        with self._lock:
            if self._own is not None:
                self._own.close()
            self._segments.close()
            self._table.close()

    # -- the table --------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, "spans.sqlite")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        table = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            table.execute("PRAGMA journal_mode = WAL")
            table.execute("PRAGMA synchronous = NORMAL")
            table.executescript(SCHEMA)
            known = {segment_path(self._folder, number) for (number,) in table.execute("SELECT number FROM segments")}
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                table.close()
                raise
            return table  # somebody else is setting it up
        except BaseException:
            table.close()
            raise
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if name.endswith(".segment") and path not in known:
                _remove_unlocked(path)
        return table

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._table.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._table.execute("ROLLBACK")
            raise
        self._table.execute("COMMIT")

    def _epoch(self) -> int:
        return int(self._table.execute("PRAGMA user_version").fetchone()[0])

    def _advance_epoch(self) -> None:
        self._table.execute(f"PRAGMA user_version = {self._epoch() + 1}")

    def _note_used(self) -> None:
        if self._used:
            used = [(key,) for key in self._used]
            self._table.executemany("UPDATE spans SET used = 1 WHERE key = ?", used)
            self._used.clear()

    # -- segments ---------------------------------------------------------------------------------------------

    def _append(self, spans: Iterable[tuple[bytes, bytes]]) -> None:
        for key, sealed in spans:
            own = self._writable()
            if self._table.execute("SELECT 1 FROM spans WHERE key = ?", (key,)).fetchone() is not None:
                continue
            start = own.append(sealed)
            row = (key, own.number, start, len(sealed))
            self._table.execute("INSERT INTO spans (key, segment, start, length) VALUES (?, ?, ?, ?)", row)
            self._table.execute("UPDATE segments SET bytes = ? WHERE number = ?", (own.bytes, own.number))

    def _writable(self) -> WritableSegment:
        own = self._own
        if own is not None:
            row = self._table.execute("SELECT 1 FROM segments WHERE number = ?", (own.number,)).fetchone()
            if row is not None and own.bytes < self._segment_bytes:
                return own
            own.close()  # full, or purged by somebody
        number = self._table.execute("INSERT INTO segments (bytes) VALUES (0)").lastrowid
        assert number is not None
        self._own = WritableSegment(self._folder, number)
        return self._own

    def _make_room(self) -> None:
        for _ in range(2 * SEGMENTS):
            held = int(self._table.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()[0])
            own = -1 if self._own is None else self._own.number
            oldest = self._table.execute(
                "SELECT number FROM segments WHERE number <> ? ORDER BY number LIMIT 1", (own,)
            ).fetchone()
            if held <= self.bytes_max or oldest is None:
                return
            self._let_go(oldest[0])

    def _let_go(self, number: int) -> None:
        """Drop a segment; what was used of it is written again, as if it were new."""
        rows = self._table.execute(
            "SELECT key, start, length FROM spans WHERE segment = ? AND used = 1", (number,)
        ).fetchall()
        room = int(self._segment_bytes * KEPT_SHARE)
        kept: list[tuple[bytes, bytes]] = []
        for key, start, length in rows:
            room -= length
            if room < 0:
                break
            sealed = self._segments.read(number, start, length)
            if sealed is not None:
                kept.append((key, sealed))
        self._table.execute("DELETE FROM spans WHERE segment = ?", (number,))
        self._table.execute("DELETE FROM segments WHERE number = ?", (number,))
        self._append(kept)
        self._remove(number)

    def _remove(self, number: int) -> None:
        self._segments.forget(number)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(segment_path(self._folder, number))

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            log.warning("the cache in %s takes nothing for a while: %s", self._folder, error)
            self._rest_until = time.monotonic() + REST_S
        elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            log.warning("the cache in %s takes nothing: %s; `fungistor cache purge` may mend it", self._folder, error)
            self._rest_until = time.monotonic() + REST_S


def _remove_unlocked(path: str) -> None:
    """Remove a segment that no table knows, unless some process is just about to tell of it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)
