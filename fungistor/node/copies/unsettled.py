"""Names of entries that were put into the pool before their claims stood in the log: should they never, they go.

Each process has a file of its own, locked as long as it lives, with the names of what it is about to append. What a
dead one left is in the log by then or never will be: it goes when the log was trimmed as far as it was then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Sequence

from fungistor.node.copies.formats import NAME_BYTES

NAMES_MAX = 4096


class Unsettled:
    """Thread-safe, several processes at once."""

    def __init__(self, folder: str) -> None:
        """Nothing is written before the first name."""
        self._folder = folder
        self._lock = threading.Lock()
        self._names: set[bytes] = set()
        self._path = ""
        self._descriptor = -1

    def add(self, name: bytes) -> None:
        """It is put next."""
        with self._lock:
            self._open()
            self._names.add(name)
            self._write()

    def remove(self, name: bytes) -> None:
        """Its claim stands in the log."""
        with self._lock:
            self._names.discard(name)
            self._write()

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, secrets.token_hex(8))
        # Under another name until it is locked: what is not locked is a dead one's.
        self._descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path + ".new", path)
        self._path = path

    def _write(self) -> None:
        content = b"".join(self._names)
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def left_behind(self, last: int, trimmed: int) -> Iterator[Sequence[bytes]]:
        """What dead processes left that cannot be claimed any more, where the log ends and was trimmed so far. Of each
        the note is deleted when the next one is asked for."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder)):
                path = os.path.join(self._folder, name)
                _, has_ended, end = name.partition(".")
                if not has_ended and _is_dead(path):
                    with contextlib.suppress(FileNotFoundError):  # another process was quicker
                        os.rename(path, f"{path}.{last}")
                elif end.isdigit() and int(end) <= trimmed:
                    yield _names_in(path)
                    _unlink(path)

    def close(self) -> None:
        """What is not settled stays noted."""
        with self._lock:
            if self._descriptor < 0:
                return
            if not self._names:
                _unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1


def _is_dead(path: str) -> bool:
    """Whether nobody holds the lock of a note."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _names_in(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            content = file.read(NAMES_MAX * NAME_BYTES)
    except FileNotFoundError:
        return []
    return [content[at : at + NAME_BYTES] for at in range(0, len(content) - NAME_BYTES + 1, NAME_BYTES)]
