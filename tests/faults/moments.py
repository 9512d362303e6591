"""When a publish wrote what, seen from outside: the product says nothing about itself.

The kernel tells of every write into the members' data folders and into the catalog's log (inotify), and this process
takes the time as it is told. A commit's moment is the last write into the log's write-ahead file: all of the entry is
in it, its flush and the acknowledgement follow. What is told comes late by the time a thread takes to wake, so times
are upper bounds: well under a millisecond on an idle machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

IN_MODIFY, IN_CLOEXEC = 2, 0o2000000
EVENT = struct.Struct("iIII")
"""Of inotify: watch, mask, cookie, length of the name that follows."""

SHARD, COMMIT = "shard", "commit"
LOG = b"log.sqlite-wal"


class Moments:
    """Watches one home. `on_event` of `arm` runs in the watching thread, at the event that was armed for."""

    def __init__(self, home: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(IN_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        for folder in home.glob("members/*/data/fungistor"):
            self._watch(folder)
        self._catalog = self._watch(home / "catalog")
        self._armed: tuple[str, Callable[[], object]] | None = None
        self.first_shard: float | None = None
        self.commit: float | None = None
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="moments", daemon=True)
        self._thread.start()

    def _watch(self, folder: Path) -> int:
        number: int = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_MODIFY)
        assert number >= 0, os.strerror(ctypes.get_errno())
        return number

    def arm(self, event: str | None, on_event: Callable[[], object]) -> None:
        """Forget what was seen, and call `on_event` once, at the first event of that kind."""
        self.first_shard = self.commit = None
        self._armed = None if event is None else (event, on_event)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._end_read], [], [])
            if self._end_read in ready:
                return
            content = os.read(self._fd, 1 << 16)
            now = time.monotonic()
            at = 0
            while at < len(content):
                watch, _, _, length = EVENT.unpack_from(content, at)
                name = content[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0")
                at += EVENT.size + length
                if watch != self._catalog:
                    self._saw(SHARD, now)
                elif name == LOG:
                    self._saw(COMMIT, now)

    def _saw(self, event: str, now: float) -> None:
        if event == COMMIT:
            self.commit = now
        elif self.first_shard is None:
            self.first_shard = now
        if self._armed is not None and self._armed[0] == event:
            _, on_event = self._armed
            self._armed = None
            on_event()

    def close(self) -> None:
        """Stop watching."""
        os.write(self._end_write, b".")
        self._thread.join()
        for descriptor in (self._fd, self._end_read, self._end_write):
            os.close(descriptor)


@contextlib.contextmanager
def watched(home: Path) -> Iterator[Moments]:
    """Watch a home for a while."""
    moments = Moments(home)
    try:
        yield moments
    finally:
        moments.close()
