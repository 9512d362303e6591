"""What each command does to the rows of a state: decided by `fungistor.catalog.rules`, carried out here.

A new kind of command brings its tables to `TABLES`, a query over all of their rows to `FINGERPRINTED`, and its effect
to `_EFFECTS`. Effects are functions of the rows and the command alone: no clock, no float, no locale.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from fungistor.catalog import authority, policy_rows, removal_effects, snapshot_rows, tenant_rows
from fungistor.catalog.commands import (
    NO_REVISION,
    Body,
    Command,
    PayOwed,
    Publish,
    RetireLayouts,
)
from fungistor.catalog.digest import digest_in, settle
from fungistor.catalog.issuers import ChangeAuthority, RegisterIssuer, Report, RevokeIssuer
from fungistor.catalog.name_rows import NAME_TABLES, NAMES_FINGERPRINTED, remove_name, set_name
from fungistor.catalog.names import RemoveName, SetName
from fungistor.catalog.record import Record
from fungistor.catalog.rows import Counters, began_of, changed_at, put_record, record_in
from fungistor.catalog.rules import Decision, decide_payment, decide_publish, decide_retirement, refuse
from fungistor.catalog.snapshots import Snapshot
from fungistor.ids import Revision

TABLES = (
    # In the order of revisions, so that new records lie next to each other; only their ids are sorted in.
    """CREATE TABLE record (
        revision INTEGER PRIMARY KEY,
        object_id BLOB NOT NULL UNIQUE,
        body BLOB NOT NULL,
        began INTEGER NOT NULL
    )""",
    """CREATE TABLE owed (
        object_id BLOB,
        member INTEGER,
        shards INTEGER NOT NULL,
        PRIMARY KEY (object_id, member)
    ) WITHOUT ROWID""",
    """CREATE TABLE layout (
        number INTEGER PRIMARY KEY,
        command BLOB NOT NULL,
        is_live INTEGER NOT NULL,
        retired_at INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE TABLE retired (seen INTEGER NOT NULL)",
    "INSERT INTO retired VALUES (0)",
    *authority.TABLES,
    *snapshot_rows.TABLES,
    *NAME_TABLES,
    *removal_effects.TABLES,
    *tenant_rows.TABLES,
    *policy_rows.TABLES,
)

FINGERPRINTED = (
    "SELECT object_id, body, began FROM record ORDER BY object_id",
    "SELECT object_id, member, shards FROM owed ORDER BY object_id, member",
    "SELECT number, command, is_live, retired_at FROM layout ORDER BY number",
    "SELECT seen FROM retired",
    *authority.FINGERPRINTED,
    *snapshot_rows.FINGERPRINTED,
    *NAMES_FINGERPRINTED,
    *removal_effects.FINGERPRINTED,
    *tenant_rows.FINGERPRINTED,
    *policy_rows.FINGERPRINTED,
)


def carry_out(connection: sqlite3.Connection, counters: Counters, command: Command) -> Decision:
    """Decide a command against the rows it meets, and change them. A change is a revision."""
    return _EFFECTS[type(command.body)](connection, counters, command, command.body)


def _publish(connection: sqlite3.Connection, counters: Counters, command: Command, body: Publish) -> Decision:
    identity = body.record.object_id
    current = None if identity in counters.absent else record_in(connection, identity)
    is_private = current is not None and current.private
    changed = changed_at(connection, identity) if is_private else NO_REVISION
    decision = removal_effects.check_publisher(connection, counters, command, body)
    decision = decision or _check_policy(connection, current, body)
    decision = decision or decide_publish(current, body, counters.retired, changed)
    decision = tenant_rows.check_room(connection, counters, current, decision)
    if decision.effect and current is None:
        counters.objects += 1
    if decision.effect and decision.record is not None:
        counters.ledger.replace(connection, current, decision.record)
    began = body.began
    if current is not None and decision.record is not None and decision.record.manifest_id == current.manifest_id:
        began = began_of(connection, current.object_id)
    decision = _keep_record(connection, counters, current, decision, began)
    removal_effects.note_publish(connection, counters, command, current, decision)
    return decision


def _check_policy(connection: sqlite3.Connection, current: Record | None, body: Publish) -> Decision | None:
    """Refuse what was stored by a policy that was removed meanwhile: layouts to come have no table for it."""
    name = body.record.policy
    if (current is not None and current.policy == name) or policy_rows.knows_policy(connection, name):
        return None
    return refuse(f"there is no policy {name} any more")


def _pay_owed(connection: sqlite3.Connection, counters: Counters, _: Command, body: PayOwed) -> Decision:
    current = record_in(connection, body.object_id)
    decision = decide_payment(current, body)
    return _keep_record(connection, counters, current, decision, began_of(connection, body.object_id))


def _retire_layouts(
    connection: sqlite3.Connection, counters: Counters, command: Command, body: RetireLayouts
) -> Decision:
    live = [number for (number,) in connection.execute("SELECT number FROM layout WHERE is_live = 1 ORDER BY number")]
    late = connection.execute("SELECT 1 FROM record WHERE revision > ? AND began < ? LIMIT 1", (body.seen, body.seen))
    # What can still be brought back was not looked after, either.
    late = late.fetchone() or connection.execute("SELECT 1 FROM undelete LIMIT 1").fetchone()
    decision = decide_retirement(live, late is not None, body)
    if decision.effect:
        counters.revision += 1
        connection.execute(
            "UPDATE layout SET is_live = 0, retired_at = ? WHERE number < ? AND is_live = 1",
            (command.when or 0, body.newest),
        )
        connection.execute("UPDATE retired SET seen = max(seen, ?)", (body.seen,))
        counters.retired = max(counters.retired, body.seen)
    return decision


def _register(connection: sqlite3.Connection, counters: Counters, _: Command, body: RegisterIssuer) -> Decision:
    return _counted(counters, authority.register(connection, body))


def _revoke(connection: sqlite3.Connection, counters: Counters, _: Command, body: RevokeIssuer) -> Decision:
    return _counted(counters, authority.revoke(connection, body))


def _change(connection: sqlite3.Connection, counters: Counters, _: Command, body: ChangeAuthority) -> Decision:
    return _counted(counters, authority.change(connection, body))


def _report(connection: sqlite3.Connection, counters: Counters, command: Command, body: Report) -> Decision:
    counters.ledger.save(connection)
    settle(connection)
    return authority.report(connection, command, body, counters.applied, digest_in(connection))


def _snapshot(connection: sqlite3.Connection, _counters: Counters, _: Command, body: Snapshot) -> Decision:
    return snapshot_rows.keep(connection, body)


def _counted(counters: Counters, decision: Decision) -> Decision:
    counters.revision += decision.effect
    return decision


_EFFECTS: dict[type[Body], Callable[[sqlite3.Connection, Counters, Command, Any], Decision]] = {
    Publish: _publish,
    PayOwed: _pay_owed,
    RetireLayouts: _retire_layouts,
    RegisterIssuer: _register,
    RevokeIssuer: _revoke,
    ChangeAuthority: _change,
    Report: _report,
    Snapshot: _snapshot,
    SetName: set_name,
    RemoveName: remove_name,
    **removal_effects.EFFECTS,
    **tenant_rows.EFFECTS,
    **policy_rows.EFFECTS,
}


def _keep_record(
    connection: sqlite3.Connection, counters: Counters, before: Record | None, decision: Decision, began: Revision
) -> Decision:
    if not decision.effect:
        return decision
    assert decision.record is not None
    put_record(connection, counters, before, decision.record, began)
    return decision
