"""One process at a time holds a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Final

from fungistor.errors import ConflictError

_LOCK_NAME: Final = ".lockfile"


def lock_folder(root: str) -> int:
    """Lock a folder for this process and return the lock, to be closed.

    Raises:
        ConflictError: another process has it.
    """
    path = f"{root}/{_LOCK_NAME}"
    try:
        fd = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH
        )
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        # Nobody can write there; a lock on what can be opened still keeps a second daemon away.
        fd = os.open(path if os.path.exists(path) else root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConflictError(
            f"{root} is in use by another daemon", hint="stop it, or give this one a folder of its own"
        ) from None
    return fd
