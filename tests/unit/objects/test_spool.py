"""The spool: each block is claimed once, and everything comes back as it went in."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.objects.spool import Spool, StoredBlock


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(str(tmp_path / "spool.db"))
    yield made
    made.close()


def stored(number: int) -> StoredBlock:
    return StoredBlock(number % 3, number, 1000 + number, number % 2, bytes([number % 251]) * 32)


def multihash(number: int) -> bytes:
    return b"\x12\x20" + number.to_bytes(32, "big")


def test_a_block_in_flight_or_stored_is_not_claimed_again(spool: Spool) -> None:
    """Of equal blocks one is claimed, within one call, before it is stored and after."""
    one, two = multihash(1), multihash(2)
    assert spool.claim([one, one]) == {one}
    assert spool.claim([one, two]) == {two}
    spool.store([(one, stored(1))])
    assert spool.claim([one]) == set()
    assert spool.block(one) == stored(1)
    assert spool.block(two) is None


def test_many_threads_claim_each_block_once(spool: Spool) -> None:
    """Four threads that meet the same thousand blocks in other orders store each exactly once."""
    claims: list[int] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        numbers = list(range(1000))
        random.Random(seed).shuffle(numbers)
        for number in numbers:
            if spool.claim([multihash(number)]):
                with lock:
                    claims.append(number)
                spool.store([(multihash(number), stored(number))])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == list(range(1000))
    assert spool.blocks_count() == 1000


def test_nodes_come_in_the_order_of_their_numbers(spool: Spool) -> None:
    """Only numbered nodes are listed; a node added twice is one; numbers stay as they were given."""
    for number in range(10):
        spool.add_node(multihash(number), 0x70, b"node %d" % number)
        spool.add_node(multihash(number), 0x70, b"another")
    assert spool.node(multihash(3)) == (0x70, b"node 3", None)
    assert spool.node_number(multihash(3)) is None
    for place, number in enumerate((7, 3, 0)):
        spool.number_node(multihash(number), place)
    assert list(spool.nodes_in_order()) == [(0, 0x70, b"node 7"), (1, 0x70, b"node 3"), (2, 0x70, b"node 0")]
    assert spool.node_number(multihash(3)) == 1
    assert spool.node(multihash(99)) is None
    assert spool.node_number(multihash(99)) is None


def test_small_blocks_and_slots_come_back(spool: Spool) -> None:
    """Small blocks are found by hash, slots by rising number whatever the order they came in."""
    spool.add_small(multihash(1), b"tiny")
    assert spool.small(multihash(1)) == b"tiny"
    assert spool.small(multihash(2)) is None
    for slot in (2, 0, 1):
        spool.add_slot(slot, b"slot %d" % slot)
    assert list(spool.slots_in_order()) == [(0, b"slot 0"), (1, b"slot 1"), (2, b"slot 2")]
    assert spool.blocks_count() == 1


def test_keys_are_not_shown() -> None:
    """A block's key does not stand in its text form, which may reach a log."""
    block = StoredBlock(0, 0, 1, 0, b"secret key bytes that stay hidden")
    assert "secret" not in f"{block!r} {block}"
