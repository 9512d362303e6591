from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import InvalidError
from gateway import paths

NAME = st.binary(min_size=1, max_size=12).filter(lambda name: name not in (b".", b"..") and b"/" not in name)


@given(st.lists(NAME, max_size=4), st.booleans())
@settings(deadline=None)
def test_round_trip(names: list[bytes], is_slashed: bool) -> None:
    """A path built from any names parses back to them, each decoded once."""
    text = paths.join("ipfs", "bafkqaaa", tuple(names)) + ("/" if is_slashed else "")
    parsed = paths.parse(text.encode())
    assert parsed == paths.ContentPath("ipfs", "bafkqaaa", tuple(names), is_slashed)
    assert parsed.text == text


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_hostile_bytes_are_invalid_or_a_path(below: bytes) -> None:
    """Any bytes after the namespace give a path or InvalidError, never another error."""
    try:
        parsed = paths.parse(b"/ipfs/" + below)
    except InvalidError:
        return
    assert parsed.root
    assert b".." not in parsed.segments


@pytest.mark.parametrize(
    ("raw", "names", "is_slashed"),
    [
        (b"/ipfs/c/a%2Fb", (b"a/b",), False),
        (b"/ipfs/c/a%252Cb", (b"a%2Cb",), False),
        (b"/ipfs/c/a+b=c", (b"a+b=c",), False),
        (b"/ipfs/c//a///b/", (b"a", b"b"), True),
        (b"/ipfs/c/a/../b", (b"b",), False),
        (b"/ipfs/c/a/%2e%2E/", (), True),
        (b"/ipfs/c/a/..", (), True),
        (b"/ipfs/c/a/.", (b"a",), True),
        (b"/ipfs/c/\xc4\x85", ("ą".encode(),), False),
    ],
)
def test_names(raw: bytes, names: tuple[bytes, ...], is_slashed: bool) -> None:
    """Separators are raw slashes only, dots are resolved, and a plus is no space."""
    parsed = paths.parse(raw)
    assert (parsed.segments, parsed.is_slashed) == (names, is_slashed)


@pytest.mark.parametrize("raw", [b"/ipfs/", b"/ipfs", b"/ipfs/..", b"/ipfs/c/../..", b"/ipfs/c/%zz", b"/ipfs/%0d%0a"])
def test_refused(raw: bytes) -> None:
    """No root, a climb above it, a malformed escape or control bytes in the root are InvalidError."""
    with pytest.raises(InvalidError):
        paths.parse(raw)


def test_escapes_are_go_s() -> None:
    """A redirect escapes as Go does: upper-case hex, and + = & : @ $ , ; bare."""
    assert paths.encode_segment("ą+=&:@$,;'(!) ?%#".encode()) == "%C4%85+=&:@$,;%27%28%21%29%20%3F%25%23"


def test_absolute_form() -> None:
    """The target that a proxy sends is stripped to its path."""
    assert paths.origin_form(b"http://host:80/ipfs/c") == b"/ipfs/c"
    assert paths.origin_form(b"http://host") == b"/"
    assert paths.origin_form(b"/ipfs/http://x") == b"/ipfs/http://x"
