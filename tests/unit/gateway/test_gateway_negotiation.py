from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RefusedError
from gateway.negotiation import Choice, Format, accepts, negotiate, parse_accept

RAW = "application/vnd.ipld.raw"
CAR = "application/vnd.ipld.car"


@pytest.mark.parametrize(
    ("query", "accept", "wanted"),
    [
        (None, None, Format.DEFAULT),
        (None, "*/*", Format.DEFAULT),
        (None, "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", Format.DEFAULT),
        (None, "image/avif", Format.DEFAULT),
        (None, RAW, Format.RAW),
        (None, f"{CAR}; version=1; order=dfs", Format.CAR),
        (None, f"{CAR};q=0.5, {RAW};q=0.9", Format.RAW),
        (None, f"{CAR}, {RAW}", Format.CAR),
        (None, f"text/html, {RAW}", Format.RAW),
        (None, f"text/html, {RAW};q=0.3", Format.DEFAULT),
        (None, f"{RAW};q=0, */*", Format.DEFAULT),
        (None, "application/json, text/plain, */*", Format.JSON),
        ("raw", CAR, Format.RAW),
        ("dag-json", None, Format.DAG_JSON),
        ("", RAW, Format.RAW),
    ],
)
def test_format(query: str | None, accept: str | None, wanted: Format) -> None:
    """The query wins, then q, then a type that names a format, then the order."""
    assert negotiate(query, accept).format is wanted


def test_default_beside_another() -> None:
    """A client that would also take an ordinary answer is known as one."""
    assert negotiate(None, "application/json, */*;q=0.1") == Choice(Format.JSON, False, takes_default=True)
    assert negotiate(None, "application/json") == Choice(Format.JSON, False, takes_default=False)


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [("7z", None, 400), (None, "application/vnd.ipld.unknown", 406), (None, "*/*;q=0", 406), (None, "*/*;q=x", 406)],
)
def test_refused(query: str | None, accept: str | None, status: int) -> None:
    """A format that does not exist is 400, an Accept that nothing satisfies 406."""
    with pytest.raises(RefusedError) as refused:
        negotiate(query, accept)
    assert refused.value.status == status


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_accept(text: str) -> None:
    """Any text parses, with q between 0 and 1."""
    assert all(0 <= media.q <= 1 for media in parse_accept(text))


def test_named_types_only() -> None:
    """A wildcard is no wish for an HTML error page."""
    assert accepts("text/html;q=0.5, */*", "text/html") == 0.5
    assert accepts("*/*", "text/html") == 0
