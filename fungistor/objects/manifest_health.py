"""How well an object is held, as far as it can be told without asking its members: from states, layouts and debts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.ids import MemberNumber
from fungistor.limits import DATA_SHARDS_MAX, PARITY_SHARDS
from fungistor.objects.ports import ShardStore


def survives(store: ShardStore, slots: Iterable[Slot], down: Collection[MemberNumber], record: Record) -> int:
    """Further losses that every one of these stripes survives: 4 full, 0 last chance, below 0 unreadable now.

    A debt is counted against every stripe of the object that touches the debtor: the record does not say which. So is a
    member that is none any more, though its shards may have been brought back elsewhere: only `verify` looks.
    """
    absent = set(down) | {member for member, _ in record.owed}
    members = set(store.members())
    worst = PARITY_SHARDS
    for slot in slots:
        window = store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
        worst = min(worst, slot.m - sum(member in absent or member not in members for member in window))
    return worst


def survives_at_least(store: ShardStore, root: Slot, down: Collection[MemberNumber], record: Record) -> int:
    """As `survives`, without reading the stripe list: exact for an object of one stripe, else a lower bound."""
    if record.sizes.stripes <= 1:
        return survives(store, (root,), down, record)
    absent = set(down) | {member for member, _ in record.owed}
    members = set(store.members())
    # Stripes of an object are mostly as wide as they can be, so the root stripe's whole row stands for the others'.
    row = store.window(root.stripe_id, root.layout, min(DATA_SHARDS_MAX + PARITY_SHARDS, len(members)))
    gone = sum(member not in members for member in row)
    return PARITY_SHARDS - len(absent & members) - gone
