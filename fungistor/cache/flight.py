"""One fetch at a time for one thing, among the threads of a process and the processes of a home.

A flight saves work and guards nothing: whoever waits too long for it goes ahead without, so that a process that hangs
in its fetch holds nobody up. A process that dies gives its locks back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

WAIT_S_MAX = 6.0
"""A little more than a read of silent members takes to give up: until then the one who asks may yet be answered."""

POLL_S_FIRST = 0.001
POLL_S_MAX = 0.02
FLOCK = "hhqqi4x"


@dataclass(slots=True)
class _Seat:
    """The lock of one thing that is being fetched, and how many threads are at it or wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0


class Flights:
    """Flights of one process; with `lock_file`, shared with all processes that name the same file."""

    def __init__(self, lock_file: str | None = None) -> None:
        self._lock_file = lock_file
        self._guard = threading.Lock()
        self._seats: dict[bytes, _Seat] = {}
        self._landed = 0

    @property
    def landed(self) -> int:
        """How many flights of this process have ended. Take it before looking for what a flight would bring."""
        return self._landed

    @contextlib.contextmanager
    def of(self, key: bytes, looked: int) -> Iterator[bool]:
        """Hold the flight of `key`, or go ahead without it after a while. True where others were before us, or may have
        been since `looked`, which is what `landed` was before."""
        deadline = time.monotonic() + WAIT_S_MAX
        with self._guard:
            seat = self._seats.setdefault(key, _Seat())
            seat.threads += 1
            waited = seat.threads > 1 or self._landed != looked
        held = seat.lock.acquire(timeout=WAIT_S_MAX)
        try:
            with self._across_processes(key, deadline) as waited_for_process:
                yield waited or waited_for_process
        finally:
            if held:
                seat.lock.release()
            with self._guard:
                seat.threads -= 1
                self._landed += 1
                if seat.threads == 0:
                    del self._seats[key]

    @contextlib.contextmanager
    def _across_processes(self, key: bytes, deadline: float) -> Iterator[bool]:
        if self._lock_file is None:
            yield False
            return
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield False
            return
        try:
            yield _lock_byte(descriptor, key, deadline)
        finally:
            os.close(descriptor)  # and the lock with it


def _lock_byte(descriptor: int, key: bytes, deadline: float) -> bool:
    """Lock the byte that `key` falls on, as the descriptor's own. True where another process had it."""
    offset = int.from_bytes(hashlib.blake2b(key, digest_size=5).digest(), "big")
    request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    pause_s = POLL_S_FIRST
    waited = False
    while time.monotonic() + pause_s < deadline:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
            break
        except BlockingIOError:
            waited = True
            time.sleep(pause_s)
            pause_s = min(POLL_S_MAX, pause_s * 2)
        except OSError:
            break  # a file system without such locks
    return waited
