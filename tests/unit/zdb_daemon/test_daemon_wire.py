"""The request parser: any split of the bytes gives the same requests, any bytes give requests or a named error."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.zdb.daemon.buffers import BufferPool
from fungistor.zdb.daemon.wire import LARGE_ARGUMENT_BYTES, ProtocolError, RequestParser
from tests.unit.zdb_daemon.harness import encode


def parse(pieces: list[bytes], budget_bytes: int = 64 << 20) -> tuple[list[list[bytes]], str | None]:
    """Run the parser the way a connection does and return the requests and the error it ended with."""
    pool = BufferPool(budget_bytes)
    parser = RequestParser(pool.take, pool.give)
    requests: list[list[bytes]] = []
    try:
        for piece in pieces:
            while piece:
                target = parser.wants()
                if target:
                    count = min(len(target), len(piece))
                    target[:count] = piece[:count]
                    parser.filled(count)
                    piece = piece[count:]
                else:
                    parser.feed(piece)
                    piece = b""
                while (request := parser.next()) is not None:
                    requests.append([bytes(argument) for argument in request])
                    parser.release()
    except ProtocolError as error:
        return requests, error.text
    finally:
        parser.close()
    return requests, None


def split(data: bytes, seed: int, count: int) -> list[bytes]:
    cuts = sorted(random.Random(seed).choices(range(len(data) + 1), k=count))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


words = st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True)
@given(words, st.integers(0, 1 << 30), st.integers(0, 30))
def test_any_split_gives_the_same_requests(requests: list[list[bytes]], seed: int, cuts: int) -> None:
    """However the network cuts a stream of requests, the same requests come out."""
    data = b"".join(encode(*request) for request in requests)
    assert parse(split(data, seed, cuts)) == (requests, None)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.sampled_from([0, 1, 5, 16383, 16384, 16385, 70000, 200_000]), max_size=5), st.integers(0, 1 << 30))
def test_large_arguments_survive_any_split(sizes: list[int], seed: int) -> None:
    """Values that are gathered in place and small ones around them keep their bytes, whatever the split."""
    rng = random.Random(seed)
    requests = [[b"SET", rng.randbytes(20), rng.randbytes(size)] for size in sizes]
    data = b"".join(encode(*request) for request in requests)
    assert parse(split(data, seed, 12)) == (requests, None)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    st.lists(
        st.one_of(st.binary(max_size=30), st.sampled_from([b"*1\r\n", b"$4\r\n", b"\r\n", b"*-1\r\n", b"$-1\r\n"]))
    )
)
def test_any_bytes_end_in_requests_or_a_named_error(pieces: list[bytes]) -> None:
    """No bytes crash the parser, and one call or many small ones see the same."""
    whole = parse([b"".join(pieces)])
    assert parse([bytes([byte]) for byte in b"".join(pieces)]) == whole


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"PING\r\n", "Malformed request, array expected"),
        (b"*0\r\n", "Missing arguments"),
        (b"*abc\r\n", "Missing arguments"),
        (b"*1025\r\n", "Too many arguments"),
        (b"*-1\r\n", "Internal memory error"),
        (b"*1\r\n*1\r\n", "Malformed query string"),
        (b"*1\r\n:5\r\n", "Malformed query string"),
        (b"*1\r\n$-1\r\n", "Malformed query string"),
        (b"*1\r\n$8388609\r\n", "Payload too big"),
        (b"*2\r\n$4\r\nPINGxx$1\r\n", "Malformed query string"),
        (b"*3\r\n$8388608\r\n" + bytes(8388608) + b"\r\n$8388608\r\n", "Payload too big"),
        (b"*" + b"1" * 8192, ""),
    ],
)
def test_errors_have_the_originals_texts(data: bytes, text: str) -> None:
    """Each malformed stream is answered as soon as it can be known, in the original's words."""
    assert parse([data]) == ([], text)


def test_the_line_feed_alone_ends_a_header() -> None:
    """The original looks for the line feed only, so headers without a carriage return are understood."""
    assert parse([b"*2\n$4\nPING\r\n$1\nx\r\n"]) == ([[b"PING", b"x"]], None)


def test_a_spent_budget_starves_and_recovers() -> None:
    """When no receive buffer is to be had the parser says so, keeps its place, and goes on when there is one."""
    pool = BufferPool(128 << 10)
    held = pool.take(100 << 10)
    assert held is not None
    value = bytes(range(256)) * 400
    parser = RequestParser(pool.take, pool.give)
    parser.feed(encode("SET", "k", value)[:60000])
    assert (parser.next(), parser.starved) == (None, True)
    pool.give(held)
    assert (parser.next(), parser.starved) == (None, False)
    target = parser.wants()
    assert target is not None
    rest = encode("SET", "k", value)[60000:]
    target[:] = rest
    parser.filled(len(rest))
    request = parser.next()
    assert request is not None
    assert bytes(request[2]) == value
    assert len(value) > LARGE_ARGUMENT_BYTES
    parser.close()
