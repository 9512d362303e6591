"""The port to the serialized log: consensus orders opaque payloads and knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from fungistor.errors import ConflictError, InvalidError, NotFoundError
from fungistor.limits import COMMAND_BYTES_MAX

Position = NewType("Position", bytes)
"""A cursor drawn by the engine. Compare for equality only; give it back to the log it came from."""

START = Position(b"")
"""The position before the first entry of any log."""

BATCH_ENTRIES_MAX = 100
"""etcd takes 128 operations a transaction; the fence and the bookkeeping need some of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One appended payload and the cursor that stands right after it."""

    position: Position
    payload: bytes


class FenceMovedError(ConflictError):
    """The log's epoch is not the one the writer started under, so what it relied on may be gone."""

    def __init__(self, *, expected: int, found: int) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            f"the catalog's epoch is {found}, this writer started under {expected}",
            hint="nothing was committed; start the operation again",
        )


class LogTrimmedError(NotFoundError):
    """The entries right after the reader's position are no longer in the log."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where}: the entries after this reader's position were trimmed",
            hint="take a copy of a current node's state, which is ahead of what was trimmed",
        )


def entry_number(position: Position) -> int:
    """The number of the entry before a cursor, from 1, and 0 for START: every engine here counts. For people to see;
    what is decided goes by equal cursors alone."""
    return int.from_bytes(position, "big")


def after_entry(number: int) -> Position:
    """The cursor right after an entry that a person named by its number."""
    return Position(number.to_bytes(8, "big")) if number else START


def check_batch(batch: Sequence[bytes]) -> None:
    """Refuse a batch that some engine could not take in one transaction.

    Raises:
        InvalidError: no entry, more than `BATCH_ENTRIES_MAX`, or more than `COMMAND_BYTES_MAX` bytes in all.
    """
    if not 1 <= len(batch) <= BATCH_ENTRIES_MAX:
        raise InvalidError(f"a batch has 1 to {BATCH_ENTRIES_MAX} entries, not {len(batch)}")
    size = sum(len(payload) for payload in batch)
    if size > COMMAND_BYTES_MAX:
        raise InvalidError(f"a batch of {size} bytes is over the {COMMAND_BYTES_MAX} that consensus takes at once")


class Log(Protocol):
    """An ordered log that several processes append to. Thread-safe; no call waits longer than its engine's bound.

    Every method raises `UnavailableError` when the engine cannot be had now (after an append it is then unknown whether
    it happened: repeat it, the commands' session and sequence make that harmless), `FailedError` for a cause of this
    machine and `CorruptError` when the log itself is damaged.
    """

    def identity(self) -> bytes:
        """16 bytes drawn when the log was made: tells a state whose log it is."""

    def epoch(self) -> int:
        """The fence that `append` compares with, from 0."""

    def raise_epoch(self, expected: int) -> int:
        """Move the epoch from `expected` to the next and return that; every older fence is refused from then on.

        Raises:
            FenceMovedError: it is not `expected`.
        """

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        """Append all payloads next to each other, durably, or none; return the position of the last.

        Raises:
            FenceMovedError: the epoch is not `fence`, compared in the same transaction.
            InvalidError: see `check_batch`.
        """

    def last(self) -> Position:
        """The position of the newest entry ever appended, also when it was trimmed since; START for none."""

    def trimmed(self) -> Position:
        """The position after which entries can still be read; START as long as none was trimmed."""

    def read(self, after: Position) -> Iterator[Entry]:
        """Entries after a position, oldest first, up to the newest. Holds no lock between entries.

        Raises:
            LogTrimmedError: some of them were trimmed.
            CorruptError: the position is ahead of the log, so entries that were read before are lost.
            InvalidError: the position is not one of this log.
        """

    def watch(self, after: Position, timeout_s: float) -> bool:
        """Wait until there is an entry after a position; False when the time passed or the log was closed."""

    def trim(self, before: Position) -> None:
        """Forget the entries before a position; the one at it stays. The caller made them safe elsewhere."""

    def close(self) -> None:
        """Give up connections and wake watchers. Harmless when repeated."""


class LogOver:
    """A `Log` on another one: what a subclass does not do otherwise is the other's."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def identity(self) -> bytes:
        return self._log.identity()

    def epoch(self) -> int:
        return self._log.epoch()

    def raise_epoch(self, expected: int) -> int:
        return self._log.raise_epoch(expected)

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        return self._log.append(fence, batch)

    def last(self) -> Position:
        return self._log.last()

    def trimmed(self) -> Position:
        return self._log.trimmed()

    def read(self, after: Position) -> Iterator[Entry]:
        return self._log.read(after)

    def watch(self, after: Position, timeout_s: float) -> bool:
        return self._log.watch(after, timeout_s)

    def trim(self, before: Position) -> None:
        self._log.trim(before)

    def close(self) -> None:
        self._log.close()
