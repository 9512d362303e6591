"""The one door to SQLite: schemas with versions, a connection a thread, and foreign errors turned into ours.

Forking with open connections is what SQLite forbids: its locks belong to the process, its bookkeeping to the memory
that a fork copies. So every open connection is closed right before a fork, on either side of which the next use opens a
new one. A connection that is busy in another thread for longer than the bound cannot be closed: then the child refuses
that database and the parent goes on.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, NoReturn

from fungistor.errors import CorruptError, FailedError, InvalidError, UnavailableError

BUSY_TIMEOUT_S_MAX = 8.0
"""Every lock of another process is waited for this long at most: the log's and the state's, one after the other, fit
into the 20 s that a command may take in all."""

_WAL_RETRY_S = 0.01
_PAGE_KIB = 4
"""SQLite's own."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database file is. `version` grows with every change; `remedy` is the next step when it is torn.

    `is_rebuilt`: its rows come from elsewhere, so a file of an older version is emptied and filled anew.
    """

    what: str
    application_id: int
    version: int
    statements: tuple[str, ...]
    remedy: str
    synchronous: Literal["FULL", "NORMAL", "OFF"]
    cache_kib: int
    wal_kib: int = 16 << 10
    """A checkpoint comes after so much write-ahead log, and cuts it back to this."""
    is_rebuilt: bool = False
    prepare: Callable[[sqlite3.Connection], None] | None = None
    """What every connection needs before it is used."""
    settle: Callable[[sqlite3.Connection], None] | None = None
    """What a transaction that changes rows ends with."""
    forget: Callable[[sqlite3.Connection], None] | None = None
    """What is done where it was rolled back in place of that."""


class _Handle:
    """A thread's connection to one database; `lock` is only ever contended by a fork or a close."""

    __slots__ = ("__weakref__", "connection", "generation", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.generation = 0

    def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        # The thread ended: its connection goes with it.
        with suppress(sqlite3.Error):
            self.drop()


class Database:
    """One database file, opened lazily a thread, made if it is absent. Thread-safe; survives forks.

    Errors of every method: UnavailableError when another process holds the lock for longer than `busy_timeout_s`,
    CorruptError when the file is torn, FailedError when this machine refuses (disk full, no permission), InvalidError
    when the file is of another kind or of a newer program.
    """

    def __init__(self, path: str, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S_MAX) -> None:
        self.path = path
        self.schema = schema
        self._busy_timeout_s = min(busy_timeout_s, BUSY_TIMEOUT_S_MAX)
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._handles_lock = threading.Lock()
        self._closed = False
        self._inherited = False
        _databases.add(self)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot; never waits for a writer."""
        with self._using() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction under the database's write lock: committed at the end, rolled back by any error."""
        with self._using() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                if self.schema.settle is not None:
                    self.schema.settle(connection)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                if self.schema.forget is not None:
                    with suppress(sqlite3.Error):
                        self.schema.forget(connection)
                raise

    def data_version(self) -> tuple[int, int]:
        """A value that changes when another connection commits; compare values of one thread only."""
        with self._using() as connection:
            row = connection.execute("PRAGMA data_version").fetchone()
            return self._handle().generation, int(row[0])

    def close(self) -> None:
        """Close every connection, waiting for those in use."""
        self._closed = True
        for handle in self._all_handles():
            with handle.lock:
                handle.drop()

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        handle = self._handle()
        with handle.lock:
            try:
                if handle.connection is None:
                    handle.connection = self._open()
                    handle.generation += 1
                yield handle.connection
            except sqlite3.Error as error:
                self._raise(error)

    def _handle(self) -> _Handle:
        if self._closed:
            raise UnavailableError(f"{self.path} was closed")
        if self._inherited:
            raise FailedError(
                f"{self.path} was in use while this process was forked", hint="open the catalog after the fork"
            )
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle()
            with self._handles_lock:
                self._handles.add(handle)
        return handle

    def _all_handles(self) -> list[_Handle]:
        with self._handles_lock:
            return list(self._handles)

    def before_fork(self) -> None:
        """Close what can be closed; mark the database if something is in use."""
        for handle in self._all_handles():
            if handle.lock.acquire(timeout=self._busy_timeout_s):
                try:
                    handle.drop()
                finally:
                    handle.lock.release()

    def after_fork_in_child(self) -> None:
        """Never touch, not even close, a connection that the parent goes on using."""
        self._handles_lock = threading.Lock()
        inherited = [handle for handle in self._handles if handle.connection is not None]
        self._inherited = self._inherited or bool(inherited)
        _inherited_handles.extend(inherited)

    def _open(self) -> sqlite3.Connection:
        self._make_file()
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._configure(connection)
            if self.schema.prepare is not None:
                self.schema.prepare(connection)
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self) -> None:
        """Make an absent file for its owner alone, its name durable before anything stands on it."""
        if os.path.exists(self.path):
            return
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                # O_EXCL also because closing a descriptor of a file that SQLite has open would drop SQLite's locks.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                _sync_folder(folder)
        except OSError as error:
            raise FailedError(f"{self.path} cannot be made: {error.strerror}") from error

    def _configure(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        connection.execute(f"PRAGMA synchronous={self.schema.synchronous}")
        connection.execute(f"PRAGMA cache_size=-{self.schema.cache_kib}")
        connection.execute(f"PRAGMA wal_autocheckpoint={self.schema.wal_kib // _PAGE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit={self.schema.wal_kib << 10}")
        while True:
            # The switch to WAL needs the whole file and does not go through SQLite's own busy timeout.
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_RETRY_S)

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        if self._is_to_lay_out(connection):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self._is_to_lay_out(connection):
                    self._lay_out(connection)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        kind, version, _ = self._found(connection)
        if kind != self.schema.application_id:
            raise InvalidError(f"{self.path} is not a {self.schema.what}", hint="the file was moved or replaced")
        if version != self.schema.version:
            raise InvalidError(
                f"{self.path} has schema {version}, this program knows {self.schema.version}",
                hint="a newer fungistor wrote it: update this one",
            )

    def _is_to_lay_out(self, connection: sqlite3.Connection) -> bool:
        found = self._found(connection)
        if found == (0, 0, 0):
            return True
        kind, version, _ = found
        return self.schema.is_rebuilt and kind == self.schema.application_id and version < self.schema.version

    def _lay_out(self, connection: sqlite3.Connection) -> None:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        for statement in self.schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={self.schema.application_id}")
        connection.execute(f"PRAGMA user_version={self.schema.version}")

    @staticmethod
    def _found(connection: sqlite3.Connection) -> tuple[int, int, int]:
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        return int(kind), int(version), int(tables)

    def _raise(self, error: sqlite3.Error) -> NoReturn:
        code = getattr(error, "sqlite_errorcode", 0)
        if _is_busy(error):
            raise UnavailableError(
                f"{self.path} is locked by another process for {self._busy_timeout_s:g} s", retry_after_s=1
            ) from error
        if code & 0xFF in _TORN_CODES or code == sqlite3.SQLITE_IOERR_CORRUPTFS or _lacks_table(error):
            raise CorruptError(f"{self.path} is damaged: {error}", hint=self.schema.remedy) from error
        if code & 0xFF in _MACHINE_CODES:
            raise FailedError(f"{self.path}: {error}", hint="free some space or mend the disk's rights") from error
        raise error


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _roll_back(connection: sqlite3.Connection) -> None:
    # A failed statement may have ended the transaction already; the first error is the one to tell.
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _lacks_table(error: sqlite3.Error) -> bool:
    # A page of zeros over the schema reads as a database without our tables.
    return str(error).startswith("no such table")


_TORN_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_MACHINE_CODES = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_PROTOCOL,
}

_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited_handles: list[_Handle] = []


def _before_fork() -> None:
    for database in list(_databases):
        database.before_fork()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
