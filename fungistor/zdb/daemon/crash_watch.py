"""Tells the hook that the daemon crashed: a small process that outlives it, since a dead one tells nothing.

It holds the reading end of a pipe whose other end only the daemon has. The daemon writes a byte into it when it
begins to end as it should; if the pipe closes without that byte, it was killed or fell over.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final

from fungistor.zdb.daemon.log import ERROR, say

_CLEAN: Final = b"."


class CrashWatch:
    """The daemon's end."""

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self._pid = pid

    def ending(self) -> None:
        """Say that what follows is no crash. Safe to repeat."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, _CLEAN)
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)


def watch_for_crash(words: Sequence[str]) -> CrashWatch:
    """Begin to watch this process; `words` are run when it crashes. To be called before there are threads.

    Raises:
        OSError: there are no processes left.
    """
    reading, writing = os.pipe()
    daemon = os.getpid()
    pid = os.fork()
    if pid:
        os.close(reading)
        return CrashWatch(writing, pid)
    try:
        os.close(writing)
        _wait_and_tell(reading, daemon, words)
    finally:
        os._exit(0)


def _wait_and_tell(reading: int, daemon: int, words: Sequence[str]) -> None:
    # Ctrl-C and a stop of the whole group are the daemon's to answer: this process ends with it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(3, reading)
    os.closerange(reading + 1, os.sysconf("SC_OPEN_MAX"))
    if os.read(reading, 1) == _CLEAN:
        return
    say(ERROR, "daemon.crashed", "the daemon ended without being told to", pid=daemon)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.close(reading)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.setsid()
    os.execvp(words[0], list(words))  # noqa: S606  # a list of arguments, as everywhere
