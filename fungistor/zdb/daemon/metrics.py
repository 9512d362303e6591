"""Numbers for operators, as OpenMetrics text. Labels are bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

from fungistor import __version__
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.session import Context
from fungistor.zdb.daemon.tls import Credentials

NAMESPACES_MAX: Final = 100
"""Namespaces with lines of their own; the others are summed up as `(others)`."""


def metrics_text(context: Context, hub: Hub, limit: int, credentials: Credentials | None) -> str:
    """Return all numbers, `# EOF` last."""
    lines = [*_server_lines(context, hub, limit), *_disk_lines(context), *_namespace_lines(context)]
    if credentials is not None:
        about = "Until when the TLS certificate is valid, unix time"
        lines += _family("zdb_tls_certificate_expiry_timestamp_seconds", "gauge", about, credentials.expires)
    return "\n".join([*lines, "# EOF"]) + "\n"


def _server_lines(context: Context, hub: Hub, limit: int) -> Iterator[str]:
    stats, io, hooks = context.stats, context.store.io, context.hooks
    yield "# TYPE zdb_build info"
    yield "# HELP zdb_build What runs"
    yield f'zdb_build_info{{version="{_label(__version__)}",durability="{context.durability}"}} 1'
    yield from _family("zdb_uptime_seconds", "gauge", "Since the start", time.time() - context.started)
    yield from _family("zdb_connections", "gauge", "Open now", len(hub.connections))
    yield from _family("zdb_unsent_bytes", "gauge", "Replies that wait for slow readers", hub.outflow.unsent)
    yield from _family("zdb_connections_limit", "gauge", "Open at most", limit)
    yield from _family("zdb_hook_events_waiting", "gauge", "Events that the hook is not told yet", hooks.waiting)
    for name, about, value in (
        ("clients", "Connections accepted", stats.clients),
        ("clients_dropped", "Connections that held too much unsent", hub.outflow.dropped),
        ("clients_refused", "Connections beyond the limit", stats.refused),
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
        ("hook_runs", "Runs of the hook", hooks.stats.runs),
        ("hook_failures", "Runs that ended with another code than 0", hooks.stats.failed),
        ("hook_timeouts", "Runs that took too long", hooks.stats.timed_out),
        ("hook_events_dropped", "Events that the hook was never told", hooks.stats.dropped),
    ):
        yield from _family(f"zdb_{name}", "counter", about, value)
    yield "# TYPE zdb_operations counter"
    yield "# HELP zdb_operations Commands by word"
    for word, count in sorted(stats.operations.items()):
        yield f'zdb_operations_total{{command="{word.lower()}"}} {count}'


def _disk_lines(context: Context) -> Iterator[str]:
    yield "# TYPE zdb_disk_free_bytes gauge"
    yield "# HELP zdb_disk_free_bytes Room for files"
    for what, root in (("data", context.store.data_root), ("index", context.store.index_root)):
        try:
            disk = os.statvfs(root)
        except OSError:
            continue
        yield f'zdb_disk_free_bytes{{disk="{what}"}} {disk.f_bavail * disk.f_frsize}'


def _namespace_lines(context: Context) -> Iterator[str]:
    shown: dict[str, list[Namespace]] = {}
    for place, namespace in enumerate(context.store.namespaces.values()):
        name = _label(os.fsdecode(namespace.name)) if place < NAMESPACES_MAX else "(others)"
        shown.setdefault(name, []).append(namespace)
    for family, about, value in (
        ("entries", "Live keys", lambda one: len(one.live.keys)),
        ("payload_bytes", "Bytes of live values", lambda one: one.live.payload_bytes),
        ("data_files", "Highest data file number, plus one", lambda one: one.segments.ends.file_id + 1),
        (
            "refuses_writes",
            "1 while it takes no writes; NSINFO says why",
            lambda one: int(bool(one.broken)),
        ),
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
