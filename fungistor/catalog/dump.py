"""A state as a stream of bytes, and back: every row of every table that commands write, by table and column.

It depends on no schema version: columns that a later program added take their defaults. A stream is a sequence of
chunks; a chunk is a sequence of frames, each a length in 4 bytes and a DAG-CBOR array; the first frame of the first
chunk says what follows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fungistor.catalog.digest import DIGEST_BYTES, digest_anew, digest_in
from fungistor.catalog.fields import Fields, decode_array, encode_array
from fungistor.catalog.log import Position
from fungistor.errors import CorruptError

VERSION = 0
CHUNK_BYTES = 1 << 20
"""A chunk is closed by the row that brings it here; a row is a layout of a MiB at most."""

TABLES_MAX = 64
COLUMNS_MAX = 64
_LENGTH_BYTES = 4
_LOCAL = ("progress", "digest")


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream is of."""

    log: bytes
    position: Position
    applied: int
    revision: int
    objects: int
    highest_member: int
    digest: bytes
    tables: tuple[tuple[str, tuple[str, ...]], ...]


def head_in(connection: sqlite3.Connection) -> Head:
    """What a stream of this state would be of."""
    row = connection.execute(
        "SELECT log, position, applied, revision, objects, highest_member FROM progress"
    ).fetchone()
    log, position, applied, revision, objects, highest = row
    tables = tuple(_tables(connection).items())
    return Head(log, position, applied, revision, objects, highest, digest_in(connection), tables)


def dump(connection: sqlite3.Connection) -> Iterator[bytes]:
    """The state in chunks."""
    head = head_in(connection)
    tables = [[name, list(columns)] for name, columns in head.tables]
    numbers = [head.log, head.position, head.applied, head.revision, head.objects, head.highest_member]
    chunk = bytearray(_frame([VERSION, *numbers, head.digest, tables]))
    for number, (table, columns) in enumerate(head.tables):
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - from the schema
            chunk += _frame([number, *row])
            if len(chunk) >= CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    if chunk:
        yield bytes(chunk)


def load(connection: sqlite3.Connection, chunks: Iterable[bytes], queries: Iterable[str]) -> Head:
    """Put what a stream holds in place of all rows, inside the caller's transaction.

    Raises: CorruptError: it is not whole; the transaction is then to be rolled back.
    """
    frames = (frame for chunk in chunks for frame in _frames(chunk))
    head = _head(next(frames, b""))
    known = _tables(connection)
    for table in known:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - from the schema
    inserts: list[str] = []
    for table, columns in head.tables:
        if table not in known or not set(columns) <= set(known[table]):
            raise CorruptError(f"the snapshot has {table} of columns that this program does not know")
        marks = ", ".join("?" * len(columns))
        inserts.append(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})")  # noqa: S608 - from the schema
    for frame in frames:
        number, *values = _values(frame)
        if type(number) is not int or not 0 <= number < len(inserts) or len(values) != len(head.tables[number][1]):
            raise CorruptError("the snapshot holds a row of no table")
        connection.execute(inserts[number], values)
    connection.execute(
        "UPDATE progress SET log = ?, position = ?, applied = ?, revision = ?, objects = ?, highest_member = ?,"
        " stopped = NULL",
        (head.log, head.position, head.applied, head.revision, head.objects, head.highest_member),
    )
    if digest_anew(connection, queries) != head.digest:
        raise CorruptError("the snapshot's rows are not those that its digest is of")
    return head


def _tables(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    return {
        name: tuple(row[1] for row in connection.execute(f'PRAGMA table_info("{name}")'))
        for (name,) in names
        if name not in _LOCAL
    }


def _frame(values: list[object]) -> bytes:
    data = encode_array(values)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _frames(chunk: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(chunk):
        end = at + _LENGTH_BYTES + int.from_bytes(chunk[at : at + _LENGTH_BYTES], "big")
        if end > len(chunk):
            raise CorruptError("the snapshot is cut off inside a row")
        yield chunk[at + _LENGTH_BYTES : end]
        at = end


def _values(frame: bytes) -> list[object]:
    fields = decode_array(frame, "snapshot row")
    return fields.rest()


def _head(frame: bytes) -> Head:
    fields = decode_array(frame, "snapshot")
    if fields.uint("version") != VERSION:
        raise CorruptError("the snapshot is of a later version", hint="update fungistor on this machine")
    log = fields.bytes("log", 1, 64)
    position = Position(fields.bytes("position", 0, 16))
    applied, revision = fields.uint("applied"), fields.uint("revision")
    objects, highest = fields.uint("objects"), fields.uint("highest member")
    digest = fields.bytes("digest", DIGEST_BYTES, DIGEST_BYTES)
    rows = fields.array("tables", TABLES_MAX)
    tables: list[tuple[str, tuple[str, ...]]] = []
    while rows.more():
        tables.append(_take_table(rows.array("table", 2)))
    return Head(log, position, applied, revision, objects, highest, digest, tuple(tables))


def _take_table(row: Fields) -> tuple[str, tuple[str, ...]]:
    name = row.text("name", 64)
    listed = row.array("columns", COLUMNS_MAX)
    columns: list[str] = []
    while listed.more():
        columns.append(listed.text("column", 64))
    return name, tuple(columns)
