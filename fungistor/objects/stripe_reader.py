"""Open blocks of a stripe: fetch the shards that hold them, decode where one is missing, name the liar where one lies.

A few bytes of a shard are fetched as such; if they do not open, or the same shard is wanted again, it is fetched whole.
Blocks are opened first and tags checked only when that fails: a block's own seal covers the shards it lies in, and
checking every tag of every healthy read was measured to cost a fifth of the speed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fungistor import trail
from fungistor.cache.tiers import span_key
from fungistor.coding import erasure
from fungistor.coding.compress import Compression, decompress
from fungistor.coding.manifest import ListSlot, Slot, Stored
from fungistor.coding.seal import block_aad, open_sealed
from fungistor.coding.shard import payload_root, shard_tag
from fungistor.dag.cid import verify
from fungistor.errors import CorruptError, UnavailableError
from fungistor.ids import StripeId
from fungistor.limits import KIB
from fungistor.objects.ports import Buffer, ReadCache, ShardStore

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

    @property
    def stripe_id(self) -> StripeId:
        """Which stripe it is."""
        assert self._slot is not None
        return self._slot.stripe_id

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


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of a stripe's bytes. `open` raises CorruptError; told that the bytes were opened once, it may check less.
    `multihash` of the block that they are, if they are one."""

    offset: int
    length: int
    open: Callable[[Buffer, bool], bytes]
    multihash: bytes | None = None


class StripeReader:
    """Thread-safe; each thread keeps the last stripe it held, since the next blocks mostly lie in it."""

    def __init__(self, store: ShardStore, on_corrupt: OnCorrupt, cache: ReadCache | None = None) -> None:
        self._store = store
        self._on_corrupt = on_corrupt
        self.cache = cache
        self._local = threading.local()

    def _held(self) -> HeldStripe:
        held: HeldStripe | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = HeldStripe(self._store, self._on_corrupt)
        return held

    def forget(self) -> None:
        """Drop what this thread holds, so that the next read asks the members again."""
        self._held().drop()

    def read_blocks(self, slot: ListSlot, wanted: Sequence[Wanted], *, keep: bool = True) -> list[bytes]:
        """The plain bytes of some blocks of one stripe, verified, in the order asked for.

        `keep` False: they are part of one pass over much, and need not be kept on disk.

        Raises:
            NotEnoughShardsError: the stripe cannot be read now.
            CorruptError: what its members hold and the manifest do not belong together.
        """
        offsets = list(itertools.accumulate(slot.block_lengths, initial=0))
        spans = []
        for block in wanted:
            if block.entry.number >= len(slot.block_lengths):
                raise CorruptError(f"the block map names block {block.entry.number} of a stripe that has fewer")
            spans.append(
                _Span(
                    offsets[block.entry.number],
                    slot.block_lengths[block.entry.number],
                    functools.partial(_open, block),
                    block.multihash,
                )
            )
        with trail.phase("block"):
            return self._read(slot.slot, spans, keep)

    def read_span(self, slot: Slot, offset: int, length: int, opener: Callable[[Buffer], bytes]) -> bytes:
        """Open one run of a stripe's bytes, such as a manifest page, with `opener`, which raises CorruptError."""
        with trail.phase("manifest"):
            return self._read(slot, [_Span(offset, length, lambda sealed, _: opener(sealed))], True)[0]

    def _read(self, slot: Slot, spans: Sequence[_Span], keep: bool) -> list[bytes]:
        cache = self.cache
        if cache is None:
            return self._from_members(slot, spans, None)
        looked = cache.landed
        found = [self._kept(cache, slot, span) for span in spans]
        if any(block is None for block in found):
            with cache.flight(slot.stripe_id, looked) as waited:
                if waited:
                    found = [
                        self._kept(cache, slot, span) if block is None else block
                        for span, block in zip(spans, found, strict=True)
                    ]
                self._fill(cache, slot, spans, found, keep)
        return [block for block in found if block is not None]

    def _kept(self, cache: ReadCache, slot: Slot, span: _Span) -> bytes | None:
        if span.multihash is not None and (block := cache.block(span.multihash)) is not None:
            return block
        if not cache.keeps_sealed:
            return None
        key = span_key(slot.stripe_id, span.offset, span.length)
        sealed = cache.sealed(key)
        if sealed is None:
            return None
        try:
            block = span.open(sealed, True)
        except CorruptError:
            cache.damaged(key)
            return None
        if span.multihash is not None:
            cache.keep_block(span.multihash, block)
        return block

    def _fill(
        self, cache: ReadCache, slot: Slot, spans: Sequence[_Span], found: list[bytes | None], keep: bool
    ) -> None:
        """Bring from the members what was not kept, and keep it."""
        places = [place for place, block in enumerate(found) if block is None]
        if not places:
            return
        sealed: dict[bytes, bytes] | None = {} if keep and cache.keeps_sealed else None
        fresh = self._from_members(slot, [spans[place] for place in places], sealed)
        for place, block in zip(places, fresh, strict=True):
            found[place] = block
            multihash = spans[place].multihash
            if multihash is not None:
                cache.keep_block(multihash, block)
        if sealed:
            cache.keep_sealed(sealed)

    def _from_members(self, slot: Slot, spans: Sequence[_Span], sealed: dict[bytes, bytes] | None) -> list[bytes]:
        """Open spans as members give them. What was opened is copied to `sealed`, by its key."""
        indices: set[int] = set()
        for span in spans:
            end = span.offset + span.length
            if span.length <= 0 or end > slot.k * slot.shard_bytes:
                raise CorruptError("a manifest names bytes beyond the end of their stripe")
            indices.update(range(span.offset // slot.shard_bytes, (end - 1) // slot.shard_bytes + 1))
        held = self._held()
        held.hold(slot)
        if held.bring_ranges([(span.offset, span.length) for span in spans]):
            # Bytes that do not open say nothing of who lied; whole shards do, by their tags.
            with contextlib.suppress(CorruptError):
                return _opened(held, spans, sealed)
        # Each round expels at least one liar, and there are no more than k + m shards to lie.
        for _ in range(slot.k + slot.m + 1):
            held.bring(indices)
            try:
                return _opened(held, spans, sealed)
            except CorruptError:
                if not held.expel_liars():
                    held.drop()
                    raise
        raise CorruptError("a stripe's shards keep changing while they are read")


def _opened(held: HeldStripe, spans: Sequence[_Span], sealed: dict[bytes, bytes] | None) -> list[bytes]:
    """Open spans that are at hand, and copy those that opened to `sealed`, by their keys."""
    opened = [span.open(held.sealed(span.offset, span.length), False) for span in spans]
    if sealed is not None:
        for span in spans:
            key = span_key(held.stripe_id, span.offset, span.length)
            sealed[key] = bytes(held.sealed(span.offset, span.length))
    return opened


def _open(block: Wanted, sealed: Buffer, was_opened: bool) -> bytes:
    """Open a block. One that was verified once needs its hash no more: the seal covers every bit of it."""
    entry = block.entry
    compression = Compression(entry.compression)
    packed = open_sealed(entry.key, sealed, block_aad(block.multihash, compression, entry.plain_bytes))
    plain = decompress(compression, packed, entry.plain_bytes)
    if not was_opened:
        verify(block.multihash, plain)
    return plain
