"""Numbers for operators: OpenMetrics text, and the small HTTP server that gives it. Labels are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from fungistor.errors import FailedError, InvalidError
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.session import Context

NAMESPACES_MAX: Final = 100
"""Namespaces with lines of their own; the others are summed up as `(others)`."""
_REQUEST_BYTES_MAX: Final = 8 << 10
_REQUEST_S: Final = 5.0
_CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def metrics_text(context: Context, connections: int) -> str:
    """Return all numbers, `# EOF` last."""
    return "\n".join([*_server_lines(context, connections), *_namespace_lines(context), "# EOF"]) + "\n"


def _server_lines(context: Context, connections: int) -> Iterator[str]:
    stats, io = context.stats, context.store.io
    yield from _family("zdb_uptime_seconds", "gauge", "Since the start", time.time() - context.started)
    yield from _family("zdb_connections", "gauge", "Open now", connections)
    for name, about, value in (
        ("clients", "Connections accepted", stats.clients),
        ("commands", "Commands executed", stats.commands),
        ("commands_unknown", "Unknown words", stats.failed),
        ("commands_denied", "Commands that needed admin rights", stats.unauthorized),
        ("network_received_bytes", "Read from clients", stats.rx_bytes),
        ("network_sent_bytes", "Sent to clients", stats.tx_bytes),
        ("data_read_bytes", "Read from data files", io.data_read_bytes),
        ("data_written_bytes", "Written to data files", io.data_write_bytes),
        ("index_written_bytes", "Written to index files", io.index_write_bytes),
        ("data_read_failures", "Values that could not be read or failed their checksum", io.data_read_failed),
        ("data_write_failures", "Writes that the disk refused", io.data_write_failed),
        ("index_write_failures", "Index writes that the disk refused", io.index_write_failed),
    ):
        yield from _family(f"zdb_{name}", "counter", about, value)
    yield "# TYPE zdb_operations counter"
    yield "# HELP zdb_operations Commands by word"
    for word, count in sorted(stats.operations.items()):
        yield f'zdb_operations_total{{command="{word.lower()}"}} {count}'


def _namespace_lines(context: Context) -> Iterator[str]:
    shown: dict[str, list[Namespace]] = {}
    for place, namespace in enumerate(context.store.namespaces.values()):
        name = _label(os.fsdecode(namespace.name)) if place < NAMESPACES_MAX else "(others)"
        shown.setdefault(name, []).append(namespace)
    for family, about, value in (
        ("entries", "Live keys", lambda one: len(one.live.keys)),
        ("payload_bytes", "Bytes of live values", lambda one: one.live.payload_bytes),
        ("data_files", "Highest data file number, plus one", lambda one: one.segments.ends.file_id + 1),
        ("refuses_writes", "1 after a flush failed, until a restart", lambda one: int(bool(one.broken))),
    ):
        yield f"# TYPE zdb_namespace_{family} gauge"
        yield f"# HELP zdb_namespace_{family} {about}"
        for name, members in shown.items():
            yield f'zdb_namespace_{family}{{namespace="{name}"}} {sum(map(value, members))}'


def _family(name: str, kind: str, about: str, value: float) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    yield f"# HELP {name} {about}"
    yield f"{name}{'_total' if kind == 'counter' else ''} {round(value, 3)}"


def _label(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`. Raises: InvalidError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidError(f"{text} is no HOST:PORT")
    return host.strip("[]"), int(port)


async def serve_metrics(address: str, context: Context, connections: Callable[[], int]) -> asyncio.Server:
    """Serve `/metrics` and `/health`, nothing else.

    Raises:
        InvalidError: the address has no form.
        FailedError: it cannot be listened on.
    """
    host, port = parse_address(address)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_S)
            writer.write(_reply(head, context, connections()))
            await asyncio.wait_for(writer.drain(), _REQUEST_S)
        writer.close()

    try:
        return await asyncio.start_server(answer, host, port, limit=_REQUEST_BYTES_MAX)
    except OSError as error:
        raise FailedError(f"cannot listen on {address}: {error.strerror or error}") from error


def _reply(head: bytes, context: Context, connections: int) -> bytes:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    status, kind, body = "404 Not Found", "text/plain; charset=utf-8", "not found: there is /metrics and /health\n"
    if len(words) != 3 or words[0] != b"GET":
        status, body = "405 Method Not Allowed", "only GET is served here\n"
    elif words[1] == b"/metrics":
        status, kind, body = "200 OK", _CONTENT_TYPE, metrics_text(context, connections)
    elif words[1] == b"/health":
        broken = [os.fsdecode(one.name) for one in context.store.namespaces.values() if one.broken]
        status, body = ("503 Service Unavailable", "refuses writes\n") if broken else ("200 OK", "ok\n")
    data = body.encode("utf-8", "backslashreplace")
    lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return lines.encode() + data
