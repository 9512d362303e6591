"""How much each tenant has, counted with every command that changes it.

What counts is what the records say: each object with the bytes of its content, whatever of it lies in stripes that
other objects use, too, for that is what a tenant can know before it uploads. What can still be brought back counts.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass

from fungistor.catalog.record import Record, decode_record
from fungistor.ids import TenantNumber

TABLES = (
    """CREATE TABLE usage (
        tenant INTEGER PRIMARY KEY,
        objects INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        stored INTEGER NOT NULL
    )""",
)

FINGERPRINTED = ("SELECT tenant, objects, bytes, stored FROM usage ORDER BY tenant",)


@dataclass(frozen=True, slots=True)
class Usage:
    """Objects, bytes of content, and the value bytes on members that their records name: stripes that several objects
    use are counted with each."""

    objects: int = 0
    bytes: int = 0
    stored: int = 0

    def with_record(self, record: Record, times: int = 1) -> Usage:
        """This and a record more, or one less."""
        sizes = record.sizes
        return Usage(self.objects + times, self.bytes + times * sizes.size, self.stored + times * sizes.stored)


class Ledger:
    """The usages that a transaction changes. They are rows again when `save` was called."""

    def __init__(self) -> None:
        self._usages: dict[TenantNumber, Usage] = {}

    def of(self, sql: sqlite3.Connection, tenant: TenantNumber) -> Usage:
        """A tenant's usage as of now."""
        known = self._usages.get(tenant)
        return usage_in(sql, tenant) if known is None else known

    def add(self, sql: sqlite3.Connection, record: Record) -> None:
        """Count a record that stands or may be brought back from now on."""
        self._usages[record.tenant] = self.of(sql, record.tenant).with_record(record)

    def remove(self, sql: sqlite3.Connection, record: Record) -> None:
        """Count it no more."""
        self._usages[record.tenant] = self.of(sql, record.tenant).with_record(record, -1)

    def replace(self, sql: sqlite3.Connection, before: Record | None, after: Record) -> None:
        """Count a record in the place of another."""
        if before is None:
            self.add(sql, after)
        elif before.sizes != after.sizes:
            self.remove(sql, before)
            self.add(sql, after)

    def save(self, sql: sqlite3.Connection) -> None:
        """Write down what changed: before anybody takes a digest of the rows, and at the transaction's end."""
        for tenant, usage in self._usages.items():
            sql.execute(
                "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?)", (tenant, usage.objects, usage.bytes, usage.stored)
            )
        self._usages.clear()


def usage_in(sql: sqlite3.Connection, tenant: TenantNumber) -> Usage:
    """A tenant's usage as it is written down."""
    row = sql.execute("SELECT objects, bytes, stored FROM usage WHERE tenant = ?", (tenant,)).fetchone()
    return Usage() if row is None else Usage(*row)


def counted_anew(sql: sqlite3.Connection) -> dict[TenantNumber, Usage]:
    """Every usage, counted from the records."""
    usages: defaultdict[TenantNumber, Usage] = defaultdict(Usage)
    for table in ("record", "undelete"):
        for (body,) in sql.execute(f"SELECT body FROM {table}"):  # noqa: S608 - our own words
            record = decode_record(body)
            usages[record.tenant] = usages[record.tenant].with_record(record)
    return dict(usages)


def recount(sql: sqlite3.Connection) -> None:
    """Count every usage anew: a state that an earlier program wrote has none."""
    sql.execute("DELETE FROM usage")
    for tenant, usage in counted_anew(sql).items():
        sql.execute("INSERT INTO usage VALUES (?, ?, ?, ?)", (tenant, usage.objects, usage.bytes, usage.stored))
