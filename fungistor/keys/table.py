"""The key table: object keys wrapped by their tenant's key, tenant keys wrapped by the root key.

It lies beside the catalog's log and never in it, so that dropping a key here shreds what it opened. One SQLite
file, for several processes. A commit is on the disk when it returns; a deleted key is overwritten in its page,
and swept out of the write-ahead log as well.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from fungistor.errors import CorruptError, FailedError, InvalidError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import WRAPPED_KEY_BYTES
from fungistor.keys.store import KeyChange, KeyRow

TABLE_VERSION: Final = 0
BUSY_TIMEOUT_S: Final = 10.0
"""Half of what a command may take in all."""

_APPLICATION_ID = 0x4653_6B74  # "FSkt"
_USER_VERSION = TABLE_VERSION + 1  # 0 is what SQLite gives a file that nobody has laid out yet
_LAYOUT = (
    """CREATE TABLE object_keys
       (object_id BLOB PRIMARY KEY, tenant INTEGER NOT NULL, wrapped BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE tenant_keys (tenant INTEGER PRIMARY KEY, wrapped BLOB NOT NULL)",
)
_SWITCH_RETRY_S = 0.01
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_TORN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_T = TypeVar("_T")


class KeyTable:
    """A key table at a path, made when first used. Thread-safe.

    Errors of every method: UnavailableError while another process holds it for longer than the timeout,
    CorruptError when the file is torn, FailedError when this machine refuses, InvalidError for another kind of file.
    """

    def __init__(self, path: str, *, sync: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """`sync` False waits for no disk: for trials and benchmarks only."""
        self._path = path
        self._synchronous = "FULL" if sync else "OFF"
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with _tables_lock:
            _tables.add(self)

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep an object's wrapped key durably unless there is one; give the one that is kept."""
        insert = "INSERT INTO object_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        _check_wrapped(wrapped)
        return self._write(lambda sql: _keep(sql, insert, (object_id, tenant, wrapped), _GET, (object_id,)))

    def put_all(self, rows: Sequence[KeyRow]) -> None:
        """Keep many objects' wrapped keys, in one transaction."""
        for _, _, wrapped in rows:
            _check_wrapped(wrapped)
        self._write(
            lambda sql: sql.executemany("INSERT INTO object_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
        )

    def get(self, object_id: ObjectId) -> bytes | None:
        """An object's wrapped key."""
        return self._use(lambda sql: _one(sql, _GET, (object_id,)))

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        """Drop objects' keys and give how many there were.

        Their bytes are gone from the file when `sweep` has returned True, which this tries once.
        """
        rows = [(object_id,) for object_id in object_ids]

        def drop(sql: sqlite3.Connection) -> int:
            return sql.executemany("DELETE FROM object_keys WHERE object_id = ?", rows).rowcount if rows else 0

        dropped = self._write(drop)
        if dropped:
            self.sweep()
        return dropped

    def sweep(self) -> bool:
        """Cut off the write-ahead log, where deleted keys may still be read. False while another reader needs it."""

        def checkpoint(sql: sqlite3.Connection) -> bool:
            busy, _, _ = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

        return self._use(checkpoint)

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped key durably unless there is one; give the one that is kept."""
        insert = "INSERT INTO tenant_keys VALUES (?, ?) ON CONFLICT DO NOTHING"
        _check_wrapped(wrapped)
        return self._write(lambda sql: _keep(sql, insert, (tenant, wrapped), _GET_TENANT, (tenant,)))

    def replace(self, rows: Sequence[KeyRow]) -> None:
        """Keep keys durably, all in one transaction, in place of those that are there; a dropped one stays so."""
        for _, _, wrapped in rows:
            _check_wrapped(wrapped)
        update = "UPDATE object_keys SET tenant = ?, wrapped = ? WHERE object_id = ?"
        changes = [(tenant, wrapped, object_id) for object_id, tenant, wrapped in rows]
        self._write(lambda sql: sql.executemany(update, changes))

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        """Keep a tenant's wrapped key durably in place of the one that is there."""
        _check_wrapped(wrapped)
        self._write(lambda sql: sql.execute("INSERT OR REPLACE INTO tenant_keys VALUES (?, ?)", (tenant, wrapped)))

    def get_tenant(self, tenant: TenantNumber) -> bytes | None:
        """A tenant's wrapped key."""
        return self._use(lambda sql: _one(sql, _GET_TENANT, (tenant,)))

    def tenants(self) -> list[TenantNumber]:
        """The tenants that have a key, rising."""
        query = "SELECT tenant FROM tenant_keys ORDER BY tenant"
        return self._use(lambda sql: [TenantNumber(row[0]) for row in sql.execute(query)])

    def tenant_rows(self) -> list[tuple[TenantNumber, bytes]]:
        """The tenants' wrapped keys, by rising tenant."""
        query = "SELECT tenant, wrapped FROM tenant_keys ORDER BY tenant"
        return self._use(lambda sql: [(TenantNumber(row[0]), bytes(row[1])) for row in sql.execute(query)])

    def objects(self) -> list[ObjectId]:
        """The objects that have a key, in the order of their ids."""
        query = "SELECT object_id FROM object_keys ORDER BY object_id"
        return self._use(lambda sql: [ObjectId(row[0]) for row in sql.execute(query)])

    def counts(self) -> dict[TenantNumber, int]:
        """How many keys each tenant's key wraps: those of objects and of names."""
        query = "SELECT tenant, count(*) FROM object_keys GROUP BY tenant"
        return self._use(lambda sql: {TenantNumber(row[0]): row[1] for row in sql.execute(query)})

    # --- as the mirror of a table elsewhere

    def follow(self) -> None:
        """Nobody else puts or drops keys of a table that is this home's alone."""

    def rows(self, after: ObjectId, count: int) -> list[KeyRow]:
        """Objects' keys in the order of their ids, so many of them."""
        query = "SELECT object_id, tenant, wrapped FROM object_keys WHERE object_id > ? ORDER BY object_id LIMIT ?"
        return self._use(
            lambda sql: [(ObjectId(r[0]), TenantNumber(r[1]), r[2]) for r in sql.execute(query, (after, count))]
        )

    def followed(self) -> tuple[bytes, int] | None:
        """The network whose shared table this one mirrors, and how far; None where it mirrors none."""

        def find(sql: sqlite3.Connection) -> tuple[bytes, int] | None:
            if not sql.execute("SELECT 1 FROM sqlite_schema WHERE name = 'followed'").fetchone():
                return None
            row = sql.execute("SELECT network, position FROM followed").fetchone()
            return None if row is None else (bytes(row[0]), int(row[1]))

        return self._use(find)

    def begin_following(self, network: bytes) -> None:
        """Mirror a network's shared table from its beginning, unless one is mirrored already."""

        def begin(sql: sqlite3.Connection) -> None:
            sql.execute("CREATE TABLE IF NOT EXISTS followed (network BLOB NOT NULL, position INTEGER NOT NULL)")
            sql.execute("INSERT INTO followed SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM followed)", (network,))

        self._write(begin)

    def pages_of(self, object_ids: Iterable[ObjectId]) -> dict[ObjectId, bytes]:
        """In which pages of the shared table keys are that have one."""
        query = "SELECT page FROM paged WHERE object_id = ?"

        def find(sql: sqlite3.Connection) -> dict[ObjectId, bytes]:
            if not _has_pages(sql):
                return {}
            found = {object_id: _one(sql, query, (object_id,)) for object_id in object_ids}
            return {object_id: page for object_id, page in found.items() if page is not None}

        return self._use(find)

    def absent(self, rows: Sequence[KeyRow]) -> list[KeyRow]:
        """Those of some keys whose object has none here."""
        return self._use(lambda sql: [row for row in rows if _one(sql, _GET, (row[0],)) is None])

    def follow_to(self, network: bytes, before: int, after: int, changes: Iterable[KeyChange]) -> bool:
        """Take up the changes between two positions of a network's shared table; False if this is not at the first."""

        def take(sql: sqlite3.Connection) -> bool:
            moved = sql.execute(
                "UPDATE followed SET position = ? WHERE network = ? AND position = ?", (after, network, before)
            )
            if not moved.rowcount:
                return False
            for dropped, run in itertools.groupby(changes, lambda change: change[2] is None):
                take_run = _drop_rows if dropped else _take_rows
                take_run(sql, list(run))
            return True

        return self._write(take)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            self._drop()

    def before_fork(self) -> None:
        """Hold the table still, closed: SQLite forbids a connection, and its locks, to cross a fork."""
        self._lock.acquire()
        self._drop()

    def after_fork(self) -> None:
        """Let it be used again, in parent and child alike."""
        self._lock.release()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `change` in one transaction, durable when this returns."""

        def transact(sql: sqlite3.Connection) -> _T:
            with _transaction(sql, "BEGIN IMMEDIATE"):
                return change(sql)

        return self._use(transact)

    def _use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return work(self._connection)
            except sqlite3.Error as error:
                raise self._mapped(error) from error

    def _open(self) -> sqlite3.Connection:
        try:
            with suppress(FileExistsError):
                # SQLite would make it by the umask; its log and shared memory take this file's mode. O_EXCL, as
                # closing a descriptor of a file that SQLite has open would drop SQLite's locks on it.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise FailedError(f"the key table {self._path} cannot be made: {error.strerror}") from error
        sql = sqlite3.connect(self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            sql.execute("PRAGMA secure_delete=ON")
            sql.execute(f"PRAGMA synchronous={self._synchronous}")
            with _transaction(sql, "BEGIN"):
                laid_out = self._is_laid_out(sql)
            if not laid_out:
                # The switch first, as within the transaction it would be refused.
                self._switch_to_wal(sql)
                with _transaction(sql, "BEGIN IMMEDIATE"):
                    self._lay_out(sql)
        except BaseException:
            sql.close()
            raise
        return sql

    def _switch_to_wal(self, sql: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            # The switch needs the whole file, and does not wait for it by SQLite's own timeout.
            try:
                sql.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _PASSING or time.monotonic() > deadline:
                    raise
                time.sleep(_SWITCH_RETRY_S)

    def _is_laid_out(self, sql: sqlite3.Connection) -> bool:
        application, version = (
            sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, version) == (_APPLICATION_ID, _USER_VERSION):
            return True
        if (application, version) != (0, 0) or sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise InvalidError(
                f"{self._path} is not a key table of version {TABLE_VERSION}",
                hint="a newer fungistor may have written it: update this one",
            )
        return False

    def _lay_out(self, sql: sqlite3.Connection) -> None:
        # Of two first users one makes it, the other finds it made.
        if not self._is_laid_out(sql):
            for statement in _LAYOUT:
                sql.execute(statement)
            sql.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            sql.execute(f"PRAGMA user_version={_USER_VERSION}")

    def _mapped(self, error: sqlite3.Error) -> CorruptError | FailedError | UnavailableError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _PASSING:
            return UnavailableError(f"the key table {self._path} is in use for longer than {self._busy_timeout_s:g} s")
        if code in _TORN:
            return CorruptError(
                f"the key table {self._path} is torn: {error}",
                hint="restore it from a backup: objects without it are lost",
            )
        return FailedError(f"the key table {self._path} cannot be used: {error}")


_PAGES = "CREATE TABLE IF NOT EXISTS paged (object_id BLOB PRIMARY KEY, page BLOB NOT NULL) WITHOUT ROWID"
_GET = "SELECT wrapped FROM object_keys WHERE object_id = ?"
_GET_TENANT = "SELECT wrapped FROM tenant_keys WHERE tenant = ?"


@contextmanager
def _transaction(sql: sqlite3.Connection, begin: str) -> Iterator[None]:
    sql.execute(begin)
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        # A failed commit may have ended the transaction by itself: the first error is the one to tell.
        with suppress(sqlite3.Error):
            sql.execute("ROLLBACK")
        raise


def _one(sql: sqlite3.Connection, query: str, arguments: tuple[object, ...]) -> bytes | None:
    row = sql.execute(query, arguments).fetchone()
    return None if row is None else bytes(row[0])


def _has_pages(sql: sqlite3.Connection) -> bool:
    return bool(sql.execute("SELECT 1 FROM sqlite_schema WHERE name = 'paged'").fetchone())


def _take_rows(sql: sqlite3.Connection, changes: Sequence[KeyChange]) -> None:
    rows = [(object_id, tenant, wrapped) for object_id, tenant, wrapped, _ in changes]
    for _, _, wrapped in rows:
        assert wrapped is not None
        _check_wrapped(wrapped)
    sql.executemany("INSERT OR REPLACE INTO object_keys VALUES (?, ?, ?)", rows)
    pages = [(object_id, page) for object_id, _, _, page in changes if page is not None]
    if pages:
        sql.execute(_PAGES)
        sql.executemany("INSERT OR REPLACE INTO paged VALUES (?, ?)", pages)


def _drop_rows(sql: sqlite3.Connection, changes: Sequence[KeyChange]) -> None:
    ids = [change[:1] for change in changes]
    sql.executemany("DELETE FROM object_keys WHERE object_id = ?", ids)
    if _has_pages(sql):
        sql.executemany("DELETE FROM paged WHERE object_id = ?", ids)


def _keep(
    sql: sqlite3.Connection, insert: str, row: tuple[object, ...], query: str, arguments: tuple[object, ...]
) -> bytes:
    sql.execute(insert, row)
    kept = _one(sql, query, arguments)
    assert kept is not None
    return kept


def _check_wrapped(wrapped: bytes) -> None:
    # A key that is not wrapped would be 32 bytes: it must never get here.
    if len(wrapped) != WRAPPED_KEY_BYTES:
        raise ValueError(f"a wrapped key has {WRAPPED_KEY_BYTES} bytes, not {len(wrapped)}")


_tables: weakref.WeakSet[KeyTable] = weakref.WeakSet()
_tables_lock = threading.Lock()
_still: list[KeyTable] = []


def _before_fork() -> None:
    _tables_lock.acquire()
    _still.extend(_tables)
    for table in _still:
        table.before_fork()


def _after_fork() -> None:
    for table in _still:
        table.after_fork()
    _still.clear()
    _tables_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
