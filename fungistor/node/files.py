"""Files that are either whole or absent: written aside, synced, renamed; and files that one process at a time holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator

from fungistor.errors import FungiStorError


def write_atomic(path: str, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Put `content` at `path` so that no reader, and no crash, ever sees a part of it.

    `sync` False leaves the moment of reaching the disk to the system: for what is worthless after a crash.

    Raises: OSError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    aside = os.path.join(folder, f".{name}.{secrets.token_hex(6)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    if sync:
        sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make the names in `folder` durable: a rename is on disk only after its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable_folder(path: str, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, so that a power cut cannot take it with all that is in it.

    Raises: OSError; FileExistsError where something else is there.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_durable_folder(parent)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    # A parent that may be written and not listed cannot be synced either; that is no reason not to work in it.
    with contextlib.suppress(PermissionError):
        sync_folder(parent)


def read_bounded(path: str, bytes_max: int) -> bytes | None:
    """Read a small file; None where it is longer than `bytes_max`.

    Raises: OSError.
    """
    with open(path, "rb") as file:
        content = file.read(bytes_max + 1)
    return content if len(content) <= bytes_max else None


@contextlib.contextmanager
def locked(path: str, busy: FungiStorError | None = None) -> Iterator[None]:
    """Hold a file's lock, which also goes with its process: wait for whoever has it, or raise `busy` at once."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
        except BlockingIOError:
            if busy is None:
                raise
            raise busy from None
        yield
    finally:
        os.close(descriptor)
