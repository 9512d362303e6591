"""How much memory clients that do not read may hold over all connections: replies that wait to be sent."""

from __future__ import annotations

from typing import Final, Protocol

from fungistor.limits import MIB
from fungistor.zdb.daemon.log import WARNING, say

UNSENT_BYTES_MAX: Final = 512 * MIB
"""Sixty of the largest values, or two thousand shards of 256 KiB."""


class Reader(Protocol):
    """A connection as seen from here."""

    @property
    def unsent(self) -> int:
        """Bytes of replies that wait for it."""

    def abort(self) -> None: ...


class Outflow:
    """Knows who does not keep up, in the order in which they began, and drops the first of them when it is too much."""

    def __init__(self, unsent_bytes_max: int = UNSENT_BYTES_MAX) -> None:
        self._limit = unsent_bytes_max
        self._slow: dict[Reader, int] = {}
        self.unsent = 0
        """Bytes that wait for all of them."""
        self.dropped = 0

    def slow(self, reader: Reader) -> None:
        """Count one that has more waiting for it than the kernel takes; until `caught_up`."""
        self.caught_up(reader)
        self._slow[reader] = reader.unsent
        self.unsent += reader.unsent
        while self.unsent > self._limit and len(self._slow) > 1:
            first = next(iter(self._slow))
            self.caught_up(first)
            self.dropped += 1
            say(WARNING, "connection.dropped", "replies that nobody reads take too much memory", limit=self._limit)
            first.abort()

    def caught_up(self, reader: Reader) -> None:
        """Count it no more; also when it is gone. Safe to repeat."""
        self.unsent -= self._slow.pop(reader, 0)
