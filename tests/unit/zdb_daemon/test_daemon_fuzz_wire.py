"""Streams of requests with anything done to them: a reply for each request, no crash, no hang, bounded memory."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.zdb.daemon.buffers import BufferPool
from fungistor.zdb.daemon.vocabulary import COMMANDS
from fungistor.zdb.daemon.wire import ProtocolError, RequestParser
from tests.unit.zdb_daemon.harness import Client, Daemon, ErrorReply, daemon, encode
from tests.unit.zdb_daemon.test_daemon_wire import parse, split

APART = {b"WAIT", b"MIRROR", b"MASTER", b"STOP", b"NSDEL"}
"""Words after which a connection answers more or less than a reply a request."""

BREAKS = (
    b"*0\r\n",
    b"*1025\r\n",
    b"$-1\r\n",
    b"\n",
    b"\r",
    b"*",
    b"$",
    b"$8388609\r\n",
    b"*3\r\n$3\r\nSET\r\n",
    b"\0" * 9000,
)


def mutated(chance: random.Random, stream: bytes) -> bytes:
    """Flip, drop, repeat and put in some bytes."""
    data = bytearray(stream)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.choice((1, 2, 40))]
            case 2:
                data[at:at] = data[at : at + chance.choice((1, 30, 400))]
            case 3:
                data[at:at] = chance.choice(BREAKS)
            case _:
                del data[at:]
    return bytes(data)


def requests(chance: random.Random) -> list[list[bytes]]:
    """Commands as clients might say them, and not quite so."""
    names = sorted({*COMMANDS, b"SET", b"GET", b"NOPE", b""} - APART)
    words = [b"", b"k", b"default", b"1", b"-1", b"0", b"SECURE", b"x" * 300, bytes(17), b"z" * 40_000]
    return [
        [chance.choice((b"SET", b"GET", chance.choice(names))), *chance.choices(words, k=chance.randrange(4))]
        for _ in range(chance.randrange(1, 30))
    ]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.integers(0, 1 << 40))
def test_any_cut_of_a_hurt_stream_is_the_same(seed: int) -> None:
    """However a stream with errors in it is cut, the same requests come out before the same error."""
    chance = random.Random(seed)
    data = mutated(chance, b"".join(encode(*request) for request in requests(chance)))
    whole = parse([data])
    assert parse(split(data, seed, chance.randrange(40))) == whole
    assert parse([data[at : at + 8192] for at in range(0, len(data), 8192)]) == whole
    assert parse([data[at : at + 1] for at in range(min(len(data), 3000))] + [data[3000:]]) == whole


def test_a_long_header_is_one_error_however_it_is_cut() -> None:
    """A header line beyond its bound ends the stream without a word, whether its end came along with it or not."""
    for head in (b"*", b"*1\r\n$"):
        for size in (8190, 8191, 8192, 9000):
            data = head + b"0" * size + b"\r\n"
            assert parse([data]) == parse([data[:8193], data[8193:]]) == parse([data[:4000], data[4000:]]), (head, size)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 1 << 40))
def test_a_parser_holds_no_more_than_its_bound(seed: int) -> None:
    """Whatever comes, a parser lends no more than its pool has, and gives all of it back at the end."""
    chance = random.Random(seed)
    budget = 1 << 20
    pool = BufferPool(budget)
    parser = RequestParser(pool.take, pool.give)
    try:
        for _ in range(30):
            piece = mutated(chance, encode(b"SET", b"k", bytes(chance.choice((10, 20_000, 300_000)))))
            while piece and not parser.starved:
                target = parser.wants()
                if target:
                    count = min(len(target), len(piece))
                    target[:count] = piece[:count]
                    parser.filled(count)
                    piece = piece[count:]
                else:
                    parser.feed(piece)
                    piece = b""
                while parser.next() is not None:
                    parser.release()
                assert pool._lent_bytes <= budget
    except ProtocolError:
        pass
    finally:
        parser.close()
    assert pool._lent_bytes == 0


def converse(server: Daemon, seed: int) -> None:
    """Send a hurt stream in pieces; read exactly the replies that it must bring, then the error or nothing."""
    chance = random.Random(seed)
    data = mutated(chance, b"".join(encode(*request) for request in requests(chance)))
    told, error = parse([data])
    if any(bytes(words[0]).upper() in APART for words in told if words):
        return
    client = Client(server.address)
    try:
        for piece in split(data, seed, chance.randrange(6)):
            client.sock.sendall(piece)
        for _ in told:
            client.read()
        if error:
            reply = client.read()
            assert isinstance(reply, ErrorReply), seed
            assert str(reply) == error, seed
        if error is not None:
            with pytest.raises(EOFError):
                client.read()
    finally:
        client.close()


def resident_bytes(server: Daemon) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def campaign(home: Path, seeds: range) -> None:
    with daemon(home) as server:
        for seed in seeds:
            converse(server, seed)
        client = server.client()
        assert client.call("PING") == b"PONG"
        assert resident_bytes(server) < 200 << 20
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    with daemon(home) as server:
        assert server.client().call("PING") == b"PONG"


def test_hurt_streams_are_answered_in_step(tmp_path: Path) -> None:
    """Three hundred connections that send requests with bytes flipped, dropped and put in: each whole request before
    the error gets its reply, the error its text, and the daemon goes on, small, and starts again on its folder."""
    campaign(tmp_path, range(300))


@pytest.mark.soak
def test_many_hurt_streams_are_answered_in_step(tmp_path: Path) -> None:
    """The long form: twenty thousand connections."""
    campaign(tmp_path, range(1000, 21_000))
    print("20,000 connections, seeds 1000 to 20999: a reply for each whole request, no crash, under 200 MiB")
