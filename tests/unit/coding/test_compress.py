"""Compression pays or is left out, and no frame can ask for more than was declared."""

from __future__ import annotations

import contextlib
import os
import random
import threading

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.compress import Compression, compress, decompress
from fungistor.errors import CorruptError
from fungistor.limits import MANIFEST_PAGE_BYTES_MAX


@settings(deadline=None, max_examples=200)
@given(seed=st.binary(max_size=200), repeat=st.integers(1, 200))
def test_what_is_compressed_comes_back(seed: bytes, repeat: int) -> None:
    """Any bytes survive the round trip, and never grow."""
    plain = seed * repeat
    how, packed = compress(plain)
    assert len(packed) <= len(plain)
    assert decompress(how, packed, len(plain)) == plain


def test_text_is_compressed_and_noise_is_not() -> None:
    """zstd where it saves 3 % or more; noise is handed back itself, uncopied."""
    text = b"the quick brown fox jumps over the lazy dog, again and again. " * 3000
    noise = os.urandom(1 << 20)
    how, packed = compress(memoryview(text))
    assert how is Compression.ZSTD
    assert len(packed) < len(text) // 4
    how, packed = compress(noise)
    assert how is Compression.STORED
    assert packed is noise


def test_a_block_with_some_text_is_judged_by_even_samples() -> None:
    """Half text, half noise is worth compressing, whichever half comes first."""
    half = 1 << 19
    text, noise = (b"abcdefgh" * half)[:half], random.Random(1).randbytes(half)
    for plain in (text + noise, noise + text):
        assert compress(plain)[0] is Compression.ZSTD


def test_many_threads_compress_at_once() -> None:
    """Compressors are shared and never by two threads at a time: every frame holds its own block."""
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(100):
            plain = bytes([number, turn]) * 3000
            how, packed = compress(plain)
            if how is not Compression.ZSTD or decompress(how, packed, len(plain)) != plain:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_bomb_makes_no_more_than_declared() -> None:
    """A frame of 100 MiB of zeros under a declared length of 1000 is a CorruptError, and so is a longer one."""
    bomb = zstd.compress(bytes(100 << 20))
    for declared in (1000, 0, MANIFEST_PAGE_BYTES_MAX, MANIFEST_PAGE_BYTES_MAX + 1, 1 << 40, -1):
        with pytest.raises(CorruptError):
            decompress(Compression.ZSTD, bomb, declared)


def test_lengths_must_be_exact() -> None:
    """Shorter, longer, cut and prolonged data are CorruptErrors, stored or compressed."""
    plain = b"abc" * 1000
    frame = zstd.compress(plain)
    for data, declared in ((frame, 2999), (frame, 3001), (frame[:-1], 3000), (frame + b"x", 3000), (frame * 2, 3000)):
        with pytest.raises(CorruptError):
            decompress(Compression.ZSTD, data, declared)
    with pytest.raises(CorruptError, match="length 3000, 2999 were declared"):
        decompress(Compression.STORED, plain, 2999)
    with pytest.raises(CorruptError, match="unknown compression 2"):
        decompress(2, plain, 3000)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=300), how=st.integers(-1, 300), declared=st.integers(-1, 5000))
def test_no_bytes_crash_it(data: bytes, how: int, declared: int) -> None:
    """Arbitrary bytes give what was declared or a CorruptError, nothing else."""
    with contextlib.suppress(CorruptError):
        assert len(decompress(how, data, declared)) == declared
