"""The rows of a state that several effects touch."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from fungistor.catalog.commands import decode_command
from fungistor.catalog.fields import encode_array
from fungistor.catalog.layouts import PlacePool, SetLayout
from fungistor.catalog.log import Position
from fungistor.catalog.record import Record, decode_record, record_fields
from fungistor.catalog.tenant_usage import Ledger
from fungistor.catalog.tenants import Tenant
from fungistor.ids import LayoutNumber, ObjectId, Revision, TenantNumber

IDS_ASKED = 1000
"""By one query: a batch of small objects, and far from the 32,766 values that SQLite takes."""


@dataclass(slots=True)
class Counters:
    """The row `progress` while a transaction changes it, and what else is counted meanwhile."""

    position: Position
    applied: int
    revision: int
    objects: int
    highest_member: int
    stopped: str | None
    retired: Revision
    """Up to which all shards had been moved when layouts were last retired."""
    condemned: Revision
    """Of the newest condemnation."""
    ledger: Ledger = field(default_factory=Ledger)
    tenants: dict[TenantNumber, Tenant] = field(default_factory=dict)
    """Those that were looked at, until one of them changes."""
    absent: set[ObjectId] = field(default_factory=set)
    """Objects that are known to have no record, until they are put one."""
    new: list[tuple[object, ...]] = field(default_factory=list)
    """The records that those were put, until `save_new` makes them rows at once."""


def note_absent(connection: sqlite3.Connection, counters: Counters, object_ids: Sequence[ObjectId]) -> None:
    """Find out which objects have no record: SQLite asks for many in the order of their ids, in half the time."""
    counters.absent = set(object_ids)
    for first in range(0, len(object_ids), IDS_ASKED):
        asked = object_ids[first : first + IDS_ASKED]
        query = f"SELECT object_id FROM record WHERE object_id IN ({', '.join('?' * len(asked))})"  # noqa: S608 - marks
        counters.absent.difference_update(object_id for (object_id,) in connection.execute(query, asked))


def record_in(connection: sqlite3.Connection, object_id: ObjectId) -> Record | None:
    """The record of an object."""
    row = connection.execute("SELECT body FROM record WHERE object_id = ?", (object_id,)).fetchone()
    return decode_record(row[0]) if row else None


def began_of(connection: sqlite3.Connection, object_id: ObjectId) -> Revision:
    """When the publisher of the manifest that stands began."""
    row = connection.execute("SELECT began FROM record WHERE object_id = ?", (object_id,)).fetchone()
    return Revision(row[0] if row else 0)


def changed_at(connection: sqlite3.Connection, object_id: ObjectId) -> Revision:
    """The revision of an object's last change."""
    row = connection.execute("SELECT revision FROM record WHERE object_id = ?", (object_id,)).fetchone()
    return Revision(row[0] if row else 0)


def put_record(
    connection: sqlite3.Connection, counters: Counters, before: Record | None, record: Record, began: Revision
) -> None:
    """Let a record stand in place of the one `before`, as a revision of its own. `began`: when the publisher of its
    manifest did. Its fields are of commands that were read, so their bounds need no second look."""
    counters.revision += 1
    row = (counters.revision, record.object_id, encode_array(record_fields(record)), began)
    if record.object_id in counters.absent:
        counters.absent.remove(record.object_id)
        counters.new.append(row)
    else:
        connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", row)
    if before is not None and before.owed:
        connection.execute("DELETE FROM owed WHERE object_id = ?", (record.object_id,))
    if record.owed:
        connection.executemany(
            "INSERT INTO owed VALUES (?, ?, ?)", [(record.object_id, member, shards) for member, shards in record.owed]
        )


def save_new(connection: sqlite3.Connection, counters: Counters) -> None:
    """Write down the new records: before anything but the publish of an absent object, which asks for none."""
    if counters.new:
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", counters.new)
        counters.new.clear()


def layout_in(connection: sqlite3.Connection, number: LayoutNumber | None) -> SetLayout | None:
    """A layout by its number, or the newest."""
    if number is None:
        row = connection.execute("SELECT command FROM layout ORDER BY number DESC LIMIT 1").fetchone()
    else:
        row = connection.execute("SELECT command FROM layout WHERE number = ?", (number,)).fetchone()
    return as_layout(row[0]) if row else None


def as_layout(payload: bytes) -> SetLayout:
    """The layout in the bytes of its command."""
    return as_pool(payload).layout


def as_pool(payload: bytes) -> PlacePool:
    """The layout in the bytes of its command, with the tables that came with it."""
    body = decode_command(payload).body
    if isinstance(body, PlacePool):
        return body
    assert isinstance(body, SetLayout)
    return PlacePool(body, ())
