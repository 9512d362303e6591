"""File work that more than one part of the daemon needs: whole writes, atomic replacement, a cache of descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

Buffer = bytes | bytearray | memoryview
Item = TypeVar("Item")

_FLUSHES_AT_A_TIME: Final = 16
_FLUSHED_TOGETHER_MIN: Final = 8
"""Fewer are not worth the threads."""

_OPEN_FILES_MAX: Final = 64
"""Older segments kept open over all namespaces; an open costs 5 us, so this only has to catch the hot ones."""
_WRITE_BYTES_MAX: Final = 128 << 10
"""Longer writes get larger pages of the page cache, which a virtual machine's host has to bring first: a GiB appended
in writes of 128 KiB took 0.3 s of processor, of 256 KiB and 1 MiB 1.4 to 1.9 s."""
_OPEN_PAIRS_MAX: Final = 128
"""Newest pairs kept open over all namespaces, two descriptors each: a tenth of what a process may usually have."""


def write_all(fd: int, parts: Sequence[Buffer], offset: int) -> None:
    """Write the parts one after the other at `offset`, whatever the kernel takes at a time.

    Raises:
        OSError: the disk is full or failing; some of the bytes may be there.
    """
    total = sum(map(len, parts))
    if total <= _WRITE_BYTES_MAX:
        _write_step(fd, parts, total, offset)
        return
    step: list[Buffer] = []
    room = _WRITE_BYTES_MAX
    for part in parts:
        view = memoryview(part)
        while len(view) >= room:
            _write_step(fd, [*step, view[:room]], _WRITE_BYTES_MAX, offset)
            offset += _WRITE_BYTES_MAX
            view, step, room = view[room:], [], _WRITE_BYTES_MAX
        if len(view):
            step.append(view)
            room -= len(view)
    if step:
        _write_step(fd, step, _WRITE_BYTES_MAX - room, offset)


def _write_step(fd: int, parts: Sequence[Buffer], total: int, offset: int) -> None:
    written = os.pwrite(fd, parts[0], offset) if len(parts) == 1 else os.pwritev(fd, parts, offset)
    if written == total:
        return
    whole = memoryview(b"".join(parts))
    while written < total:
        written += os.pwrite(fd, whole[written:], offset + written)


def sync_file(path: str) -> None:
    """Make a file's bytes durable, whoever wrote them.

    Raises:
        OSError: the disk refused, or the file is gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_each(flush: Callable[[Item], None], items: Sequence[Item]) -> list[tuple[Item, OSError]]:
    """Flush each item; where there are many, some at a time, because a disk takes flushes that meet as one.

    Returns what the disk refused, with its reason.
    """
    refused: list[tuple[Item, OSError]] = []

    def attempt(item: Item) -> None:
        try:
            flush(item)
        except OSError as error:
            refused.append((item, error))

    if len(items) < _FLUSHED_TOGETHER_MIN:
        for item in items:
            attempt(item)
    else:
        with ThreadPoolExecutor(_FLUSHES_AT_A_TIME, "zdb-flush") as pool:
            # Through the list, so that what no flush can raise is not lost either.
            list(pool.map(attempt, items))
    return refused


def replace_file(path: str, data: bytes, *, sync: bool) -> None:
    """Give the file these contents, all or nothing, also over a crash.

    Raises:
        OSError: it could not be written; the old contents stand.
    """
    aside = path + ".new"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(fd, [data], 0)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def create_file(path: str, data: bytes) -> int:
    """Create a file that must not exist yet, with these first bytes, and return its descriptor.

    Raises:
        OSError: it could not be; nothing is left that the next attempt does not take over.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        found = read_file(path)
        if found is not None and not data.startswith(found):
            raise
        # An attempt that the disk refused, and whose remains it would not take away either.
        fd = os.open(path, flags, 0o600)
    try:
        write_all(fd, [data], 0)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return fd


def read_file(path: str) -> bytes | None:
    """Return the file's bytes, or None if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def open_file(path: str) -> int:
    """Open a file for reading and writing, or for reading alone where the disk or its owner allows no more.

    Raises:
        OSError: it cannot be read either.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Pair(Protocol):
    """A newest pair of files that is open."""

    recent: bool
    """Whether it was used since it was last looked at."""

    def let_go(self) -> None:
        """Close both files; the next use opens them again."""


class OpenFiles:
    """All descriptors of a daemon's files: older segments, the least used closed first, and newest pairs."""

    def __init__(self) -> None:
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._pairs: deque[Pair] = deque()
        self.before_close: Callable[[int], None] | None = None
        """Told of every descriptor before it is closed: whoever mapped the file must let go of it, or its space stays
        taken."""

    def admit(self, pair: Pair) -> None:
        """Note that a newest pair was opened; another is let go where that is one too many.

        Second chance: a use is then one attribute set, not a move in a list.
        """
        while len(self._pairs) >= _OPEN_PAIRS_MAX:
            oldest = self._pairs.popleft()
            if oldest.recent:
                oldest.recent = False
                self._pairs.append(oldest)
            else:
                oldest.let_go()
        self._pairs.append(pair)

    def leave(self, pair: Pair) -> None:
        """Note that a newest pair was closed by its owner."""
        with contextlib.suppress(ValueError):
            self._pairs.remove(pair)

    def get(self, path: str, *, writable: bool) -> int:
        """Return a descriptor of the file, which stays the cache's own.

        Raises:
            OSError: it cannot be opened.
        """
        fd = self._fds.get(path)
        if fd is not None:
            self._fds.move_to_end(path)
            return fd
        fd = open_file(path) if writable else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds[path] = fd
        if len(self._fds) > _OPEN_FILES_MAX:
            self.shut(self._fds.popitem(last=False)[1])
        return fd

    def drop(self, path: str) -> None:
        """Close one file that goes away."""
        fd = self._fds.pop(path, None)
        if fd is not None:
            self.shut(fd)

    def forget(self, prefix: str) -> None:
        """Close the files of a directory that goes away."""
        for path in [path for path in self._fds if path.startswith(prefix)]:
            self.shut(self._fds.pop(path))

    def shut(self, fd: int) -> None:
        """Close one of a daemon's files, its own or a newest one."""
        if self.before_close is not None:
            self.before_close(fd)
        with contextlib.suppress(OSError):
            os.close(fd)

    def close(self) -> None:
        """Close all."""
        for fd in self._fds.values():
            self.shut(fd)
        self._fds.clear()


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nothing more is asked of."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
