"""The operators' listener of `up`: metrics and a look inside, apart from what the world is served.

It stands on an address of its own, which is loopback unless somebody asked otherwise, and has no secrets: whoever
reaches it sees counts, addresses of members and states.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fungistor.errors import FailedError, FungiStorError
from fungistor.node.gateways import bind_gateway, gateway_url
from fungistor.node.metrics import Totals, openmetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
REQUEST_S = 10.0
AT_ONCE_MAX = 16

Json = dict[str, object]


class AdminServer:
    """Serves until `close`.

    `look` gives what `up` knows of itself, as JSON; of its numbers those named in `gauges` are metrics, too.
    """

    def __init__(self, listen: str, numbers_folder: str, look: Callable[[], Json]) -> None:
        """Raises: FailedError, InvalidError: the address cannot be had."""
        try:
            self._listener = bind_gateway(listen)
        except FailedError as error:
            raise FailedError(
                error.message.replace("the gateway", "--admin", 1), hint="give another one with --admin HOST:PORT"
            ) from error
        self.url = gateway_url(self._listener)
        self._totals = Totals(numbers_folder)
        self._look = look
        self._room = threading.BoundedSemaphore(AT_ONCE_MAX)
        self._server = _Server(self._listener, self._answer, self._room)
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nothing more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/-/metrics":
            return 200, OPENMETRICS, self.metrics()
        if path == "/-/health":
            return 200, "application/json", b'{"status": "ok"}\n'
        if path in ("/", "/-/status"):
            return 200, "application/json", json.dumps(self._look()).encode() + b"\n"
        return 404, "text/plain; charset=utf-8", b"404: there are /-/metrics, /-/status and /-/health here\n"

    def metrics(self) -> bytes:
        """All numbers, as OpenMetrics text."""
        states: dict[str, int] = {"up": 0, "slow": 0, "paused": 0, "down": 0}
        looked = self._look()
        members = looked.get("members")
        for member in members if isinstance(members, list) else []:
            states[str(member["state"])] = states.get(str(member["state"]), 0) + 1
        numbers = self._totals.collect()
        for state, count in states.items():
            numbers.gauge("fungistor_members", count, state=state)
        tenants = looked.get("tenants")
        for line in tenants if isinstance(tenants, list) else []:
            for name in ("bytes", "objects", "stored", "bytes_max", "objects_max"):
                if line[name] is not None:
                    numbers.gauge(f"fungistor_tenant_{name}", line[name], tenant=str(line["tenant"]))
        for name in ("objects", "owed_shards", "revision", "cache_bytes", "cache_blocks"):
            value = looked.get(name)
            if isinstance(value, int):
                numbers.gauge(f"fungistor_{name}", value)
        return openmetrics(numbers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[str], tuple[int, str, bytes]],
        room: threading.BoundedSemaphore,
    ) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.answer = answer
        self.room = room

    def process_request(self, request: object, client_address: object) -> None:
        """Start a thread, while there are not too many."""
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Answer in a thread, and make room again."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self.room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that leave."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        try:
            status, kind, body = self.server.answer(self.path.partition("?")[0])
        except (FungiStorError, OSError) as error:
            status, kind, body = 503, "text/plain; charset=utf-8", f"503: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    def log_message(self, *_: object) -> None:
        """Operators' tools ask every few seconds: that is no news."""
