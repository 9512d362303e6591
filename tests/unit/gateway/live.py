"""A gateway on a free port of this process, for tests that need real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from fungistor.testing.memory_content import MemoryContent
from gateway.app import create_app
from gateway.delegated import Announcement
from gateway.hosts import HostTable
from gateway.names import Names
from gateway.operations.admission import Tenants
from gateway.operations.desk import Desk, DeskFiles
from gateway.server import GatewayServer
from gateway.settings import Settings

WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Live:
    """A running gateway and what it serves."""

    content: MemoryContent
    port: int
    server: GatewayServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, target: str, **headers: str) -> httpx.Response:
        """Send one request with exactly this target; header names take _ for -."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(base_url=self.url, timeout=WAIT_S, verify=False) as client:
            all_fields = {"Accept": "*/*", **fields}
            return client.request(method, "/", headers=all_fields, extensions={"target": target.encode()})

    def get(self, target: str, **headers: str) -> httpx.Response:
        return self.request("GET", target, **headers)

    def exchange(self, request: bytes) -> bytes:
        """Send raw bytes, return all that comes until the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as peer:
            peer.sendall(request)
            received = b""
            while part := peer.recv(65536):
                received += part
            return received


@contextmanager
def serving(
    content: MemoryContent,
    settings: Settings | None = None,
    files: DeskFiles | None = None,
    *,
    names: Names | None = None,
    hosts: HostTable | None = None,
    announcement: Announcement | None = None,
    tenants: Tenants | None = None,
) -> Iterator[Live]:
    """Serve `content` from a thread of this process."""
    bounds = settings or Settings(drain_s=2)
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()
    desk = Desk(bounds, files, tenants)
    app = create_app(content, bounds, names=names, hosts=hosts, desk=desk, announcement=announcement)
    server = GatewayServer(app, bounds, on_started=started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway-under-test")
    thread.start()
    try:
        assert started.wait(WAIT_S), "the server did not start"
        yield Live(content, listener.getsockname()[1], server)
    finally:
        server.drain()
        thread.join(WAIT_S)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition under a deadline."""
    deadline = time.monotonic() + WAIT_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        tick.wait(0.01)
