"""Blocks that the tenant stores already: found by the block index, reused stripe by stripe, never across tenants.

A stripe is reused only if enough of its shards are there now: a publish must not lean on what is about to be lost.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fungistor.catalog.index import BlockIndex, Holder
from fungistor.coding.manifest import ListSlot, Stored
from fungistor.errors import FungiStorError
from fungistor.ids import ObjectId, StripeId
from fungistor.keys.ring import block_hash
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.ports import ShardStore, wanted_at
from fungistor.objects.session import DURABLE_MARGIN, Settlement, value_bytes
from fungistor.objects.spool import StoredBlock

HOLDERS_TRIED_MAX = 4

OpenManifest = Callable[[ObjectId], ManifestReader | None]
"""Open an object's manifest, None where there is no such object."""


@dataclass(slots=True)
class _Reused:
    number: int
    slot: ListSlot
    missing: frozenset[int]
    used: set[int] = field(default_factory=set)


class KnownBlocks:
    """What one publish reuses. Thread-safe."""

    def __init__(self, index: BlockIndex, network_key: bytes, open_manifest: OpenManifest, store: ShardStore) -> None:
        self._index = index
        self._network_key = network_key
        self._open_manifest = open_manifest
        self._store = store
        self._lock = threading.Lock()
        self._stripes: dict[StripeId, _Reused | None] = {}

    def find(self, multihashes: Sequence[bytes], slots: itertools.count[int]) -> dict[bytes, StoredBlock]:
        """Find those of some blocks that lie in healthy stripes, which then are among this object's slots."""
        hashes = {block_hash(self._network_key, multihash): multihash for multihash in multihashes}
        holders = self._index.holders_of(list(hashes), HOLDERS_TRIED_MAX)
        open_manifest = functools.cache(self._open_manifest)
        found: dict[bytes, StoredBlock] = {}
        with self._lock:
            # In the order of the block maps, so that each of their pages is opened once.
            for key, tried in sorted(holders.items(), key=lambda at: at[1]):
                block = self._first(hashes[key], tried, open_manifest, slots)
                if block is not None:
                    found[hashes[key]] = block
        return found

    def _first(
        self, multihash: bytes, holders: list[Holder], open_manifest: OpenManifest, slots: itertools.count[int]
    ) -> StoredBlock | None:
        for holder in holders:
            try:
                found = self._reuse(holder, multihash, open_manifest, slots)
            except FungiStorError:
                # A holder that cannot be read now is no reason to fail: the block is stored again.
                continue
            if found is not None:
                return found
        return None

    def _reuse(
        self, holder: Holder, multihash: bytes, open_manifest: OpenManifest, slots: itertools.count[int]
    ) -> StoredBlock | None:
        manifest = open_manifest(holder.object_id)
        entry = manifest.entry_at(holder.node, holder.position, multihash) if manifest is not None else None
        if manifest is None or not isinstance(entry, Stored):
            return None
        slot = manifest.slot(entry.slot)
        stripe_id = slot.slot.stripe_id
        if stripe_id not in self._stripes:
            missing = self._missing(slot)
            healthy = slot.slot.m - len(missing) >= DURABLE_MARGIN
            self._stripes[stripe_id] = _Reused(next(slots), slot, missing) if healthy else None
        reused = self._stripes[stripe_id]
        if reused is None:
            return None
        reused.used.add(entry.number)
        return StoredBlock(reused.number, entry.number, entry.plain_bytes, int(entry.compression), entry.key)

    def _missing(self, slot: ListSlot) -> frozenset[int]:
        return frozenset(index for index, there in self._store.exists(slot.slot).items() if not there)

    def slots(self) -> Iterator[tuple[int, ListSlot]]:
        """The reused stripes with the runs of blocks that this object uses."""
        for reused in self._kept():
            yield reused.number, ListSlot(reused.slot.slot, reused.slot.block_lengths, runs_of(reused.used))

    def add_to(self, settlement: Settlement) -> None:
        """Count what the reused stripes' members owe."""
        for reused in self._kept():
            slot = reused.slot.slot
            window = wanted_at(self._store, slot)
            for index in reused.missing:
                settlement.owed[window[index]] = settlement.owed.get(window[index], 0) + 1
            settlement.survives = min(settlement.survives, slot.m - len(reused.missing))

    @property
    def sealed_bytes(self) -> int:
        """Bytes of the sealed blocks reused."""
        return sum(reused.slot.block_lengths[number] for reused in self._kept() for number in reused.used)

    @property
    def stripes(self) -> int:
        """How many stripes are reused."""
        return sum(1 for _ in self._kept())

    @property
    def value_bytes(self) -> int:
        """Value bytes of the reused stripes, whole."""
        return sum(value_bytes(reused.slot.slot) for reused in self._kept())

    def _kept(self) -> Iterator[_Reused]:
        return (reused for reused in self._stripes.values() if reused is not None)


def runs_of(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as (first, count) runs."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return tuple(runs)
