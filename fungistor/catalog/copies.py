"""What the catalog asks of whoever keeps copies of its log outside the engine, and which commands wait for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, Protocol

from fungistor.catalog.commands import Body, Command, PayOwed, RetireLayouts
from fungistor.catalog.issuers import ChangeAuthority, RegisterIssuer, Report, RevokeIssuer
from fungistor.catalog.layouts import SetLayout
from fungistor.catalog.log import Position
from fungistor.catalog.removal import EndSession, OpenSession
from fungistor.catalog.snapshots import Snapshot


class Copied(IntEnum):
    """When the copy of a command is made."""

    LATER = 0
    """With what is committed next, or within a second by `up`: nobody is told of it."""
    IF_POSSIBLE = 1
    """At once, unless the pool cannot take it: it is what brings the pool about, or lets a machine in."""
    BEFORE = 2
    """Before it is acknowledged."""


_WHEN: Final[dict[type[Body], Copied]] = {
    OpenSession: Copied.LATER,
    EndSession: Copied.LATER,
    Report: Copied.LATER,
    PayOwed: Copied.LATER,
    Snapshot: Copied.LATER,
    SetLayout: Copied.IF_POSSIBLE,
    RetireLayouts: Copied.IF_POSSIBLE,
    RegisterIssuer: Copied.IF_POSSIBLE,
    RevokeIssuer: Copied.IF_POSSIBLE,
    ChangeAuthority: Copied.IF_POSSIBLE,
}


class Copies(Protocol):
    """Copies of the log's entries. Thread-safe."""

    def check(self) -> None:
        """Meet a place that cannot take copies now before anything is appended. Raises: UnavailableError."""

    def appended(self, position: Position, batch: Sequence[bytes]) -> None:
        """These entries were appended by this process, the last of them at a position."""

    def cover(self, position: Position) -> None:
        """Return when all entries up to a position have their copies, durably.

        Raises: UnavailableError: they cannot be made now. ConflictError: there are copies of a later log.
        """


def copied_when(commands: Iterable[Command]) -> Copied:
    """When the copies of commands are made that are committed together: all that is not named here is acknowledged to
    somebody."""
    return max((_WHEN.get(type(command.body), Copied.BEFORE) for command in commands), default=Copied.LATER)
