"""What a fake member may do wrong, said in advance so that a test states its faults before it acts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Lie(Enum):
    """How a value comes back wrong."""

    FLIP = "one bit of it is another"
    TRUNCATE = "it lacks its last byte"
    SWAP = "it is the value of another key"


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The faults of one member. All off: it is well. Times in seconds, counts in commands after the greeting.

    refuse: connections are closed at once. hang: it accepts and reads, and never answers. delay_s: it answers that
    late. lie: what GET and GETRANGE give is wrong. half_then_close: it breaks off in the middle of a value. die_after:
    it is gone for good after that many commands. forget_sets: it acknowledges and stores nothing. error: every data
    command is answered with this error.
    """

    refuse: bool = False
    hang: bool = False
    hang_on: frozenset[str] = frozenset()
    delay_s: float = 0.0
    lie: Lie | None = None
    half_then_close: bool = False
    die_after: int | None = None
    forget_sets: bool = False
    error: str = ""


WELL = FaultPlan()
