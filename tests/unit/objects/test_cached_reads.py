"""Reading stripes through the cache: fetched once, checked when read, never a wrong byte."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from fungistor.cache.disk import DiskCache
from fungistor.cache.memory import MemoryCache
from fungistor.cache.tiers import Cache
from fungistor.coding.manifest import Slot
from fungistor.limits import MIB
from fungistor.objects.stripe_reader import StripeReader
from fungistor.testing.memory_store import MemoryStore
from tests.unit.objects.test_stripe_reader import Stripe

LENGTHS = [3000, 40_000, 100, 20_000]


class _Counting:
    """A store that counts fetches, and lets the first of them wait until `free` is set."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.fetches = 0
        self.free = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def fetch(
        self, slot: Slot, wanted: Collection[int] | None, into: Callable[[int], memoryview], *, exclude: Collection[int]
    ) -> object:
        self.fetches += 1
        assert self.free.wait(10)
        return self._store.fetch(slot, wanted, into, exclude=exclude)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskCache]:
    with closing(DiskCache(str(tmp_path / "spans"), 64 * MIB)) as cache:
        yield cache


def _reader(store: object, cache: Cache) -> StripeReader:
    return StripeReader(store, lambda *_: None, cache)  # type: ignore[arg-type]


def test_a_storm_for_one_stripe_fetches_it_once(tmp_path: Path, disk: DiskCache) -> None:
    """Thirty threads, half of them of another worker with the same disk, want the same blocks: one fetch."""
    stripe = Stripe(tmp_path, LENGTHS)
    counting = _Counting(stripe.store)
    flights = Cache(MemoryCache(MIB), disk).flights
    workers = [_reader(counting, Cache(MemoryCache(MIB), disk, flights)) for _ in range(2)]
    arrived = threading.Barrier(31)

    def want(number: int) -> list[bytes]:
        arrived.wait()
        return workers[number % 2].read_blocks(stripe.slot, stripe.wanted)

    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(want, number) for number in range(30)]
        arrived.wait()
        counting.free.set()
        assert all(answer.result(10) == stripe.blocks for answer in answers)
    assert counting.fetches == 1


def test_blocks_outlive_their_members(tmp_path: Path, disk: DiskCache) -> None:
    """What was read once is read again when every member is down, also by a process that starts only then."""
    stripe = Stripe(tmp_path, LENGTHS)
    assert _reader(stripe.store, Cache(MemoryCache(MIB), disk)).read_blocks(stripe.slot, stripe.wanted) == stripe.blocks
    for member in stripe.window:
        stripe.store[member].faults.down = True
    started_later = _reader(stripe.store, Cache(MemoryCache(MIB), disk))
    assert started_later.read_blocks(stripe.slot, stripe.wanted) == stripe.blocks


def test_a_damaged_span_is_fetched_again(tmp_path: Path, disk: DiskCache) -> None:
    """A bit flipped anywhere in the cache's files is never served: the members are asked, and the cache mended."""
    stripe = Stripe(tmp_path, LENGTHS)
    counting = _Counting(stripe.store)
    counting.free.set()
    _reader(counting, Cache(MemoryCache(MIB), disk)).read_blocks(stripe.slot, stripe.wanted)
    (segment,) = (tmp_path / "spans").glob("*.segment")
    for offset in range(0, segment.stat().st_size, 5000):
        data = bytearray(segment.read_bytes())
        data[offset] ^= 1
        segment.write_bytes(data)
    reader = _reader(counting, Cache(MemoryCache(MIB), disk))
    reader.forget()
    assert reader.read_blocks(stripe.slot, stripe.wanted) == stripe.blocks
    assert counting.fetches == 2
    again = _reader(counting, Cache(MemoryCache(MIB), disk))
    assert again.read_blocks(stripe.slot, stripe.wanted) == stripe.blocks
    assert counting.fetches == 2


def test_nothing_readable_lies_on_the_disk(tmp_path: Path, disk: DiskCache) -> None:
    """No run of a block's bytes, nor its hash, stands in the cache's files."""
    stripe = Stripe(tmp_path, LENGTHS)
    _reader(stripe.store, Cache(MemoryCache(MIB), disk)).read_blocks(stripe.slot, stripe.wanted)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "spans").iterdir())
    assert len(kept) > sum(LENGTHS)
    for block, wanted in zip(stripe.blocks, stripe.wanted, strict=True):
        assert block[:32] not in kept
        assert wanted.multihash[2:] not in kept
    assert bytes(stripe.slot.slot.stripe_id) not in kept


def test_one_pass_over_much_is_not_kept_on_disk(tmp_path: Path, disk: DiskCache) -> None:
    """Told not to keep, the reader leaves the disk alone, and memory serves whoever comes at the same time."""
    stripe = Stripe(tmp_path, LENGTHS)
    cache = Cache(MemoryCache(MIB), disk)
    _reader(stripe.store, cache).read_blocks(stripe.slot, stripe.wanted, keep=False)
    assert disk.status().spans == 0
    assert cache.block(stripe.wanted[0].multihash) == stripe.blocks[0]
