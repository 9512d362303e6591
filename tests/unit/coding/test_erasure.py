"""The code: zfec is the definition, ISA-L must give the same bytes, and any k of n bring everything back."""

from __future__ import annotations

import ctypes.util
import itertools
import mmap
import os
import random
import threading
import time
from collections.abc import Sequence

import pytest
import zfec
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding import erasure
from fungistor.coding.erasure import ZfecEngine, encode, engine_name, matrix, recover


def blank(count: int, length: int) -> list[memoryview]:
    """Zeroed shards to write into."""
    return [memoryview(bytearray(length)) for _ in range(count)]


def random_shards(rng: random.Random, count: int, length: int) -> list[bytes]:
    """Shards of arbitrary bytes."""
    return [rng.randbytes(length) for _ in range(count)]


def test_the_fast_engine_is_found_here() -> None:
    """The wheel that every installation has bundles ISA-L, so the slow fallback is not what runs."""
    assert engine_name() == "isa-l"


@pytest.mark.parametrize("k", [1, 2, 3, 7, 16, 33, 254])
def test_rows_do_not_depend_on_how_many_there_are(k: int) -> None:
    """The first rows of the widest matrix are those of a narrow one, so parities can be minted later."""
    units = tuple(bytes(column == row for column in range(k)) for row in range(k))
    narrow = min(k + 4, 255)
    assert tuple(bytes(row) for row in zfec.Encoder(k, narrow).encode(units)) == matrix(k)[:narrow]


def product(left: int, right: int) -> int:
    """Multiplication in GF(256) with the polynomial 0x11D, bit by bit."""
    result = 0
    while right:
        result ^= left * (right & 1)
        left = left << 1 ^ (left >> 7) * 0x11D
        right >>= 1
    return result


def test_the_matrix_is_the_one_the_format_page_defines() -> None:
    """From the page alone: rows of powers of (0, 1, 2, 4, ...) = (our rows) x (their first k rows)."""
    k, points = 5, [0, 1]
    while len(points) < 255:
        points.append(product(points[-1], 2))
    powers = [[int(column == 0) for column in range(k)]]
    for point in points[1:]:
        row = [1]
        while len(row) < k:
            row.append(product(row[-1], point))
        powers.append(row)
    for mine, expected in zip(matrix(k), powers, strict=True):
        for column in range(k):
            total = 0
            for place in range(k):
                total ^= product(mine[place], powers[place][column])
            assert total == expected[column]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_both_engines_give_the_same_bytes(data: st.DataObject) -> None:
    """For random k, m, lengths and loss patterns, extra parities up to 254 too, ISA-L equals zfec."""
    k = data.draw(st.integers(1, 40))
    length = data.draw(st.sampled_from([1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 100, 257, 1000]))
    held = data.draw(st.lists(st.integers(0, 254), min_size=k, max_size=k + 3, unique=True))
    wanted = data.draw(st.lists(st.integers(0, 254), min_size=1, max_size=8, unique=True))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    original = random_shards(rng, k, length)
    every = {index: memoryview(bytearray(length)) for index in range(255)}
    definition = ZfecEngine()
    definition.multiply(k, tuple(range(k)), tuple(range(255)), original, list(every.values()))
    assert [bytes(every[i]) for i in range(k)] == original

    made = dict(zip(wanted, blank(len(wanted), length), strict=True))
    recover(k, {index: every[index] for index in held}, made)

    assert {index: bytes(shard) for index, shard in made.items()} == {index: bytes(every[index]) for index in wanted}
    sources = tuple(sorted(held)[:k])
    by_zfec = blank(len(wanted), length)
    definition.multiply(k, sources, tuple(wanted), [bytes(every[i]) for i in sources], by_zfec)
    assert [bytes(shard) for shard in by_zfec] == [bytes(every[index]) for index in wanted]


def test_any_four_of_twenty_may_be_lost() -> None:
    """All 4,845 patterns of four losses out of 16+4 give back every lost shard."""
    rng = random.Random(4845)
    length = 64
    data = random_shards(rng, 16, length)
    parity = blank(4, length)
    encode(16, 4, data, parity)
    shards = dict(enumerate([*data, *(bytes(shard) for shard in parity)]))
    target = blank(4, length)
    patterns = list(itertools.combinations(range(20), 4))
    for lost in patterns:
        have = {index: shard for index, shard in shards.items() if index not in lost}
        recover(16, have, dict(zip(lost, target, strict=True)))
        assert [bytes(shard) for shard in target] == [shards[index] for index in lost], lost
    assert len(patterns) == 4845


def test_five_losses_are_the_callers_error() -> None:
    """Fifteen shards cannot make sixteen: ValueError, and the target stays untouched."""
    target = blank(1, 8)
    with pytest.raises(ValueError, match="15 shards cannot make up k=16"):
        recover(16, {index: bytes(8) for index in range(5, 20)}, {0: target[0]})
    assert bytes(target[0]) == bytes(8)


def test_wrong_shapes_are_refused() -> None:
    """Counts, lengths and indices that do not agree are a ValueError before any byte is written."""
    cases: list[tuple[int, int, Sequence[bytes], Sequence[memoryview]]] = [
        (2, 1, [b"ab"], blank(1, 2)),
        (2, 1, [b"ab", b"cd"], blank(2, 2)),
        (2, 1, [b"ab", b"cde"], blank(1, 2)),
        (2, 1, [b"ab", b"cd"], blank(1, 3)),
        (0, 1, [], blank(1, 2)),
        (200, 56, [b"a"] * 200, blank(56, 1)),
    ]
    for k, m, data, parity in cases:
        with pytest.raises(ValueError, match="shards"):
            encode(k, m, data, parity)
    for index in (-1, 255):
        with pytest.raises(ValueError, match="run from 0 to 254"):
            recover(1, {0: b"a"}, {index: blank(1, 1)[0]})


def test_read_only_output_is_refused() -> None:
    """A parity buffer that cannot be written is an error, not a write into immutable bytes."""
    frozen = bytes(4)
    with pytest.raises(BufferError):
        encode(1, 1, [b"abcd"], [memoryview(frozen)])
    assert frozen == bytes(4)


def test_every_kind_of_buffer_is_taken_uncopied() -> None:
    """bytes, bytearray, a slice of a read-only mmap and of a memoryview give the same parity."""
    raw = os.urandom(4096)
    with mmap.mmap(-1, 4096) as area:
        area[:] = raw
        view = memoryview(area).toreadonly()
        shards: list[bytes | bytearray | memoryview] = [
            raw[:1024],
            bytearray(raw[1024:2048]),
            view[2048:3072],
            memoryview(raw)[3072:],
        ]
        parity, expected = blank(2, 1024), blank(2, 1024)
        encode(4, 2, shards, parity)
        encode(4, 2, [raw[i : i + 1024] for i in range(0, 4096, 1024)], expected)
        shards.clear()
        view.release()
    assert parity == expected


def test_buffers_are_let_go_after_the_call() -> None:
    """A pinned bytearray can be resized again once the call returned or failed."""
    data = bytearray(b"abcd")
    parity = bytearray(4)
    encode(1, 1, [data], [memoryview(parity)])
    with pytest.raises(BufferError):
        encode(2, 1, [data, data], [memoryview(bytes(4))])
    data.append(1)
    parity.append(1)


def test_shards_that_are_there_are_copied() -> None:
    """Wanting a shard that is at hand gives its bytes, and wanting none does nothing."""
    target = blank(1, 3)
    recover(2, {0: b"abc", 1: b"xyz", 2: bytes(3)}, {1: target[0]})
    assert bytes(target[0]) == b"xyz"
    recover(1, {0: b"abc"}, {})


def test_many_threads_share_tables() -> None:
    """Eight threads coding different patterns at once each get their own right bytes."""
    rng = random.Random(8)
    data = random_shards(rng, 16, 4096)
    parity = blank(4, 4096)
    encode(16, 4, data, parity)
    shards = dict(enumerate([*data, *(bytes(shard) for shard in parity)]))
    wrong: list[tuple[int, ...]] = []

    def work(seed: int) -> None:
        own = random.Random(seed)
        target = blank(4, 4096)
        for _ in range(50):
            lost = tuple(sorted(own.sample(range(20), 4)))
            recover(16, {i: s for i, s in shards.items() if i not in lost}, dict(zip(lost, target, strict=True)))
            if [bytes(shard) for shard in target] != [shards[i] for i in lost]:
                wrong.append(lost)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_stripe_is_coded_at_wire_speed() -> None:
    """16 shards of 256 KiB take well under the time that zfec needs, the best of a few runs on a busy machine."""
    data = [os.urandom(256 * 1024)] * 16
    parity = blank(4, 256 * 1024)
    encode(16, 4, data, parity)
    seconds = []
    for _ in range(20):
        start = time.thread_time()
        encode(16, 4, data, parity)
        seconds.append(time.thread_time() - start)
    assert 4 / 1024 / min(seconds) > 1.0, "GiB/s"


def test_an_engine_that_computes_other_bytes_is_refused() -> None:
    """The self-test notices an engine whose product is off by one bit, or whose inverse fails."""

    class OffByOne(ZfecEngine):
        def multiply(
            self,
            k: int,
            sources: tuple[int, ...],
            rows: tuple[int, ...],
            have: Sequence[bytes | bytearray | memoryview],
            out: Sequence[memoryview],
        ) -> None:
            super().multiply(k, sources, rows, have, out)
            out[-1][-1] ^= 1

    class Singular(ZfecEngine):
        def multiply(self, *_: object) -> None:
            raise ArithmeticError("singular")

    assert erasure.agrees_with_definition(ZfecEngine())
    assert not erasure.agrees_with_definition(OffByOne())
    assert not erasure.agrees_with_definition(Singular())


def test_a_library_that_is_not_isal_is_passed_over() -> None:
    """A path that does not load, and a library without the functions, are no engine and no crash."""
    assert erasure._isal("/nonexistent/libisal.so.2") is None
    assert erasure._isal(ctypes.util.find_library("c") or "libc.so.6") is None
