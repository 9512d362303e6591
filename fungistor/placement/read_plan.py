"""Whom to ask for a stripe's shards, whom to ask next, and when enough is enough: late binding as a pure machine.

Events go in with `now`; what comes out are the sources to ask. Two clocks run for each request. At its member's p98 it
is *late*: when all that is still out is late, missing + 1 spares are asked, if the hedge budget allows. At its silence
deadline it is *silent*: it is replaced at once, outside the budget, and its member is demoted by the caller unless it
answers after all. A late answer always counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from fungistor.ids import MemberNumber
from fungistor.placement.health import Trust

HEDGE_SHARE = 0.05
"""Spares asked for slowness, as a share of all requests: 1.037 x was measured to buy p99 536 -> 84 ms."""

HEDGE_TOKENS_MAX = 40.0
HEDGE_TOKENS_FIRST = 8.0
GIVE_UP_S = 5.0
"""A request with no byte for so long has failed. Only reached when no spare is left."""

GIVE_UP_DEMOTED_S = 1.0
"""The same for a member that is demoted: it was asked as a last resort, or a probe did not reach it either."""

SPARE_LAYER = 100
"""Places where a shard may lie only because its own member was away: looked at when all else has failed."""

NEAR_S = 0.010
"""Members whose latencies differ by less than a doubling above this are equally near: then data shards go first,
as they need no decoding. On one machine a busy moment makes latencies of some milliseconds, and with 4 ms here most
stripes of a healthy pool were decoded for nothing."""


class Budget(Protocol):
    """Spends hedges out of a share of the ordinary requests."""

    def earn(self, requests: int) -> None: ...

    def take(self, wanted: int, *, whole: bool) -> int:
        """Grant up to `wanted` hedges, or all or none of them when `whole`."""


class HedgeBudget:
    """A token bucket: each request earns HEDGE_SHARE of a hedge."""

    def __init__(self) -> None:
        self._tokens = HEDGE_TOKENS_FIRST

    def earn(self, requests: int) -> None:
        self._tokens = min(HEDGE_TOKENS_MAX, self._tokens + requests * HEDGE_SHARE)

    def take(self, wanted: int, *, whole: bool) -> int:
        granted = min(wanted, int(self._tokens))
        if whole and granted < wanted:
            return 0
        self._tokens -= granted
        return granted


@dataclass(frozen=True, slots=True)
class Source:
    """One place where one shard may be. Times in seconds; `late_s` is None without history."""

    index: int
    member: MemberNumber
    expected_s: float
    silent_s: float
    late_s: float | None = None
    layer: int = 0
    """0 where the newest layout puts it, then older layouts, then SPARE_LAYER."""


class _Phase(Enum):
    IDLE = 0
    ASKED = 1
    SILENT = 2
    ARRIVED = 3
    FAILED = 4


@dataclass(slots=True)
class _Request:
    source: Source
    phase: _Phase = _Phase.IDLE
    asked_at: float = 0.0
    heard_at: float = 0.0
    hedged: bool = False
    reason: str = ""


class Outcome(Enum):
    """How a plan stands."""

    RUNNING = "running"
    DONE = "done"
    EXHAUSTED = "exhausted"


class ReadPlan:
    """One read of one stripe: any `k` shards, or the `wanted` data shards while that is the cheaper way."""

    def __init__(
        self,
        sources: Sequence[Source],
        k: int,
        wanted: Collection[int] | None,
        trusts: dict[MemberNumber, Trust],
        budget: Budget,
    ) -> None:
        self._requests = [_Request(source) for source in sources]
        self._k = k
        self._wanted = frozenset(wanted) if wanted is not None and len(set(wanted)) < k else None
        self._wanted_all = frozenset(wanted) if wanted is not None else frozenset(range(k))
        self._narrow = self._wanted is not None
        self._trusts = trusts
        self._budget = budget
        self.arrived_indices: set[int] = set()
        self.asked = 0
        self.ran_out_of_patience = False

    # events

    def start(self, now: float) -> list[Source]:
        chosen = self._fill(now)
        self._budget.earn(len(chosen))
        return chosen

    def arrived(self, source: Source, now: float) -> list[Source]:
        """A whole shard came."""
        request = self._find(source)
        request.phase, request.heard_at = _Phase.ARRIVED, now
        self.arrived_indices.add(source.index)
        return []

    def failed(self, source: Source, reason: str, now: float) -> list[Source]:
        """It refused, broke off, lied or does not have it."""
        request = self._find(source)
        request.phase, request.reason = _Phase.FAILED, reason
        return self._fill(now)

    def heard(self, source: Source, now: float) -> None:
        """Some bytes came: it is not dead, though its silence deadline stands."""
        self._find(source).heard_at = now

    def trust(self, trusts: dict[MemberNumber, Trust]) -> None:
        """Beliefs have changed meanwhile."""
        self._trusts = trusts

    def tick(self, now: float) -> list[Source]:
        """Time has passed."""
        silent = False
        for request in self._requests:
            if request.phase is _Phase.ASKED and now >= request.asked_at + request.source.silent_s:
                request.phase, silent = _Phase.SILENT, True
            if request.phase is _Phase.SILENT and now >= request.heard_at + self._patience_s(request):
                request.phase, request.reason = _Phase.FAILED, f"silent for {self._patience_s(request):.0f} s"
                silent = self.ran_out_of_patience = True
        chosen = self._fill(now) if silent else []
        return chosen + self._hedge(now)

    # beliefs

    @property
    def outcome(self) -> Outcome:
        if len(self.arrived_indices) >= self._k or self._wanted_all <= self.arrived_indices:
            return Outcome.DONE
        if any(request.phase in (_Phase.ASKED, _Phase.SILENT) for request in self._requests):
            return Outcome.RUNNING
        return Outcome.EXHAUSTED

    def next_deadline(self) -> float | None:
        """When `tick` has something to decide; None when nothing is out."""
        times = [
            request.asked_at + request.source.silent_s
            if request.phase is _Phase.ASKED
            else request.heard_at + self._patience_s(request)
            for request in self._requests
            if request.phase in (_Phase.ASKED, _Phase.SILENT)
        ]
        hedge = self._hedge_at()
        return min([*times, hedge] if hedge is not None else times, default=None)

    def silent(self) -> list[Source]:
        """Those past their silence deadline that have not answered yet."""
        return [request.source for request in self._requests if request.phase is _Phase.SILENT]

    def failures(self) -> dict[Source, str]:
        return {request.source: request.reason for request in self._requests if request.phase is _Phase.FAILED}

    # decisions

    def _find(self, source: Source) -> _Request:
        return next(request for request in self._requests if request.source is source)

    def _live(self) -> set[int]:
        """Shards that are here or can still be counted on."""
        return {request.source.index for request in self._requests if request.phase in (_Phase.ARRIVED, _Phase.ASKED)}

    def _fill(self, now: float) -> list[Source]:
        """Ask until what is counted on is enough."""
        if self._narrow:
            chosen = self._fill_narrow(now)
            if chosen is not None:
                return chosen
            self._narrow = False
        live = self._live()
        return self._ask(self._best(live, self._k - len(live), Trust.DEMOTED), now)

    def _fill_narrow(self, now: float) -> list[Source] | None:
        """The wanted shards themselves, or None when one of them cannot be had from anyone trusted."""
        assert self._wanted is not None
        missing = self._wanted - self._live()
        ranked = [request for request in self._ranked(missing, Trust.GOOD) if request.source.layer < SPARE_LAYER]
        best = {request.source.index: request for request in reversed(ranked)}
        return self._ask(list(best.values()), now) if len(best) == len(missing) else None

    def _best(self, excluded: Collection[int], count: int, worst: Trust) -> list[_Request]:
        """The best `count` idle requests for different shards outside `excluded`."""
        chosen: dict[int, _Request] = {}
        if count > 0:
            wanted = {request.source.index for request in self._requests} - set(excluded)
            for request in self._ranked(wanted, worst):
                chosen.setdefault(request.source.index, request)
                if len(chosen) == count:
                    break
        return list(chosen.values())

    def _ranked(self, indices: Collection[int], worst: Trust) -> list[_Request]:
        idle = [
            request
            for request in self._requests
            if request.phase is _Phase.IDLE
            and request.source.index in indices
            and self._trust_of(request.source) <= worst
        ]
        return sorted(idle, key=self._rank)

    def _rank(self, request: _Request) -> tuple[bool, int, int, int, bool, float, int]:
        source = request.source
        ring = int(source.expected_s / NEAR_S).bit_length()
        parity = source.index >= self._k
        spare = source.layer >= SPARE_LAYER
        return spare, self._trust_of(source), source.layer, ring, parity, source.expected_s, source.index

    def _patience_s(self, request: _Request) -> float:
        return GIVE_UP_DEMOTED_S if self._trust_of(request.source) is Trust.DEMOTED else GIVE_UP_S

    def _trust_of(self, source: Source) -> Trust:
        return self._trusts.get(source.member, Trust.GOOD)

    def _ask(self, requests: Iterable[_Request], now: float) -> list[Source]:
        chosen = list(requests)
        for request in chosen:
            request.phase, request.asked_at, request.heard_at = _Phase.ASKED, now, now
        self.asked += len(chosen)
        return [request.source for request in chosen]

    def _hedge_at(self) -> float | None:
        """When all that is counted on and not here is late, and no hedge was tried for it yet."""
        out = [request for request in self._requests if request.phase is _Phase.ASKED]
        if not out or all(request.hedged for request in out):
            return None
        times = [
            request.asked_at + request.source.late_s
            for request in out
            if request.source.late_s is not None and not request.hedged
        ]
        return max(times, default=None)

    def _hedge(self, now: float) -> list[Source]:
        at = self._hedge_at()
        if at is None or now < at or self.outcome is not Outcome.RUNNING:
            return []
        late = [request for request in self._requests if request.phase is _Phase.ASKED]
        for request in late:
            request.hedged = True
        missing = self._k - len(self.arrived_indices)
        spares = self._best(self._live(), missing + 1, Trust.GOOD)
        if self._narrow and len(spares) < missing:
            return []
        granted = self._budget.take(len(spares), whole=self._narrow)
        if granted and self._narrow:
            self._narrow = False
        return self._ask(spares[:granted], now)
