"""The disk: room, modes, and whether what is written and synced is there."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator

from fungistor.node.doctor.finding import Finding, bad, good
from fungistor.node.files import write_atomic
from fungistor.node.home import Home

AREA = "disk"
FREE_BYTES_MIN = 1 << 30
FREE_SHARE_MIN = 0.05
SLOW_SYNC_S = 1.0
"""A publish waits for three of these; a healthy disk needs some milliseconds."""


def look_at_disk(home: Home) -> Iterator[Finding]:
    """Every disk that the home lies on, and its folders."""
    folders = [home.root, home.catalog, home.members]
    if os.path.isdir(home.members):
        folders += [home.member_folder(name) for name in sorted(os.listdir(home.members))]
    seen: set[int] = set()
    for folder in folders:
        try:
            device = os.stat(folder).st_dev
        except OSError as error:
            yield bad(AREA, f"{folder} cannot be read: {error.strerror}", "mount its disk, or restore it from a backup")
            continue
        if device not in seen:
            seen.add(device)
            yield _room(folder)
    yield from _modes(home)
    yield _sync(home)


def _room(folder: str) -> Finding:
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total if usage.total else 0.0
    seen = f"{usage.free / (1 << 30):.1f} GiB ({share:.0%}) free on the disk of {folder}"
    if usage.free < FREE_BYTES_MIN or share < FREE_SHARE_MIN:
        return bad(
            AREA, seen, "make room: `fungistor gc`, `fungistor cache purge`, or a larger disk; full members only read"
        )
    return good(AREA, seen)


def _modes(home: Home) -> Iterator[Finding]:
    folders = (home.root, home.keys, home.catalog, home.members, home.index, home.cache, home.journal, home.run)
    there = [folder for folder in folders if os.path.isdir(folder)]
    open_ones = [folder for folder in there if stat.S_IMODE(os.stat(folder).st_mode) & 0o077]
    for path in open_ones:
        yield bad(AREA, f"{path} is open to other users", f"chmod 700 {path}, and think about who may have read it")
    if not open_ones:
        yield good(AREA, "the home's folders are closed to other users")


def _sync(home: Home) -> Finding:
    path = os.path.join(home.run, f".doctor.{secrets.token_hex(4)}")
    started = time.monotonic()
    try:
        write_atomic(path, secrets.token_bytes(4096))
        took_s = time.monotonic() - started
        os.unlink(path)
    except OSError as error:
        return bad(AREA, f"nothing can be written to {home.run}: {error.strerror}", "see its disk, mount and owner")
    if took_s > SLOW_SYNC_S:
        return bad(
            AREA, f"a synced write took {took_s:.1f} s", "the disk is overloaded or failing: see `dmesg`, `iostat`"
        )
    return good(AREA, f"a synced write took {took_s * 1000:.0f} ms")
