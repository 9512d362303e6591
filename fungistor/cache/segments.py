"""Files of the disk cache that are only appended to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import OrderedDict

from fungistor.limits import KIB

OPEN_MAX = 64

WRITE_BYTES_MAX = 128 * KIB
"""Longer writes take larger pages, which a virtual machine's host may have to bring first: three times the time."""


def segment_path(folder: str, number: int) -> str:
    """Where a segment lies."""
    return os.path.join(folder, f"{number:08d}.segment")


class WritableSegment:
    """The one segment that this process appends to; its lock says that somebody does."""

    def __init__(self, folder: str, number: int) -> None:
        self.number = number
        self.bytes = 0
        path = segment_path(folder, number)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, data: bytes) -> int:
        """Write at the end; where that is. What an earlier failure left behind is written over.

        Raises: OSError.
        """
        start = self.bytes
        view = memoryview(data)
        while view:
            piece = view[:WRITE_BYTES_MAX]
            view = view[os.pwrite(self._descriptor, piece, start + len(data) - len(view)) :]
        self.bytes = start + len(data)
        return start

    @property
    def is_removed(self) -> bool:
        """Whether its file has gone, so that nobody will ever read what is appended."""
        return _is_removed(self._descriptor)

    def close(self) -> None:
        """Append no more."""
        os.close(self._descriptor)


class OpenSegments:
    """Segments open for reading, the last used ones of any process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, number: int, start: int, length: int) -> bytes | None:
        """A segment's bytes; None where it has gone or is shorter."""
        descriptor = self._open.get(number)
        if descriptor is None:
            try:
                descriptor = os.open(segment_path(self._folder, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            self._open[number] = descriptor
            if len(self._open) > OPEN_MAX:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(number)
        data = os.pread(descriptor, length, start)
        return data if len(data) == length else None

    def forget(self, number: int) -> None:
        """Close a segment that goes."""
        descriptor = self._open.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)

    def forget_removed(self) -> None:
        """Close what other processes removed: the disk has its bytes back when the last one lets go."""
        for number in [number for number, descriptor in self._open.items() if _is_removed(descriptor)]:
            self.forget(number)

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])


def _is_removed(descriptor: int) -> bool:
    return os.fstat(descriptor).st_nlink == 0
