"""Geometry, padding, ids: how bytes become shards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.stripe import Geometry, data_shards, geometry, padme, shards_for, stripe_id
from fungistor.errors import InvalidError, UnavailableError
from fungistor.limits import KIB, MIB, STRIPE_BYTES_MAX
from tests.unit.coding.format_pages import flat, quoted, stored
from tests.vectors.make_stripe import vectors


@pytest.mark.parametrize(
    ("size", "members", "up", "k", "shard_bytes"),
    [
        (3 * KIB, 20, 20, 1, 3 * KIB),
        (64 * KIB, 20, 20, 16, 4 * KIB),
        (64 * KIB + 16, 12, 12, 8, 8448),
        (4 * MIB, 5, 5, 1, 4 * MIB),
        (4 * MIB, 20, 20, 16, 256 * KIB),
        (4 * MIB + 64, 20, 20, 16, 256 * KIB + 64),
        (4 * MIB, 20, 19, 15, 279_680),
        (4 * MIB, 20, 18, 16, 256 * KIB),
        (4 * MIB, 20, 16, 14, 299_648),
        (4 * MIB, 12, 11, 8, 512 * KIB),
        (4 * MIB, 20, 3, 1, 4 * MIB),
        (4 * MIB, 300, 300, 16, 256 * KIB),
    ],
)
def test_k_adapts_to_size_and_pool(size: int, members: int, up: int, k: int, shard_bytes: int) -> None:
    """Small stripes are copies, large ones 16+4, and small or ailing pools get a smaller k."""
    assert geometry(size, members, up) == Geometry(k, 4, shard_bytes)


@settings(deadline=None, max_examples=300)
@given(size=st.integers(1, STRIPE_BYTES_MAX), members=st.integers(5, 60), down=st.integers(0, 57))
def test_any_four_members_may_die(size: int, members: int, down: int) -> None:
    """Every shape fits the pool, holds the bytes, pads by at most 12 % and an alignment, and k + 2 are up."""
    up = max(3, members - down)
    shape = geometry(size, members, up)
    assert shape.m == 4
    assert shape.shards <= members
    assert shape.k + 2 <= up
    assert size <= shape.padded_bytes <= size * 1.12 + 64 * shape.k
    assert shape.shard_bytes * (shape.k - 1) < size, "no data shard is padding alone"


def test_too_few_members_are_refused_with_the_reason() -> None:
    """Four members cannot survive four losses; two that answer cannot hold k + 2 shards."""
    with pytest.raises(InvalidError, match="the pool has 4 members, 5 is the least"):
        geometry(1, 4, 4)
    with pytest.raises(UnavailableError, match="2 of 20 members answer, 3 is the least"):
        geometry(1, 20, 2)
    for size in (0, -1, STRIPE_BYTES_MAX + 1):
        with pytest.raises(InvalidError, match="a stripe has 1 to"):
            geometry(size, 20, 20)


def test_padme_hides_the_low_bits() -> None:
    """Padme's table of the paper: 9 becomes 10, powers stay, and few lengths remain distinct."""
    assert [padme(n) for n in (0, 1, 2, 3, 8, 9, 10, 100, 1000, 65_537)] == [0, 1, 2, 3, 8, 10, 10, 104, 1024, 67_584]
    assert len({padme(n) for n in range(1, 65_537)}) < 250


@settings(deadline=None, max_examples=300)
@given(n=st.integers(1, 4 * MIB))
def test_padme_costs_at_most_twelve_percent(n: int) -> None:
    """Padding never shortens, is stable, and costs at most 12 %."""
    assert n <= padme(n) <= n * 1.12
    assert padme(padme(n)) == padme(n)


def test_ids_of_a_session_can_be_listed_again() -> None:
    """The same secret and counter give the same id, any other gives another."""
    ids = {stripe_id(bytes([secret]) * 32, counter) for secret in range(4) for counter in range(50)}
    assert len(ids) == 200
    assert stripe_id(bytes(32), 7) == stripe_id(bytes(32), 7)
    assert {len(one) for one in ids} == {32}
    with pytest.raises(ValueError, match="32 bytes"):
        stripe_id(b"short", 0)


@settings(deadline=None, max_examples=200)
@given(k=st.integers(1, 16), size=st.integers(1, 50), data=st.data())
def test_a_range_needs_exactly_its_shards(k: int, size: int, data: st.DataObject) -> None:
    """shards_for names the data shards that hold a range's bytes and no other."""
    shape = Geometry(k, 4, size)
    start = data.draw(st.integers(0, k * size))
    length = data.draw(st.integers(0, k * size - start))
    assert set(shards_for(shape, start, length)) == {place // size for place in range(start, start + length)}


def test_a_range_beyond_the_stripe_is_refused() -> None:
    """Offsets outside the padded stripe are the caller's error."""
    for start, length in ((-1, 1), (0, 41), (40, 1), (5, -1)):
        with pytest.raises(ValueError, match="outside a stripe of 40"):
            shards_for(Geometry(4, 4, 10), start, length)


def test_data_shards_are_views_of_the_stripe() -> None:
    """Splitting copies nothing: a byte written to the stripe is seen in its shard."""
    buffer = bytearray(45)
    shards = data_shards(Geometry(4, 4, 10), memoryview(buffer))
    buffer[39] = 9
    assert [len(shard) for shard in shards] == [10] * 4
    assert shards[3][9] == 9
    with pytest.raises(ValueError, match="shorter than the padded stripe"):
        data_shards(Geometry(4, 4, 12), memoryview(buffer))


def test_frozen_vectors_hold() -> None:
    """Code, tests/vectors/stripe.json and docs/formats/stripe.md agree."""
    assert vectors() == stored("stripe")
    rows = quoted("stripe")
    assert rows
    assert rows.items() <= flat(stored("stripe")).items()
