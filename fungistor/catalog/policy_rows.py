"""Rows about named policies, and about layouts with their tables; what commands do to them.

A policy's own row has the table of the layout that was the newest when it came; every later layout brings its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fungistor.catalog.commands import Body, Command, decode_command, encode_command
from fungistor.catalog.layouts import PlacePool, SetLayout
from fungistor.catalog.policies import AddPolicy, Capacity, ClearLayouts, RemovePolicy
from fungistor.catalog.record import decode_record
from fungistor.catalog.rows import Counters, as_pool, layout_in
from fungistor.catalog.rules import (
    Decision,
    Verdict,
    decide_clearing,
    decide_layout,
    decide_policy,
    decide_pool,
    refuse,
)
from fungistor.ids import LayoutNumber, PolicyNumber
from fungistor.placement.policy import DEFAULT_POLICY, StoragePolicy
from fungistor.placement.tracks import DEFAULT_NUMBER, track

LIVE, RETIRED, CLEARED = 1, 0, -1
"""Of a layout: readers look by it; copies may lie where it wanted them; none does."""

TABLES = (
    """CREATE TABLE policy (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        command BLOB NOT NULL,
        stands INTEGER NOT NULL
    )""",
)

FINGERPRINTED = ("SELECT number, name, command, stands FROM policy ORDER BY number",)


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy in the catalog. `stands`: it can be published by."""

    number: PolicyNumber
    policy: StoragePolicy
    stands: bool


def policies_in(connection: sqlite3.Connection, *, removed: bool) -> list[PolicyRow]:
    """Policies by rising number, those among them that were removed if they are asked for."""
    rows = connection.execute("SELECT command, stands FROM policy WHERE stands OR ? ORDER BY number", (removed,))
    return [
        PolicyRow(body.number, body.policy, bool(stands)) for body, stands in ((_as_policy(r[0]), r[1]) for r in rows)
    ]


def tables_in(connection: sqlite3.Connection, state: int) -> dict[LayoutNumber, bytes]:
    """Every placement table of the layouts in a state, under the number that slots have."""
    tables: dict[LayoutNumber, bytes] = {}
    for number, command in connection.execute("SELECT number, command FROM layout WHERE is_live = ?", (state,)):
        pool = as_pool(command)
        tables[track(DEFAULT_NUMBER, LayoutNumber(number))] = pool.layout.table
        for table in pool.tables:
            tables[track(table.policy, LayoutNumber(number))] = table.table
        for body in _came_with(connection, number):
            tables[track(body.number, LayoutNumber(number))] = body.table
    return tables


def mark_in(connection: sqlite3.Connection) -> tuple[int, int]:
    """Another pair whenever stripes may lie by a table that was not there before."""
    newest = connection.execute("SELECT coalesce(max(number), 0) FROM layout").fetchone()[0]
    return int(newest), _highest(connection)


def capacities_in(connection: sqlite3.Connection) -> tuple[Capacity, ...]:
    """What members may hold, by the newest layout."""
    row = connection.execute("SELECT command FROM layout ORDER BY number DESC LIMIT 1").fetchone()
    return as_pool(row[0]).capacities if row else ()


def left_in(connection: sqlite3.Connection) -> list[tuple[LayoutNumber, int]]:
    """Layouts that are retired and not cleared, oldest first, with the time of their retirement (Unix seconds, by its
    issuer's clock; 0 where it did not say)."""
    rows = connection.execute(
        "SELECT number, retired_at FROM layout WHERE is_live = ? ORDER BY number", (RETIRED,)
    ).fetchall()
    return [(LayoutNumber(number), int(at)) for number, at in rows]


def knows_policy(connection: sqlite3.Connection, name: str) -> bool:
    """Whether something can be published by it."""
    if name == DEFAULT_POLICY.name:
        return True
    return connection.execute("SELECT 1 FROM policy WHERE name = ? AND stands", (name,)).fetchone() is not None


def _as_policy(payload: bytes) -> AddPolicy:
    body = decode_command(payload).body
    assert isinstance(body, AddPolicy)
    return body


def _came_with(connection: sqlite3.Connection, layout: int) -> Iterator[AddPolicy]:
    for (command,) in connection.execute("SELECT command FROM policy ORDER BY number").fetchall():
        body = _as_policy(command)
        if body.layout == layout:
            yield body


def _highest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM policy").fetchone()[0])


def _standing(connection: sqlite3.Connection) -> dict[PolicyNumber, str]:
    rows = connection.execute("SELECT number, name FROM policy WHERE stands").fetchall()
    return {PolicyNumber(number): name for number, name in rows}


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM layout").fetchone()[0])


# --- effects


def add_policy(connection: sqlite3.Connection, counters: Counters, command: Command, body: AddPolicy) -> Decision:
    """Let a policy stand."""
    decision = decide_policy(_standing(connection), _highest(connection), _newest(connection), body)
    if decision.effect:
        counters.revision += 1
        row = (body.number, body.policy.name, encode_command(command))
        connection.execute("INSERT INTO policy VALUES (?, ?, ?, 1)", row)
    return decision


def remove_policy(connection: sqlite3.Connection, counters: Counters, _: Command, body: RemovePolicy) -> Decision:
    """Forget a policy that nothing is stored by, unless something is."""
    row = connection.execute("SELECT name FROM policy WHERE number = ? AND stands", (body.number,)).fetchone()
    if row is None:
        return Decision(Verdict.UNCHANGED)
    for table, what in (
        ("record", "objects are stored by it"),
        ("undelete", "objects that can still be brought back are stored by it"),
        ("retired_manifest", "objects that were dropped are stored by it still: `fungistor gc` first"),
    ):
        if _uses(connection, table, row[0]):
            return refuse(f"policy {row[0]} is in use: {what}")
    counters.revision += 1
    connection.execute("UPDATE policy SET stands = 0 WHERE number = ?", (body.number,))
    return Decision(Verdict.APPLIED, effect=True)


def _uses(connection: sqlite3.Connection, table: str, name: str) -> bool:
    """Whether a record of a table is stored by a policy. Those that have its name in their bytes are looked at."""
    query = f"SELECT body FROM {table} WHERE instr(body, ?) > 0"  # noqa: S608 - our own words
    return any(decode_record(body).policy == name for (body,) in connection.execute(query, (name.encode(),)))


def set_layout(connection: sqlite3.Connection, counters: Counters, command: Command, body: SetLayout) -> Decision:
    """Make a layout the newest one."""
    return place_pool(connection, counters, command, PlacePool(body, ()))


def place_pool(connection: sqlite3.Connection, counters: Counters, command: Command, body: PlacePool) -> Decision:
    """Make a layout the newest one, with a table for each policy."""
    newest = connection.execute("SELECT command FROM layout ORDER BY number DESC LIMIT 1").fetchone()
    if newest is not None and as_pool(newest[0]) == body:
        return Decision(Verdict.UNCHANGED)
    alone = decide_layout(layout_in(connection, None), counters.highest_member, body.layout)
    if alone.verdict is Verdict.UNCHANGED:
        alone = refuse(f"layout {body.layout.number} does not follow the newest, {body.layout.number}")
    decision = decide_pool(_standing(connection), alone, body)
    if decision.effect:
        counters.revision += 1
        numbers = [member.number for member in body.layout.members]
        counters.highest_member = max([counters.highest_member, *numbers])
        row = (body.layout.number, encode_command(command), LIVE)
        connection.execute("INSERT INTO layout VALUES (?, ?, ?, 0)", row)
    return decision


def clear_layouts(connection: sqlite3.Connection, counters: Counters, _: Command, body: ClearLayouts) -> Decision:
    """No copies lie by these any more."""
    left = {int(number) for number, _ in left_in(connection)}
    decision = decide_clearing(_newest(connection), left, body)
    if decision.effect:
        counters.revision += 1
        connection.executemany(
            "UPDATE layout SET is_live = ? WHERE number = ? AND is_live = ?",
            [(CLEARED, number, RETIRED) for number in body.layouts],
        )
    return decision


EFFECTS: Mapping[type[Body], Callable[[sqlite3.Connection, Counters, Command, Any], Decision]] = {
    SetLayout: set_layout,
    PlacePool: place_pool,
    AddPolicy: add_policy,
    RemovePolicy: remove_policy,
    ClearLayouts: clear_layouts,
}
