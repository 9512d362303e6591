"""A disk that refuses from some call on: full (nothing can grow or be made) or failing (nothing can be changed)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

FULL = ("pwrite", "pwritev", "mkdir", "open")
FAILING = (*FULL, "unlink", "rename", "ftruncate", "truncate", "fsync", "fdatasync")


@contextlib.contextmanager
def refusing(point: int, kind: Sequence[str], patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let that many calls that change the disk happen, then none; yields how many there were.

    The first write that is refused leaves half of its bytes, as a disk does that fills up in the middle.
    """
    calls = [0]
    code = errno.ENOSPC if kind is FULL else errno.EIO
    whole_write = os.pwrite

    def refuse(name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and not args[1] & os.O_CREAT:
            return
        calls[0] += 1
        if calls[0] <= point:
            return
        if calls[0] == point + 1 and name in ("pwrite", "pwritev"):
            data = args[1] if name == "pwrite" else b"".join(args[1])
            whole_write(args[0], bytes(data)[: len(data) // 2], args[2])
        raise OSError(code, os.strerror(code))

    def wrap(name: str, original: Any) -> Any:
        def asked(*args: Any, **options: Any) -> Any:
            refuse(name, args)
            return original(*args, **options)

        return asked

    with patch.context() as patched:
        for name in kind:
            patched.setattr(os, name, wrap(name, getattr(os, name)))
        yield calls
