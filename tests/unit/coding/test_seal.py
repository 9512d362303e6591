"""A seal opens only with its own key, bytes and associated data."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding import seal as seal_module
from fungistor.coding.seal import (
    KEY_BYTES,
    SEAL_TAG_BYTES,
    Purpose,
    block_aad,
    open_into,
    open_sealed,
    page_aad,
    seal,
    seal_into,
)
from fungistor.errors import CorruptError

KEY = bytes(range(KEY_BYTES))


@pytest.fixture(params=[True, False], ids=["into", "copying"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the library's in-place calls and, as on older releases, without."""
    monkeypatch.setattr(seal_module, "_HAS_INTO", request.param)


@pytest.mark.usefixtures("both_ways")
def test_sealed_bytes_lie_at_the_start_of_the_buffer() -> None:
    """seal_into writes plain length + 16 bytes, leaves the rest alone, and open_into undoes it."""
    buffer = bytearray(b"\xee" * 40)
    assert seal_into(KEY, b"twelve bytes", b"aad", memoryview(buffer)) == 28
    assert buffer[28:] == b"\xee" * 12
    assert bytes(buffer[:28]) == seal(KEY, b"twelve bytes", b"aad")
    plain = bytearray(b"\xee" * 14)
    assert open_into(KEY, memoryview(buffer)[:28], b"aad", memoryview(plain)) == 12
    assert plain == b"twelve bytes\xee\xee"


@pytest.mark.usefixtures("both_ways")
def test_buffers_that_are_too_short_are_the_callers_error() -> None:
    """Neither sealing nor opening writes past its buffer."""
    with pytest.raises(ValueError, match="28 sealed bytes do not fit into 27"):
        seal_into(KEY, bytes(12), b"", memoryview(bytearray(27)))
    with pytest.raises(ValueError, match="12 plain bytes do not fit into 11"):
        open_into(KEY, seal(KEY, bytes(12), b""), b"", memoryview(bytearray(11)))
    with pytest.raises(ValueError, match="a key has 32 bytes, not 16"):
        seal(bytes(16), b"", b"")


@pytest.mark.usefixtures("both_ways")
@settings(deadline=None, max_examples=100)
@given(plain=st.binary(max_size=100), data=st.data())
def test_any_change_is_found(plain: bytes, data: st.DataObject) -> None:
    """A flipped bit, a cut, another key and other associated data are CorruptErrors."""
    aad = block_aad(b"\x12\x20" + bytes(32), 0, len(plain))
    sealed = seal(KEY, plain, aad)
    assert open_sealed(KEY, sealed, aad) == plain
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    out = memoryview(bytearray(len(plain) + 16))
    for key, changed, bound in (
        (KEY, bytes(flipped), aad),
        (KEY, sealed[:-1], aad),
        (KEY, sealed[: SEAL_TAG_BYTES - 1], aad),
        (KEY, b"", aad),
        (bytes(32), sealed, aad),
        (KEY, sealed, aad + b"\0"),
    ):
        with pytest.raises(CorruptError):
            open_sealed(key, changed, bound)
        with pytest.raises(CorruptError):
            open_into(key, changed, bound, out)


def test_associated_data_tells_everything_apart() -> None:
    """Kind, compression, length and multihash each change the associated data."""
    bound = {
        block_aad(b"a", 0, 1),
        block_aad(b"b", 0, 1),
        block_aad(b"a", 1, 1),
        block_aad(b"a", 0, 2),
        *(page_aad(purpose, how, size) for purpose in Purpose for how in (0, 1) for size in (1, 2)),
    }
    assert len(bound) == 4 + 4 * len(Purpose)


def test_large_blocks_seal_in_place() -> None:
    """A block of 1 MiB seals into a slice of a stripe buffer and opens from it."""
    plain = os.urandom(1 << 20)
    stripe = memoryview(bytearray(3 << 20))
    written = seal_into(KEY, plain, b"", stripe[77:])
    assert open_sealed(KEY, stripe[77 : 77 + written], b"") == plain
