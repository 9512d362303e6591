"""Open blocks of a stripe: fetch the shards that hold them, decode where one is missing, name the liar where one lies.

A few bytes of a shard are fetched as such; if they do not open, or the same shard is wanted again, it is fetched whole.
Blocks are opened first and tags checked only when that fails: a block's own seal covers the shards it lies in, and
checking every tag of every healthy read was measured to cost a fifth of the speed.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fungistor import trail
from fungistor.coding import erasure
from fungistor.coding.compress import Compression, decompress
from fungistor.coding.manifest import ListSlot, Slot, Stored
from fungistor.coding.seal import block_aad, open_sealed
from fungistor.coding.shard import payload_root, shard_tag
from fungistor.dag.cid import verify
from fungistor.errors import CorruptError, UnavailableError
from fungistor.limits import KIB
from fungistor.objects.ports import ShardStore

RANGE_SHARE = 4
"""A range is fetched by itself if it is at most this part of its shard. Who reads on in the same shard gets it whole:
one request for all that is left of it is cheaper than one a file."""

RANGE_SAVES_BYTES_MIN = 16 * KIB
"""Less is not worth a request that proves nothing about its sender."""

OnCorrupt = Callable[[Slot, int], None]
"""Told of each shard that was found to lie: its slot and index."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One block to open: what it must hash to, and its entry in the block map."""

    multihash: bytes
    entry: Stored


class HeldStripe:
    """One stripe's shards in a reused buffer, data shard i at ``i * shard_bytes``. Not thread-safe."""

    def __init__(self, store: ShardStore, on_corrupt: OnCorrupt) -> None:
        self._store = store
        self._on_corrupt = on_corrupt
        self._buffer = bytearray()
        self._slot: Slot | None = None
        self._whole: set[int] = set()
        self._fetched: dict[int, tuple[memoryview, bytes]] = {}
        self._liars: set[int] = set()
        self._parity: dict[int, bytearray] = {}
        self._ranges: set[tuple[int, int]] = set()
        self._ranged: set[int] = set()

    def hold(self, slot: Slot) -> None:
        """Turn to a stripe; what is held of it already stays."""
        if self._slot is not None and self._slot.stripe_id == slot.stripe_id:
            return
        self._slot = slot
        self.drop()
        if len(self._buffer) < slot.k * slot.shard_bytes:
            self._buffer = bytearray(slot.k * slot.shard_bytes)

    def _parity_buffer(self, index: int, size: int) -> memoryview:
        """A reused buffer for a shard that is not data; nothing holds on to what the last stripe left in it."""
        if len(self._parity.get(index, b"")) < size:
            self._parity[index] = bytearray(size)
        return memoryview(self._parity[index])[:size]

    def drop(self) -> None:
        """Forget the shards held, and what was found of liars."""
        self._whole.clear()
        self._fetched.clear()
        self._liars.clear()
        self._ranges.clear()
        self._ranged.clear()

    def bring_ranges(self, spans: Sequence[tuple[int, int]]) -> bool:
        """Have these spans (offset, length) in the buffer if they are small parts of their shards and easily had."""
        slot = self._slot
        assert slot is not None
        if self._ranges.issuperset(spans):
            return True
        covers = self._covers(spans)
        small = min(slot.shard_bytes // RANGE_SHARE, slot.shard_bytes - RANGE_SAVES_BYTES_MIN)
        if not covers or not (self._ranged | self._liars).isdisjoint(covers) or len(self._fetched) >= slot.k:
            return False
        if max(stop - start for start, stop in covers.values()) > small:
            return False
        view = memoryview(self._buffer)
        bases = {index: index * slot.shard_bytes for index in covers}
        self._ranged.update(covers)
        pieces = [(index, start - bases[index], view[start:stop]) for index, (start, stop) in covers.items()]
        if not self._store.fetch_ranges(slot, pieces):
            return False
        self._ranges.update(spans)
        return True

    def _covers(self, spans: Sequence[tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """For each shard that is not here whole: from where to where in the stripe the spans reach in it."""
        assert self._slot is not None
        size = self._slot.shard_bytes
        covers: dict[int, tuple[int, int]] = {}
        for offset, length in spans:
            for index in range(offset // size, (offset + length - 1) // size + 1):
                if index not in self._whole:
                    start, stop = max(offset, index * size), min(offset + length, (index + 1) * size)
                    known = covers.get(index, (start, stop))
                    covers[index] = (min(start, known[0]), max(stop, known[1]))
        return covers

    def bring(self, indices: Collection[int]) -> None:
        """Have these data shards in the buffer.

        Raises:
            NotEnoughShardsError: fewer than k shards can be had now.
        """
        slot = self._slot
        assert slot is not None
        missing = [index for index in indices if index not in self._whole]
        if not missing:
            return
        size = slot.shard_bytes
        view = memoryview(self._buffer)

        def into(index: int) -> memoryview:
            return view[index * size : (index + 1) * size] if index < slot.k else self._parity_buffer(index, size)

        if len(self._fetched) < slot.k:
            try:
                fetched = self._store.fetch(slot, missing, into, exclude=self._liars)
            except UnavailableError:
                # The buffer may hold pieces of what came too late, and a liar may be mended before it is asked again.
                self.drop()
                raise
            for index, payload in fetched.shards.items():
                self._fetched[index] = (payload, fetched.tags[index])
                if index < slot.k:
                    self._whole.add(index)
        lost = [index for index in missing if index not in self._whole]
        if lost:
            have = {index: payload for index, (payload, _) in self._fetched.items()}
            erasure.recover(slot.k, have, {index: view[index * size : (index + 1) * size] for index in lost})
            self._whole.update(lost)

    def sealed(self, offset: int, length: int) -> memoryview:
        """Bytes of the stripe; their shards must have been brought."""
        return memoryview(self._buffer)[offset : offset + length]

    def expel_liars(self) -> bool:
        """Check the tag of every shard held; drop all that is doubtful. False if no shard lies."""
        slot = self._slot
        assert slot is not None
        liars = [
            index
            for index, (payload, tag) in self._fetched.items()
            if shard_tag(slot.stripe_id, index, slot.shard_bytes, payload_root(payload)) != tag
        ]
        for index in liars:
            self._on_corrupt(slot, index)
        self._liars.update(liars)
        # A shard rebuilt with a liar's help is wrong, too, so only honest ones that arrived are kept.
        self._fetched = {index: held for index, held in self._fetched.items() if index not in self._liars}
        self._whole = {index for index in self._fetched if index < slot.k}
        return bool(liars)


class StripeReader:
    """Thread-safe; each thread keeps the last stripe it held, since the next blocks mostly lie in it."""

    def __init__(self, store: ShardStore, on_corrupt: OnCorrupt) -> None:
        self._store = store
        self._on_corrupt = on_corrupt
        self._local = threading.local()

    def _held(self) -> HeldStripe:
        held: HeldStripe | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = HeldStripe(self._store, self._on_corrupt)
        return held

    def forget(self) -> None:
        """Drop what this thread holds, so that the next read asks the members again."""
        self._held().drop()

    def read_blocks(self, slot: ListSlot, wanted: Sequence[Wanted]) -> list[bytes]:
        """Open blocks of one stripe, each verified against its multihash.

        Raises:
            NotEnoughShardsError: fewer than k honest shards can be had now.
            CorruptError: honest shards do not give the block: the manifest is wrong.
        """
        offsets = list(itertools.accumulate(slot.block_lengths, initial=0))
        spans = []
        for block in wanted:
            if block.entry.number >= len(slot.block_lengths):
                raise CorruptError(f"the block map names block {block.entry.number} of a stripe that has fewer")
            spans.append((offsets[block.entry.number], slot.block_lengths[block.entry.number]))

        def open_all(held: HeldStripe) -> list[bytes]:
            return [_open(held.sealed(*span), block) for span, block in zip(spans, wanted, strict=True)]

        with trail.phase("block"):
            return self._read(slot.slot, spans, open_all)

    def read_span(self, slot: Slot, offset: int, length: int, opener: Callable[[memoryview], bytes]) -> bytes:
        """Open one run of a stripe's bytes, such as a manifest page, with `opener`, which raises CorruptError."""
        with trail.phase("manifest"):
            return self._read(slot, [(offset, length)], lambda held: [opener(held.sealed(offset, length))])[0]

    def _read(
        self, slot: Slot, spans: Sequence[tuple[int, int]], open_all: Callable[[HeldStripe], list[bytes]]
    ) -> list[bytes]:
        indices: set[int] = set()
        for offset, length in spans:
            if length <= 0 or offset + length > slot.k * slot.shard_bytes:
                raise CorruptError("a manifest names bytes beyond the end of their stripe")
            indices.update(range(offset // slot.shard_bytes, (offset + length - 1) // slot.shard_bytes + 1))
        held = self._held()
        held.hold(slot)
        if held.bring_ranges(spans):
            # Bytes that do not open say nothing of who lied; whole shards do, by their tags.
            with contextlib.suppress(CorruptError):
                return open_all(held)
        # Each round expels at least one liar, and there are no more than k + m shards to lie.
        for _ in range(slot.k + slot.m + 1):
            held.bring(indices)
            try:
                return open_all(held)
            except CorruptError:
                if not held.expel_liars():
                    held.drop()
                    raise
        raise CorruptError("a stripe's shards keep changing while they are read")


def _open(sealed: memoryview, block: Wanted) -> bytes:
    entry = block.entry
    compression = Compression(entry.compression)
    packed = open_sealed(entry.key, sealed, block_aad(block.multihash, compression, entry.plain_bytes))
    plain = decompress(compression, packed, entry.plain_bytes)
    verify(block.multihash, plain)
    return plain
