from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import conditions

TAG = '"bafy"'
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
DATE_S = 1445412480


@pytest.mark.parametrize(
    ("field", "matches"),
    [
        (TAG, True),
        (f"W/{TAG}", True),
        ("*", True),
        (f'"a", "b",{TAG}', True),
        ('"a", "bafy2"', False),
        ("bafy", False),
        ("", False),
        (f'"a" junk, {TAG}', False),
    ],
)
def test_if_none_match(field: str, matches: bool) -> None:
    """Lists, weak tags and * match; other tags and malformed lists do not."""
    assert conditions.matches_none(field, TAG) is matches


@pytest.mark.parametrize(
    ("field", "holds"),
    [
        (TAG, True),
        (f"W/{TAG}", False),
        ('"x"', False),
        (DATE, True),
        ("Thu, 22 Oct 2015 07:28:00 GMT", False),
        ("junk", False),
    ],
)
def test_if_range(field: str, holds: bool) -> None:
    """A range applies only to the very same entity: a strong tag or the exact date."""
    assert conditions.holds_if_range(field, TAG, DATE_S) is holds


def test_dates() -> None:
    """Dates go both ways, and a year that HTTP cannot tell is left out."""
    assert conditions.http_date(DATE_S) == DATE
    assert conditions.http_date(1 << 60) is None
    assert conditions.is_unmodified_since(DATE, DATE_S)
    assert not conditions.is_unmodified_since(DATE, DATE_S + 1)


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Any field value gives an answer, never an error."""
    conditions.matches_none(text, TAG)
    conditions.holds_if_range(text, TAG, DATE_S)
    conditions.is_unmodified_since(text, DATE_S)
