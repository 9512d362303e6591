"""A log in memory: what the tests of the rooms above stand on, held to the same contract as the real engines."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence

from fungistor.catalog.log import START, Entry, FenceMovedError, LogTrimmedError, Position, check_batch
from fungistor.errors import CorruptError, InvalidError, UnavailableError


class MemoryLogStore:
    """What all handles on one log share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.identity = os.urandom(16)
        self.epoch = 0
        self.trimmed = 0
        self.payloads: list[bytes] = []

    def last(self) -> int:
        """How many entries were ever appended."""
        return self.trimmed + len(self.payloads)


class MemoryLog:
    """`fungistor.catalog.log.Log` in memory.

    `fault`, when set, is called with "before" and "after" around each append's effect: what it raises is what the
    writer sees, so "after" gives the doubtful append that happened and was not acknowledged.
    """

    def __init__(self, store: MemoryLogStore | None = None) -> None:
        self.store = store or MemoryLogStore()
        self.fault: Callable[[str], None] | None = None
        self._closed = False

    def identity(self) -> bytes:
        return self.store.identity

    def epoch(self) -> int:
        with self.store.changed:
            return self.store.epoch

    def raise_epoch(self, expected: int) -> int:
        with self.store.changed:
            self._check_fence(expected)
            self.store.epoch += 1
            return self.store.epoch

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        check_batch(batch)
        if self._closed:
            raise UnavailableError("the log was closed")
        self._strike("before")
        with self.store.changed:
            self._check_fence(fence)
            self.store.payloads.extend(bytes(payload) for payload in batch)
            position = _position(self.store.last())
            self.store.changed.notify_all()
        self._strike("after")
        return position

    def last(self) -> Position:
        with self.store.changed:
            return _position(self.store.last())

    def trimmed(self) -> Position:
        with self.store.changed:
            return _position(self.store.trimmed)

    def read(self, after: Position) -> Iterator[Entry]:
        number = _number(after)
        while True:
            with self.store.changed:
                if number < self.store.trimmed:
                    raise LogTrimmedError("the log in memory")
                if number > self.store.last():
                    raise CorruptError(f"the log ends at entry {self.store.last()}, but {number} was read before")
                if number == self.store.last():
                    return
                payload = self.store.payloads[number - self.store.trimmed]
            number += 1
            yield Entry(_position(number), payload)

    def watch(self, after: Position, timeout_s: float) -> bool:
        number = _number(after)
        with self.store.changed:
            self.store.changed.wait_for(lambda: self._closed or self.store.last() > number, timeout_s)
            return not self._closed and self.store.last() > number

    def trim(self, before: Position) -> None:
        number = _number(before)
        with self.store.changed:
            if number > self.store.last():
                raise InvalidError(f"the log has {self.store.last()} entries, cannot trim before {number}")
            gone = max(0, number - 1 - self.store.trimmed)
            del self.store.payloads[:gone]
            self.store.trimmed += gone

    def close(self) -> None:
        with self.store.changed:
            self._closed = True
            self.store.changed.notify_all()

    def _check_fence(self, fence: int) -> None:
        if fence != self.store.epoch:
            raise FenceMovedError(expected=fence, found=self.store.epoch)

    def _strike(self, when: str) -> None:
        if self.fault is not None:
            self.fault(when)


def _position(number: int) -> Position:
    return Position(number.to_bytes(8, "big")) if number else START


def _number(position: Position) -> int:
    if position == START:
        return 0
    if len(position) != 8:
        raise InvalidError("the position is not one of this log")
    return int.from_bytes(position, "big")
