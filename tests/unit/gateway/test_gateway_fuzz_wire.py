"""Streams of bytes that are nearly HTTP, in any pieces: each connection ends, none with 500, and nothing is left."""

from __future__ import annotations

import itertools
import logging
import os
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import psutil
import pytest

from fungistor.testing.memory_content import MemoryContent
from gateway.settings import Settings
from tests.unit.gateway.formats_site import Site, formats_site
from tests.unit.gateway.live import serving, wait_until

SHORT, LONG = 250, 30_000
THREADS, BATCH = 8, 250
GROWTH_MIB_MAX = 24
WAIT_S = 20.0

TARGETS = (
    "/ipfs/{tree}", "/ipfs/{tree}/", "/ipfs/{tree}/subdir/multi.bin", "/ipfs/{tree}?format=car",
    "/ipfs/{tree}?format=tar", "/ipfs/{tree}?format=zip", "/ipfs/{sharded}/?limit=all", "/ipfs/{cbor}", "/",
    "/ipfs/{json}?format=dag-json",
    "/-/health", "/routing/v1/providers/{tree}", "/ipns/example.org/", "http://127.0.0.1/ipfs/{tree}/ascii.txt", "*",
)  # fmt: skip
FIELDS = (
    "Host: 127.0.0.1", "Host: localhost", "Host: {tree}.ipfs.localhost", "Accept: application/vnd.ipld.car",
    "Range: bytes=0-9,20-", "If-None-Match: *", "Connection: keep-alive", "Connection: close", "Connection: Upgrade",
    "Upgrade: websocket", "Content-Length: 4", "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked",
    "Expect: 100-continue", "X-Long: " + "y" * 2000, "Cookie: a=b", "Accept-Encoding: gzip", "TE: trailers",
)  # fmt: skip
LAST = b"GET /-/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODIES = (b"", b"", b"", b"body", b"4\r\nbody\r\n0\r\n\r\n", b"\r\n\r\n\r\n", b"\x00" * 40)


@dataclass(frozen=True, slots=True)
class _Stream:
    """What one connection sends, and where it is cut into pieces."""

    data: bytes
    cuts: list[int]
    leaves: bool
    """Says that there is no more and goes, rather than wait for what it asked."""

    def pieces(self) -> list[bytes]:
        edges = [0, *self.cuts, len(self.data)]
        return [self.data[start:stop] for start, stop in itertools.pairwise(edges)]


def _stream(chance: random.Random, names: dict[str, str]) -> _Stream:
    data = bytearray()
    for _ in range(chance.choice((1, 1, 1, 2, 3, 40))):
        method = chance.choice(("GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "CONNECT", "get", "PRI"))
        lines = [f"{method} {chance.choice(TARGETS)} HTTP/{chance.choice(('1.1', '1.1', '1.0', '2.0', '9'))}"]
        lines += chance.sample(FIELDS, chance.randrange(5))
        text = "\r\n".join(lines).replace("{", "%(").replace("}", ")s") % names
        data += text.encode() + b"\r\n\r\n" + chance.choice(BODIES)
    for _ in range(chance.choice((0, 0, 1, 2, 8))):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(1, 6)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 6))
            case _:
                data[at:at] = data[max(0, at - 30) : at]
        data = data or bytearray(b"\r\n")
    leaves = chance.random() < 0.25
    if not leaves:
        data += LAST
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
    return _Stream(bytes(data), cuts, leaves)


def _send(port: int, stream: _Stream) -> bytes:
    """Send a stream; return what came until the connection ended, which it does soon."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as peer:
        try:
            for piece in stream.pieces():
                peer.sendall(piece)
            if stream.leaves:
                peer.shutdown(socket.SHUT_WR)
            while part := peer.recv(1 << 20):
                received += part
        except TimeoutError:
            raise
        except OSError:  # reset, or ended before we had said all
            return received
    return received


def _run(streams: int, seed: int) -> None:
    print(f"{__name__} seed {seed}")
    chance = random.Random(seed)
    with formats_site() as site:
        names = {name: str(getattr(site, name)) for name in ("tree", "sharded", "cbor", "json")}
        bounds = Settings(head_s=0.4, keep_alive_s=1, drain_s=2)
        with serving(_content(site), bounds) as live:
            started, base, answered = time.monotonic(), 0.0, 0
            for first in range(0, streams, BATCH):
                batch = [_stream(chance, names) for _ in range(min(BATCH, streams - first))]
                with ThreadPoolExecutor(THREADS) as threads:
                    for stream, received in zip(batch, threads.map(partial(_send, live.port), batch), strict=True):
                        assert re.match(rb"(HTTP/1\.1 \d{3} |H?$)", received), (stream, received[:60])
                        assert b"HTTP/1.1 500" not in received, stream
                        answered += received.count(b"HTTP/1.1 ")
                if first <= streams // 3:
                    base = _mib()
            wait_until(lambda: not live.server.server_state.connections, "no connection is left")
            wait_until(lambda: not live.server.server_state.tasks, "no request is left")
            assert live.content.opened == live.content.closed
            desk = live.server.config.app.desk  # type: ignore[union-attr]
            assert (desk.hot.gathered, desk.limits.under_way) == (0, 0)
            assert live.get("/-/health").status_code == 200
            grown = _mib() - base
            seconds = time.monotonic() - started
            print(f"{streams} streams in {seconds:.0f} s, {answered} answers, {grown:.1f} MiB grown")
            assert answered > streams
            assert grown < GROWTH_MIB_MAX


def _content(site: Site) -> MemoryContent:
    return site.content


def _mib() -> float:
    return float(psutil.Process().memory_info().rss) / (1 << 20)


def test_streams(caplog: pytest.LogCaptureFixture) -> None:
    """A few hundred streams of damaged requests: answers or closed connections, and no word of an error in the log."""
    with caplog.at_level(logging.ERROR):
        _run(SHORT, int(os.environ.get("FUNGISTOR_SEED", "1")))
    assert not caplog.records


@pytest.mark.soak
def test_many_streams(caplog: pytest.LogCaptureFixture) -> None:
    """Tens of thousands of streams, another seed each time: the same, and no growth."""
    with caplog.at_level(logging.ERROR):
        _run(LONG, int(os.environ.get("FUNGISTOR_SEED", str(time.time_ns()))))
    assert not caplog.records
