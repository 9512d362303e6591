"""Asks members that are not trusted whether they are back, in a thread of its own, so that no stripe waits for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from fungistor.ids import MemberNumber
from fungistor.placement.health import Board
from fungistor.pool.round import Done, Failed, Round, Silence
from fungistor.pool.stock import Stock
from fungistor.zdb.replies import Replies
from fungistor.zdb.resp import command

PROBE_S = 1.0
"""A member that has not answered a PING by then is paused."""

JOIN_S = 5.0


class Prober:
    """Probes members when they are due, or when asked to. The thread starts with the first need for it."""

    def __init__(self, stock: Stock, board: Board, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._stock = stock
        self._board = board
        self._lock = lock
        self._clock = clock
        self._asked: set[MemberNumber] = set()
        self._wake_fd: int | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def ask(self, numbers: Iterable[MemberNumber]) -> None:
        """Probe these now. The caller does not hold the lock."""
        with self._lock:
            self._asked.update(numbers)
            self._nudge()

    def nudge(self) -> None:
        """Somebody was demoted: look at the board again. The caller holds the lock."""
        if self._board.next_due() is not None:
            self._nudge()

    def probe(self, numbers: Iterable[MemberNumber]) -> None:
        """Ask these in the caller's thread, each on a new connection, and wait until all is known."""
        started = {number: self._clock() for number in numbers}
        with Round[MemberNumber](self._stock, self._clock) as asking:
            for number in started:
                asking.ask(number, number, [command("PING")], Replies(), fresh=True)
            until = self._clock() + PROBE_S
            while started and self._clock() < until:
                events = asking.wait(until)
                with self._lock:
                    for event in events:
                        self._note(event, started)
            with self._lock:
                for number in started:
                    self._silent(number, asking.abandon(number))

    def close(self) -> None:
        with self._lock:
            self._closing = True
            thread = self._thread
            if thread is not None:
                self._nudge()
        if thread is not None:
            thread.join(JOIN_S)

    def _nudge(self) -> None:
        if self._thread is None and not self._closing:
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, args=(self._wake_fd,), name="pool prober", daemon=True)
            self._thread.start()
        elif self._wake_fd is not None:
            os.eventfd_write(self._wake_fd, 1)

    def _run(self, wake_fd: int) -> None:
        started: dict[MemberNumber, float] = {}
        with Round[MemberNumber](self._stock, self._clock, wake_fd=wake_fd) as asking:
            while (until := self._turn(asking, started)) is not False:
                events = asking.wait(until)
                self._drain(wake_fd)
                with self._lock:
                    for event in events:
                        self._note(event, started)
        with self._lock:
            self._wake_fd = None
        os.close(wake_fd)

    def _turn(self, asking: Round[MemberNumber], started: dict[MemberNumber, float]) -> float | bool | None:
        """Start what is due and give up what is overdue; until when to wait, or False to end."""
        with self._lock:
            now = self._clock()
            if self._closing:
                return False
            for number in [number for number, at in started.items() if now >= at + PROBE_S]:
                del started[number]
                self._silent(number, asking.abandon(number))
            new = [*self._asked, *self._board.due(now)]
            self._asked.clear()
            fresh = [number for number in dict.fromkeys(new) if number not in started and number in self._board]
            for number in fresh:
                self._board[number].probe_started()
                started[number] = now
        for number in fresh:
            asking.ask(number, number, [command("PING")], Replies(), fresh=True)
        with self._lock:
            ends = [at + PROBE_S for at in started.values()]
            due = self._board.next_due()
        return min([*ends, due] if due is not None else ends, default=None)

    def _note(self, event: object, started: dict[MemberNumber, float]) -> None:
        match event:
            case Done(tag=number):
                started.pop(number, None)
                if number in self._board:
                    self._board[number].probe_answered()
            case Failed(tag=number, reason=reason):
                started.pop(number, None)
                if number in self._board:
                    self._board[number].failed(self._clock(), reason)

    def _silent(self, number: MemberNumber, silence: Silence) -> None:
        """A probe was not answered in time, though the greeting may have been."""
        if number not in self._board:
            return
        if silence is Silence.UNREACHED:
            self._board[number].failed(self._clock(), f"no connection in {PROBE_S:.0f} s")
        else:
            self._board[number].silent(self._clock(), f"no answer to a probe in {PROBE_S:.0f} s")

    def _drain(self, wake_fd: int) -> None:
        try:
            os.eventfd_read(wake_fd)
        except BlockingIOError:
            return
