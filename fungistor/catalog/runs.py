"""Sorted runs of the block index: rows are appended in order and merged later, as in a log-structured tree.

One table holds all runs, `(run, hash, object)` being its key: a run is a stretch of the tree, and writing one touches
pages one after the other. FAN_IN runs of a level are merged into one of the next, a slice of the hashes at a time: a
slice's rows move in one transaction, so every row is in exactly one run at any moment, whatever is killed, and readers
need not know of merges. Whoever adds rows does a share of the merging in proportion, so that no addition waits for a
merge of millions. Measured on two busy cores: 10 million rows at 200,000 a second, where one tree gave 60,000.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

FAN_IN = 8
"""A lookup asks up to 7 runs a level and the sources of merges under way; each row moves once a level."""

SLICE_ROWS = 65536
"""Moved in one transaction: 150 ms under the write lock."""

_LEVELS_MERGED = 4
"""How many slices are merged for each slice's worth of rows added: enough for 65536 * 8**4 rows, 268 million."""

STATEMENTS = (
    """CREATE TABLE block (
        run INTEGER,
        hash BLOB,
        object INTEGER,
        node INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (run, hash, object)
    ) WITHOUT ROWID""",
    # `level` is NULL while a merge fills the run; `target` is the run that this one's rows are moving to.
    "CREATE TABLE run (number INTEGER PRIMARY KEY AUTOINCREMENT, rows INTEGER NOT NULL, level INTEGER, target INTEGER)",
    "CREATE TABLE merge (target INTEGER PRIMARY KEY, level INTEGER NOT NULL, slice INTEGER NOT NULL)",
)

_HIGHEST = b"\xff" * 17
_DEAD = "object NOT IN (SELECT number FROM object)"


def append(connection: sqlite3.Connection, number: int, chunk: Sequence[tuple[bytes, int, int]]) -> None:
    """Write (hash, node, position) rows of object `number`, sorted by hash, as a run; of equal hashes the first."""
    run = _new_run(connection, len(chunk), 0)
    connection.executemany(f"INSERT OR IGNORE INTO block VALUES ({run:d}, ?, {number:d}, ?, ?)", chunk)  # noqa: S608


def append_fresh(connection: sqlite3.Connection) -> None:
    """Make a run of the tree `fresh`, without the rows of objects dropped meanwhile."""
    count = connection.execute("SELECT count(*) FROM fresh").fetchone()[0]
    if count:
        run = _new_run(connection, count, 0)
        connection.execute(
            "INSERT INTO block SELECT ?, hash, object, node, position FROM fresh"
            " WHERE object IN (SELECT number FROM object) ORDER BY hash, object",
            (run,),
        )
        connection.execute("DELETE FROM fresh")
    connection.execute("UPDATE fresh_rows SET count = 0")


def numbers(connection: sqlite3.Connection) -> list[int]:
    """Every run that may hold rows."""
    return [row[0] for row in connection.execute("SELECT number FROM run")]


def holding(connection: sqlite3.Connection, block_hash: bytes) -> list[int]:
    """The runs that have a row of this hash."""
    rows = connection.execute(
        "SELECT number FROM run WHERE EXISTS (SELECT 1 FROM block WHERE run = number AND hash = ?)", (block_hash,)
    )
    return [row[0] for row in rows]


def sizes(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Number and about the rows of every run."""
    return connection.execute("SELECT number, rows FROM run").fetchall()


def slices_of(rows: int) -> Iterator[tuple[bytes, bytes]]:
    """Cut all hashes into ranges (first, behind the last) of about SLICE_ROWS each."""
    count = -(-rows // SLICE_ROWS)
    return (_slice(index, count) for index in range(count))


def slices_due(rows: int) -> int:
    """How many slices whoever added so many rows shall merge."""
    return _LEVELS_MERGED * -(-rows // SLICE_ROWS)


def merge_slice(connection: sqlite3.Connection) -> bool:
    """Move the next slice of the lowest merge under way or due; False if there is none."""
    merge = connection.execute("SELECT target, level, slice FROM merge ORDER BY level LIMIT 1").fetchone()
    due = _due_level(connection)
    if due is not None and (merge is None or due + 1 < merge[1]):
        merge = _begin(connection, due)
    if merge is None:
        return False
    target, level, index = merge
    rows = connection.execute("SELECT rows FROM run WHERE number = ?", (target,)).fetchone()[0]
    count = max(1, -(-rows // SLICE_ROWS))
    sources = [row[0] for row in connection.execute("SELECT number FROM run WHERE target = ?", (target,))]
    _move(connection, sources, target, *_slice(index, count))
    if index + 1 < count:
        connection.execute("UPDATE merge SET slice = ? WHERE target = ?", (index + 1, target))
    else:
        connection.execute("DELETE FROM merge WHERE target = ?", (target,))
        connection.execute("DELETE FROM run WHERE target = ?", (target,))
        connection.execute("UPDATE run SET level = ? WHERE number = ?", (level, target))
    return True


def sweep_slice(connection: sqlite3.Connection, run: int, low: bytes, high: bytes) -> int:
    """Delete a slice's rows of objects that are no more; how many."""
    return connection.execute(
        f"DELETE FROM block WHERE run = ? AND hash >= ? AND hash < ? AND {_DEAD}",  # noqa: S608 - our own words
        (run, low, high),
    ).rowcount


def _new_run(connection: sqlite3.Connection, rows: int, level: int | None) -> int:
    number = connection.execute("INSERT INTO run (rows, level) VALUES (?, ?)", (rows, level)).lastrowid
    assert number is not None
    return number


def _due_level(connection: sqlite3.Connection) -> int | None:
    row = connection.execute(
        "SELECT level FROM run WHERE target IS NULL AND level IS NOT NULL GROUP BY level HAVING count(*) >= ?"
        " ORDER BY level LIMIT 1",
        (FAN_IN,),
    ).fetchone()
    return None if row is None else int(row[0])


def _begin(connection: sqlite3.Connection, level: int) -> tuple[int, int, int]:
    """Note a merge of the oldest runs of a level."""
    sources = connection.execute(
        "SELECT number, rows FROM run WHERE level = ? AND target IS NULL ORDER BY number LIMIT ?", (level, FAN_IN)
    ).fetchall()
    target = _new_run(connection, sum(rows for _, rows in sources), None)
    connection.executemany("UPDATE run SET target = ? WHERE number = ?", [(target, number) for number, _ in sources])
    connection.execute("INSERT INTO merge VALUES (?, ?, 0)", (target, level + 1))
    return target, level + 1, 0


def _move(connection: sqlite3.Connection, sources: Sequence[int], target: int, low: bytes, high: bytes) -> None:
    # Each part comes in the order of the key, so SQLite merges them without a sort.
    parts = " UNION ALL ".join(
        f"SELECT hash, object, node, position FROM block WHERE run = {source:d} AND hash >= ?1 AND hash < ?2"  # noqa: S608
        " AND object IN (SELECT number FROM object)"
        for source in sources
    )
    connection.execute(
        f"INSERT OR IGNORE INTO block SELECT {target:d}, hash, object, node, position"  # noqa: S608 - numbers alone
        f" FROM ({parts} ORDER BY hash, object)",
        (low, high),
    )
    for source in sources:
        connection.execute("DELETE FROM block WHERE run = ? AND hash >= ? AND hash < ?", (source, low, high))


def _slice(index: int, count: int) -> tuple[bytes, bytes]:
    low = (index << 32) // count
    high = ((index + 1) << 32) // count
    return low.to_bytes(4, "big"), _HIGHEST if index + 1 == count else high.to_bytes(4, "big")
