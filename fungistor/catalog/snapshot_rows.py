"""What a snapshot's command does: the newest are kept, so that a node knows which, and what of older ones to delete."""

from __future__ import annotations

import sqlite3

from fungistor.catalog.fields import decode_array, encode_array
from fungistor.catalog.rules import Decision, Verdict
from fungistor.catalog.snapshots import Snapshot, snapshot_fields, take_snapshot

KEPT = 2
"""The one before stays until the next: it is what there is while a new one is not yet on every member."""

TABLES = ("CREATE TABLE snapshot (applied INTEGER PRIMARY KEY, body BLOB NOT NULL)",)
FINGERPRINTED = ("SELECT applied, body FROM snapshot ORDER BY applied",)


def keep(connection: sqlite3.Connection, body: Snapshot) -> Decision:
    """Note a snapshot, and forget those before the last but one."""
    newest = connection.execute("SELECT max(applied) FROM snapshot").fetchone()[0]
    if newest is not None and newest >= body.applied:
        return Decision(Verdict.REFUSED, reason=f"there is a snapshot after {newest} commands already")
    connection.execute("INSERT INTO snapshot VALUES (?, ?)", (body.applied, encode_array(snapshot_fields(body))))
    connection.execute(
        "DELETE FROM snapshot WHERE applied NOT IN (SELECT applied FROM snapshot ORDER BY applied DESC LIMIT ?)",
        (KEPT,),
    )
    # No revision: nothing that is served has changed.
    return Decision(Verdict.APPLIED)


def snapshots_in(connection: sqlite3.Connection) -> list[Snapshot]:
    """Those that are kept, oldest first."""
    rows = connection.execute("SELECT body FROM snapshot ORDER BY applied").fetchall()
    return [take_snapshot(decode_array(body, "snapshot")) for (body,) in rows]
