"""Keep freed blocks in the process: megabytes given back to the kernel after each are page faults at the next.

Measured on a read of 1 GiB in blocks of 1 MiB: 1.3 instead of 1.65 CPU seconds, 0.95 instead of 0.75 GB/s.
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

MMAP_ABOVE_BYTES = 16 << 20
"""Larger than any block or shard, below what glibc refuses (half a heap of 64 MiB)."""

TRIM_ABOVE_BYTES = 8 << 20
TOP_PAD_BYTES = 1 << 20
ARENAS = 2
"""More would each keep freed blocks of their own; two threads seldom wait for each other here."""


def keep_freed_memory() -> None:
    """Tune glibc's malloc; where there is another one, nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (M_MMAP_THRESHOLD, MMAP_ABOVE_BYTES),
            (M_TRIM_THRESHOLD, TRIM_ABOVE_BYTES),
            (M_TOP_PAD, TOP_PAD_BYTES),
            (M_ARENA_MAX, ARENAS),
        ):
            mallopt(option, value)
