"""What a request is doing at this moment, told by those who do it to whoever must give up waiting for it.

A caller that opens a `Trail` and makes it `current` learns, at any time and from any thread, which phase its request
has reached, how long each took, and which members keep it waiting and why. Nobody who writes to it knows who reads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

MEMBERS_MAX = 256
"""Members noted at most, a request: n is at most 255."""


@dataclass(slots=True)
class Trail:
    """One request's trail. Written by several threads: each write is one step of a dict, so none is torn."""

    phase: str = ""
    """``catalog``, ``manifest`` or ``block``; empty before the first."""

    troubles: dict[str, str] = field(default_factory=dict)
    """Members that were tried and have not helped so far, and why."""

    spent_s: dict[str, float] = field(default_factory=dict)
    """Seconds a phase, the time of read-ahead in other threads included."""

    def copy_of_troubles(self) -> Mapping[str, str]:
        """The troubles as they stand."""
        return dict(self.troubles)


current: ContextVar[Trail | None] = ContextVar("fungistor_trail", default=None)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Tell that the work below is of this phase; the one around it goes on after it, unless it failed here."""
    trail = current.get()
    if trail is None:
        yield
        return
    before, trail.phase = trail.phase, name
    started = time.monotonic()
    try:
        yield
    finally:
        trail.spent_s[name] = trail.spent_s.get(name, 0.0) + time.monotonic() - started
    trail.phase = before or name


def trouble(member: str, why: str) -> None:
    """Note a member that was tried and has not helped."""
    trail = current.get()
    if trail is not None and len(trail.troubles) < MEMBERS_MAX:
        trail.troubles[member] = why


def relieved(member: str) -> None:
    """Take the note back: the member answered after all."""
    trail = current.get()
    if trail is not None and trail.troubles:
        trail.troubles.pop(member, None)
