"""What is believed of a member, from evidence alone: how fast it answers, whether to count on it, when to ask again.

Pure: every event carries `now`, seconds on a monotonic clock. One `Health` a member, a `Board` of them a pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from fungistor.ids import MemberNumber

SILENT_S = 0.050
"""A member without history that says nothing for this long is replaced (design: hedging)."""

SILENT_S_MAX = 2.0
SAMPLES = 64
SAMPLES_FOR_TAIL = 8
"""Below this many answers a p98 means nothing, so nothing is hedged for slowness."""

LATE_WRITE_S = 2.0
LATE_WRITE_S_MIN = 0.5
"""A floor under 3 x p99: a disk that syncs once in a while is not a debtor."""

LATE_WRITE_S_MAX = 10.0
RETRY_S_FIRST = 1.0
RETRY_S_MAX = 30.0
STALE_S = 60.0
"""What was measured longer ago is forgotten for the order of asking: a member that was slow once is tried again."""

SLOW_FACTOR = 5.0
SLOW_S_MIN = 0.020


class MemberState(StrEnum):
    """The words of `status`."""

    UP = "up"
    SLOW = "slow"
    PAUSED = "paused"
    DOWN = "down"


class Work(Enum):
    """Kinds of request whose latencies are not comparable."""

    SMALL_READ = "small read"
    LARGE_READ = "large read"
    WRITE = "write"


LARGE_READ_BYTES = 32 * 1024


def read_work(value_bytes: int) -> Work:
    """The kind of a read of that many bytes."""
    return Work.LARGE_READ if value_bytes >= LARGE_READ_BYTES else Work.SMALL_READ


class Trust(IntEnum):
    """How much a plan may count on a member; lower is better."""

    GOOD = 0
    DOUBTFUL = 1
    """A probe is out and not answered yet."""
    DEMOTED = 2


@dataclass(slots=True)
class Latencies:
    """A ring of the last answers, with its percentiles."""

    _ring: list[float] = field(default_factory=list)
    _next: int = 0
    _sorted: list[float] = field(default_factory=list)
    _last_at: float = 0.0

    def add(self, seconds: float, now: float) -> None:
        if self.stale(now):
            self._ring.clear()
            self._next = 0
        self._last_at = now
        if len(self._ring) < SAMPLES:
            self._ring.append(seconds)
        else:
            self._ring[self._next] = seconds
            self._next = (self._next + 1) % SAMPLES
        self._sorted = []

    def stale(self, now: float) -> bool:
        """Whether there is nothing recent."""
        return not self._ring or now > self._last_at + STALE_S

    def __len__(self) -> int:
        return len(self._ring)

    def at(self, percent: int) -> float:
        """The percentile, by the nearest-rank rule. Call only when there is a sample."""
        if not self._sorted:
            self._sorted = sorted(self._ring)
        return self._sorted[max(0, -(-len(self._sorted) * percent // 100) - 1)]


class Health:
    """One member's record."""

    def __init__(self, guess_s: float = 0.0) -> None:
        self._guess_s = guess_s
        self._latencies = {work: Latencies() for work in Work}
        self.state = MemberState.UP
        self.reason = ""
        self.seen = False
        self._strikes = 0
        self._retry_at = 0.0
        self._probing = False

    # evidence

    def answered(self, work: Work, seconds: float, now: float) -> None:
        """A whole, plausible answer to a real request."""
        self._latencies[work].add(seconds, now)
        self._strikes = 0
        self._up()

    def probe_answered(self) -> None:
        """A probe came back. The strikes stay until real work succeeds, so a member that flaps is asked ever less."""
        self._up()

    def probe_started(self) -> None:
        self._probing = True

    def abandoned(self, work: Work, seconds: float, now: float) -> None:
        """Nothing is wrong with it, but it had not answered after `seconds`: its latency is at least that."""
        self._latencies[work].add(seconds, now)

    def silent(self, now: float, reason: str) -> None:
        """It accepts and does not answer."""
        self._demote(MemberState.PAUSED, now, reason)

    def failed(self, now: float, reason: str) -> None:
        """It refuses, breaks off, or is not who it should be."""
        self._demote(MemberState.DOWN, now, reason)

    def hinted(self, now: float, state: MemberState, reason: str) -> None:
        """Somebody else demoted it. It is probed at once, and not counted on until it answers."""
        if state in (MemberState.PAUSED, MemberState.DOWN) and not self.seen:
            self._demote(state, now, reason)
            self._strikes = 0
            self._retry_at = now

    def _up(self) -> None:
        self.state, self.reason = MemberState.UP, ""
        self.seen = True
        self._probing = False

    def _demote(self, state: MemberState, now: float, reason: str) -> None:
        self.state, self.reason = state, reason
        self._probing = False
        self._retry_at = now + min(RETRY_S_FIRST * 2**self._strikes, RETRY_S_MAX)
        self._strikes = min(self._strikes + 1, 16)

    # beliefs

    @property
    def trust(self) -> Trust:
        if self.state in (MemberState.PAUSED, MemberState.DOWN):
            return Trust.DEMOTED
        return Trust.DOUBTFUL if self._probing and not self.seen else Trust.GOOD

    @property
    def retry_at(self) -> float | None:
        """When to probe it next; None while it is trusted or a probe is out."""
        return self._retry_at if self.trust is Trust.DEMOTED and not self._probing else None

    def expected_s(self, work: Work, now: float) -> float:
        """Nearness: p90 of this kind of work lately, of another kind, or the geographic guess."""
        for kind in (work, *Work):
            if not self._latencies[kind].stale(now):
                return self._latencies[kind].at(90)
        return self._guess_s

    def tail_s(self, work: Work, percent: int) -> float | None:
        """A tail percentile, None without enough history."""
        latencies = self._latencies[work]
        return latencies.at(percent) if len(latencies) >= SAMPLES_FOR_TAIL else None

    def silent_after_s(self, work: Work) -> float:
        """After how long without an answer it is replaced, whatever the budget."""
        tail = self.tail_s(work, 98)
        if tail is None:
            return SILENT_S + 2 * self._guess_s
        return min(max(SILENT_S, 4 * tail), SILENT_S_MAX)

    def late_write_s(self) -> float:
        """After how long a write that enough others hold is no longer waited for."""
        tail = self.tail_s(Work.WRITE, 99)
        return LATE_WRITE_S if tail is None else min(max(LATE_WRITE_S_MIN, 3 * tail), LATE_WRITE_S_MAX)


@dataclass(frozen=True, slots=True)
class Standing:
    """One member's line in `status`."""

    state: MemberState
    reason: str
    latency_s_p90: float | None


class Board:
    """The health of a pool."""

    def __init__(self, guesses_s: Mapping[MemberNumber, float]) -> None:
        self._members = {number: Health(guess) for number, guess in guesses_s.items()}

    def __getitem__(self, number: MemberNumber) -> Health:
        return self._members[number]

    def __contains__(self, number: object) -> bool:
        return number in self._members

    def numbers(self) -> list[MemberNumber]:
        return sorted(self._members)

    def keep(self, guesses_s: Mapping[MemberNumber, float]) -> None:
        """Know these members and no others; those known already keep their history."""
        self._members = {number: self._members.get(number) or Health(guess) for number, guess in guesses_s.items()}

    def up(self) -> list[MemberNumber]:
        return [number for number in self.numbers() if self._members[number].trust is not Trust.DEMOTED]

    def unknown(self, among: Iterable[MemberNumber]) -> list[MemberNumber]:
        """Members of whom nothing is known and nobody is asking."""
        return [number for number in among if (health := self._members[number]).trust is Trust.GOOD and not health.seen]

    def due(self, now: float) -> list[MemberNumber]:
        """Demoted members whose time to be probed has come."""
        return [number for number in self.numbers() if (at := self._members[number].retry_at) is not None and at <= now]

    def next_due(self) -> float | None:
        times = [at for health in self._members.values() if (at := health.retry_at) is not None]
        return min(times, default=None)

    def standings(self, now: float) -> dict[MemberNumber, Standing]:
        """States for people; `slow` is a member whose p90 is many times that of its peers."""
        usual = _median([_p90(health, now) for health in self._members.values()])
        return {number: _standing(self._members[number], usual, now) for number in self.numbers()}


def _p90(health: Health, now: float) -> float | None:
    expected = health.expected_s(Work.SMALL_READ, now)
    return expected if health.seen and expected else None


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def _standing(health: Health, usual: float | None, now: float) -> Standing:
    p90 = _p90(health, now)
    if health.state is MemberState.UP and p90 is not None and usual is not None:
        limit = max(SLOW_S_MIN, SLOW_FACTOR * usual)
        if p90 > limit:
            reason = f"p90 {p90 * 1000:.0f} ms, its peers {usual * 1000:.0f} ms"
            return Standing(MemberState.SLOW, reason, p90)
    return Standing(health.state, health.reason, p90)
