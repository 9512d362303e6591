"""How well an object is held, as far as it can be told without asking its members: from states, layouts and debts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.errors import InvalidError
from fungistor.ids import MemberNumber
from fungistor.limits import SHARD_INDEX_MAX
from fungistor.objects.placed_policy import BY_DEFAULT, PlacedPolicy
from fungistor.objects.ports import ShardStore


@dataclass(frozen=True, slots=True)
class Held:
    """Further losses that are survived: of members (below 0: unreadable now), and of whole zones."""

    members: int
    zones: int


def survives(
    store: ShardStore,
    slots: Iterable[Slot],
    down: Collection[MemberNumber],
    record: Record,
    policy: PlacedPolicy = BY_DEFAULT,
) -> Held:
    """Further losses that every one of these stripes survives: m when full, 0 last chance, below 0 unreadable now.

    A debt is counted against every stripe of the object that touches the debtor: the record does not say which. So is a
    member that is none any more, though its shards may have been brought back elsewhere: only `verify` looks.
    """
    members = set(store.members())
    absent = set(down) | {member for member, _ in record.owed}
    worst = zones = SHARD_INDEX_MAX
    for slot in slots:
        window = store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
        gone = {member for member in window if member in absent or member not in members}
        worst = min(worst, slot.m - len(gone))
        zones = min(zones, policy.zones_survived(window, gone, slot.k))
    return Held(worst, zones)


def survives_at_least(store: ShardStore, root: Slot, down: Collection[MemberNumber], record: Record) -> int:
    """Members as in `survives`, without reading the stripe list: exact for an object of one stripe, else a lower
    bound."""
    if record.sizes.stripes <= 1:
        return survives(store, (root,), down, record).members
    absent = set(down) | {member for member, _ in record.owed}
    members = set(store.members())
    seats = store.seats(root.layout)
    # Stripes of an object are mostly as wide as they can be, so the root stripe's whole row stands for the others'.
    try:
        row = store.window(root.stripe_id, root.layout, seats.row_len)
    except InvalidError:  # rows were shorter in its layout
        row = store.window(root.stripe_id, root.layout, root.k + root.m)
    gone = sum(member not in members for member in row)
    return root.m - len(absent & members & set(seats.members)) - gone
