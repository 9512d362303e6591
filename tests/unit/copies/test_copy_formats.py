"""Segments, key copies and the anchor as they lie on members: their bytes, and what no bytes may do to a reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.errors import CorruptError, FungiStorError
from fungistor.node.copies.formats import VALUE_BYTES_MAX, CopyFormats, Segment
from tests.vectors.make_copies import ANCHOR, FORMATS, KEY_ROW, LOG, PAYLOAD, PLACE, SEGMENT, vectors

OTHER = CopyFormats(bytes(32))
OPENERS: list[tuple[bytes, Callable[[CopyFormats, bytes], object], object]] = [
    (FORMATS.seal_segment(LOG, SEGMENT), lambda formats, value: formats.open_segment(LOG, value), SEGMENT),
    (FORMATS.seal_entry(LOG, PAYLOAD), lambda formats, value: formats.open_entry(LOG, value), PAYLOAD),
    (FORMATS.seal_key(KEY_ROW), lambda formats, value: formats.open_key(value), KEY_ROW),
    (FORMATS.seal_anchor(ANCHOR), lambda formats, value: formats.open_anchor(value), ANCHOR),
]


def test_frozen_vectors_hold() -> None:
    """Code and tests/vectors/copies.json agree."""
    stored = Path(__file__).parents[2] / "vectors" / "copies.json"
    assert json.loads(stored.read_text()) == vectors()


@pytest.mark.parametrize(("value", "opened", "content"), OPENERS)
def test_what_is_sealed_opens_under_its_own_network_alone(
    value: bytes, opened: Callable[[CopyFormats, bytes], object], content: object
) -> None:
    """Another network's key opens nothing, a flipped bit anywhere neither, and one kind never passes for another."""
    assert opened(FORMATS, value) == content
    with pytest.raises(CorruptError):
        opened(OTHER, value)
    for at in range(len(value)):
        with pytest.raises(CorruptError):
            opened(FORMATS, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
    for other, _, is_of in OPENERS:
        if is_of != content:
            with pytest.raises(CorruptError):
                opened(FORMATS, other)


@pytest.mark.parametrize(("value", "opened", "content"), OPENERS)
@given(data=st.one_of(st.binary(max_size=400), st.integers(0, 1000)))
def test_no_bytes_make_a_reader_crash(
    value: bytes, opened: Callable[[CopyFormats, bytes], object], content: object, data: bytes | int
) -> None:
    """Whatever a member answers is opened or refused as corrupt: noise, a value cut short, one with more behind it."""
    given_bytes = value[:data] + bytes(max(0, data - len(value))) if isinstance(data, int) else data
    try:
        assert opened(FORMATS, given_bytes) == content
    except FungiStorError as error:
        assert isinstance(error, CorruptError)


def test_values_beyond_the_bound_are_not_even_opened() -> None:
    """A member that answers megabytes costs no more than their arrival."""
    with pytest.raises(CorruptError, match="no copy"):
        FORMATS.open_anchor(bytes(VALUE_BYTES_MAX + 1))


def test_the_same_content_is_the_same_bytes_and_its_length_is_padded() -> None:
    """Two homes that bring one entry never disagree; entries of about a length look alike."""
    assert FORMATS.seal_segment(LOG, SEGMENT) == FORMATS.seal_segment(LOG, SEGMENT)
    lengths = {len(FORMATS.seal_segment(LOG, Segment(7, b"", bytes(size)))) for size in range(900, 960)}
    assert len(lengths) <= 4
    changed = FORMATS.seal_key((*KEY_ROW[:2], bytes(40)))
    assert changed[:32] != FORMATS.seal_key(KEY_ROW)[:32], "another content has another key"


def test_names_are_of_their_log_and_network() -> None:
    """The same number has other names in another log and in another network: an older log's segments are never met."""
    names = {FORMATS.segment_name(log, number) for log in (LOG, bytes(16)) for number in (1, 2)}
    names |= {FORMATS.entry_name(log, PLACE) for log in (LOG, bytes(16))}
    assert len(names | {OTHER.segment_name(LOG, 1), FORMATS.anchor_name(), FORMATS.key_name(KEY_ROW[0])}) == 9


def test_anchors_are_compared_by_what_they_say() -> None:
    """Serial and time do not count, all else does."""
    assert ANCHOR.says_the_same_as(replace(ANCHOR, serial=9, when=1))
    assert not ANCHOR.says_the_same_as(replace(ANCHOR, members=("m01",)))
