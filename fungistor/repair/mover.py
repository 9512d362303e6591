"""Bring the shards of stripes where the newest layout wants them, without any content key.

A shard that lies elsewhere is copied as it is, once its tag proves it; one that is nowhere is rebuilt by the `Mender`,
which compares the content root first. So what is moved is what has to move, and nothing forged is spread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES
from fungistor.errors import FungiStorError, UnavailableError
from fungistor.ids import MemberNumber
from fungistor.objects.mend import Mender
from fungistor.objects.ports import ShardStore, wanted_at

DAMAGED = "corrupt"
SLOTS_AT_ONCE = 256
"""Stripes whose places are asked for in one flight."""


Suspects = Callable[[Slot], Collection[int]]
"""Shards of a stripe that readers found damaged, or `verify` did."""


class Look(IntEnum):
    """How closely shards are looked at where they lie."""

    THERE = 0
    """Whether they are there."""
    WHOLE = 1
    """Each member compares them with its checksums, which costs it a reading of its disk."""


@dataclass(slots=True)
class Moved:
    """What was found and done. `waiting`: shards, by member, that cannot be brought there now. `damaged`: found so,
    and among those copied or rebuilt unless they wait."""

    stripes: int = 0
    damaged: int = 0
    copied: int = 0
    rebuilt: int = 0
    moved_bytes: int = 0
    unreadable: int = 0
    waiting: dict[MemberNumber, int] = field(default_factory=dict)

    @property
    def waiting_shards(self) -> int:
        """All shards that have still to be brought somewhere."""
        return sum(self.waiting.values())

    @property
    def is_settled(self) -> bool:
        """Whether every shard is where the newest layout wants it."""
        return not self.waiting and not self.unreadable


class Mover:
    """One thread's worker: not thread-safe."""

    def __init__(
        self,
        store: ShardStore,
        mender: Mender,
        pace: Callable[[int], None],
        suspects: Suspects = lambda _: (),
        look: Look = Look.WHOLE,
    ) -> None:
        """`pace` is told of every piece of bytes before they are moved, and may wait."""
        self._suspects = suspects
        self._look = look
        self._store = store
        self._mender = mender
        self._pace = pace

    def settle(self, slots: Iterable[Slot], moved: Moved) -> None:
        """Look after these stripes, adding to `moved`. What was moved is durable when this returns.

        Raises:
            UnavailableError: members died before what they took was on their disks; to be repeated.
        """
        remaining = iter(slots)
        while chunk := list(islice(remaining, SLOTS_AT_ONCE)):
            receipts: set[Hashable] = set()
            for slot, wrong in zip(chunk, self._looked_at(chunk, moved), strict=True):
                moved.stripes += 1
                if wrong:
                    self._bring(slot, wrong, moved, receipts)
            if receipts and self._store.barrier(receipts).failed:
                raise UnavailableError("members died while shards were moved to them; it has to be done again")

    def _looked_at(self, slots: Sequence[Slot], moved: Moved) -> Iterator[set[int]]:
        """Of each stripe, the shards that are not sound where the newest layout wants them."""
        if self._look is Look.WHOLE:
            checked = self._store.check_home(slots)
            homes = [{index for index, said in home.items() if str(said) == DAMAGED} for home in checked]
        else:
            homes = [set() for _ in slots]
        for slot, there, damaged in zip(slots, self._store.at_home(slots), homes, strict=True):
            absent = {index for index, is_there in there.items() if not is_there}
            if doubted := set(self._suspects(slot)) - absent - damaged:
                found = self._store.inspect_home(slot, doubted)
                damaged |= {index for index, shard in found.items() if str(shard.soundness) == DAMAGED}
            moved.damaged += len(damaged - absent)
            yield absent | damaged

    def _bring(self, slot: Slot, absent: set[int], moved: Moved, receipts: set[Hashable]) -> None:
        window = wanted_at(self._store, slot)
        up = set(self._store.up_members())
        reachable = {index for index in absent if window[index] in up}
        done = set(self._copy(slot, reachable, moved, receipts))
        if lost := reachable - done:
            done |= set(self._rebuild(slot, lost, moved, receipts))
        for index in absent - done:
            moved.waiting[window[index]] = moved.waiting.get(window[index], 0) + 1

    def _copy(self, slot: Slot, indices: set[int], moved: Moved, receipts: set[Hashable]) -> Iterator[int]:
        for index in sorted(indices):
            self._pace(slot.shard_bytes)
            try:
                value = self._store.get_shard(slot, index)
                if value is None:
                    continue  # nowhere, or damaged wherever it is
                payload, tag = memoryview(value)[: slot.shard_bytes], value[slot.shard_bytes :]
                receipts.add(self._store.put_shard(slot, index, payload, tag))
            except UnavailableError:
                continue
            moved.copied += 1
            moved.moved_bytes += slot.shard_bytes + SHARD_TAG_BYTES
            yield index

    def _rebuild(self, slot: Slot, lost: set[int], moved: Moved, receipts: set[Hashable]) -> Iterator[int]:
        self._pace(slot.k * slot.shard_bytes)
        try:
            for index, receipt in self._mender.rebuild(slot, sorted(lost)):
                receipts.add(receipt)
                moved.rebuilt += 1
                moved.moved_bytes += slot.shard_bytes + SHARD_TAG_BYTES
                yield index
        except FungiStorError:
            moved.unreadable += 1
