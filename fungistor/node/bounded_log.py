"""A child's log: a file that starts again when it is full, so that no member can fill a disk by complaining."""

from __future__ import annotations

import io
import os

LOG_BYTES_MAX = 1 << 20
"""Of a log and of the one before it, kept as LOG.1."""


def open_log(path: str, descriptor: int) -> None:
    """Make `descriptor` the end of the log at `path`.

    Raises: OSError.
    """
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if opened != descriptor:
        os.dup2(opened, descriptor)  # inheritable: a program that the child becomes goes on writing there
        os.close(opened)


class BoundedLog(io.TextIOBase):
    """Text to descriptor 2, whose file is turned over when it is full. What C code writes there is not counted."""

    def __init__(self, path: str, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        content = text.encode("utf-8", "backslashreplace")
        try:
            if os.fstat(2).st_size + len(content) > self._bytes_max:
                os.replace(self._path, f"{self._path}.1")
                open_log(self._path, 2)
            os.write(2, content[: self._bytes_max])
        except OSError:
            # A full disk or a folder wiped below a running member: the member matters more than its log.
            return len(text)
        return len(text)
