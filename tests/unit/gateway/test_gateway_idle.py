"""Connections that do little or nothing: they cost little, and end."""

from __future__ import annotations

import itertools
import resource
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import psutil
import pytest

from fungistor.testing.memory_content import MemoryContent
from gateway.settings import Settings
from tests.unit.gateway.live import serving, wait_until

WAIT_S = 10.0
BYTES_EACH_MAX = 24 << 10


CLIENTS = """
import resource, socket, sys
port, count = map(int, sys.argv[1:])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
peers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
for peer in peers[::2]:
    peer.sendall(b"GET /ipfs/x HTTP/1.1\\r\\nHost: x\\r\\nX-Slow: ")
print("open", flush=True)
sys.stdin.read()
"""
"""A process of its own: both ends of 10,000 connections are more than many machines let one process have."""


@pytest.mark.parametrize("wanted", [2000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_thousands_of_idle_connections_cost_little(wanted: int) -> None:
    """As many idle connections as descriptors permit, half of them in the middle of a head: each costs some KiB, and
    requests among them are answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(wanted, hard - 200)
    content = MemoryContent()
    link = content.add_file(b"x" * 100_000)
    try:
        with serving(content, Settings(head_s=300, keep_alive_s=300, drain_s=2)) as live:
            live.get(f"/ipfs/{link.cid}")
            before = psutil.Process().memory_info().rss
            argv = [sys.executable, "-c", CLIENTS, str(live.port), str(count)]
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
                assert clients.stdout is not None
                assert clients.stdout.readline() == b"open\n"
                wait_until(lambda: len(live.server.server_state.connections) >= count, "all are taken in")
                held = psutil.Process().memory_info().rss - before
                for _ in range(20):
                    assert live.get(f"/ipfs/{link.cid}").status_code == 200
                print(f"{count} connections: {held >> 10} KiB, {held // count} bytes each")
                assert held < count * BYTES_EACH_MAX
            wait_until(lambda: not live.server.server_state.connections, "all are gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_head_that_drips_is_cut_off() -> None:
    """A head of which a byte comes now and then is given up all the same: its time counts from its first byte."""
    with (
        serving(MemoryContent(), Settings(head_s=0.3, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        pause = threading.Event()
        with pytest.raises(OSError):  # reset or broken pipe, as the kernel likes
            for _ in itertools.repeat(None, 1000):
                peer.sendall(b"x")
                pause.wait(0.02)


def test_a_body_that_never_comes_is_cut_off() -> None:
    """A request that promises a body gets its answer without it, and its connection is closed when it stays away."""
    content = MemoryContent()
    link = content.add_file(b"small")
    head = f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome".encode()
    with (
        serving(content, Settings(keep_alive_s=1, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        peer.sendall(head)
        received = b""
        try:
            while part := peer.recv(65536):
                received += part
        except ConnectionResetError:
            pass
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"small")


def test_a_connection_that_had_hot_answers_is_closed_when_idle() -> None:
    """The idle time counts from the last hot answer, and then the connection goes."""
    content = MemoryContent()
    link = content.add_file(b"small")
    request = f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with (
        serving(content, Settings(keep_alive_s=1, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        for _ in range(3):
            peer.sendall(request)
            while not peer.recv(65536).endswith(b"small"):
                pass
        with suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        wait_until(lambda: not live.server.server_state.connections, "it is gone")


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests that come in one piece, hot or not, get their answers in the order asked."""
    content = MemoryContent()
    links = [content.add_file(text) for text in (b"alpha", b"omega")]
    requests = [f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for link in links]
    with serving(content) as live:
        for link in links:
            live.get(f"/ipfs/{link.cid}")
        with socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer:
            peer.sendall(requests[0] + requests[1] + requests[0])
            received = b""
            while received.count(b"alpha") < 2:
                received += peer.recv(65536)
            assert received.index(b"alpha") < received.index(b"omega") < received.rindex(b"alpha")
