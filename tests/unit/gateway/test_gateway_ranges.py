from __future__ import annotations

import email
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RefusedError
from gateway.ranges import RANGES_MAX, ByteRange, Multipart, parse_range


@pytest.mark.parametrize(
    ("text", "total", "wanted"),
    [
        ("bytes=6-16", 31, [(6, 17)]),
        ("bytes=-3", 31, [(28, 31)]),
        ("bytes=-99", 31, [(0, 31)]),
        ("bytes=30-", 31, [(30, 31)]),
        ("bytes=0-999", 31, [(0, 31)]),
        ("Bytes= 6-16 , 0-4", 31, [(6, 17), (0, 5)]),
        ("bytes=0-4,40-", 31, [(0, 5)]),
        ("bytes=0-20,10-30", 31, None),
        ("items=0-1", 31, None),
        ("bytes", 31, None),
        ("bytes=0-", 0, None),
    ],
)
def test_ranges(text: str, total: int, wanted: list[tuple[int, int]] | None) -> None:
    """Single, suffix, open and several ranges; the whole where ranges are no use."""
    found = parse_range(text, total)
    assert (None if found is None else [(part.start, part.stop) for part in found]) == wanted


@pytest.mark.parametrize(
    "text",
    ["bytes=31-", "bytes=-0", "bytes=5-2", "bytes=a-b", "bytes=", "bytes=--1", "bytes=1", f"bytes={'0-0,' * 33}"],
)
def test_refused(text: str) -> None:
    """What cannot be satisfied, is malformed or too many is 416 with the size."""
    with pytest.raises(RefusedError) as refused:
        parse_range(text, 31)
    assert refused.value.status == 416
    assert refused.value.headers == {"Content-Range": "bytes */31"}


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 100))
def test_ranges_lie_inside(text: str, total: int) -> None:
    """Whatever is asked, what is served lies inside the body and is no longer than it."""
    try:
        found = parse_range(text, total)
    except RefusedError:
        return
    if found is not None:
        assert 1 <= len(found) <= RANGES_MAX
        assert all(0 <= part.start < part.stop <= total for part in found)
        assert sum(part.size for part in found) <= total


def test_multipart() -> None:
    """A multipart body has the announced length and parses into the parts."""
    body = bytes(range(100))

    def read(start: int, stop: int) -> Iterator[bytes]:
        yield body[start:stop]

    multipart = Multipart((ByteRange(5, 9), ByteRange(0, 2)), 100, "image/png", "xyz")
    sent = b"".join(multipart.chunks(read))
    assert len(sent) == multipart.length
    message = email.message_from_bytes(b"Content-Type: multipart/byteranges; boundary=xyz\r\n\r\n" + sent)
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part["Content-Range"] for part in parts] == ["bytes 5-8/100", "bytes 0-1/100"]
    assert body[5:9] in sent
