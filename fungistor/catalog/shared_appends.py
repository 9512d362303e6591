"""Publishers of one home that commit at the same moment share an append: one flush of a disk, one round of Raft.

Whoever wants to append writes a request into a folder and waits for its turn. Whose turn it is takes every request that
is there by renaming it, appends all, his own first, and writes into each where it came to stand. A request whose writer
died is not appended. Whoever waited too long withdraws his, by renaming it too: only one of the two renames succeeds.
Should the one whose turn it is die or stop after it took some, their writers append them again: session and sequence
make that harmless.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fungistor.catalog.log import BATCH_ENTRIES_MAX, Log, LogOver, Position, after_entry, check_batch, entry_number
from fungistor.errors import FailedError, FungiStorError, UnavailableError
from fungistor.limits import COMMAND_BYTES_MAX

TURN_S: Final = 2.0
"""How long to wait for one's turn. Whoever has it may be stopped, and the engine needs no turns: only sharing does."""

TAKEN_S: Final = 15.0
"""How long a request that was taken waits to hear of it."""

LOOK_S: Final = 0.001
LOOK_S_MAX: Final = 0.01

_TURN: Final = "turn"
_ASIDE: Final = ".aside"
_TAKEN: Final = ".taken"
_WITHDRAWN: Final = ".withdrawn"
_WAITING, _DONE = b"w", b"d"
_STATE_BYTES: Final = 1 + 8
_FENCE_BYTES: Final = 8
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class _Request:
    """A request in the folder: its open file, locked by its writer as long as that one lives, and what it asks."""

    path: str
    descriptor: int
    fence: int
    batch: tuple[bytes, ...]


class SharedAppends(LogOver):
    """A `fungistor.catalog.log.Log` whose appends are shared by all that use the same folder. Thread-safe."""

    def __init__(self, log: Log, folder: str) -> None:
        super().__init__(log)
        self._folder = folder

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        check_batch(batch)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with self._asked(fence, batch) as own, self._turn(own) as is_mine:
                return self._told(own) or (self._lead(own) if is_mine else self._log.append(fence, batch))
        except OSError as error:
            raise FailedError(f"{self._folder}: {error.strerror or error}", hint="make room there") from error

    @contextlib.contextmanager
    def _asked(self, fence: int, batch: Sequence[bytes]) -> Iterator[_Request]:
        path = os.path.join(self._folder, secrets.token_hex(8))
        descriptor = os.open(path + _ASIDE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            body = b"".join(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload for payload in batch)
            head = _WAITING.ljust(_STATE_BYTES, b"\0") + fence.to_bytes(_FENCE_BYTES, "big")
            with memoryview(head + body) as view:
                done = 0
                while done < len(view):
                    done += os.write(descriptor, view[done:])
            os.rename(path + _ASIDE, path)  # whole, or not there
            yield _Request(path, descriptor, fence, tuple(batch))
        finally:
            for left in (path, path + _ASIDE, path + _TAKEN, path + _WITHDRAWN):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(left)
            os.close(descriptor)

    @contextlib.contextmanager
    def _turn(self, own: _Request) -> Iterator[bool]:
        """Wait for the turn; False: it did not come, and nobody else is going to append the request."""
        descriptor = os.open(os.path.join(self._folder, _TURN), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_mine = _locked_within(descriptor, TURN_S)
            if not is_mine and not _renamed(own.path, own.path + _WITHDRAWN):
                is_mine = _locked_within(descriptor, TAKEN_S)
            yield is_mine
        finally:
            os.close(descriptor)

    def _told(self, own: _Request) -> Position | None:
        """Where this request came to stand, if somebody else has appended it."""
        state = os.pread(own.descriptor, _STATE_BYTES, 0)
        return after_entry(int.from_bytes(state[1:], "big")) if state[:1] == _DONE else None

    def _lead(self, own: _Request) -> Position:
        # Taken by itself: whoever has the turn next may look before this one has put its request away.
        _renamed(own.path, own.path + _TAKEN)
        others = self._others(own)
        try:
            if not others:
                return self._log.append(own.fence, own.batch)
            batch = [payload for request in (own, *others) for payload in request.batch]
            try:
                last = entry_number(self._log.append(own.fence, batch))
            except UnavailableError:
                raise  # it is not known; the others ask again
            except FungiStorError:
                return self._log.append(own.fence, own.batch)  # whoever is to blame meets it by himself
            first = last - len(batch)
            mine = number = first + len(own.batch)
            for request in others:
                number += len(request.batch)
                os.pwrite(request.descriptor, _DONE + number.to_bytes(8, "big"), 0)
            return after_entry(mine)
        finally:
            for request in others:
                os.close(request.descriptor)

    def _others(self, own: _Request) -> list[_Request]:
        """The requests of others under the same fence, as many as one append takes."""
        found: list[_Request] = []
        entries, size = len(own.batch), sum(map(len, own.batch))
        for name in sorted(os.listdir(self._folder)):
            path = os.path.join(self._folder, name)
            if name == _TURN or name.endswith(_ASIDE):
                continue
            request = _read(path)
            if request is None:
                continue
            if "." in name:  # taken or withdrawn
                os.close(request.descriptor)
                continue
            entries, size = entries + len(request.batch), size + sum(map(len, request.batch))
            if request.fence != own.fence or entries > BATCH_ENTRIES_MAX or size > COMMAND_BYTES_MAX:
                os.close(request.descriptor)
                break  # it has its own turn
            if _renamed(path, path + _TAKEN):
                found.append(request)
            else:
                os.close(request.descriptor)
        return found


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked_within(descriptor: int, seconds: float) -> bool:
    deadline, pause = time.monotonic() + seconds, LOOK_S
    is_mine = _locked(descriptor)
    while not is_mine and time.monotonic() < deadline:
        time.sleep(pause)  # flock waits for ever or not at all
        pause = min(LOOK_S_MAX, 2 * pause)
        is_mine = _locked(descriptor)
    return is_mine


def _renamed(path: str, new: str) -> bool:
    """Whether this one renamed it; False: another was first, or it is gone."""
    try:
        os.rename(path, new)
    except FileNotFoundError:
        return False
    return True


def _read(path: str) -> _Request | None:
    """A request whose writer waits for it; None where there is none, or none any more."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    if not _locked(descriptor):
        data = os.pread(descriptor, COMMAND_BYTES_MAX + _STATE_BYTES + _FENCE_BYTES + 2 * BATCH_ENTRIES_MAX * 4, 0)
        if data[:1] == _WAITING:
            head = _STATE_BYTES + _FENCE_BYTES
            batch = tuple(_payloads(data[head:]))
            return _Request(path, descriptor, int.from_bytes(data[_STATE_BYTES:head], "big"), batch)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # its writer died, and nobody waits for it
    os.close(descriptor)
    return None


def _payloads(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        yield data[at + _LENGTH_BYTES : end]
        at = end
