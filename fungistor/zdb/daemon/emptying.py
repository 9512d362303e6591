"""FLUSH: all files of a namespace go, all or nothing, whatever ends the daemon or refuses half-way.

It begins with a mark in the index folder. While that is there everything beside it but the descriptor is void, so what
is left to do may be done at any time: at once, before the next write, by the daemon itself, or at the next start.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from fungistor.zdb.daemon.checkpoint import CHECKPOINT_NAME, FLUSHED_NAME
from fungistor.zdb.daemon.files import sync_directory, write_all
from fungistor.zdb.daemon.format import MODE_USER, data_header, index_header
from fungistor.zdb.daemon.recovery_files import file_numbers, stored_mode

_MARK_NAME: Final = "fungistor-flush"


def begin_emptying(index_path: str, *, durable: bool) -> None:
    """Mark everything in the namespace as void.

    Raises:
        OSError: the disk refused; nothing has changed.
    """
    mark = f"{index_path}/{_MARK_NAME}"
    # Empty, because a full disk has to take it: FLUSH is how space comes back.
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if not durable:
        return
    try:
        sync_directory(index_path)
    except OSError as refused:
        try:
            os.unlink(mark)
        except OSError:
            # It is there and stays: what it says holds.
            return
        raise refused


def finish_emptying(index_path: str, data_path: str, mode: int, *, durable: bool) -> None:
    """Remove what is void, begin the first pair anew, remove the mark. May be repeated until it succeeds.

    The first pair is overwritten and cut rather than made: that takes no space, and at every moment some index file
    says which mode the namespace is in.

    Raises:
        OSError: the disk refused; the mark stands.
    """
    for path in (index_path, data_path):
        os.makedirs(path, mode=0o700, exist_ok=True)
    numbers = sorted(file_numbers(index_path, data_path) - {0}, reverse=True)
    # Data goes first: it is most of the space, and where the first pair was compacted away its head needs some.
    for number in numbers:
        _remove(f"{data_path}/d{number}")
    _begin_anew(f"{index_path}/i0", index_header(0, mode))
    for number in numbers:
        _remove(f"{index_path}/i{number}")
    _begin_anew(f"{data_path}/d0", data_header(0))
    for name in (CHECKPOINT_NAME, FLUSHED_NAME):
        _remove(f"{index_path}/{name}")
    if durable:
        sync_directory(data_path)
        sync_directory(index_path)
    _remove(f"{index_path}/{_MARK_NAME}")


def emptied_mode(index_path: str, data_path: str) -> int | None:
    """Return the mode of a namespace whose emptying was begun and is not finished; None where none was begun."""
    if not os.path.exists(f"{index_path}/{_MARK_NAME}"):
        return None
    return stored_mode(index_path, file_numbers(index_path, data_path)) or MODE_USER


def _begin_anew(path: str, header: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, [header], 0)
        os.ftruncate(fd, len(header))
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
