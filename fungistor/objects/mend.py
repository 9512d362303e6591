"""Bring back shards that are not where their layout wants them, without any content key.

The stripe's content root is the judge: a shard is rebuilt from k others only if those give the root that the stripe
list holds, so that neither a lying member nor a forged shard is spread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from fungistor.coding import erasure
from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, content_root, payload_root, shard_tag
from fungistor.errors import CorruptError, FungiStorError, UnavailableError
from fungistor.ids import MemberNumber
from fungistor.objects.placed_policy import BY_DEFAULT, PlacedPolicy
from fungistor.objects.ports import ShardStore, wanted_at
from fungistor.objects.session import Settlement
from fungistor.objects.stripe_reader import OnCorrupt


@dataclass(slots=True)
class Mended:
    """What mending reached: shards still missing by member, bytes written, and how many losses are survived."""

    settlement: Settlement = field(default_factory=Settlement)
    new_bytes: int = 0
    unreadable: int = 0


class Mender:
    """Not thread-safe: one stripe's buffers are reused for the next."""

    def __init__(self, store: ShardStore, on_corrupt: OnCorrupt) -> None:
        self._store = store
        self._on_corrupt = on_corrupt

    def mend(
        self, slots: Iterable[Slot], only: Collection[MemberNumber] | None = None, policy: PlacedPolicy = BY_DEFAULT
    ) -> Mended:
        """Rebuild missing shards (of the members `only`, or of all that answer), and make them durable.

        `policy`: by which the zones are counted that may still be lost.
        """
        mended = Mended()
        receipts: set[Hashable] = set()
        for slot in slots:
            missing = self._missing(slot)
            still = dict(missing)
            try:
                for index, receipt in self._rebuild(slot, missing, only):
                    del still[index]
                    receipts.add(receipt)
                    mended.new_bytes += slot.shard_bytes + SHARD_TAG_BYTES
            except FungiStorError:
                mended.unreadable += 1
            held = mended.settlement
            held.zone_level = policy.level
            held.survives = min(held.survives, slot.m - len(still))
            zones = policy.zones_survived(wanted_at(self._store, slot), set(still.values()), slot.k)
            held.survives_zones = min(held.survives_zones, zones)
            for member in still.values():
                mended.settlement.owed[member] = mended.settlement.owed.get(member, 0) + 1
        if receipts and self._store.barrier(receipts).failed:
            raise UnavailableError("members died while their debts were paid; it will be tried again")
        return mended

    def rebuild(self, slot: Slot, indices: Collection[int]) -> Iterator[tuple[int, Hashable]]:
        """Make these shards from others and put each where the newest layout wants it; (index, receipt) of those taken.

        Raises:
            NotEnoughShardsError, CorruptError: the others do not suffice, or do not give the stripe's content.
        """
        shards = self.honest_shards(slot, set(indices))
        for index in indices:
            payload = shards[index]
            tag = shard_tag(slot.stripe_id, index, slot.shard_bytes, payload_root(payload))
            # A member that has gone again is left; the others still get theirs.
            with contextlib.suppress(UnavailableError):
                yield index, self._store.put_shard(slot, index, payload, tag)

    def _missing(self, slot: Slot) -> dict[int, MemberNumber]:
        window = wanted_at(self._store, slot)
        return {index: window[index] for index, there in self._store.exists(slot).items() if not there}

    def _rebuild(
        self, slot: Slot, missing: dict[int, MemberNumber], only: Collection[MemberNumber] | None
    ) -> Iterator[tuple[int, Hashable]]:
        up = set(self._store.up_members())
        indices = [i for i, member in missing.items() if member in up and (only is None or member in only)]
        if indices:
            yield from self.rebuild(slot, indices)

    def honest_shards(self, slot: Slot, missing: Collection[int] = ()) -> list[memoryview]:
        """All k + m shards, rebuilt from k that prove themselves and give the content root.

        Raises:
            NotEnoughShardsError, CorruptError: that cannot be done now.
        """
        size, count = slot.shard_bytes, slot.k + slot.m
        buffer = memoryview(bytearray(count * size))
        views = [buffer[index * size : (index + 1) * size] for index in range(count)]
        liars: set[int] = set()
        for _ in range(count):
            fetched = self._store.fetch(slot, None, views.__getitem__, exclude={*missing, *liars})
            lying = {
                index
                for index, payload in fetched.shards.items()
                if shard_tag(slot.stripe_id, index, size, payload_root(payload)) != fetched.tags[index]
            }
            if not lying:
                break
            for index in lying:
                self._on_corrupt(slot, index)
            liars |= lying
        want = {index: views[index] for index in range(count) if index not in fetched.shards}
        erasure.recover(slot.k, dict(fetched.shards), want)
        if content_root([payload_root(view) for view in views[: slot.k]]) != slot.content_root:
            raise CorruptError("shards that prove themselves do not give the content of their stripe")
        return views
