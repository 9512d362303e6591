"""How a daemon is, in words: what it refuses now, and why."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field
from typing import Final

from fungistor.zdb.daemon.session import Context

_NAMED_MAX: Final = 20
FULL_BYTES: Final = 16 << 20
"""With less room than two of the largest values, a disk counts as full."""
FAILED_RECENTLY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong. `broken`: only a restart mends it; `refuses`: writes are not taken now."""

    broken: list[str] = field(default_factory=list)
    refuses: list[str] = field(default_factory=list)


def look(context: Context) -> Health:
    """Look at every namespace and at the disks."""
    store = context.store
    broken = [
        f"namespace {os.fsdecode(one.name)} takes no writes until a restart: {one.broken}"
        for one in store.namespaces.values()
        if one.broken and one.unfinished is None
    ]
    health = Health(broken[:_NAMED_MAX])
    if len(broken) > _NAMED_MAX:
        health.broken.append(f"and {len(broken) - _NAMED_MAX} more namespaces")
    unfinished = [one for one in store.namespaces.values() if one.unfinished is not None]
    health.refuses.extend(
        f"namespace {os.fsdecode(one.name)} takes no writes: {one.broken}" for one in unfinished[:_NAMED_MAX]
    )
    if len(unfinished) > _NAMED_MAX:
        health.refuses.append(f"and {len(unfinished) - _NAMED_MAX} more namespaces")
    if time.time() - context.stats.write_failed_at < FAILED_RECENTLY_S:
        health.refuses.append("a disk has just refused a write")
    for what, root in (("data", store.data_root), ("index", store.index_root)):
        reason = _refusal(root)
        if reason:
            health.refuses.append(f"the {what} disk {reason}")
    return health


def _refusal(root: str) -> str:
    try:
        disk = os.statvfs(root)
    except OSError as error:
        return f"cannot be looked at: {error.strerror or errno.errorcode.get(error.errno or 0, '?')}"
    if disk.f_flag & os.ST_RDONLY:
        return "is read-only"
    free = disk.f_bavail * disk.f_frsize
    if free < FULL_BYTES:
        return f"is full: {free} bytes are free"
    if disk.f_files and not disk.f_favail:
        return "is full: no files can be made"
    return ""
