"""What a collection looks at: the stripes of condemned manifests and sessions, and who still uses them.

Lies in a scratch file of SQLite's own, since a large network's stripes do not fit into memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import libipld

from fungistor.coding.manifest import ListSlot, ManifestRoot, Slot
from fungistor.ids import LayoutNumber, ObjectId, StripeId

DEAD_SHARE_MAX = 0.05
"""A stripe of which more than this is dead is packed anew, so that dead bytes stay below it."""


class Level(IntEnum):
    """In which order stripes go. While a member is away, what names the stripes that it still has must stay."""

    CONTENT = 0
    LIST_PAGES = 1
    ROOT = 2


@dataclass(frozen=True, slots=True)
class Partly:
    """A stripe that is used in part: its blocks' lengths, and which of them are used."""

    slot: Slot
    block_lengths: tuple[int, ...]
    used: bytes


class Condemned:
    """Stripes that may be deleted. Close it after use."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA cache_size=-16384")
        self._db.execute(
            "CREATE TABLE stripe (id BLOB PRIMARY KEY, level INTEGER, packed BLOB, used BLOB, held INTEGER)"
        )
        self._db.execute("CREATE TABLE user (id BLOB, object_id BLOB, PRIMARY KEY (id, object_id)) WITHOUT ROWID")
        self._db.execute("CREATE TABLE root (id BLOB PRIMARY KEY, filled INTEGER, live INTEGER)")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Forget all."""
        self._db.close()

    def add(self, level: Level, slot: Slot, block_lengths: Sequence[int] = ()) -> None:
        """A stripe that condemned manifests or sessions name."""
        packed = libipld.encode_dag_cbor(
            [slot.stripe_id, slot.k, slot.m, slot.shard_bytes, slot.content_root, slot.layout, list(block_lengths)]
        )
        row = (slot.stripe_id, int(level), packed, bytes(len(block_lengths)), 0)
        # What a manifest says of it is more than what a session's ids do.
        if block_lengths:
            self._db.execute("INSERT OR REPLACE INTO stripe VALUES (?, ?, ?, ?, ?)", row)
        else:
            self._db.execute("INSERT OR IGNORE INTO stripe VALUES (?, ?, ?, ?, ?)", row)

    def add_root(self, where: ManifestRoot) -> None:
        """The stripe of a condemned manifest's root pages, which others' may lie in, too."""
        self.add(Level.ROOT, where.slot)
        self._db.execute("INSERT OR IGNORE INTO root VALUES (?, 0, 0)", (where.slot.stripe_id,))
        self._count_root(where, 0)

    def use_root(self, where: ManifestRoot, object_id: ObjectId) -> None:
        """The root pages of something that stays."""
        self.hold(where.slot)
        if self._count_root(where, where.list_root.sealed_bytes + where.map_root.sealed_bytes):
            self._db.execute("INSERT OR IGNORE INTO user VALUES (?, ?)", (where.slot.stripe_id, object_id))

    def _count_root(self, where: ManifestRoot, used: int) -> bool:
        end = max(ref.offset + ref.sealed_bytes for ref in (where.list_root, where.map_root))
        counted = self._db.execute(
            "UPDATE root SET filled = max(filled, ?), live = live + ? WHERE id = ?", (end, used, where.slot.stripe_id)
        )
        return bool(counted.rowcount)

    def partly_roots(self) -> Iterator[Slot]:
        """Stripes of root pages of which too much is dead."""
        query = (
            "SELECT packed FROM stripe JOIN root USING (id) WHERE held = 1 AND filled - live > ? * filled ORDER BY id"
        )
        for (packed,) in self._db.execute(query, (DEAD_SHARE_MAX,)).fetchall():
            yield _unpack(packed).slot

    def use(self, listed: ListSlot, object_id: ObjectId) -> None:
        """Something that stays uses these blocks."""
        row = self._db.execute("SELECT packed, used FROM stripe WHERE id = ?", (listed.slot.stripe_id,)).fetchone()
        if row is None:
            return
        if not row[1]:
            self.hold(listed.slot)  # found by a session's ids: this says what it is
            return
        used = bytearray(row[1])
        for first, count in listed.runs:
            used[first : first + count] = bytes((1,)) * count
        self._db.execute("UPDATE stripe SET used = ? WHERE id = ?", (bytes(used), listed.slot.stripe_id))
        self._db.execute("INSERT OR IGNORE INTO user VALUES (?, ?)", (listed.slot.stripe_id, object_id))

    def hold(self, slot: Slot) -> None:
        """Something that stays uses all of it."""
        self._db.execute("UPDATE stripe SET held = 1 WHERE id = ?", (slot.stripe_id,))

    def dead(self, level: Level) -> Iterator[Slot]:
        """Stripes that nothing uses."""
        query = "SELECT packed, used FROM stripe WHERE level = ? AND held = 0 ORDER BY id"
        for packed, used in self._db.execute(query, (int(level),)).fetchall():
            if 1 not in used:
                yield _unpack(packed).slot

    def partly(self) -> Iterator[Partly]:
        """Stripes of which too much is dead."""
        for packed, used in self._db.execute("SELECT packed, used FROM stripe WHERE held = 0 ORDER BY id").fetchall():
            if 1 not in used:
                continue
            stripe = _unpack(packed)
            dead = sum(length for length, use in zip(stripe.block_lengths, used, strict=True) if not use)
            if dead > DEAD_SHARE_MAX * sum(stripe.block_lengths):
                yield Partly(stripe.slot, stripe.block_lengths, used)

    def users(self, stripes: Sequence[StripeId]) -> list[ObjectId]:
        """Objects that use any of these stripes, each once."""
        found: dict[ObjectId, None] = {}
        for stripe in stripes:
            for (object_id,) in self._db.execute("SELECT object_id FROM user WHERE id = ?", (stripe,)):
                found[ObjectId(object_id)] = None
        return list(found)

    def counts(self) -> tuple[int, int]:
        """How many stripes there are, and how many of them something uses."""
        total = kept = 0
        for used, held in self._db.execute("SELECT used, held FROM stripe"):
            total += 1
            kept += bool(held) or 1 in used
        return total, kept


def _unpack(packed: bytes) -> ListSlot:
    stripe_id, k, m, shard_bytes, root, layout, lengths = libipld.decode_dag_cbor(packed)
    return ListSlot(Slot(StripeId(stripe_id), k, m, shard_bytes, root, LayoutNumber(layout)), tuple(lengths), ())
