"""The small HTTP server for operators and for what watches over a daemon: /metrics, /health, /ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from fungistor.errors import FailedError, InvalidError
from fungistor.zdb.daemon.health import look
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.log import INFO, WARNING, say
from fungistor.zdb.daemon.metrics import metrics_text
from fungistor.zdb.daemon.session import Context
from fungistor.zdb.daemon.tls import Credentials

_REQUEST_BYTES_MAX: Final = 8 << 10
_REQUEST_S: Final = 5.0
_REQUESTS_MAX: Final = 32
_METRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TEXT_TYPE: Final = "text/plain; charset=utf-8"
_LOOPBACK: Final = ("127.", "::1", "localhost")


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`. Raises: InvalidError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InvalidError(f"--admin-http {text} is no HOST:PORT", hint="127.0.0.1:9909, for instance")
    return host.strip("[]"), int(port)


class AdminHttp:
    """Serves what a daemon says of itself."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        limit: Callable[[], int],
        credentials: Callable[[], Credentials | None],
    ) -> None:
        self._context = context
        self._hub = hub
        self._limit = limit
        self._credentials = credentials
        self._server: asyncio.Server | None = None
        self._requests = 0
        self.refuses = "it is starting"
        """Why no requests should be sent now, empty when they may."""

    async def open(self, address: str) -> None:
        """Listen there.

        Raises:
            InvalidError: the address has no form.
            FailedError: it cannot be listened on.
        """
        host, port = parse_address(address)
        try:
            self._server = await asyncio.start_server(self._answer, host, port, limit=_REQUEST_BYTES_MAX)
        except OSError as error:
            raise FailedError(f"cannot listen on {address}: {error.strerror or error}") from error
        found = self._server.sockets[0].getsockname()
        say(INFO, "admin-http.serving", f"numbers on http://{address}/metrics", port=found[1])
        if not host.startswith(_LOOPBACK):
            say(WARNING, "admin-http.everybody", f"whoever reaches {address} reads names and numbers")

    def close(self) -> None:
        """Take no more requests."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._requests += 1
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                if self._requests <= _REQUESTS_MAX:
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_S)
                    writer.write(self._reply(head))
                    await asyncio.wait_for(writer.drain(), _REQUEST_S)
        finally:
            self._requests -= 1
            writer.close()

    def _reply(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        kind = _TEXT_TYPE
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", "only GET is served here\n"
        elif words[1] == b"/metrics":
            status, kind = "200 OK", _METRICS_TYPE
            body = metrics_text(self._context, self._hub, self._limit(), self._credentials())
        elif words[1] == b"/health":
            status, body = self._health()
        elif words[1] == b"/ready":
            status, body = self._readiness()
        else:
            status, body = "404 Not Found", "not found: there is /metrics, /health and /ready\n"
        data = body.encode("utf-8", "backslashreplace")
        lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        return lines.encode() + (b"" if words[0] == b"HEAD" else data)

    def _health(self) -> tuple[str, str]:
        """Fail where a restart would help, and only there."""
        found = look(self._context)
        if found.broken:
            return "503 Service Unavailable", "\n".join(["broken", *found.broken, *found.refuses]) + "\n"
        return "200 OK", "\n".join(["degraded" if found.refuses else "ok", *found.refuses]) + "\n"

    def _readiness(self) -> tuple[str, str]:
        """Fail where no writes should be sent now."""
        found = look(self._context)
        reasons = [*([self.refuses] if self.refuses else []), *found.broken, *found.refuses]
        if reasons:
            return "503 Service Unavailable", "\n".join(["not ready", *reasons]) + "\n"
        return "200 OK", "ready\n"
