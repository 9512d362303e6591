"""The object source: fetches in the order hinted, a bounded window ahead, each block once, and nothing unasked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from fungistor.cache.disk import DiskCache
from fungistor.cache.memory import MemoryCache
from fungistor.cache.tiers import Cache
from fungistor.coding.manifest import Stored
from fungistor.dag import CID, RAW, entries, read_file, resolve, sha256_multihash
from fungistor.errors import NotEnoughShardsError, NotFoundError
from fungistor.limits import MIB
from fungistor.objects import source as sources
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.results import PublishOptions
from fungistor.objects.source import (
    GROUP_BLOCKS_MAX,
    GROUP_BYTES,
    PAUSE_S,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    ObjectSource,
    ReadThreads,
)
from fungistor.objects.stripe_reader import StripeReader, Wanted
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write

PROFILE = PublishOptions(profile="kubo-cidv1")


class Recording(ReadThreads):
    """Reads at once in the caller's thread, and notes which groups were asked for."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network.threads.reader, 1)
        self.groups: list[list[bytes]] = []

    def submit(
        self, manifest: ManifestReader, slot: int, wanted: Sequence[Wanted], *, keep: bool
    ) -> Future[list[bytes]]:
        self.groups.append([block.multihash for block in wanted])
        future: Future[list[bytes]] = Future()
        try:
            future.set_result(self.reader.read_blocks(manifest.slot(slot), wanted))
        except NotEnoughShardsError as error:
            future.set_exception(error)
        return future

    @property
    def blocks(self) -> list[bytes]:
        return [block for group in self.groups for block in group]


class Opened:
    """A published path, opened through a recording."""

    def __init__(self, network: MemoryNetwork, path: Path, options: PublishOptions = PROFILE) -> None:
        self.outcome = network.publish(str(path), options)
        self.root = CID.parse(self.outcome.cid)
        self.threads = Recording(network)
        located = network.content.locate(self.root)
        self.now = 0.0
        self.source = ObjectSource(located.manifest, self.threads, lambda: self.now)
        self.source.seed(self.root, located.entry)

    def cid(self, *names: str) -> CID:
        return resolve(self.source, self.root, names).cid


@pytest.fixture
def opened(network: MemoryNetwork, tree: Path) -> Iterator[Opened]:
    """A folder with a large file, a few hundred small ones and a second large one behind them."""
    write(tree, "0-large", noise(0, 20 * MIB))
    for number in range(300):
        write(tree, f"small-{number:03}", noise(number + 1, 5000))
    write(tree, "z-large", noise(1000, 3 * MIB))
    made = Opened(network, tree)
    yield made
    made.source.close()
    made.threads.close()


def leaf(data: bytes) -> CID:
    return CID(1, RAW, sha256_multihash(data))


def test_a_file_is_read_with_each_block_fetched_once(opened: Opened) -> None:
    """Bytes in order, no block twice, none of other files."""
    data = b"".join(read_file(opened.source, opened.cid("0-large")))
    assert data == noise(0, 20 * MIB)
    step = 262144
    assert opened.threads.blocks == [leaf(data[at : at + step]).multihash for at in range(0, len(data), step)]


def test_a_range_fetches_the_blocks_it_lies_in(opened: Opened) -> None:
    """Three bytes across the edge of two blocks cost these two blocks."""
    cid = opened.cid("0-large")
    opened.threads.groups.clear()
    edge = 40 * 262144
    got = b"".join(read_file(opened.source, cid, edge - 1, edge + 2))
    assert got == noise(0, 20 * MIB)[edge - 1 : edge + 2]
    assert len(opened.threads.blocks) == 2


def test_a_listing_fetches_no_content(opened: Opened) -> None:
    """To list a folder and tell its files' sizes takes the block map and no stripe of content."""
    for entry in entries(opened.source, opened.root):
        if entry.cid.codec == RAW:
            assert opened.source.plain_bytes(entry.cid) == 5000
    assert opened.threads.blocks == []


def test_the_window_bounds_what_is_fetched_and_not_taken(opened: Opened) -> None:
    """However much is hinted, the bytes ahead stay within the window and one group."""
    data = noise(0, 20 * MIB)
    cids = [leaf(data[at : at + 262144]) for at in range(0, len(data), 262144)]
    opened.source.get(opened.root)
    opened.source.get(opened.cid("0-large"))
    opened.source.hint(cids)
    taken = 0
    for cid in cids:
        fetched = 262144 * len(opened.threads.blocks)
        assert fetched - taken <= WINDOW_BYTES_MAX + GROUP_BYTES
        opened.source.get(cid)
        taken += 262144
    assert all(len(group) * 262144 <= GROUP_BYTES for group in opened.threads.groups)


@pytest.mark.parametrize("pause_s", [0.0, PAUSE_S / 2, PAUSE_S * 2])
def test_the_window_follows_the_readers_pace(opened: Opened, pause_s: float) -> None:
    """A reader that keeps asking gets the whole window; one that lets blocks lie holds little more than the least."""
    data = noise(0, 20 * MIB)
    cids = [leaf(data[at : at + 262144]) for at in range(0, len(data), 262144)]
    opened.source.get(opened.root)
    opened.source.get(opened.cid("0-large"))
    opened.source.hint(cids)
    ahead_max = 0
    for number, cid in enumerate(cids, 1):
        opened.source.get(cid)
        opened.now += pause_s
        ahead_max = max(ahead_max, len(opened.threads.blocks) - number)
    if pause_s > PAUSE_S:
        assert ahead_max * 262144 <= 2 * WINDOW_BYTES_MIN
    else:
        assert WINDOW_BYTES_MAX - GROUP_BYTES <= ahead_max * 262144 <= WINDOW_BYTES_MAX + GROUP_BYTES


def test_groups_are_bounded_in_number_and_follow_the_hint(opened: Opened) -> None:
    """Small blocks travel together, a bounded number at a time, in the order hinted."""
    small = [leaf(noise(number + 1, 5000)) for number in range(300)]
    opened.source.get(opened.root)
    opened.source.hint(small)
    for number, cid in enumerate(small):
        assert opened.source.get(cid) == noise(number + 1, 5000)
    assert opened.threads.blocks == [cid.multihash for cid in small]
    assert max(map(len, opened.threads.groups)) <= GROUP_BLOCKS_MAX
    assert len(opened.threads.groups) <= 4


def test_what_was_fetched_for_later_survives_a_file_in_between(network: MemoryNetwork, tree: Path) -> None:
    """A folder's small files fill the window, then a large file before them is read: nothing is fetched twice."""
    write(tree, "0-large", noise(0, 3 * MIB))
    for number in range(100):
        write(tree, f"small-{number:03}", noise(number + 1, 200_000))
    opened = Opened(network, tree)
    listing = list(entries(opened.source, opened.root))
    opened.source.hint([entry.cid for entry in listing])
    assert 200_000 * len(opened.threads.blocks) >= WINDOW_BYTES_MIN
    for entry in listing:
        assert len(b"".join(read_file(opened.source, entry.cid))) in (200_000, 3 * MIB)
    blocks = opened.threads.blocks
    assert len(blocks) == len(set(blocks)) == 12 + 100
    assert len(opened.threads.groups) < 40
    assert opened.source._ahead == 0
    opened.threads.close()


def test_what_is_skipped_leaves_the_window(opened: Opened) -> None:
    """A reader that jumps ahead gets its block, and what it jumped over no longer counts against the window."""
    data = noise(0, 20 * MIB)
    cids = [leaf(data[at : at + 262144]) for at in range(0, len(data), 262144)]
    opened.source.get(opened.root)
    opened.source.get(opened.cid("0-large"))
    opened.source.hint(cids)
    opened.source.get(cids[0])
    assert opened.source.get(cids[70]) == data[70 * 262144 : 71 * 262144]
    assert opened.threads.blocks.count(cids[60].multihash) == 0
    for number in range(71, 80):
        opened.source.get(cids[number])
    assert opened.source._ahead == 0
    assert opened.source.get(cids[5]) == data[5 * 262144 : 6 * 262144]


def test_the_last_block_is_not_fetched_twice(opened: Opened) -> None:
    """Whoever describes a block and then reads it causes one fetch."""
    cid = leaf(noise(1, 5000))
    opened.source.get(opened.root)
    assert opened.source.get(cid) == opened.source.get(cid) == noise(1, 5000)
    assert opened.threads.blocks == [cid.multihash]


def test_a_block_taken_before_can_be_had_again(opened: Opened) -> None:
    """Equal blocks at two places of a DAG are two gets, and both are answered."""
    one, two = leaf(noise(1, 5000)), leaf(noise(2, 5000))
    opened.source.get(opened.root)
    opened.source.hint([one, two, one])
    assert [opened.source.get(cid) for cid in (one, two, one)] == [noise(1, 5000), noise(2, 5000), noise(1, 5000)]


def test_a_block_is_found_without_being_led_to_it(opened: Opened) -> None:
    """A reader that names a block deep in the DAG out of nowhere gets it; the map is searched."""
    data = noise(1000, 3 * MIB)
    assert opened.source.get(leaf(data[262144:524288])) == data[262144:524288]
    with pytest.raises(NotFoundError, match="not stored with this object"):
        opened.source.get(leaf(b"somebody else's"))


def test_forgotten_nodes_are_looked_up_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one node's entries the source still finds all blocks."""
    monkeypatch.setattr(sources, "ENTRIES_REMEMBERED_MAX", 1)
    for name in ("z-large", "0-large"):
        assert len(b"".join(read_file(opened.source, opened.cid(name)))) in (3 * MIB, 20 * MIB)
    assert len(opened.source._nodes) == 1


def test_a_failed_stripe_is_told_each_time_and_heals(opened: Opened, network: MemoryNetwork) -> None:
    """With five members down the get fails, again when repeated, and succeeds when they are back."""
    cid = leaf(noise(1, 5000))
    entry = opened.source._manifest.search(cid.multihash)
    assert isinstance(entry, Stored)
    slot = opened.source._manifest.slot(entry.slot).slot
    window = network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
    network.store.down(window[:5])
    opened.source.get(opened.root)
    opened.source.hint([cid])
    for _ in range(2):
        with pytest.raises(NotEnoughShardsError):
            opened.source.get(cid)
    network.store.heal()
    assert opened.source.get(cid) == noise(1, 5000)
    assert opened.source._ahead == 0


def test_a_second_pass_shows_what_is_worth_keeping(
    network: MemoryNetwork, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass keeps its beginning, the second all it brings, and the third asks no member."""
    monkeypatch.setattr(sources, "KEPT_BYTES_MAX", MIB)
    write(tree, "large", noise(0, 5 * MIB))
    root = CID.parse(network.publish(str(tree), PROFILE).cid)
    held: list[int] = []
    misses: list[int] = []
    with contextlib.closing(DiskCache(str(tree.parent / "spans"), 64 * MIB)) as disk:
        for _ in range(3):
            reader = StripeReader(network.store, lambda *_: None, Cache(MemoryCache(0), disk))
            with contextlib.closing(ReadThreads(reader, 1)) as threads:
                located = network.content.locate(root)
                with ObjectSource(located.manifest, threads) as source:
                    source.seed(root, located.entry)
                    read = b"".join(read_file(source, resolve(source, root, ("large",)).cid))
                assert read == noise(0, 5 * MIB)
            held.append(disk.status().bytes)
            misses.append(disk.misses)
    assert held[0] < 3 * MIB
    assert held[1] >= 5 * MIB
    assert held[2] == held[1]
    assert misses[2] == misses[1]


def test_a_closed_source_answers_nothing(opened: Opened) -> None:
    """After close a get is not found, a hint fetches nothing, and closing again is well."""
    opened.source.get(opened.root)
    opened.source.close()
    opened.source.close()
    with pytest.raises(NotFoundError, match="closed"):
        opened.source.get(opened.root)
    opened.source.hint([leaf(noise(1, 5000))])
    assert opened.threads.blocks == []


def test_only_shards_that_hold_what_is_read_are_asked_for(network: MemoryNetwork, tree: Path) -> None:
    """Of a folder of many files one is read: its shards, the map's, and no other shard of the content's stripes."""
    for number in range(40):
        write(tree, f"f{number}", noise(number, 100_000))
    outcome = network.publish(str(tree))
    network.forget()
    network.store.asked.clear()
    assert b"".join(network.read(outcome.cid, "f20")) == noise(20, 100_000)
    listed = {slot.slot.stripe_id for slot in network.stripe_list(network.record(outcome.cid)).list_slots()}
    asked = [index for stripe_id, index in network.store.asked if stripe_id in listed]
    assert len(asked) == len(set(asked)) <= 2
    assert len(network.store.asked) <= 2 + 16 * 3
