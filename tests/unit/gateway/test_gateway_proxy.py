"""HTTP proxy mode and CONNECT: never a relay."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fungistor.testing.memory_content import MemoryContent
from gateway.settings import Settings
from tests.unit.gateway.naming import Named, serving_names


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    content = MemoryContent()
    with serving_names(content, content.add_tree({"hello.txt": b"hello"}).cid) as served:
        yield served


def _answer(named: Named, request: str) -> bytes:
    return named.live.exchange(request.replace("\n", "\r\n").encode())


def test_absolute_targets(named: Named) -> None:
    """GET http://HOST/path means HOST, whatever the Host field says."""
    for host in (named.subdomain, f"{named.subdomain}:8480", f"user@{named.subdomain}"):
        got = _answer(named, f"GET http://{host}/hello.txt HTTP/1.1\nHost: wrong.example\nConnection: close\n\n")
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b"hello")
    moved = _answer(named, f"GET http://example.com/ipfs/{named.root}?a HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert f"location: http://{named.root}.ipfs.example.com/?a\r\n".encode() in moved
    bare = _answer(named, f"GET http://{named.subdomain} HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert b"Index of" in bare
    query = _answer(named, f"GET http://{named.subdomain}?x#y HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert b"Index of" in query


def test_absolute_targets_elsewhere(named: Named) -> None:
    """What is not served here is not fetched from there."""
    got = _answer(named, "GET http://elsewhere.example.net/ HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert got.startswith(b"HTTP/1.1 404")
    for target in ("http://a b/", "http:///x", "http://[::1/x"):
        got = _answer(named, f"GET {target} HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert got.split(b" ")[1] in (b"400", b"404"), target


def test_a_tunnel_leads_back_here(named: Named) -> None:
    """After CONNECT ordinary requests follow on the connection, for whatever Host they name."""
    own = f"127.0.0.1:{named.live.port}"
    for authority in ("example.com:80", f"{named.subdomain}:443", own, "static.example.org:80", "localhost:1"):
        with socket.create_connection(("127.0.0.1", named.live.port), timeout=10) as peer:
            peer.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            assert peer.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
            for _ in range(2):
                peer.sendall(f"GET /hello.txt HTTP/1.1\r\nHost: {named.subdomain}\r\n\r\n".encode())
                got = b""
                while not got.endswith(b"hello"):
                    part = peer.recv(65536)
                    assert part
                    got += part
                assert got.startswith(b"HTTP/1.1 200 OK")


def test_a_tunnel_asked_for_in_pieces(named: Named) -> None:
    """The request may come byte by byte, and the first one through the tunnel at once behind it."""
    request = (
        f"CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n"
        f"GET /hello.txt HTTP/1.1\r\nHost: {named.subdomain}\r\nConnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", named.live.port), timeout=10) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(40):
            peer.sendall(request[place : place + 1])
        peer.sendall(request[40:])
        got = b""
        while part := peer.recv(65536):
            got += part
    assert got.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert got.endswith(b"hello")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT elsewhere.example.net:443 HTTP/1.1", 403),
        ("CONNECT 192.0.2.1:22 HTTP/1.1", 403),
        ("CONNECT 127.0.0.1:22 HTTP/1.1", 403),
        ("CONNECT site.example.org HTTP/1.1", 400),
        ("CONNECT http://example.com/ HTTP/1.1", 400),
        ("CONNECT example.com:80 HTTP/9.9", 400),
        ("CONNECT  HTTP/1.1", 400),
    ],
)
def test_no_tunnel_to_anything_else(named: Named, line: str, status: int) -> None:
    """What this gateway does not serve itself is refused, and the connection ends."""
    got = _answer(named, f"{line}\nHost: x\n\nGET / HTTP/1.1\nHost: x\n\n")
    assert got.startswith(f"HTTP/1.1 {status} ".encode())
    assert got.count(b"HTTP/1.1") == 1 + (status == 400)


def test_no_tunnel_in_a_tunnel(named: Named) -> None:
    """A second CONNECT on a connection is an ordinary request that nobody allows."""
    connect = "CONNECT example.com:80 HTTP/1.1\nHost: x\n\n"
    got = _answer(named, connect + connect)
    assert got.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 4")


def test_a_tunnel_request_has_bounds() -> None:
    """One that never ends is closed after its time, one that is too long is refused."""
    content = MemoryContent()
    root = content.add_tree({"a": b"1"}).cid
    with serving_names(content, root, Settings(head_s=0.2, drain_s=2)) as named:
        assert named.live.exchange(b"CONNECT exam") == b""
        assert named.live.exchange(b"CON") == b""
        long = b"CONNECT example.com:80 HTTP/1.1\r\nX: " + b"x" * 40_000
        assert named.live.exchange(long).startswith(b"HTTP/1.1 431 ")
