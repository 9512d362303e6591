"""Rest for Python's collector of cycles, while objects are made by the ten thousand and none of them is in a cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Let the collector rest, for milliseconds at a time: it comes after every 700 objects, a group of commands makes
    twenty for each, and they live until they are applied. Without this, it takes a tenth of the time of a commit.

    Several threads may be in here; whoever finds it at rest leaves it so, and who ended its work wakes it.
    """
    was_awake = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_awake:
            gc.enable()
