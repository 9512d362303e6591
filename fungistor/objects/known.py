"""Blocks that the tenant stores already: found by the block index, reused stripe by stripe, never across tenants.

A stripe is reused only if enough of its shards are there now: a publish must not lean on what is about to be lost.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fungistor.catalog.index import BlockIndex, Holder
from fungistor.coding.manifest import ListSlot, Slot, Stored
from fungistor.errors import FungiStorError
from fungistor.ids import MemberNumber, ObjectId, StripeId
from fungistor.keys.ring import block_hash
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.placed_policy import BY_DEFAULT, PlacedPolicy
from fungistor.objects.ports import ShardStore, wanted_at
from fungistor.objects.session import Settlement, value_bytes
from fungistor.objects.spool import EntryTable, StoredBlock
from fungistor.objects.upload_journal import LeftUpload
from fungistor.placement import policy_of

HOLDERS_TRIED_MAX = 4
HOLDERS_LOOKED_AT = 64
"""Some may be other tenants', which are passed over."""

ABSORB_HITS_MIN = 1024
ABSORB_BLOCKS_A_HIT = 64
"""An object that shares this many blocks, one in so many of its own at least, has its map read from front to back.

A sharded folder lies in the map in the order of its names' hashes: 200,000 files published again opened pages for
minutes, reading the whole map takes seconds."""

OpenManifest = Callable[[ObjectId], ManifestReader | None]
"""Open an object's manifest, None where the tenant has no such object."""


@dataclass(slots=True)
class _Reused:
    """A stripe of another object. `used` has a byte a block: a set of numbers takes a hundred times as much."""

    number: int
    slot: Slot
    block_lengths: tuple[int, ...]
    missing: frozenset[int]
    used: bytearray

    def used_numbers(self) -> Iterator[int]:
        """The blocks that this object uses, rising."""
        return (number for number, used in enumerate(self.used) if used)


class KnownBlocks:
    """What one publish reuses. Thread-safe."""

    def __init__(self, index: BlockIndex, network_key: bytes, open_manifest: OpenManifest, store: ShardStore) -> None:
        self._index = index
        self._network_key = network_key
        self._open_manifest = open_manifest
        self._store = store
        self._lock = threading.Lock()
        self._stripes: dict[StripeId, _Reused | None] = {}
        self._stripe_of: dict[tuple[ObjectId, int], StripeId] = {}
        self._hits: Counter[ObjectId] = Counter()
        self._absorbed: EntryTable | None = None
        self._left: LeftUpload | None = None
        self._policy = BY_DEFAULT

    def keep_to(self, policy: PlacedPolicy) -> None:
        """Reuse no stripe but those of this policy: others survive other losses, or lie where it allows none."""
        self._policy = policy

    def take_up(self, left: LeftUpload | None) -> None:
        """Reuse what earlier uploads stored and did not come to commit, too."""
        self._left = left

    def find(self, multihashes: Sequence[bytes], slots: itertools.count[int]) -> dict[bytes, StoredBlock]:
        """Find those of some blocks that lie in healthy stripes, which then are among this object's slots."""
        open_manifest = functools.cache(self._open_manifest)
        found: dict[bytes, StoredBlock] = {}
        with self._lock:
            if self._absorbed is not None:
                for multihash, (object_id, entry) in self._absorbed.find(multihashes).items():
                    with contextlib.suppress(FungiStorError):
                        block = self._reuse(ObjectId(object_id), entry, open_manifest, slots)
                        if block is not None:
                            found[multihash] = block
            if self._left is not None:
                self._find_left(multihashes, slots, found)
            hashes = {block_hash(self._network_key, mh): mh for mh in multihashes if mh not in found}
            holders = self._index.holders_of(list(hashes), HOLDERS_LOOKED_AT)
            # In the order of the block maps, so that each of their pages is opened once.
            for key, tried in sorted(holders.items(), key=lambda at: at[1]):
                block = self._first(hashes[key], tried, open_manifest, slots)
                if block is not None:
                    found[hashes[key]] = block
            self._absorb(open_manifest)
        return found

    def _find_left(
        self, multihashes: Sequence[bytes], slots: itertools.count[int], found: dict[bytes, StoredBlock]
    ) -> None:
        assert self._left is not None
        wanted = [mh for mh in multihashes if mh not in found]
        for multihash, (left, entry) in self._left.find(wanted).items():
            stripe_id = left.listed.slot.stripe_id
            if stripe_id not in self._stripes:
                self._stripes[stripe_id] = self._healthy(left.listed, slots, left.lost)
            reused = self._stripes[stripe_id]
            if reused is not None:
                reused.used[entry.number] = 1
                found[multihash] = StoredBlock(
                    reused.number, entry.number, entry.plain_bytes, int(entry.compression), entry.key
                )

    def _first(
        self, multihash: bytes, holders: list[Holder], open_manifest: OpenManifest, slots: itertools.count[int]
    ) -> StoredBlock | None:
        tried = 0
        for holder in holders:
            # A holder that cannot be read now is no reason to fail: the block is stored again.
            with contextlib.suppress(FungiStorError):
                manifest = open_manifest(holder.object_id)
                if manifest is None:
                    continue
                tried += 1
                entry = manifest.entry_at(holder.node, holder.position, multihash)
                if isinstance(entry, Stored):
                    found = self._reuse(holder.object_id, entry, open_manifest, slots)
                    if found is not None:
                        self._hits[holder.object_id] += 1
                        return found
            if tried == HOLDERS_TRIED_MAX:
                break
        return None

    def _reuse(
        self, object_id: ObjectId, entry: Stored, open_manifest: OpenManifest, slots: itertools.count[int]
    ) -> StoredBlock | None:
        stripe_id = self._stripe_of.get((object_id, entry.slot))
        if stripe_id is None:
            manifest = open_manifest(object_id)
            if manifest is None:
                return None
            listed = manifest.slot(entry.slot)
            stripe_id = self._stripe_of[object_id, entry.slot] = listed.slot.stripe_id
            if stripe_id not in self._stripes:
                self._stripes[stripe_id] = self._healthy(listed, slots)
        reused = self._stripes[stripe_id]
        if reused is None:
            return None
        reused.used[entry.number] = 1
        return StoredBlock(reused.number, entry.number, entry.plain_bytes, int(entry.compression), entry.key)

    def _healthy(
        self, listed: ListSlot, slots: itertools.count[int], lost: Collection[MemberNumber] = ()
    ) -> _Reused | None:
        """A stripe as one to reuse, None where too little of it is there. Shards at `lost` members do not count."""
        if policy_of(listed.slot.layout) != self._policy.number:
            return None
        window = wanted_at(self._store, listed.slot) if lost else ()
        there = self._store.exists(listed.slot)
        missing = frozenset(
            index for index, is_there in there.items() if not is_there or (lost and window[index] in lost)
        )
        if listed.slot.m - len(missing) < self._policy.cut.margin:
            return None
        return _Reused(next(slots), listed.slot, listed.block_lengths, missing, bytearray(len(listed.block_lengths)))

    def _absorb(self, open_manifest: OpenManifest) -> None:
        """Learn all entries of objects that share many blocks with this one."""
        for object_id in [known for known, hits in self._hits.items() if hits >= ABSORB_HITS_MIN]:
            with contextlib.suppress(FungiStorError):
                manifest = open_manifest(object_id)
                if manifest is None or manifest.record.sizes.blocks > ABSORB_BLOCKS_A_HIT * self._hits[object_id]:
                    continue
                del self._hits[object_id]
                self._absorbed = self._absorbed or EntryTable()
                self._absorbed.add(object_id, manifest.stored())

    def still_stands(self) -> bool:
        """Whether every block that was reused is used by some object that is there now: a collection may have begun."""
        open_manifest = functools.cache(self._open_manifest)
        with self._lock:
            standing: dict[StripeId, bytearray] = {}
            for (object_id, number), stripe_id in self._stripe_of.items():
                if (reused := self._stripes.get(stripe_id)) is None:
                    continue
                try:
                    manifest = open_manifest(object_id)
                    listed = manifest.slot(number) if manifest is not None else None
                except FungiStorError:
                    continue
                if listed is None or listed.slot.stripe_id != stripe_id:
                    continue
                used = standing.setdefault(stripe_id, bytearray(len(reused.used)))
                for first, count in listed.runs:
                    used[first : first + count] = bytes((1,)) * count
            return all(
                stripe_id in standing and all(standing[stripe_id][number] for number in reused.used_numbers())
                for stripe_id, reused in self._stripes.items()
                if reused is not None
            )

    def slots(self) -> Iterator[tuple[int, ListSlot]]:
        """The reused stripes with the runs of blocks that this object uses."""
        for reused in self._kept():
            yield reused.number, ListSlot(reused.slot, reused.block_lengths, runs_of(reused.used_numbers()))

    def add_to(self, settlement: Settlement) -> None:
        """Count what the reused stripes' members owe."""
        for reused in self._kept():
            slot = reused.slot
            window = wanted_at(self._store, slot)
            for index in reused.missing:
                settlement.owed[window[index]] = settlement.owed.get(window[index], 0) + 1
            settlement.survives = min(settlement.survives, slot.m - len(reused.missing))
            zones = self._policy.zones_survived(window, {window[index] for index in reused.missing}, slot.k)
            settlement.survives_zones = min(settlement.survives_zones, zones)

    @property
    def sealed_bytes(self) -> int:
        """Bytes of the sealed blocks reused."""
        return sum(reused.block_lengths[number] for reused in self._kept() for number in reused.used_numbers())

    @property
    def stripes(self) -> int:
        """How many stripes are reused."""
        return sum(1 for _ in self._kept())

    @property
    def value_bytes(self) -> int:
        """Value bytes of the reused stripes, whole."""
        return sum(value_bytes(reused.slot) for reused in self._kept())

    def _kept(self) -> Iterator[_Reused]:
        return (reused for reused in self._stripes.values() if reused is not None)


def runs_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as (first, count) runs."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return tuple(runs)
