"""What the commands of `fungistor.catalog.removal` do to the rows of a state.

A manifest that no record names any more is *retired*: its row says where its stripe list lies, until a collection has
swept what it alone used. A session that ended with leftovers stays for the same reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fungistor.catalog.commands import NO_REVISION, Body, Command, Publish
from fungistor.catalog.record import Record, decode_record, encode_record
from fungistor.catalog.removal import (
    Collect,
    EndSession,
    Expire,
    Keep,
    KeepObject,
    OpenSession,
    Repack,
    Unpublish,
)
from fungistor.catalog.rows import Counters, began_of, put_record, record_in
from fungistor.catalog.rules import Decision, Verdict, refuse
from fungistor.ids import ObjectId, Revision

EXPIRED_MAX = 1000
"""So many objects, windows and sessions end by one command: what is left is due still."""

SESSION_OPEN, SESSION_ENDED = 0, 1

TABLES = (
    """CREATE TABLE session (
        id BLOB PRIMARY KEY,
        secret BLOB NOT NULL,
        drawn_max INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        since INTEGER NOT NULL,
        condemned INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE retired_manifest (
        manifest_id BLOB PRIMARY KEY,
        object_id BLOB NOT NULL,
        body BLOB NOT NULL,
        revision INTEGER NOT NULL,
        since INTEGER NOT NULL,
        condemned INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX retired_manifest_by_revision ON retired_manifest (revision)",
    """CREATE TABLE undelete (
        manifest_id BLOB PRIMARY KEY,
        object_id BLOB NOT NULL,
        body BLOB NOT NULL,
        revision INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE kept (object_id BLOB PRIMARY KEY, pinned INTEGER NOT NULL, locked INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE expiry (object_id BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX expiry_by_time ON expiry (expires)",
    "CREATE TABLE condemned (revision INTEGER NOT NULL)",
    "INSERT INTO condemned VALUES (0)",
)

FINGERPRINTED = (
    "SELECT id, secret, drawn_max, expires, lost, ended, since, condemned FROM session ORDER BY id",
    "SELECT manifest_id, object_id, body, revision, since, condemned FROM retired_manifest ORDER BY manifest_id",
    "SELECT manifest_id, object_id, body, revision, until FROM undelete ORDER BY manifest_id",
    "SELECT object_id, pinned, locked FROM kept ORDER BY object_id",
    "SELECT object_id, expires FROM expiry ORDER BY object_id",
    "SELECT revision FROM condemned",
)

APPLIED = Decision(Verdict.APPLIED, effect=True)
UNCHANGED = Decision(Verdict.UNCHANGED)
NO_REVISION_MADE = Decision(Verdict.APPLIED)
"""Of sessions: no reader's answer changes by them."""


# --- publishing, as far as it concerns what was taken away


def check_publisher(
    connection: sqlite3.Connection, counters: Counters, command: Command, body: Publish
) -> Decision | None:
    """Refuse who may rely on what is gone: a session that is not open, blocks that were condemned since it began."""
    if body.began == 0:
        return None  # it says nothing of members
    row = connection.execute("SELECT ended FROM session WHERE id = ?", (command.session,)).fetchone()
    if row is not None and row[0] == SESSION_ENDED:
        return refuse("the publish session has ended: what it stored may have been collected")
    # Only while its session stands may a publisher look again: what a forgotten one stored may be gone.
    seen = body.began if row is None or body.reused_at is None else body.reused_at
    if counters.condemned > seen:
        return refuse("blocks that this publish relies on may have been condemned since it began")
    return None


def note_publish(
    connection: sqlite3.Connection, counters: Counters, command: Command, before: Record | None, decision: Decision
) -> None:
    """Retire the manifest that a publish replaced, and remember when the object expires and what was stored in vain."""
    after = decision.record
    assert isinstance(command.body, Publish)
    if decision.verdict in (Verdict.MERGED, Verdict.REFUSED, Verdict.DENIED):
        connection.execute("UPDATE session SET lost = 1 WHERE id = ?", (command.session,))
    if not decision.effect or after is None:
        return
    if before is not None and before.manifest_id != after.manifest_id:
        _retire(connection, counters, before, command.body.record.published)
    _note_expiry(connection, before, after)


def _note_expiry(connection: sqlite3.Connection, before: Record | None, record: Record) -> None:
    if before is not None and before.expires is not None:
        connection.execute("DELETE FROM expiry WHERE object_id = ?", (record.object_id,))
    if record.expires is not None:
        connection.execute("INSERT INTO expiry VALUES (?, ?)", (record.object_id, record.expires))


def _retire(connection: sqlite3.Connection, counters: Counters, record: Record, at: int) -> None:
    row = (record.manifest_id, record.object_id, encode_record(replace(record, owed=())), counters.revision, at)
    connection.execute("INSERT OR REPLACE INTO retired_manifest VALUES (?, ?, ?, ?, ?, 0)", row)


# --- unpublishing


def _unpublish(connection: sqlite3.Connection, counters: Counters, _: Command, body: Unpublish) -> Decision:
    current = record_in(connection, body.object_id)
    if current is None:
        return _close_windows(connection, counters, body)
    if current.manifest_id != body.manifest_id:
        return refuse("the object was published anew since it was looked at")
    pinned, locked = _kept(connection, body.object_id)
    if locked > body.at:
        return Decision(Verdict.DENIED, reason=f"the object is locked until {locked} (Unix seconds); nobody lifts that")
    if pinned:
        return refuse("the object is pinned: `fungistor pin remove` it first")
    _take_back(connection, counters, current, body.at, body.until)
    return APPLIED


def _take_back(connection: sqlite3.Connection, counters: Counters, record: Record, at: int, until: int | None) -> None:
    counters.revision += 1
    counters.objects -= 1
    connection.execute("DELETE FROM record WHERE object_id = ?", (record.object_id,))
    connection.execute("DELETE FROM owed WHERE object_id = ?", (record.object_id,))
    connection.execute("DELETE FROM expiry WHERE object_id = ?", (record.object_id,))
    connection.execute("DELETE FROM kept WHERE object_id = ?", (record.object_id,))
    if until is None or until <= at:
        counters.ledger.remove(connection, record)
        _retire(connection, counters, record, at)
        return
    if connection.execute("SELECT 1 FROM undelete WHERE manifest_id = ?", (record.manifest_id,)).fetchone():
        counters.ledger.remove(connection, record)  # of what is there twice, one row is left
    row = (record.manifest_id, record.object_id, encode_record(record), counters.revision, until)
    connection.execute("INSERT OR REPLACE INTO undelete VALUES (?, ?, ?, ?, ?)", row)


def _close_windows(connection: sqlite3.Connection, counters: Counters, body: Unpublish) -> Decision:
    """Unpublish what could still be brought back: now it cannot."""
    if body.until is not None:
        return refuse("the object is not published")
    rows = connection.execute(
        "SELECT manifest_id, body FROM undelete WHERE object_id = ?", (body.object_id,)
    ).fetchall()
    if not rows:
        return refuse("the object is not published")
    counters.revision += 1
    for manifest_id, record in rows:
        _close_window(connection, counters, manifest_id, decode_record(record), body.at)
    return APPLIED


def _close_window(
    connection: sqlite3.Connection, counters: Counters, manifest_id: bytes, record: Record, at: int
) -> None:
    connection.execute("DELETE FROM undelete WHERE manifest_id = ?", (manifest_id,))
    counters.ledger.remove(connection, record)
    _retire(connection, counters, record, at)


# --- keeping


def _kept(connection: sqlite3.Connection, object_id: ObjectId) -> tuple[int, int]:
    row = connection.execute("SELECT pinned, locked FROM kept WHERE object_id = ?", (object_id,)).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _keep(connection: sqlite3.Connection, counters: Counters, _: Command, body: KeepObject) -> Decision:
    if body.what is Keep.UNDO:
        return _undo(connection, counters, body)
    if record_in(connection, body.object_id) is None:
        return refuse("the object is not published")
    before = _kept(connection, body.object_id)
    pinned, locked = before
    if body.what is Keep.LOCK:
        assert body.until is not None
        if body.until < locked:
            return Decision(Verdict.DENIED, reason=f"the object is locked until {locked} (Unix seconds) already")
        locked = body.until
    else:
        pinned = int(body.what is Keep.PIN)
    if (pinned, locked) == before:
        return UNCHANGED
    counters.revision += 1
    connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (body.object_id, pinned, locked))
    return APPLIED


def _undo(connection: sqlite3.Connection, counters: Counters, body: KeepObject) -> Decision:
    if record_in(connection, body.object_id) is not None:
        return refuse("the object is published")
    row = connection.execute(
        "SELECT manifest_id, body FROM undelete WHERE object_id = ? AND until > ? ORDER BY revision DESC LIMIT 1",
        (body.object_id, body.at),
    ).fetchone()
    if row is None:
        return refuse("there is nothing to bring back: no undelete window of this object is open")
    record = decode_record(row[1])
    connection.execute("DELETE FROM undelete WHERE manifest_id = ?", (row[0],))
    counters.objects += 1
    # Where its shards lie was looked after by nobody meanwhile.
    put_record(connection, counters, None, record, NO_REVISION)
    _note_expiry(connection, None, record)
    return APPLIED


# --- sessions


def _open_session(connection: sqlite3.Connection, _: Counters, command: Command, body: OpenSession) -> Decision:
    row = connection.execute(
        "SELECT secret, drawn_max, expires, ended, lost FROM session WHERE id = ?", (command.session,)
    ).fetchone()
    if row is not None and (row[0] != body.secret or row[3] != SESSION_OPEN):
        return refuse("the publish session has ended")
    drawn_max, expires = (max(row[1], body.limit), max(row[2], body.expires)) if row else (body.limit, body.expires)
    connection.execute(
        "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
        (command.session, body.secret, drawn_max, expires, row[4] if row else 0, SESSION_OPEN),
    )
    return NO_REVISION_MADE


def _end_session(connection: sqlite3.Connection, _: Counters, command: Command, body: EndSession) -> Decision:
    row = connection.execute("SELECT lost FROM session WHERE id = ? AND ended = 0", (command.session,)).fetchone()
    if row is None:
        return UNCHANGED
    if body.leftovers or row[0]:
        _end(connection, command.session, body.at)
    else:
        connection.execute("DELETE FROM session WHERE id = ?", (command.session,))
    return NO_REVISION_MADE


def _end(connection: sqlite3.Connection, session: bytes, at: int) -> None:
    connection.execute("UPDATE session SET ended = ?, since = ? WHERE id = ?", (SESSION_ENDED, at, session))


# --- time


OVERDUE = """SELECT e.object_id FROM expiry e LEFT JOIN kept k ON k.object_id = e.object_id
    WHERE e.expires <= ?1 AND coalesce(k.pinned, 0) = 0 AND coalesce(k.locked, 0) <= ?1
    ORDER BY e.expires, e.object_id LIMIT ?2"""
WINDOWS_OVER = "SELECT manifest_id, body FROM undelete WHERE until <= ? ORDER BY until, manifest_id LIMIT ?"
SESSIONS_OVER = "SELECT id FROM session WHERE ended = 0 AND expires <= ? ORDER BY id LIMIT ?"


def _expire(connection: sqlite3.Connection, counters: Counters, _: Command, body: Expire) -> Decision:
    before = counters.revision
    for (object_id,) in connection.execute(OVERDUE, (body.at, EXPIRED_MAX)).fetchall():
        record = record_in(connection, object_id)
        assert record is not None
        _take_back(connection, counters, record, body.at, None)
    for manifest_id, record_bytes in connection.execute(WINDOWS_OVER, (body.at, EXPIRED_MAX)).fetchall():
        counters.revision += 1
        _close_window(connection, counters, manifest_id, decode_record(record_bytes), body.at)
    for (session,) in connection.execute(SESSIONS_OVER, (body.at, EXPIRED_MAX)).fetchall():
        _end(connection, session, body.at)
    return Decision(Verdict.APPLIED, effect=counters.revision > before)


# --- collecting


def _collect(connection: sqlite3.Connection, counters: Counters, _: Command, body: Collect) -> Decision:
    changed = 0
    for table, column in (("retired_manifest", "manifest_id"), ("session", "id")):
        delete = f"DELETE FROM {table} WHERE {column} = ? AND condemned = 1"  # noqa: S608 - our own words
        changed += sum(connection.execute(delete, (gone,)).rowcount for gone in body.swept)
    if body.before is not None:
        condemned = connection.execute(
            "UPDATE retired_manifest SET condemned = 1 WHERE since <= ? AND condemned = 0", (body.before,)
        ).rowcount
        condemned += connection.execute(
            "UPDATE session SET condemned = 1 WHERE ended = 1 AND since <= ? AND condemned = 0", (body.before,)
        ).rowcount
        if condemned:
            counters.condemned = Revision(counters.revision + 1)
            connection.execute("UPDATE condemned SET revision = ?", (counters.condemned,))
        changed += condemned
    if not changed:
        return UNCHANGED
    counters.revision += 1
    return APPLIED


def _repack(connection: sqlite3.Connection, counters: Counters, _: Command, body: Repack) -> Decision:
    current = record_in(connection, body.object_id)
    if current is None or current.manifest_id != body.against:
        return refuse("the object was unpublished or published anew since it was looked at")
    if counters.retired > body.began:
        return refuse("a layout of the pool was retired since this was packed")
    packed = replace(
        current,
        manifest=body.manifest,
        list_key=body.list_key,
        sizes=replace(current.sizes, stored=body.stored),
        owed=body.owed,
    )
    if packed.manifest_id == current.manifest_id:
        return UNCHANGED
    counters.ledger.replace(connection, current, packed)
    put_record(connection, counters, current, packed, min(body.began, began_of(connection, body.object_id)))
    _retire(connection, counters, current, body.at)
    return APPLIED


EFFECTS: Mapping[type[Body], Callable[[sqlite3.Connection, Counters, Command, Any], Decision]] = {
    Unpublish: _unpublish,
    KeepObject: _keep,
    OpenSession: _open_session,
    EndSession: _end_session,
    Expire: _expire,
    Collect: _collect,
    Repack: _repack,
}
