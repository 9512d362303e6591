"""A shard proves itself: whatever a member changes, cuts, swaps or invents, its tag does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.shard import (
    LEAF_BYTES,
    SHARD_KEY_BYTES,
    SHARD_TAG_BYTES,
    check_shard,
    leaf_digests,
    payload_root,
    root_of_leaves,
    shard_key,
    shard_tag,
)
from fungistor.errors import CorruptError
from fungistor.ids import StripeId
from tests.unit.coding.format_pages import flat, quoted, stored
from tests.vectors.make_shard import vectors

ID = StripeId(bytes(range(32)))
OTHER = StripeId(bytes(range(1, 33)))


def value_of(stripe_id: StripeId, index: int, payload: bytes) -> bytes:
    """What a member holds for a shard."""
    return payload + shard_tag(stripe_id, index, len(payload), payload_root(payload))


def test_a_true_shard_gives_its_payload_uncopied() -> None:
    """check_shard returns a view of the value itself."""
    value = bytearray(value_of(ID, 3, b"payload"))
    payload = check_shard(ID, 3, value, 7)
    assert bytes(payload) == b"payload"
    assert payload.obj is value


@settings(deadline=None, max_examples=200)
@given(payload=st.binary(min_size=1, max_size=300), index=st.integers(0, 254), data=st.data())
def test_any_flipped_bit_is_found(payload: bytes, index: int, data: st.DataObject) -> None:
    """One flipped bit anywhere in payload or tag is a CorruptError."""
    value = bytearray(value_of(ID, index, payload))
    assert check_shard(ID, index, value) == payload
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptError, match="does not match its tag"):
        check_shard(ID, index, value)


@pytest.mark.parametrize("place", [0, LEAF_BYTES - 1, LEAF_BYTES, 2 * LEAF_BYTES + 4])
def test_a_flip_in_any_leaf_is_found(place: int) -> None:
    """Payloads of several leaves are covered to the last byte."""
    value = bytearray(value_of(ID, 0, bytes(2 * LEAF_BYTES + 5)))
    value[place] ^= 0x80
    with pytest.raises(CorruptError):
        check_shard(ID, 0, value)


@settings(deadline=None, max_examples=100)
@given(payload=st.binary(min_size=1, max_size=100), cut=st.integers(1, 116), more=st.binary(min_size=1, max_size=40))
def test_another_length_is_found(payload: bytes, cut: int, more: bytes) -> None:
    """A truncated and a prolonged value are CorruptErrors, with and without the slot's length."""
    value = value_of(ID, 9, payload)
    for changed in (value[: -min(cut, len(value))], value[min(cut, len(value)) :], value + more, more + value):
        for expected in (None, len(payload)):
            with pytest.raises(CorruptError):
                check_shard(ID, 9, changed, expected)


def test_swapped_shards_are_found() -> None:
    """A true shard of another index or another stripe is not this one."""
    with pytest.raises(CorruptError):
        check_shard(ID, 4, value_of(ID, 5, b"payload"))
    with pytest.raises(CorruptError):
        check_shard(ID, 4, value_of(OTHER, 4, b"payload"))


@settings(deadline=None, max_examples=200)
@given(value=st.binary(max_size=200))
def test_invented_bytes_are_found(value: bytes) -> None:
    """No bytes at all pass for a shard, and none raise anything but CorruptError."""
    with pytest.raises(CorruptError):
        check_shard(ID, 0, value)


def test_root_is_made_of_leaves() -> None:
    """The root can be rebuilt from the digests of the leaves, as a member's proof does it; empty is one leaf."""
    payload = bytes(range(256)) * 600
    digests = leaf_digests(payload)
    assert len(digests) == 3
    assert root_of_leaves(digests) == payload_root(payload)
    assert len(leaf_digests(b"")) == 1


def test_keys_are_distinct_and_short() -> None:
    """255 indices of two stripes give 510 keys of 20 bytes; an index beyond 254 is the caller's error."""
    keys = {shard_key(stripe, index) for stripe in (ID, OTHER) for index in range(255)}
    assert len(keys) == 510
    assert {len(key) for key in keys} == {SHARD_KEY_BYTES}
    with pytest.raises(ValueError, match="255"):
        shard_key(ID, 255)
    assert len(shard_tag(ID, 0, 0, bytes(32))) == SHARD_TAG_BYTES


def test_frozen_vectors_hold() -> None:
    """Code, tests/vectors/shard.json and docs/formats/shard.md agree."""
    assert vectors() == stored("shard")
    rows = quoted("shard")
    assert rows
    assert rows.items() <= flat(stored("shard")).items()
