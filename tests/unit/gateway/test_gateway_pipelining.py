"""Requests sent before the one in front of them was answered, and connections that end in the middle of all that."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from typing import Any

import pytest

from fungistor.dag.cid import CID
from fungistor.errors import FungiStorError
from fungistor.testing.memory_content import MemoryContent
from gateway.settings import Settings
from tests.unit.gateway.live import Live, serving, wait_until

WAIT_S = 10.0
MIB = 1 << 20
LARGE = bytes(16 * MIB)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def _get(cid: CID, *fields: str) -> bytes:
    lines = [f"GET /ipfs/{cid} HTTP/1.1", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode()


def _connect(live: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S)


def _protocol(live: Live) -> Any:
    wait_until(lambda: len(live.server.server_state.connections) == 1, "the connection is there")
    (protocol,) = live.server.server_state.connections
    return protocol


def _until_end(peer: socket.socket) -> tuple[int, bool]:
    """Read all there is: how many bytes, and whether the connection was reset."""
    count = 0
    try:
        while part := peer.recv(1 << 18):
            count += len(part)
    except ConnectionResetError:
        return count, True
    return count, False


def test_who_leaves_with_more_requests_in_line_ends_the_first(caplog: pytest.LogCaptureFixture) -> None:
    """A client that is gone ends the request under way, not only the last that it sent; it is no error of ours."""
    content = MemoryContent()
    cid = content.add_file(LARGE).cid
    with serving(content) as live, caplog.at_level(logging.ERROR):
        peer = _connect(live)
        peer.sendall(_get(cid) + _get(cid) + _get(cid))
        peer.recv(1000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        peer.close()
        wait_until(lambda: content.opened == content.closed, "its source is closed")
        wait_until(lambda: not live.server.server_state.tasks, "nothing is under way")
        assert content.opened == 1
    assert not caplog.records


def test_a_client_that_leaves_while_a_block_is_waited_for() -> None:
    """The request in front ends when its client goes, although others stand behind it."""
    content = MemoryContent()
    cid = content.add_file(LARGE).cid
    go_on = threading.Event()

    def fault(_: CID) -> FungiStorError | None:
        go_on.wait(WAIT_S)
        return None

    content.fault = fault
    with serving(content) as live:
        peer = _connect(live)
        peer.sendall(_get(cid) + _get(cid))
        wait_until(lambda: bool(content.asked), "it waits for a block")
        peer.close()
        protocol = live.server.server_state.connections
        wait_until(lambda: not protocol, "the server knows")
        go_on.set()
        wait_until(lambda: content.opened == content.closed and not live.server.server_state.tasks, "it has ended")


def test_waiting_requests_are_bytes() -> None:
    """Thousands of requests sent at once are not thousands of requests under way, and all are answered in order."""
    content = MemoryContent()
    first, other = content.add_file(LARGE[: 4 * MIB]).cid, content.add_file(b"small").cid
    count = 100
    with serving(content) as live, _connect(live) as peer:
        peer.sendall(_get(first) + _get(other) * count + _get(other, "Connection: close"))
        peer.recv(1000)
        protocol = _protocol(live)
        assert len(protocol.pipeline) <= 1
        assert len(live.server.server_state.tasks) == 1
        received = b""
        while part := peer.recv(1 << 20):
            received = received[-(1 << 20) :] + part
    assert received.count(b"HTTP/1.1 200 OK") == count + 1
    assert received.endswith(b"\r\n\r\nsmall")


def test_too_much_sent_ahead() -> None:
    """A connection that sends more requests ahead than are kept is reset, and what it had asked for ends."""
    content = MemoryContent()
    cid = content.add_file(LARGE).cid
    with serving(content, Settings(drain_s=2, sent_ahead_bytes_max=4096)) as live, _connect(live) as peer:
        peer.sendall(_get(cid))
        peer.recv(1000)
        peer.sendall(_get(cid) * 200)
        count, was_reset = _until_end(peer)
        assert was_reset
        assert count < len(LARGE)
        wait_until(lambda: content.opened == content.closed and not live.server.server_state.tasks, "it has ended")


def test_garbage_behind_a_request() -> None:
    """What is no HTTP is not answered in the middle of an answer: that one comes whole, then 400."""
    content = MemoryContent()
    data = LARGE[: 2 * MIB]
    cid = content.add_file(data).cid
    with serving(content) as live:
        received = live.exchange(_get(cid) + b"\x00\x01 nonsense\r\n\r\n")
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(data) in head
    assert rest[: len(data)] == data
    assert rest[len(data) :].startswith(b"HTTP/1.1 400 ")


def test_a_reset_connection_leaves_nothing_behind() -> None:
    """A connection that was answered and then reset keeps no timer: many of them would hold memory for long."""
    content = MemoryContent()
    cid = content.add_file(b"small").cid
    with serving(content) as live:
        for _ in range(3):
            peer = _connect(live)
            peer.sendall(_get(cid))
            assert peer.recv(1000).startswith(b"HTTP/1.1 200 OK")
            protocol = _protocol(live)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            peer.close()
            wait_until(lambda: not live.server.server_state.connections, "it is gone")
            assert protocol.timeout_keep_alive_task is None
            assert protocol._head_timer is None


def test_an_upgrade_is_no_reason_to_stop() -> None:
    """Who offers another protocol is answered in this one."""
    content = MemoryContent()
    cid = content.add_file(b"small").cid
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    with serving(content) as live:
        received = live.exchange(_get(cid, *offer) + _get(cid, "Connection: close"))
    assert received.count(b"HTTP/1.1 200 OK") >= 1
    assert received.endswith(b"\r\n\r\nsmall")
