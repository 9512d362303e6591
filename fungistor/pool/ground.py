"""What every operation of a pool stands on: connections, beliefs under one lock, places, the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from fungistor.ids import MemberNumber
from fungistor.placement.health import Board, Health, Trust, Work
from fungistor.placement.read_plan import HedgeBudget
from fungistor.placement.topology import round_trip_guess_s
from fungistor.pool.members import MemberSpec
from fungistor.pool.places import Places, Tables
from fungistor.pool.prober import Prober
from fungistor.pool.round import Silence
from fungistor.pool.stock import Stock

TROUBLE_S = 0.010
"""An operation that takes longer than this wants to know about the members nobody has asked yet."""


class Ground:
    """Thread-safe."""

    def __init__(
        self,
        members: Sequence[MemberSpec],
        layouts: Tables,
        left: Tables,
        here: tuple[float, float] | None,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.stock = Stock(members)
        self.board = Board(_guesses(members, here))
        self.places = Places(layouts, left)
        self.prober = Prober(self.stock, self.board, self.lock, clock)
        self.budget = _SharedBudget()
        self.originals: dict[MemberNumber, bool] = {}
        """Of members marked durable, whether they are an original 0-db, as far as they were asked."""
        self._here = here
        self._no_ranges: dict[MemberNumber, float] = {}

    def replace(self, members: Sequence[MemberSpec], layouts: Tables, left: Tables) -> None:
        """The catalog moved on."""
        with self.lock:
            self.board.keep(_guesses(members, self._here))
            self.places = Places(layouts, left)
            self._no_ranges.clear()
            self.originals.clear()
        self.stock.replace(members)

    def name(self, number: MemberNumber) -> str:
        """A member's id for people."""
        spec = self.stock.specs().get(number)
        return spec.id if spec is not None else f"member {number}"

    def trusts(self, numbers: Collection[MemberNumber]) -> dict[MemberNumber, Trust]:
        with self.lock:
            return {number: self.board[number].trust for number in numbers if number in self.board}

    def knows_no_ranges(self, number: MemberNumber, now: float) -> bool:
        """Whether it said lately that it does not know GETRANGE, as an original 0-db. The caller holds the lock."""
        return now < self._no_ranges.get(number, now)

    def has_no_ranges(self, number: MemberNumber, seconds: float) -> None:
        """It does not know GETRANGE: read whole shards from it for so long."""
        with self.lock:
            self._no_ranges[number] = self.clock() + seconds

    def known_bad(self, number: MemberNumber) -> str:
        """Why it is not counted on, "" when it is. The caller holds the lock."""
        health = self.board[number]
        return f"{health.state.value}: {health.reason}" if health.trust is Trust.DEMOTED else ""

    def answered(self, number: MemberNumber, work: Work, seconds: float) -> None:
        now = self.clock()
        self._note(number, lambda health: health.answered(work, seconds, now))

    def abandoned(self, number: MemberNumber, work: Work, seconds: float) -> None:
        now = self.clock()
        self._note(number, lambda health: health.abandoned(work, seconds, now))

    def silent(self, number: MemberNumber, seconds: float, silence: Silence) -> None:
        """A request was given up after so long; who said something meanwhile is not to blame."""
        now, waited = self.clock(), f"{seconds * 1000:.0f} ms"
        if silence is Silence.SILENT:
            self._note(number, lambda health: health.silent(now, f"no answer in {waited}"))
        elif silence is Silence.UNREACHED:
            self._note(number, lambda health: health.failed(now, f"no connection in {waited}"))

    def failed(self, number: MemberNumber, reason: str) -> None:
        now = self.clock()
        self._note(number, lambda health: health.failed(now, reason))

    def in_trouble(self, busy: Collection[MemberNumber]) -> None:
        """Something takes long: find out about the members of whom nothing is known, except those being asked."""
        with self.lock:
            unknown = [number for number in self.board.unknown(self.board.numbers()) if number not in busy]
        if unknown:
            self.prober.ask(unknown)

    def _note(self, number: MemberNumber, evidence: Callable[[Health], None]) -> None:
        with self.lock:
            if number in self.board:
                evidence(self.board[number])
                if self.board[number].trust is Trust.DEMOTED:
                    self.prober.nudge()


class _SharedBudget(HedgeBudget):
    """The pool's one budget, spent by all threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def earn(self, requests: int) -> None:
        with self._lock:
            super().earn(requests)

    def take(self, wanted: int, *, whole: bool) -> int:
        with self._lock:
            return super().take(wanted, whole=whole)


def _guesses(members: Sequence[MemberSpec], here: tuple[float, float] | None) -> dict[MemberNumber, float]:
    return {member.number: round_trip_guess_s(here, member.place) for member in members}
