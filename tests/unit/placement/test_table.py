"""The bytes of a placement table and the way from a stripe id to its members."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import MemberNumber, StripeId
from fungistor.limits import COMMAND_BYTES_MAX
from fungistor.placement import GROUPS, PlacementTable, group_of, spares, window
from tests.vectors import make_placement

PAGE = Path(__file__).parents[3] / "docs" / "formats" / "placement.md"


def stripe(seed: int) -> StripeId:
    return StripeId(hashlib.sha256(seed.to_bytes(8, "big")).digest())


def numbered(row_len: int, members: int) -> PlacementTable:
    """A table with a different row for every group."""
    return PlacementTable(
        row_len,
        tuple(
            tuple(MemberNumber(1 + (group * 3 + place * (1 + group % 2)) % members) for place in range(row_len))
            for group in range(GROUPS)
        ),
    )


def test_stored_vectors_are_what_the_code_makes() -> None:
    """Frozen vectors and generator agree."""
    assert make_placement.STORED.read_text() == make_placement.render()


def test_the_page_lists_the_stored_vectors() -> None:
    """The format's page and the vectors say the same digests."""
    page = PAGE.read_text()
    for table in json.loads(make_placement.STORED.read_text())["tables"]:
        assert f"| {table['name']} | {table['bytes']} | `{table['sha256']}` |" in page


@pytest.mark.parametrize(("row_len", "members"), [(1, 1), (5, 5), (20, 41), (20, 101), (255, 511)])
def test_a_table_survives_its_bytes(row_len: int, members: int) -> None:
    """Encoding and decoding give the same table, within the bounds of a command up to 255 of 511 members."""
    table = numbered(row_len, members)
    data = table.to_bytes()
    assert PlacementTable.from_bytes(data) == table
    assert len(data) < COMMAND_BYTES_MAX


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes, the answer is a table or CorruptError."""
    with pytest.raises(CorruptError):
        PlacementTable.from_bytes(data)


@given(st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_damaged_table_is_refused_or_another_valid_table(data: st.DataObject) -> None:
    """A flipped or cut encoding is refused, unless it is the one encoding of some other table."""
    whole = bytearray(numbered(5, 7).to_bytes())
    at = data.draw(st.integers(0, 60))
    whole[at] ^= data.draw(st.integers(1, 255))
    damaged = bytes(whole[: data.draw(st.integers(len(whole) - 2, len(whole)))])
    try:
        table = PlacementTable.from_bytes(damaged)
    except CorruptError:
        return
    assert table.to_bytes() == damaged


def test_windows_are_consecutive_distinct_and_followed_by_their_spares() -> None:
    """Window and spares are the row turned to its start."""
    table = numbered(20, 41)
    for seed in range(50):
        row = table.rows[group_of(stripe(seed))]
        turned = window(table, stripe(seed), 6) + spares(table, stripe(seed), 6)
        assert sorted(turned) == sorted(row)
        assert window(table, stripe(seed), 20) == turned
        start = row.index(turned[0])
        assert turned == row[start:] + row[:start]


def test_groups_and_starts_are_spread() -> None:
    """Over many stripes no group and no start of a window is favoured."""
    groups = Counter(group_of(stripe(seed)) // 256 for seed in range(8000))
    table = PlacementTable(20, (tuple(MemberNumber(n) for n in range(20)),) * GROUPS)
    starts = Counter(window(table, stripe(seed), 1)[0] for seed in range(8000))
    assert len(groups) == 16
    assert max(groups.values()) < 1.25 * 500
    assert len(starts) == 20
    assert max(starts.values()) < 1.25 * 400


@pytest.mark.parametrize("shards", [0, 6])
def test_more_shards_than_members_are_refused(shards: int) -> None:
    """A stripe never puts two shards on one member."""
    with pytest.raises(InvalidError, match=f"{shards} shards does not fit on rows of 5"):
        window(numbered(5, 7), stripe(1), shards)
