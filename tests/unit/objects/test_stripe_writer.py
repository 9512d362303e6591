"""The stripe writer: shapes, padding, and coding again when members refuse."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from fungistor.coding.compress import Compression, decompress
from fungistor.coding.seal import block_aad, open_sealed
from fungistor.coding.shard import SHARD_TAG_BYTES, check_shard, content_root, payload_root, shard_key
from fungistor.coding.stripe import geometry
from fungistor.errors import UnavailableError
from fungistor.limits import MIB, STRIPE_CLOSE_BYTES
from fungistor.objects.session import Session, WrittenStripe
from fungistor.objects.stripe_writer import CODE_ATTEMPTS_MAX, StripeWriter
from fungistor.testing.memory_store import MemoryStore
from tests.unit.objects.stores import store_of
from tests.unit.objects.trees import noise


class Bench:
    """A writer over a store, and what it wrote."""

    def __init__(self, folder: Path, store: MemoryStore) -> None:
        self.store = store
        self.session = Session(str(folder), store)
        self.written: dict[int, WrittenStripe] = {}
        self.writer = StripeWriter(store, self.session, itertools.count(), self.written.__setitem__)

    def stripe_bytes(self, stripe: WrittenStripe) -> bytes:
        """A stripe's padded bytes, from its data shards, each checked."""
        slot = stripe.slot
        values = self.store.values()
        payloads = [
            check_shard(slot.stripe_id, index, values[shard_key(slot.stripe_id, index)], slot.shard_bytes)
            for index in range(slot.k)
        ]
        assert content_root([payload_root(payload) for payload in payloads]) == slot.content_root
        return b"".join(payloads)


def mh(data: bytes) -> bytes:
    return b"\x12\x20" + hashlib.sha256(data).digest()


@pytest.mark.parametrize("lengths", [[1], [3000], [4096 - 16], [100, 50_000, 0, 7], [MIB] * 5, [2 * MIB] * 3])
def test_blocks_open_from_where_they_were_said_to_lie(tmp_path: Path, lengths: list[int]) -> None:
    """Each block opens under its key at the running sum of the lengths, in a stripe of the promised shape."""
    bench = Bench(tmp_path, store_of(20))
    blocks = [noise(number, length) for number, length in enumerate(lengths)]
    stored = [bench.writer.append(mh(block), block) for block in blocks]
    bench.writer.close_stripe()
    assert bench.writer.close_stripe() is None
    for block, place in zip(blocks, stored, strict=True):
        stripe = bench.written[place.slot]
        offset = sum(stripe.block_lengths[: place.number])
        sealed = bench.stripe_bytes(stripe)[offset : offset + stripe.block_lengths[place.number]]
        compression = Compression(place.compression)
        packed = open_sealed(place.key, sealed, block_aad(mh(block), compression, len(block)))
        assert bytes(decompress(compression, packed, place.plain_bytes)) == block
    for stripe in bench.written.values():
        assert stripe.slot.geometry == geometry(sum(stripe.block_lengths), 20, 20)
        assert not stripe.owed


def test_a_stripe_is_closed_by_the_block_that_fills_it(tmp_path: Path) -> None:
    """Stripes reach their closing size by one block, and slots are numbered as they are begun."""
    bench = Bench(tmp_path, store_of(20))
    places = [bench.writer.append(mh(block), block) for block in (noise(n, MIB) for n in range(9))]
    bench.writer.close_stripe()
    assert [(place.slot, place.number) for place in places] == [(n // 4, n % 4) for n in range(9)]
    for slot in (0, 1):
        assert STRIPE_CLOSE_BYTES <= sum(bench.written[slot].block_lengths) < STRIPE_CLOSE_BYTES + 2 * MIB
    assert sum(bench.written[2].block_lengths) < 2 * MIB


def test_padding_is_random_and_the_buffer_leaks_nothing(tmp_path: Path) -> None:
    """What follows the last block is neither zeros nor what the stripe before left in the reused buffer."""
    bench = Bench(tmp_path, store_of(20))
    bench.writer.append_sealed(b"\xaa" * (3 * MIB))
    bench.writer.close_stripe()
    tails = []
    for _ in range(2):
        bench.writer.append_sealed(b"\xbb" * 66_000)
        stripe = bench.writer.close_stripe()
        assert stripe is not None
        tail = bench.stripe_bytes(stripe)[66_000:]
        assert len(tail) > 500
        assert len(set(tail)) > 100
        assert b"\xaa" * 16 not in tail
        tails.append(tail)
    assert tails[0] != tails[1]


def test_equal_content_looks_different_each_time(tmp_path: Path) -> None:
    """The same block written twice shares no 16 bytes on members."""
    bench = Bench(tmp_path, store_of(5))
    for _ in range(2):
        bench.writer.append(mh(b"x" * 4000), b"x" * 4000)
        bench.writer.close_stripe()
    one, two = (bench.stripe_bytes(bench.written[slot])[: sum(bench.written[slot].block_lengths)] for slot in (0, 1))
    runs = {one[at : at + 16] for at in range(len(one) - 16)}
    assert not any(two[at : at + 16] in runs for at in range(len(two) - 16))


def test_members_that_refuse_make_a_smaller_k_under_a_new_id(tmp_path: Path) -> None:
    """Five members of twenty turn out to be gone: the stripe goes out again with k for fifteen, and nobody owes more
    than it has to."""
    store = store_of(20)
    for number in store.members()[:5]:
        store[number].faults.refuse = True
    bench = Bench(tmp_path, store)
    bench.writer.append_sealed(noise(1, 3 * MIB))
    stripe = bench.writer.close_stripe()
    assert stripe is not None
    assert stripe.slot.k == 13
    assert len(stripe.window) - len(stripe.owed) >= stripe.slot.k + 2
    ids = {key for member in store.all.values() for key in member.values}
    ours = {shard_key(stripe.slot.stripe_id, index) for index in range(17)}
    assert ids - ours, "the first try left shards under its own id"
    assert bench.session.stripes == 1
    assert list(bench.written) == [0]


def test_with_one_member_away_nobody_owes(tmp_path: Path) -> None:
    """Of twenty one is known to be away: the stripe is as wide as the others are many, and leaves it out."""
    store = store_of(20, down=1)
    bench = Bench(tmp_path, store)
    bench.writer.append_sealed(noise(1, 3 * MIB))
    stripe = bench.writer.close_stripe()
    assert stripe is not None
    assert (stripe.slot.k, stripe.slot.m, stripe.owed) == (15, 4, frozenset())
    assert set(stripe.window) == set(store.up_members())


def test_lateness_is_owed_and_not_coded_again(tmp_path: Path) -> None:
    """Two members that do not answer in time owe their shards; the stripe keeps its k."""
    store = store_of(20)
    late = store.members()[:2]
    for number in late:
        store[number].faults.owes = True
    bench = Bench(tmp_path, store)
    bench.writer.append_sealed(noise(1, 3 * MIB))
    stripe = bench.writer.close_stripe()
    assert stripe is not None
    assert stripe.slot.k == 16
    assert {stripe.window[index] for index in stripe.owed} == set(late)
    slot = stripe.slot
    assert stripe.stored_bytes == 18 * (slot.shard_bytes + SHARD_TAG_BYTES)


def test_it_gives_up_after_a_few_tries(tmp_path: Path) -> None:
    """Members that stay believed up and never take anything are tried a bounded number of times."""
    store = store_of(20)
    for number in store.members()[:3]:
        store[number].faults.owes = True
    bench = Bench(tmp_path, store)
    bench.writer.append_sealed(noise(1, 3 * MIB))
    with pytest.raises(UnavailableError, match="only 17 of 20 members"):
        bench.writer.close_stripe()
    assert store.puts == CODE_ATTEMPTS_MAX * 20
    assert not bench.written


def test_too_few_members_up_cannot_hold_a_stripe(tmp_path: Path) -> None:
    """With two members up nothing is sent at all."""
    store = store_of(20, down=18)
    bench = Bench(tmp_path, store)
    bench.writer.append_sealed(b"x")
    with pytest.raises(UnavailableError, match="2 of 20 members answer"):
        bench.writer.close_stripe()
    assert store.puts == 0


def test_a_page_longer_than_the_buffer_has_a_stripe_to_itself(tmp_path: Path) -> None:
    """Manifest pages may be longer than blocks: the open stripe is sent, and the buffer grows."""
    bench = Bench(tmp_path, store_of(20))
    assert bench.writer.append_sealed(noise(1, 5 * MIB)) == (0, 0)
    page = noise(2, 2 * MIB)
    assert bench.writer.append_sealed(page) == (1, 0)
    bench.writer.close_stripe()
    assert bench.stripe_bytes(bench.written[1])[: len(page)] == page
