"""The texts of INFO and NSINFO: names and order are the original's, what is ours comes behind its own."""

from __future__ import annotations

import os
import time

from fungistor.zdb.daemon.format import DATA_VERSION, INDEX_VERSION
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.session import Context

_MIB = 1 << 20


def info_text(context: Context) -> str:
    """Return INFO of the daemon."""
    stats, io = context.stats, context.store.io
    lines = [
        "# server",
        "server_name: 0-db (zdb)",
        "server_revision: fungistor",
        "engine_revision: fungistor",
        f"instance_id: {context.instance}",
        f"boot_time: {int(context.started)}",
        f"uptime: {int(time.time() - context.started)}",
        f"run_id: {context.run_id.decode()}",
        f"durability: {context.durability}",
        "",
        "# clients",
        f"clients_lifetime: {stats.clients}",
        "",
        "# internals",
        "sequential_key_size: 8",
        f"data_version: {DATA_VERSION}",
        f"index_version: {INDEX_VERSION}",
        "",
        "# stats",
        f"commands_executed: {stats.commands}",
        f"commands_failed: {stats.failed}",
        f"commands_unauthorized: {stats.unauthorized}",
        f"index_disk_read_failed: {io.index_read_failed}",
        f"index_disk_write_failed: {io.index_write_failed}",
        f"data_disk_read_failed: {io.data_read_failed}",
        f"data_disk_write_failed: {io.data_write_failed}",
    ]
    for name, count in (
        ("index_disk_read", io.index_read_bytes),
        ("index_disk_write", io.index_write_bytes),
        ("data_disk_read", io.data_read_bytes),
        ("data_disk_write", io.data_write_bytes),
        ("network_rx", stats.rx_bytes),
        ("network_tx", stats.tx_bytes),
    ):
        lines += [f"{name}_bytes: {count}", f"{name}_mb: {count / _MIB:.2f}"]
    lines += ["", "# operations"]
    lines += [f"operation_{name.lower()}: {count}" for name, count in sorted(stats.operations.items())]
    return "\n".join(lines) + "\n"


def nsinfo_text(namespace: Namespace, *, admin: bool, master: bool = False) -> str:
    """Return NSINFO of one namespace."""
    descriptor, live, faults = namespace.descriptor, namespace.live, namespace.faults
    entries = len(live.keys)
    index_bytes = entries * 64 + live.key_bytes
    lines = [
        "# namespace",
        f"name: {os.fsdecode(descriptor.name)}",
        f"entries: {entries}",
        f"public: {_yes(descriptor.public)}",
        f"worm: {_yes(descriptor.worm)}",
        f"locked: {_yes(namespace.locked or namespace.frozen)}",
        f"password: {_yes(bool(descriptor.password))}",
        f"data_size_bytes: {live.payload_bytes}",
        f"data_size_mb: {live.payload_bytes / _MIB:.2f}",
        f"data_limits_bytes: {descriptor.maxsize}",
        f"index_size_bytes: {index_bytes}",
        f"index_size_kb: {index_bytes / 1024:.2f}",
        f"next_internal_id: {_swapped(namespace.next_id)}",
        f"mode: {'userkey' if namespace.slots is None else 'sequential'}",
        f"stats_index_io_errors: {faults.index_errors}",
        f"stats_index_io_error_last: {faults.index_error_last}",
        "stats_index_faults: 0",
        f"stats_data_io_errors: {faults.data_errors}",
        f"stats_data_io_error_last: {faults.data_error_last}",
        "stats_data_faults: 0",
    ]
    if descriptor.maxsize:
        lines.append(f"space_available: {max(descriptor.maxsize - live.payload_bytes, 0)}")
    segments = namespace.segments
    for name, path in (("index", segments.index_path), ("data", segments.data_path)):
        free = _free_bytes(path)
        lines += [f"{name}_disk_freespace_bytes: {free}", f"{name}_disk_freespace_mb: {free / _MIB:.2f}"]
    if master and descriptor.password:
        lines.append(f"password_raw: {os.fsdecode(descriptor.password)}")
    if admin:
        number = segments.ends.file_id
        lines += [
            f"data_path: {segments.data_path}",
            f"data_active: {segments.data_path}/d{number}",
            f"index_path: {segments.index_path}",
            f"index_active: {segments.index_path}/i{number}",
            f"data_current_id: {number}",
            f"data_current_offset: {segments.ends.data_end}",
        ]
    if namespace.broken:
        lines.append(f"refuses_writes: {namespace.broken}")
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _swapped(number: int) -> str:
    """Print an id the way the original does: its bytes swapped, eight digits at least."""
    return f"0x{int.from_bytes(number.to_bytes(8, 'little'), 'big'):08x}"


def _free_bytes(path: str) -> int:
    try:
        free = os.statvfs(path)
    except OSError:
        return 0
    return free.f_bavail * free.f_frsize
