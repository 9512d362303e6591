"""`--background`: the process that was started ends when requests are served, and another one serves them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

_SERVING: Final = b"."


class Parent:
    """The way back to the process that was started, which waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def leave(self, *, keep_output: bool) -> None:
        """Let it end with exit code 0, and let go of its terminal: input, and output unless a log file has that."""
        with contextlib.suppress(OSError):
            os.write(self._fd, _SERVING)
        os.close(self._fd)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0,) if keep_output else (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)


def detach(work: Callable[[Parent], int]) -> int:
    """Do the work in a process of its own, and return 0 when it is serving, or its exit code if it ends before."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        return work(Parent(writing))
    os.close(writing)
    try:
        if os.read(reading, 1) == _SERVING:
            return 0
    finally:
        os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
