"""A digest of the state, kept up to date with every row that changes, so that nodes can compare theirs at any size.

It is the XOR of one hash a row: a row that comes and goes leaves it as it was, and the order of rows does not matter.
Triggers do it, so no effect can forget a row. It finds nodes that differ by a fault; it is no proof against a forger.

Hashes are summed up beside the connection, and `settle` writes the sum once for all rows of a transaction: an UPDATE
for each took longer than the rows themselves.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable

from blake3 import blake3

DIGEST_BYTES = 32

_QUERY = re.compile(r"SELECT ([a-z_]+(?:, [a-z_]+)*) FROM ([a-z_]+)(?: ORDER BY [a-z_, 0-9]+)?")

TABLES = (
    "CREATE TABLE digest (sum BLOB NOT NULL)",
    "INSERT INTO digest VALUES (zeroblob(32))",
)


def triggers(queries: Iterable[str]) -> tuple[str, ...]:
    """Statements that keep the digest over what these queries list: columns of one table each."""
    return tuple(statement for query in queries for statement in _triggers(*_parsed(query)))


def prepare(connection: sqlite3.Connection) -> None:
    """Make a connection fit to write: without this its first change of a row fails, and changes nothing."""
    gathered = _Gathered()
    connection.create_function("digest_row", -1, _row_hash, deterministic=True)
    connection.create_function("digest_xor", 2, _xor, deterministic=True)
    connection.create_function("digest_add", -1, gathered.add)
    connection.create_function("digest_take", 0, gathered.take)
    # Or a row that REPLACE deletes would stay in the digest.
    connection.execute("PRAGMA recursive_triggers=ON")


def settle(connection: sqlite3.Connection) -> None:
    """Bring the digest up to the rows that were changed so far."""
    connection.execute("UPDATE digest SET sum = digest_xor(sum, digest_take())")


def forget(connection: sqlite3.Connection) -> None:
    """The rows that were changed are as they were."""
    connection.execute("SELECT digest_take()").fetchone()


def digest_in(connection: sqlite3.Connection) -> bytes:
    """The digest as it is kept."""
    return bytes(connection.execute("SELECT sum FROM digest").fetchone()[0])


def digest_anew(connection: sqlite3.Connection, queries: Iterable[str]) -> bytes:
    """The digest, computed from every row."""
    total = 0
    for query in queries:
        _, table = _parsed(query)
        for row in connection.execute(query):
            total ^= int.from_bytes(_row_hash(table, *row), "big")
    return total.to_bytes(DIGEST_BYTES, "big")


def _parsed(query: str) -> tuple[list[str], str]:
    match = _QUERY.fullmatch(query)
    if match is None:
        raise ValueError(f"not a plain list of one table's columns: {query}")
    return match[1].split(", "), match[2]


def _triggers(columns: list[str], table: str) -> Iterable[str]:
    # A table of one row is made with it.
    yield (
        f"UPDATE digest SET sum = digest_xor(sum, digest_row('{table}', {', '.join(columns)}))"  # noqa: S608 - our words
        f" FROM (SELECT {', '.join(columns)} FROM {table} LIMIT 1)"
    )
    for event, rows in (("INSERT", ["NEW"]), ("DELETE", ["OLD"]), ("UPDATE", ["OLD", "NEW"])):
        steps = "".join(
            f"SELECT digest_add('{table}', {', '.join(f'{row}.{column}' for column in columns)}); " for row in rows
        )
        yield f"CREATE TRIGGER digest_{table}_{event.lower()} AFTER {event} ON {table} BEGIN {steps}END"


class _Gathered:
    """The sum of what one connection changed since it was taken last."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, table: str, *row: bytes | str | int | None) -> None:
        """Count a row that came or went."""
        self._sum ^= int.from_bytes(_row_hash(table, *row), "big")

    def take(self) -> bytes:
        """Give the sum, and begin anew."""
        found, self._sum = self._sum, 0
        return found.to_bytes(DIGEST_BYTES, "big")


def _row_hash(table: str, *row: bytes | str | int | None) -> bytes:
    return blake3(repr((table, row)).encode()).digest(DIGEST_BYTES)


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(DIGEST_BYTES, "big")
