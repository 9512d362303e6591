"""What every contender can do: start empty, take a path, start again cold, lose four places, give content back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.processes import Ran


@dataclass(frozen=True, slots=True)
class Published:
    """Content that a contender took: what it calls it, and what that took."""

    name: str
    ran: Ran
    inner_s: float | None = None
    """What the command itself says it took, its start not counted; None where it says nothing."""


class Contender(Protocol):
    """A store under test. Made for one round; `end` removes all of it."""

    name: str
    has_trees: bool
    has_gateway: bool

    def start(self) -> None:
        """Come up empty."""

    def end(self) -> None:
        """End all processes and remove all files. Safe to repeat."""

    def publish(self, path: Path) -> Published:
        """Take a file or a folder with a command."""

    def restart(self) -> None:
        """End and start again, with what was published: caches of its own are empty after it."""

    def lose_four(self) -> bool:
        """Kill four of the places that hold content. False where it has no such places."""

    def fetch(self, name: str, size: int) -> Ran:
        """Bring a file to nowhere: with curl through its gateway, or with a command where it has none."""

    def get(self, name: str, target: Path) -> Ran:
        """Write a file or a folder to disk with a command."""

    def url(self, name: str) -> str:
        """Where its gateway serves it."""

    def processes(self) -> list[psutil.Process]:
        """All processes that are up, for their CPU and memory."""
