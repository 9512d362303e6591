"""Bodies that fail, clients that leave or do not read, and the bounds that hold meanwhile."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import httpx
import pytest

from fungistor import trail
from fungistor.dag.cid import CID
from fungistor.dag.importer import Link, build_directory
from fungistor.dag.profiles import DEFAULT_PROFILE, UNIXFS_V0_2015
from fungistor.errors import FungiStorError, UnavailableError
from fungistor.testing.memory_content import MemoryContent
from gateway.app import create_app
from gateway.pages.listing import SORT_ENTRIES_MAX
from gateway.settings import STEP_BYTES_MAX, Settings
from gateway.steps import SourceStack, take_step
from tests.unit.gateway.live import Live, serving, wait_until

KIB, MIB = 1 << 10, 1 << 20
WAIT_S = 10.0


def _numbered(size: int) -> bytes:
    return b"".join(index.to_bytes(8, "big") for index in range(size // 8))


def _failing_at(content: MemoryContent, data: bytes, offset: int) -> None:
    bad = next(key for key, block in content.blocks.items() if block == data[offset : offset + MIB])

    def fault(cid: CID) -> FungiStorError | None:
        return UnavailableError("15 of 16 shards") if cid.multihash == bad else None

    content.fault = fault


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_failure_half_way_breaks_the_connection(version: str) -> None:
    """A body that fails after its first bytes ends in a reset, never in a clean short body."""
    content = MemoryContent()
    data = _numbered(4 * MIB)
    link = content.add_file(data)
    _failing_at(content, data, 3 * MIB)
    with serving(content) as live, socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer:
        peer.sendall(f"GET /ipfs/{link.cid} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        received = b""
        with pytest.raises(ConnectionResetError):
            while part := peer.recv(65536):
                received += part
        assert b" 200 OK\r\n" in received
        wait_until(lambda: content.closed == 1, "the source is closed")


def test_a_client_library_sees_the_failure() -> None:
    """An HTTP client raises for the broken body."""
    content = MemoryContent()
    data = _numbered(3 * MIB)
    link = content.add_file(data)
    _failing_at(content, data, 2 * MIB)
    with serving(content) as live, pytest.raises(httpx.HTTPError):
        live.get(f"/ipfs/{link.cid}")


class _Gate:
    """A fault that fails nothing and holds back every block from the n-th on until it is opened."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._opened = threading.Event()
        self.waiting = 0

    def __call__(self, _: CID) -> None:
        self._free -= 1
        if self._free < 0:
            self.waiting += 1
            self._opened.wait(WAIT_S)

    def open(self) -> None:
        self._opened.set()


def test_a_client_that_leaves_stops_its_threads() -> None:
    """When a client goes, no further block is asked for and its source is closed."""
    content = MemoryContent()
    link = content.add_file(_numbered(24 * MIB))
    gate = _Gate(free=4)
    content.fault = gate
    with serving(content) as live:
        with socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer:
            peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = 0
            while received < 3 * MIB - 64 * KIB:  # the three leaves that the gate lets through, but for the last bytes
                received += len(peer.recv(64 * KIB))
            wait_until(lambda: gate.waiting == 1, "a thread waits for a block")
        asked = len(content.asked)
        gate.open()
        wait_until(lambda: content.closed == 1, "the source is closed")
        assert len(content.asked) <= asked + 1


def test_a_slow_reader_holds_no_thread_and_little_memory() -> None:
    """While a client does not read, only a few steps are fetched, and others are served by the only thread."""
    content = MemoryContent()
    link = content.add_file(_numbered(40 * MIB))
    small = content.add_file(b"small")
    with serving(content, Settings(threads_max=1, drain_s=2)) as live:
        with socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer:
            peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            peer.recv(4096)
            assert live.get(f"/ipfs/{small.cid}").content == b"small"
            assert len(content.asked) < 24  # what the kernel's socket buffers took, and a few steps
        wait_until(lambda: content.closed == content.opened, "the sources are closed")


def test_a_reader_that_stops_is_cut_off() -> None:
    """A client that takes nothing within the bound loses its connection, and its source is closed."""
    content = MemoryContent()
    link = content.add_file(_numbered(40 * MIB))
    with (
        serving(content, Settings(piece_s=0.2, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: content.closed == 1, "the source is closed")


def test_the_first_byte_has_a_deadline() -> None:
    """A request that gets nothing in time is told 504 with its phase while the thread still waits."""
    content = MemoryContent()
    link = content.add_file(b"x")
    gate = _Gate(free=0)
    content.fault = gate
    with serving(content, Settings(first_byte_s=0.2, drain_s=2)) as live:
        answer = live.get(f"/ipfs/{link.cid}", Accept="application/json")
        assert answer.status_code == 504
        assert answer.headers["retry-after"] == "10"
        assert (answer.json()["error"], answer.json()["phase"]) == ("timeout", "describe")
        assert content.closed == 0
        gate.open()
        wait_until(lambda: content.closed == 1, "the source is closed")


def test_a_late_answer_names_phase_and_members() -> None:
    """What the network below says of itself stands in the 504: how far it came, whom it tried and why that failed."""
    content = MemoryContent()
    link = content.add_file(b"x")
    gate = _Gate(free=0)

    def fault(cid: CID) -> None:
        with trail.phase("block"):
            trail.trouble("m03", "refused")
            trail.trouble("m09", "no answer yet")
            trail.relieved("m03")
            gate(cid)

    content.fault = fault
    with serving(content, Settings(first_byte_s=0.2, drain_s=2)) as live:
        told = live.get(f"/ipfs/{link.cid}", Accept="application/json").json()
        gate.open()
        assert told["phase"] == "block"
        assert "m09: no answer yet" in told["detail"]
        assert "m03" not in told["detail"]
        wait_until(lambda: content.closed == 1, "the source is closed")


def test_a_stalled_body_is_broken_off() -> None:
    """A body whose next bytes do not come in time ends in a reset while the thread still waits for them."""
    content = MemoryContent()
    link = content.add_file(_numbered(16 * MIB))
    gate = _Gate(free=4)
    content.fault = gate
    with (
        serving(content, Settings(step_s=0.3, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            while peer.recv(65536):
                pass
        assert content.closed == 0
        gate.open()
        wait_until(lambda: content.closed == 1, "the source is closed")


def test_readers_that_take_nothing_hold_nobody_up() -> None:
    """Sixty readers that take nothing hold more than the whole budget; one that reads is served all the same."""
    content = MemoryContent()
    link = content.add_file(_numbered(40 * MIB))
    request = f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    bounds = Settings(buffered_bytes_max=4 * STEP_BYTES_MAX, stall_s=0.05, piece_s=30, drain_s=2)
    with serving(content, bounds) as live, ExitStack() as peers:
        for _ in range(60):
            peer = peers.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(request)
        assert live.get(f"/ipfs/{link.cid}").content == _numbered(40 * MIB)


def test_stalled_readers_are_bounded() -> None:
    """Where stalled readers together hold more than their bound, some of them are cut off."""
    content = MemoryContent()
    link = content.add_file(_numbered(40 * MIB))
    request = f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    bounds = Settings(stalled_bytes_max=3 * MIB, stall_s=0.05, piece_s=30, drain_s=2)
    with serving(content, bounds) as live, ExitStack() as peers:
        for _ in range(12):
            peer = peers.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S))
            peer.sendall(request)
        wait_until(lambda: content.closed >= 8, "the rest is cut off")


def test_too_many_requests() -> None:
    """Beyond its bound a worker says 429 at once, and its health still answers."""
    content = MemoryContent()
    link = content.add_file(b"x")
    gate = _Gate(free=0)
    content.fault = gate
    with (
        serving(content, Settings(requests_max=1, drain_s=2)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer,
    ):
        peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: gate.waiting == 1, "the first request is under way")
        answer = live.get(f"/ipfs/{link.cid}")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert live.get("/-/health").status_code == 200
        gate.open()


def test_many_readers_share_one_budget() -> None:
    """With room for a few steps only, many readers at once all get their whole bodies."""
    content = MemoryContent()
    data = _numbered(6 * MIB)
    link = content.add_file(data, UNIXFS_V0_2015)
    results: list[bool] = []

    def read(live: Live) -> None:
        results.append(live.get(f"/ipfs/{link.cid}").content == data)

    with serving(content, Settings(buffered_bytes_max=4 * STEP_BYTES_MAX, threads_max=4, drain_s=2)) as live:
        readers = [threading.Thread(target=read, args=(live,)) for _ in range(12)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(WAIT_S)
    assert results == [True] * 12
    assert content.opened == content.closed == 12


def test_slow_readers_leave_room_for_others() -> None:
    """Readers that never read cannot keep all of the budget: one more is still served whole."""
    content = MemoryContent()
    link = content.add_file(_numbered(16 * MIB))
    data = _numbered(2 * MIB)
    other = content.add_file(data)
    settings = Settings(buffered_bytes_max=6 * STEP_BYTES_MAX, drain_s=2)
    peers = []
    with serving(content, settings) as live:
        for _ in range(3):
            peer = socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S)
            peer.sendall(f"GET /ipfs/{link.cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            peer.recv(1024)
            peers.append(peer)
        assert live.get(f"/ipfs/{other.cid}").content == data
        for peer in peers:
            peer.close()
        wait_until(lambda: content.closed == content.opened, "the sources are closed")


def test_a_huge_sharded_directory_streams() -> None:
    """A directory too long to sort comes whole, in its stored order; broken off when its end cannot be had."""
    content = MemoryContent()
    file = content.add_file(b"x")
    names = [f"a name long enough that the directory is sharded {n:06d}" for n in range(SORT_ENTRIES_MAX + 500)]
    links = [Link(name.encode(), file.cid, file.tsize) for name in names]
    root = build_directory(DEFAULT_PROFILE, links, content.emit)
    with serving(content) as live:
        answer = live.get(f"/ipfs/{root.cid}/?limit=all")
        assert "content-length" not in answer.headers
        assert set(re.findall(">(a name[^<]*)</a>", answer.text)) == set(names)
        assert f"{len(names):,} entries" in answer.text
        assert "too many to sort" in answer.text
        assert answer.text.endswith("</html>\n")
        last = len(content.asked) * 2 - 1
        content.fault = lambda _: UnavailableError("gone") if len(content.asked) >= last else None
        with pytest.raises(httpx.HTTPError):
            live.get(f"/ipfs/{root.cid}/?limit=all")


def test_the_head_of_a_page_does_not_wait_for_its_end() -> None:
    """The page of a sharded directory begins while shards further on are not to be had, and never ends as if whole."""
    content = MemoryContent()
    file = content.add_file(b"x")
    links = [Link(b"a name long enough that the directory is sharded %06d" % n, file.cid, 1) for n in range(6000)]
    root = build_directory(DEFAULT_PROFILE, links, content.emit)
    go_on = threading.Event()

    def fault(_: CID) -> FungiStorError | None:
        if len(content.asked) < 120:
            return None
        go_on.wait(WAIT_S)
        return UnavailableError("gone")

    content.fault = fault
    with serving(content) as live, socket.create_connection(("127.0.0.1", live.port), timeout=WAIT_S) as peer:
        peer.sendall(f"GET /ipfs/{root.cid}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while b"<main>" not in received:
            received += peer.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 OK")
        go_on.set()
        with pytest.raises(ConnectionResetError):
            while peer.recv(65536):
                pass


def test_pipelined_requests_are_answered_in_order() -> None:
    """Two requests sent at once get two answers in their order on one connection."""
    content = MemoryContent()
    first, second = content.add_file(b"first"), content.add_file(b"second")
    with serving(content) as live:
        received = live.exchange(
            f"GET /ipfs/{first.cid} HTTP/1.1\r\nHost: x\r\n\r\n"
            f"GET /ipfs/{second.cid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"\r\n\r\nfirst") < received.index(b"\r\n\r\nsecond")


async def _asgi_get(content: MemoryContent, target: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_app(content), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.get(target)


def test_any_asgi_server() -> None:
    """Without our server the app still serves, and a broken body raises through it."""
    content = MemoryContent()
    data = _numbered(3 * MIB)
    link = content.add_file(data)
    for backend in ("asyncio", "trio"):
        answer = anyio.run(_asgi_get, content, f"/ipfs/{link.cid}", backend=backend)
        assert (answer.status_code, answer.content) == (200, data)


def test_a_step_ends_with_its_source() -> None:
    """The visit that brings the last bytes closes the source, so that no other visit is needed."""
    stack = SourceStack()
    closed: list[bool] = []
    stack.callback(closed.append, True)

    def chunks() -> Iterator[bytes]:
        yield b"ab"
        yield b"c"

    step = take_step(chunks(), stack)
    assert (step.chunks, step.size, step.is_last, closed) == ([b"ab", b"c"], 3, True, [True])


def test_a_step_ends_before_what_takes_a_while() -> None:
    """An empty chunk ends a step that has something, so that what is there is sent; the next step begins behind it."""
    chunks = iter([b"", b"ab", b"", b"c"])
    first = take_step(chunks, SourceStack())
    second = take_step(chunks, SourceStack())
    assert (first.size, first.is_last) == (2, False)
    assert (second.chunks, second.is_last) == ([b"c"], True)
