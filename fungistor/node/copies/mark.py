"""How far this home has brought the catalog into the pool: a small file, changed under a lock of its own.

It is never ahead of the members, so where it is lost or old, only work is done twice: what has been brought is brought
again. So it waits for no disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fungistor.errors import UnavailableError
from fungistor.node.files import read_bounded, write_atomic
from fungistor.node.home import Home

MARK_BYTES_MAX = 4096
LOCK_S = 12.0
"""One round at the members under somebody else's hand takes no longer; a command then still ends in time."""

LOCK_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Mark:
    """`covered`: entries of `log` after `base`, up to that number, are in the pool. Those up to `base` and all keys are
    there once `is_seeded`; `seeded_to` is the last key of which that is known until then. `dropped`: segments up to
    that number were deleted. `is_rewrapped`: keys that lie there may be wrapped otherwise now."""

    log: str
    covered: int
    link: str
    base: int
    is_seeded: bool = False
    seeded_to: str = ""
    dropped: int = 0
    is_rewrapped: bool = False


class MarkFile:
    """The mark of one home."""

    def __init__(self, home: Home) -> None:
        self._path = home.path("catalog", "copies.json")
        self._lock_path = home.path("catalog", "copies.lock")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else of this home brings anything meanwhile. Raises: UnavailableError: somebody does for too long."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UnavailableError(
                            f"another process of this home has been writing to the pool for {LOCK_S:.0f} s",
                            hint="`fungistor status` shows members that are slow",
                        ) from None
                    time.sleep(LOCK_LOOK_S)
            yield
        finally:
            os.close(descriptor)

    def read(self, log: bytes) -> Mark | None:
        """The mark, if there is one of that log."""
        try:
            content = read_bounded(self._path, MARK_BYTES_MAX)
            mark = Mark(**json.loads(content or b"{}"))
            kinds = (str, int, str, int, bool, str, int, bool)
            fits = all(type(value) is kind for value, kind in zip(asdict(mark).values(), kinds, strict=True))
            bytes.fromhex(mark.link + mark.seeded_to)
        except (OSError, ValueError, TypeError):
            return None
        return mark if fits and mark.log == log.hex() else None

    def write(self, mark: Mark) -> None:
        write_atomic(self._path, json.dumps(asdict(mark)).encode() + b"\n", sync=False)
