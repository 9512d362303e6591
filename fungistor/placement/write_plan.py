"""When a write has settled: wait for all that answer, leave behind those that do not. Two pure machines.

`WritePlan` decides for the shards of one stripe, `FlushPlan` for the flush barrier over the members of a publish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from fungistor.ids import MemberNumber

GIVE_UP_S = 10.0
"""Without enough copies a publisher waits this long, then says which members failed it."""

HOPELESS_S = 3.0
"""The same when all that have not answered are doubted: a probe did not reach them either."""

LATE_FACTOR = 2.0
"""A member is late only if it takes this many times what the others took: a slow uplink makes nobody late."""

FLUSH_LATE_S = 2.0
FLUSH_LATE_FACTOR = 3.0
FLUSH_GIVE_UP_S = 15.0
"""A disk may sync for seconds after a big publish; a command still ends within 20 s."""


@dataclass(frozen=True, slots=True)
class Target:
    """One shard's member. `known_bad` says why it is not even tried unless it must be; "" when it is trusted."""

    index: int
    member: MemberNumber
    late_s: float
    known_bad: str = ""


class Settled(Enum):
    """How a write stands."""

    RUNNING = "running"
    ENOUGH = "enough"
    TOO_FEW = "too few"


@dataclass(slots=True)
class _Put:
    target: Target
    asked_at: float | None = None
    stored: bool = False
    doubt: str = ""
    reason: str = ""


class WritePlan:
    """The shards of one stripe on their way to `targets`; `need` of them must be stored."""

    def __init__(self, targets: Sequence[Target], need: int) -> None:
        self._puts = {target.index: _Put(target, doubt=target.known_bad) for target in targets}
        self._need = need
        self._enough_at: float | None = None
        self._started_at = 0.0

    def start(self, now: float) -> list[int]:
        """The shards to send."""
        self._started_at = now
        trusted = [put for put in self._puts.values() if not put.target.known_bad]
        return self._ask(trusted, now) + self._last_resort(now)

    def stored(self, index: int, now: float) -> list[int]:
        self._puts[index].stored = True
        if self._enough_at is None and len(self.stored_indices) >= self._need:
            self._enough_at = now
        return []

    def failed(self, index: int, reason: str, now: float) -> list[int]:
        """This shard's member will not store it now. Gives members passed over at first, if they are needed."""
        self._puts[index].reason = reason
        return self._last_resort(now)

    def doubted(self, index: int, reason: str) -> None:
        """This shard's member does not answer a probe either: it is late at once, though it may still answer."""
        self._puts[index].doubt = reason

    @property
    def stored_indices(self) -> frozenset[int]:
        return frozenset(index for index, put in self._puts.items() if put.stored)

    def pending(self) -> list[int]:
        """Shards that were sent and neither stored nor refused."""
        return [index for index, put in self._puts.items() if _is_out(put)]

    def outcome(self, now: float) -> Settled:
        out = [put for put in self._puts.values() if _is_out(put)]
        if self._enough_at is not None:
            return Settled.ENOUGH if all(now >= self._late_at(put) for put in out) else Settled.RUNNING
        if len(self.stored_indices) + len(out) < self._need or self.gave_up(now):
            return Settled.TOO_FEW
        return Settled.RUNNING

    def gave_up(self, now: float) -> bool:
        """Whether all the time there is has passed."""
        return now >= self._give_up_at()

    def next_deadline(self) -> float:
        """When `outcome` may change without an event."""
        if self._enough_at is None:
            return self._give_up_at()
        return max((self._late_at(put) for put in self._puts.values() if _is_out(put)), default=self._enough_at)

    def owed(self) -> dict[int, str]:
        """Shards not stored, each with its reason."""
        return {
            index: put.reason or put.doubt or "no answer in time" for index, put in self._puts.items() if not put.stored
        }

    def _give_up_at(self) -> float:
        doubted = all(put.doubt for put in self._puts.values() if _is_out(put))
        return self._started_at + (HOPELESS_S if doubted else GIVE_UP_S)

    def _late_at(self, put: _Put) -> float:
        assert put.asked_at is not None
        assert self._enough_at is not None
        if put.doubt:
            return self._enough_at
        took = self._enough_at - self._started_at
        return put.asked_at + max(put.target.late_s, LATE_FACTOR * took)

    def _last_resort(self, now: float) -> list[int]:
        """Members passed over at first, when without them there are too few."""
        hopeful = sum(1 for put in self._puts.values() if put.stored or _is_out(put))
        if hopeful >= self._need:
            return []
        return self._ask([put for put in self._puts.values() if put.asked_at is None], now)

    def _ask(self, puts: Sequence[_Put], now: float) -> list[int]:
        for put in puts:
            put.asked_at = now
        return [put.target.index for put in puts]


def _is_out(put: _Put) -> bool:
    return put.asked_at is not None and not put.stored and not put.reason


class FlushPlan:
    """Members flushing at once. Nobody is late by the clock alone, only by what the others took: after three quarters
    have flushed, the rest get as long again, or a moment if they were known to be bad before."""

    def __init__(self, known_bad: Mapping[MemberNumber, str], now: float) -> None:
        self._known_bad = dict(known_bad)
        self._waiting = set(self._known_bad)
        self._started_at = now
        self._most_at: float | None = None
        self.failures: dict[MemberNumber, str] = {}

    def flushed(self, member: MemberNumber, now: float) -> None:
        self._waiting.discard(member)
        self._note(now)

    def failed(self, member: MemberNumber, reason: str, now: float) -> None:
        self._waiting.discard(member)
        self.failures[member] = reason
        self._note(now)

    def done(self, now: float) -> bool:
        """Whether to go on; those not heard of by then have failed."""
        if self._waiting and now < self.next_deadline():
            return False
        for member in self._waiting:
            self.failures[member] = self._known_bad[member] or f"no flush within {now - self._started_at:.1f} s"
        self._waiting = set()
        return True

    def next_deadline(self) -> float:
        give_up = self._started_at + FLUSH_GIVE_UP_S
        if self._most_at is None:
            return give_up
        took = self._most_at - self._started_at
        if all(self._known_bad[member] for member in self._waiting):
            return min(give_up, self._most_at + max(0.05, took))
        return min(give_up, self._started_at + max(FLUSH_LATE_S, FLUSH_LATE_FACTOR * took))

    def _note(self, now: float) -> None:
        if self._most_at is None and 4 * len(self._waiting) <= len(self._known_bad):
            self._most_at = now
