"""Reading stripes: through dead members, around liars, and never a wrong byte."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.coding.manifest import ListSlot, Slot, Stored
from fungistor.dag import sha256_multihash
from fungistor.errors import CorruptError, NotEnoughShardsError
from fungistor.limits import MIB
from fungistor.objects.manifest_writer import whole_slot
from fungistor.objects.session import Session, WrittenStripe
from fungistor.objects.stripe_reader import StripeReader, Wanted
from fungistor.objects.stripe_writer import StripeWriter
from fungistor.testing.memory_store import MemoryStore
from tests.unit.objects.stores import store_of
from tests.unit.objects.trees import noise

FAULTS = ["flip_payload", "flip_tag", "truncated", "lose", "down", "refuse"]


class Stripe:
    """One stored stripe with its blocks, and a reader that has heard of nothing."""

    def __init__(self, folder: Path, lengths: list[int], members: int = 20) -> None:
        self.store: MemoryStore = store_of(members)
        stripes: list[WrittenStripe] = []
        writer = StripeWriter(
            self.store, Session(str(folder), self.store), itertools.count(), lambda _, stripe: stripes.append(stripe)
        )
        self.blocks = [noise(number, length) for number, length in enumerate(lengths)]
        self.wanted = [
            Wanted(multihash, Stored(place.slot, place.number, place.plain_bytes, place.compression, place.key))
            for multihash, place in (
                (sha256_multihash(block), writer.append(sha256_multihash(block), block)) for block in self.blocks
            )
        ]
        writer.close_stripe()
        [stripe] = stripes
        self.window = stripe.window
        self.slot: ListSlot = whole_slot(stripe)
        self.liars: list[tuple[Slot, int]] = []
        self.reader = StripeReader(self.store, lambda slot, index: self.liars.append((slot, index)))

    def read(self, *numbers: int) -> list[bytes]:
        return self.reader.read_blocks(self.slot, [self.wanted[number] for number in numbers])

    def named(self) -> set[int]:
        return {index for _, index in self.liars}

    def shards_of(self, number: int) -> set[int]:
        offset, length = self.slot.extent(number)
        size = self.slot.slot.shard_bytes
        return set(range(offset // size, (offset + length - 1) // size + 1))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_four_faults_of_any_kind_are_read_through(tmp_path: Path, seed: int) -> None:
    """Four members of a stripe flip, forge tags, cut short, lose or die: all blocks come back right, and whoever
    gave a wrong byte that was used is named, nobody else."""
    chance = random.Random(seed)
    stripe = Stripe(tmp_path, [chance.randrange(1, 40_000) for _ in range(12)])
    shards = stripe.slot.slot.k + stripe.slot.slot.m
    faulty = chance.sample(range(shards), 4)
    flipped = set()
    for index in faulty:
        fault = chance.choice(FAULTS)
        member = stripe.store[stripe.window[index]]
        if fault == "lose":
            member.values.clear()
        else:
            setattr(member.faults, fault, True)
        if fault.startswith("flip"):
            flipped.add(index)
    numbers = [chance.randrange(12) for _ in range(30)]
    for number in numbers:
        assert stripe.read(number) == [stripe.blocks[number]]
    assert stripe.read(*range(12)) == stripe.blocks
    assert stripe.named() <= flipped


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_liars_among_the_shards_read_are_named(tmp_path: Path, count: int) -> None:
    """Up to four flipped data shards under one block: the right bytes, and each liar by name, once."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    for index in range(count):
        stripe.store[stripe.window[index]].faults.flip_payload = True
    assert stripe.read(0) == [stripe.blocks[0]]
    assert sorted(index for _, index in stripe.liars) == list(range(count))
    assert stripe.read(0, 1, 2, 3) == stripe.blocks


def test_five_liars_are_too_many_and_are_named(tmp_path: Path) -> None:
    """With a fifth liar nothing is served; the error says whom it missed."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    for index in range(5):
        stripe.store[stripe.window[index]].faults.flip_payload = True
    with pytest.raises(NotEnoughShardsError) as caught:
        stripe.read(0)
    assert (caught.value.found, caught.value.needed) == (15, 16)
    assert set(caught.value.by_member) == {stripe.store.name(member) for member in stripe.window[:5]}
    assert stripe.named() == set(range(5))


def test_mended_liars_are_asked_again(tmp_path: Path) -> None:
    """After a read that failed, the next one trusts nobody less: members that are mended meanwhile serve it."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    for index in range(5):
        stripe.store[stripe.window[index]].faults.flip_payload = True
    with pytest.raises(NotEnoughShardsError):
        stripe.read(0)
    stripe.store.heal()
    assert stripe.read(0) == [stripe.blocks[0]]


def test_a_lying_parity_shard_is_found_through_what_it_spoils(tmp_path: Path) -> None:
    """A data shard rebuilt with a liar's help is wrong as well; the liar is named and the block read without it."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    stripe.store.down(stripe.window[:2])
    stripe.store[stripe.window[16]].faults.flip_payload = True
    assert stripe.read(0, 1) == stripe.blocks[:2]
    assert stripe.named() == {16}


def test_a_flipped_tag_alone_costs_nothing(tmp_path: Path) -> None:
    """Blocks prove themselves: a wrong tag on right bytes is not even looked at."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    for member in stripe.window:
        stripe.store[member].faults.flip_tag = True
    assert stripe.read(0, 3) == [stripe.blocks[0], stripe.blocks[3]]
    assert not stripe.liars


def test_only_the_shards_that_hold_a_block_are_asked_for(tmp_path: Path) -> None:
    """A block of a large stripe costs the shards it lies in; what is held already costs nothing."""
    stripe = Stripe(tmp_path, [MIB - 100_000, 100_000, MIB, MIB, MIB])
    stripe.read(1)
    assert {index for _, index in stripe.store.asked} == stripe.shards_of(1)
    assert len(stripe.store.asked) == len(stripe.shards_of(1)) <= 2
    stripe.read(1)
    stripe.read(0, 1)
    asked = [index for _, index in stripe.store.asked]
    assert sorted(asked) == sorted(stripe.shards_of(0) | stripe.shards_of(1))
    stripe.reader.forget()
    stripe.read(1)
    assert len(stripe.store.asked) == len(asked) + len(stripe.shards_of(1))
    assert stripe.store.ranged_bytes == 0


SMALL = [2048] * 1500
"""Small files packed into one stripe of 3 MiB: some ninety of them in each shard."""


def test_a_small_block_moves_only_its_own_bytes(tmp_path: Path) -> None:
    """One block of a packed stripe is read by its range, and again from what is held; the next one in the same shard
    brings that shard whole, and all others in it are there then."""
    stripe = Stripe(tmp_path, SMALL)
    assert stripe.read(700) == [stripe.blocks[700]]
    asked, moved = len(stripe.store.asked), stripe.store.ranged_bytes
    assert asked == len(stripe.shards_of(700))
    assert moved == stripe.slot.block_lengths[700] < 2200
    assert stripe.read(700) == [stripe.blocks[700]]
    assert len(stripe.store.asked) == asked
    assert stripe.read(701) == [stripe.blocks[701]]
    assert stripe.shards_of(701) == stripe.shards_of(700)
    assert len(stripe.store.asked) == asked + 1
    assert stripe.read(699, 705, 706) == [stripe.blocks[number] for number in (699, 705, 706)]
    assert len(stripe.store.asked) == asked + 1
    assert stripe.store.ranged_bytes == moved


def test_blocks_of_one_flight_share_a_range(tmp_path: Path) -> None:
    """Blocks near each other that are wanted together come in one range a shard; blocks far apart bring shards."""
    stripe = Stripe(tmp_path, SMALL)
    numbers = range(100, 110)
    assert stripe.read(*numbers) == [stripe.blocks[number] for number in numbers]
    assert stripe.store.ranged_bytes == sum(stripe.slot.block_lengths[number] for number in numbers)
    moved = stripe.store.ranged_bytes
    stripe.reader.forget()
    far = min(stripe.shards_of(300))
    inside = [number for number in range(len(SMALL)) if stripe.shards_of(number) == {far}]
    assert stripe.read(inside[0], inside[-1]) == [stripe.blocks[inside[0]], stripe.blocks[inside[-1]]]
    assert stripe.store.ranged_bytes == moved


def test_members_without_ranges_serve_whole_shards(tmp_path: Path) -> None:
    """Where the members do not know ranges, small blocks come out of whole shards, as from an original 0-db."""
    stripe = Stripe(tmp_path, SMALL)
    stripe.store.knows_ranges = False
    for number in (0, 700, 1499):
        assert stripe.read(number) == [stripe.blocks[number]]
    assert stripe.store.ranged_bytes == 0
    assert not stripe.liars


@pytest.mark.parametrize("down", [0, 3])
def test_who_lies_in_a_range_is_named(tmp_path: Path, down: int) -> None:
    """A member whose range does not open is asked for the whole shard, named by its tag, and read around, also with
    three others dead; ranges are not asked of it again while that stripe is held."""
    stripe = Stripe(tmp_path, SMALL)
    middle = (len(SMALL) * 2048 // stripe.slot.slot.shard_bytes) // 2
    size = stripe.slot.slot.shard_bytes
    # The fake flips the middle byte of a value, so the block across the middle of the shard is the one that is hurt.
    hurt = next(n for n in range(len(SMALL)) if sum(stripe.slot.extent(n)) > middle * size + size // 2)
    stripe.store[stripe.window[middle]].faults.flip_payload = True
    stripe.store.down([stripe.window[index] for index in range(16 + 4) if index != middle][:down])
    assert stripe.read(hurt) == [stripe.blocks[hurt]]
    assert stripe.named() == {middle}
    moved = stripe.store.ranged_bytes
    assert stripe.read(hurt) == [stripe.blocks[hurt]]
    assert stripe.store.ranged_bytes == moved
    assert len(stripe.liars) == 1


def test_small_blocks_are_read_with_any_four_dead(tmp_path: Path) -> None:
    """A small block whose own member is gone is decoded from any k shards; otherwise it is read by range."""
    stripe = Stripe(tmp_path, SMALL)
    chance = random.Random(7)
    for _ in range(20):
        stripe.store.heal()
        stripe.reader.forget()
        gone = chance.sample(range(stripe.slot.slot.k + 4), 4)
        stripe.store.down(stripe.window[index] for index in gone)
        number = chance.randrange(len(SMALL))
        moved = stripe.store.ranged_bytes
        assert stripe.read(number) == [stripe.blocks[number]]
        by_range = stripe.store.ranged_bytes == moved + stripe.slot.block_lengths[number]
        assert by_range == stripe.shards_of(number).isdisjoint(gone)
    assert not stripe.liars


def test_k_shards_in_hand_are_enough_for_the_whole_stripe(tmp_path: Path) -> None:
    """Once k shards came, because one was missing, every other block is decoded and nobody is asked again."""
    stripe = Stripe(tmp_path, [MIB] * 4)
    stripe.store.down(stripe.window[:2])
    stripe.read(0)
    asked = len(stripe.store.asked)
    assert stripe.read(0, 1, 2, 3) == stripe.blocks
    assert len(stripe.store.asked) == asked == 16 + 2


@pytest.mark.parametrize("wrong", ["key", "plain_bytes", "compression", "number", "multihash", "lengths", "beyond"])
def test_a_manifest_that_lies_is_corrupt_and_no_member_is_blamed(tmp_path: Path, wrong: str) -> None:
    """Honest shards and a wrong entry: CorruptError, nobody named, and the reader still works afterwards."""
    stripe = Stripe(tmp_path, [3000, 5000])
    entry, slot, multihash = stripe.wanted[0].entry, stripe.slot, stripe.wanted[0].multihash
    match wrong:
        case "key":
            entry = replace(entry, key=bytes(32))
        case "plain_bytes":
            entry = replace(entry, plain_bytes=entry.plain_bytes + 1)
        case "compression":
            entry = replace(entry, compression=1 - entry.compression)
        case "number":
            entry = replace(entry, number=2)
        case "multihash":
            multihash = sha256_multihash(b"another")
        case "lengths":
            slot = ListSlot(slot.slot, (3000, 5000), slot.runs)
        case "beyond":
            slot = ListSlot(slot.slot, (slot.slot.k * slot.slot.shard_bytes + 1, 1), slot.runs)
    with pytest.raises(CorruptError):
        stripe.reader.read_blocks(slot, [Wanted(multihash, entry)])
    assert not stripe.liars
    assert stripe.read(0, 1) == stripe.blocks


def test_one_reader_serves_many_stripes_and_sizes(tmp_path: Path) -> None:
    """The reused buffer takes stripes of any size after each other without mixing their bytes."""
    small, large = Stripe(tmp_path, [100]), Stripe(tmp_path, [2 * MIB, 2 * MIB])
    reader = small.reader
    for _ in range(3):
        assert reader.read_blocks(small.slot, small.wanted) == small.blocks
        large.reader = StripeReader(large.store, lambda *_: None)
        assert large.read(0, 1) == large.blocks
