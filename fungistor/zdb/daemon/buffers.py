"""Buffers that large values are received into: reused, and bounded over all connections of a daemon."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from typing import Final

from fungistor.limits import KIB, MIB

_GRAIN_BYTES: Final = 64 * KIB
BUDGET_BYTES: Final = 48 * MIB
"""What one daemon lends at a time: five values of the longest kind, or 150 shards of 256 KiB."""
_KEPT_BYTES_MAX: Final = MIB + 512 * KIB
"""What is kept for reuse: a few shards in flight. Twenty daemons share one box."""


class BufferPool:
    """Lends anonymous mappings, so that what is given back leaves the process at once and no heap grows."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._lent_bytes = 0
        self._kept: list[memoryview] = []
        self._kept_bytes = 0
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def contended(self) -> bool:
        """Whether somebody waits for a buffer."""
        return bool(self._waiting)

    def take(self, size: int) -> memoryview | None:
        """Return a buffer of at least `size` bytes, or None when the budget is spent."""
        rounded = -(-size // _GRAIN_BYTES) * _GRAIN_BYTES
        for position, buffer in enumerate(self._kept):
            if rounded <= len(buffer) <= 2 * rounded and self._lent_bytes + len(buffer) <= self._budget_bytes:
                del self._kept[position]
                self._kept_bytes -= len(buffer)
                self._lent_bytes += len(buffer)
                return buffer
        if self._lent_bytes + rounded > self._budget_bytes:
            return None
        self._lent_bytes += rounded
        return memoryview(mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back and wake who waits for one."""
        self._lent_bytes -= len(buffer)
        if self._kept_bytes + len(buffer) <= _KEPT_BYTES_MAX:
            self._kept.append(buffer)
            self._kept_bytes += len(buffer)
        waiting, self._waiting = self._waiting, deque()
        for wake in waiting:
            wake()

    def wait(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once when a buffer was given back; it may find that others were quicker."""
        self._waiting.append(wake)

    def trim(self) -> None:
        """Let go of what is kept: called when the daemon has been idle."""
        self._kept.clear()
        self._kept_bytes = 0
