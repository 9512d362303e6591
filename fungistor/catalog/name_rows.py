"""The rows of names in a state: what their commands change, and how they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fungistor.catalog.names import (
    VALUES_KEPT,
    NameRow,
    NameValue,
    RemoveName,
    SetName,
    why_not_removed,
    why_not_set,
)
from fungistor.catalog.rules import Decision, Verdict
from fungistor.catalog.tenant_rows import why_no_tenant
from fungistor.ids import Revision, TenantNumber

if TYPE_CHECKING:  # effects registers what stands here
    from fungistor.catalog.commands import Command
    from fungistor.catalog.rows import Counters

NAME_TABLES = (
    """CREATE TABLE name (
        name_id BLOB PRIMARY KEY,
        tenant INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        key_ref BLOB NOT NULL,
        value_id BLOB NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX name_by_revision ON name (revision)",
    """CREATE TABLE name_value (
        name_id BLOB,
        sequence INTEGER,
        sealed BLOB NOT NULL,
        issuer BLOB NOT NULL,
        at INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        PRIMARY KEY (name_id, sequence)
    ) WITHOUT ROWID""",
)

NAMES_FINGERPRINTED = (
    "SELECT name_id, tenant, sequence, key_ref, value_id FROM name ORDER BY name_id",
    "SELECT name_id, sequence, sealed, issuer, at FROM name_value ORDER BY name_id, sequence",
)

_ROW = "SELECT name_id, tenant, sequence, key_ref, value_id, revision FROM name"
_VALUE = "SELECT sequence, sealed, issuer, at, revision FROM name_value WHERE name_id = ?"


def set_name(connection: sqlite3.Connection, counters: Counters, command: Command, body: SetName) -> Decision:
    """Let a name mean something, under the next sequence."""
    current = name_in(connection, body.name_id)
    if reason := why_not_set(current, body) or why_no_tenant(connection, body.tenant):
        return Decision(Verdict.REFUSED, reason=reason)
    if current is not None and current.stands and current.value_id == body.value_id:
        return Decision(Verdict.UNCHANGED)
    counters.revision += 1
    sequence = 1 + (current.sequence if current is not None else 0)
    connection.execute(
        "INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?, ?, ?)",
        (body.name_id, body.tenant, sequence, body.key_ref, body.value_id, counters.revision),
    )
    connection.execute(
        "INSERT INTO name_value VALUES (?, ?, ?, ?, ?, ?)",
        (body.name_id, sequence, body.sealed, command.issuer, body.at, counters.revision),
    )
    connection.execute(
        "DELETE FROM name_value WHERE name_id = ? AND sequence <= ?", (body.name_id, sequence - VALUES_KEPT)
    )
    return Decision(Verdict.APPLIED, effect=True)


def remove_name(connection: sqlite3.Connection, counters: Counters, _: Command, body: RemoveName) -> Decision:
    """Forget a name's values; its row stays, without a key, so that its sequence never starts again."""
    current = name_in(connection, body.name_id)
    if reason := why_not_removed(current, body):
        return Decision(Verdict.REFUSED, reason=reason)
    if current is None or not current.stands:
        return Decision(Verdict.UNCHANGED)
    counters.revision += 1
    connection.execute(
        "UPDATE name SET key_ref = x'', value_id = x'', revision = ? WHERE name_id = ?",
        (counters.revision, body.name_id),
    )
    connection.execute("DELETE FROM name_value WHERE name_id = ?", (body.name_id,))
    return Decision(Verdict.APPLIED, effect=True)


def name_in(connection: sqlite3.Connection, name_id: bytes) -> NameRow | None:
    """A name as it stands, removed or not."""
    row = connection.execute(f"{_ROW} WHERE name_id = ?", (name_id,)).fetchone()
    return None if row is None else _as_row(row)


def names_in(connection: sqlite3.Connection, after: Revision) -> list[NameRow]:
    """Names that changed after a revision, removed ones among them, in the order of their changes."""
    rows = connection.execute(f"{_ROW} WHERE revision > ? ORDER BY revision", (after,))
    return [_as_row(row) for row in rows]


def name_values_in(connection: sqlite3.Connection, name_id: bytes) -> list[NameValue]:
    """What a name meant, the newest first."""
    return list(_as_values(connection.execute(f"{_VALUE} ORDER BY sequence DESC", (name_id,))))


def name_value_at(connection: sqlite3.Connection, name_id: bytes, revision: Revision) -> NameValue | None:
    """What a name meant at a revision."""
    query = f"{_VALUE} AND revision <= ? ORDER BY sequence DESC LIMIT 1"
    return next(_as_values(connection.execute(query, (name_id, revision))), None)


def _as_row(row: tuple[bytes, int, int, bytes, bytes, int]) -> NameRow:
    name_id, tenant, sequence, key_ref, value_id, revision = row
    return NameRow(name_id, TenantNumber(tenant), sequence, key_ref, value_id, Revision(revision))


def _as_values(rows: sqlite3.Cursor) -> Iterator[NameValue]:
    for sequence, sealed, issuer, at, revision in rows:
        yield NameValue(sequence, sealed, issuer, at, Revision(revision))
