"""How commands ended, by session and sequence: so that one which is appended again has no second effect.

Only so many are kept, the same on every node, as they decide whether a command counts as new.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from blake3 import blake3

from fungistor.catalog.commands import (
    READ_KEPT,
    Command,
    CommandName,
    decode_command,
    name_of,
    named_bytes,
    parts_of,
    runs_of,
)
from fungistor.catalog.rules import Decision, Verdict
from fungistor.ids import Revision

OUTCOMES_KEPT = 65536
"""A doubtful command may be repeated until this many others were applied. Part of the rules: all nodes keep as many."""

DIGEST_BYTES = 16

TABLES = (
    """CREATE TABLE outcome (
        session BLOB,
        sequence INTEGER,
        applied INTEGER NOT NULL,
        digest BLOB NOT NULL,
        verdict INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (session, sequence)
    ) WITHOUT ROWID""",
    "CREATE INDEX outcome_by_age ON outcome (applied)",
)
FINGERPRINTED = (
    "SELECT session, sequence, applied, digest, verdict, revision, reason FROM outcome ORDER BY session, sequence"
)

Row = tuple[object, ...]

_VERDICTS = {int(verdict): verdict for verdict in Verdict}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and the revision at which it did; `reason` says why it was refused."""

    verdict: Verdict
    revision: Revision
    reason: str = ""


def outcomes_in(connection: sqlite3.Connection, commands: Sequence[Command]) -> list[tuple[Outcome, bytes] | None]:
    """How commands ended, each with its digest; None for one that was not applied, or long ago."""
    query = (
        "SELECT sequence, verdict, revision, reason, digest FROM outcome WHERE session = ? AND sequence BETWEEN ? AND ?"
    )
    rows: dict[tuple[bytes, int], tuple[int, int, str, bytes]] = {}
    for session, first, last in runs_of(map(name_of, commands)):
        for row in connection.execute(query, (session, first, last)):
            rows[session, row[0]] = row[1:]
    found = [rows.get(name_of(each)) for each in commands]
    return [(Outcome(_VERDICTS[row[0]], Revision(row[1]), row[2]), row[3]) if row else None for row in found]


def applied_in(connection: sqlite3.Connection, commands: Sequence[Command]) -> dict[CommandName, int]:
    """Commands that were applied before, with when."""
    query = "SELECT sequence, applied FROM outcome WHERE session = ? AND sequence BETWEEN ? AND ?"
    return {
        (session, sequence): applied
        for session, first, last in runs_of(map(name_of, commands))
        for sequence, applied in connection.execute(query, (session, first, last))
    }


def outcome_row(applied: int, revision: int, command: Command, told: bytes, decision: Decision) -> Row:
    """What is kept of a command with that digest, which was applied as the so many-th."""
    return command.session, command.sequence, applied, told, int(decision.verdict), revision, decision.reason


def keep(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Keep outcomes."""
    connection.executemany("INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def forget_old(connection: sqlite3.Connection, applied: int) -> None:
    """Keep no more than `OUTCOMES_KEPT`, where so many commands were applied."""
    connection.execute("DELETE FROM outcome WHERE applied <= ?", (applied - OUTCOMES_KEPT,))


def command_digest(command: Command) -> bytes:
    """What tells two commands under one session and sequence apart."""
    return blake3(named_bytes(command)).digest(DIGEST_BYTES)


@lru_cache(maxsize=READ_KEPT)
def entry_digests(payload: bytes) -> tuple[bytes, ...]:
    """`command_digest` of the commands in an entry: who appends it compares them with what was applied."""
    return tuple(command_digest(part) for part in parts_of(decode_command(payload)))
