from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import content_types as types


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.html", "text/html"),
        ("A.JSON", "application/json"),
        ("x.svg", "image/svg+xml"),
        ("t.ods", "application/vnd.oasis.opendocument.spreadsheet"),
        ("t.csv", "text/csv; charset=utf-8"),
        ("noext", None),
        (None, None),
        ("x.unknownext", None),
    ],
)
def test_by_name(name: str | None, wanted: str | None) -> None:
    """Extensions are ours, whatever the machine's tables say."""
    assert types.by_name(name) == wanted


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b'{"a": 1}', "application/json"),
        (b" [1, 2]\n", "application/json"),
        (b"[1] a footnote", types.TEXT),
        (b"[INFO] started", types.TEXT),
        (b"\xef\xbb\xbf<!DOCTYPE HTML><p>", "text/html"),
        (b'<?xml version="1.0"?><svg/>', "image/svg+xml"),
        (b"<?xml version='1.0'?><a/>", "application/xml"),
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"XXXX\x00\x00\x00\x00WEBP", types.OCTETS),
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
        (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zipPK\x03\x04", "application/epub+zip"),
        (b"PK\x03\x04" + bytes(40), "application/zip"),
        ("zażółć".encode(), types.TEXT),
        ("zażółć".encode()[:-1], types.OCTETS),
        (b"a\x00b", types.OCTETS),
        (b"", types.TEXT),
    ],
)
def test_by_content(head: bytes, wanted: str) -> None:
    """The first bytes tell JSON, markup, media, archives and text apart."""
    assert types.by_content(head, is_whole=True) == wanted


def test_a_character_cut_at_the_end_is_still_text() -> None:
    """What was read may end inside a character, or inside a JSON document."""
    assert types.by_content("zażółć".encode()[:-1], is_whole=False) == types.TEXT
    assert types.by_content(b'[{"a": "', is_whole=False) == "application/json"


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(head: bytes, is_whole: bool) -> None:
    """Any bytes have a type that can stand in a header."""
    found = types.by_content(head, is_whole=is_whole)
    assert found.isascii()
    assert found.isprintable()
