"""The bounds of a connection, which rest on uvicorn's insides."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from fungistor.testing.memory_content import MemoryContent
from gateway import server
from gateway.settings import Settings
from tests.unit.gateway.live import serving, wait_until

HEAD_MAX = Settings().head_bytes_max


@pytest.mark.parametrize("parts", [1, 20])
def test_a_head_that_is_too_large(parts: int) -> None:
    """A head longer than its bound is 431, sent at once or in pieces, finished or not."""
    field = b"X-Long: " + b"x" * (HEAD_MAX + 1000) + b"\r\n\r\n"
    with (
        serving(MemoryContent()) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as peer,
    ):
        peer.sendall(b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\n")
        size = len(field) // parts + 1
        for start in range(0, len(field), size):
            try:
                peer.sendall(field[start : start + size])
            except ConnectionError:
                break
        received = b""
        try:
            while part := peer.recv(65536):
                received += part
        except ConnectionResetError:
            assert received
        assert received.startswith(b"HTTP/1.1 431 ")


def test_many_small_fields_within_the_bound() -> None:
    """An ordinary large head is served, again and again on one connection."""
    request = b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 50 + b"%s\r\n"
    with serving(MemoryContent()) as live:
        received = live.exchange(request % b"" * 60 + request % b"Connection: close\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 61


def test_a_head_that_never_ends() -> None:
    """A connection that asks nothing, or half, is closed after its time."""
    with serving(MemoryContent(), Settings(head_s=0.2, drain_s=2)) as live:
        assert live.exchange(b"") == b""
        assert live.exchange(b"GET /ipfs/bafk") == b""


@pytest.mark.parametrize(
    ("length", "piece"),
    [("Content-Length: 1000000000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")],
)
def test_a_body_that_never_ends(length: str, piece: bytes) -> None:
    """A request whose body dribbles has its answer, and its connection is closed in the time that a head has."""
    head = f"POST /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n"
    pause = threading.Event()
    with (
        serving(MemoryContent(), Settings(head_s=0.3, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as peer,
    ):
        peer.sendall(head.encode())
        assert peer.recv(1000).startswith(b"HTTP/1.1 405 ")
        deadline = time.monotonic() + 10
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                peer.sendall(piece)
                pause.wait(0.01)


def test_who_was_accepted_before_a_drain_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told to end still hears the request of a connection that it accepted a moment before."""
    monkeypatch.setattr(server, "LAST_CALL_S", 2.0)
    with (
        serving(MemoryContent()) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as peer,
    ):
        wait_until(lambda: bool(live.server.server_state.connections), "the connection is accepted")
        live.server.drain()
        peer.sendall(b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert peer.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_an_idle_connection_is_closed() -> None:
    """A kept connection is closed when its idle time is over."""
    with serving(MemoryContent(), Settings(keep_alive_s=1, drain_s=2)) as live:
        received = live.exchange(b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.parametrize(
    "request_bytes", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http(request_bytes: bytes) -> None:
    """Bytes that are no request are 400 and the connection is closed."""
    with serving(MemoryContent()) as live:
        assert live.exchange(request_bytes).startswith(b"HTTP/1.1 400 ")


def test_a_body_nobody_wants() -> None:
    """A GET with a body is answered, and the next request on the connection is read right."""
    with serving(MemoryContent()) as live:
        received = live.exchange(
            b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
            b"GET /-/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_absolute_form() -> None:
    """A proxy's whole URL in the request line is served as its path."""
    with serving(MemoryContent()) as live:
        received = live.exchange(b"GET http://any.host/ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK")
