"""The late-binding machine on virtual time: events in, requests out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fungistor.ids import MemberNumber
from fungistor.placement.health import SILENT_S, Trust
from fungistor.placement.read_plan import (
    GIVE_UP_DEMOTED_S,
    GIVE_UP_S,
    HEDGE_TOKENS_FIRST,
    SPARE_LAYER,
    HedgeBudget,
    Outcome,
    ReadPlan,
    Source,
)

K, N = 4, 6


def source(index: int, *, expected_s: float = 0.001, late_s: float | None = None, layer: int = 0) -> Source:
    return Source(index, MemberNumber(index + 10 * layer + 1), expected_s, SILENT_S, late_s, layer)


class Budget:
    """Grants what it holds, and remembers what it was asked for."""

    def __init__(self, tokens: int = 100) -> None:
        self.tokens = tokens
        self.earned = 0
        self.taken = 0

    def earn(self, requests: int) -> None:
        self.earned += requests

    def take(self, wanted: int, *, whole: bool) -> int:
        granted = 0 if whole and wanted > self.tokens else min(wanted, self.tokens)
        self.tokens -= granted
        self.taken += granted
        return granted


def plan_of(
    sources: list[Source],
    wanted: list[int] | None = None,
    trusts: dict[int, Trust] | None = None,
    budget: Budget | None = None,
) -> ReadPlan:
    believed = {MemberNumber(number): trust for number, trust in (trusts or {}).items()}
    return ReadPlan(sources, K, wanted, believed, budget or Budget())


def outcome(plan: ReadPlan) -> Outcome:
    return plan.outcome


def indices(sources: list[Source]) -> list[int]:
    return sorted(source.index for source in sources)


def test_any_k_asks_the_data_shards_when_all_are_equally_near() -> None:
    """Parity is asked only when it is nearer by a doubling: decoding is not free."""
    plan = plan_of([source(index, expected_s=0.001 + 0.0001 * (N - index)) for index in range(N)])
    assert indices(plan.start(0.0)) == [0, 1, 2, 3]


def test_any_k_asks_the_nearest() -> None:
    """Two far data shards are left for two near parities."""
    far = {0: 0.2, 3: 0.2}
    plan = plan_of([source(index, expected_s=far.get(index, 0.01)) for index in range(N)])
    assert indices(plan.start(0.0)) == [1, 2, 4, 5]


def test_done_with_any_k() -> None:
    """The k-th arrival ends it, whichever it is."""
    sources = [source(index) for index in range(N)]
    plan = plan_of(sources)
    for asked in plan.start(0.0)[:3]:
        plan.arrived(asked, 0.002)
    assert outcome(plan) is Outcome.RUNNING
    plan.failed(sources[3], "refused", 0.003)
    plan.arrived(sources[4], 0.004)
    assert outcome(plan) is Outcome.DONE


def test_a_failure_is_replaced_at_once_and_outside_the_budget() -> None:
    """A refusal asks one spare, without a token."""
    sources = [source(index) for index in range(N)]
    budget = Budget(0)
    plan = plan_of(sources, budget=budget)
    plan.start(0.0)
    assert indices(plan.failed(sources[1], "refused", 0.001)) == [4]
    assert indices(plan.failed(sources[2], "refused", 0.001)) == [5]
    assert plan.failed(sources[3], "refused", 0.001) == []
    assert outcome(plan) is Outcome.RUNNING
    assert budget.taken == 0


def test_silence_is_replaced_at_the_deadline_outside_the_budget_and_may_still_end() -> None:
    """At 50 ms a silent one is replaced; if it answers after all, that counts."""
    sources = [source(index) for index in range(N)]
    budget = Budget(0)
    plan = plan_of(sources, budget=budget)
    plan.start(0.0)
    for index in (0, 1, 2):
        plan.arrived(sources[index], 0.002)
    assert plan.next_deadline() == pytest.approx(SILENT_S)
    assert plan.tick(SILENT_S - 0.001) == []
    assert indices(plan.tick(SILENT_S)) == [4]
    assert [late.index for late in plan.silent()] == [3]
    plan.arrived(sources[3], SILENT_S + 0.001)
    assert outcome(plan) is Outcome.DONE
    assert plan.silent() == []


def test_lateness_asks_missing_plus_one_spares_once() -> None:
    """When all that is out is past its p98, missing + 1 spares are asked, and not again for the same lateness."""
    sources = [source(index, late_s=0.010 if index < 3 else 0.020) for index in range(N)]
    budget = Budget()
    plan = plan_of(sources, budget=budget)
    plan.start(0.0)
    plan.arrived(sources[0], 0.003)
    plan.arrived(sources[1], 0.003)
    plan.arrived(sources[2], 0.003)
    assert plan.next_deadline() == pytest.approx(0.020)
    assert plan.tick(0.015) == []
    assert indices(plan.tick(0.020)) == [4, 5]
    assert budget.taken == 2
    assert plan.tick(0.025) == []


def test_a_hedge_waits_for_the_slowest_of_those_out() -> None:
    """A near member's lateness does not hedge for a far one that is still in its time."""
    sources = [source(index, late_s=0.010 if index < 3 else 0.040) for index in range(N)]
    plan = plan_of(sources)
    plan.start(0.0)
    plan.arrived(sources[0], 0.003)
    assert plan.next_deadline() == pytest.approx(0.040)
    assert plan.tick(0.020) == []


def test_without_budget_or_history_nothing_is_hedged() -> None:
    """No token, or no p98: only silence asks more."""
    for late_s, budget in ((0.010, Budget(0)), (None, Budget())):
        sources = [source(index, late_s=late_s) for index in range(N)]
        plan = plan_of(sources, budget=budget)
        plan.start(0.0)
        assert plan.tick(0.030) == []


def test_the_budget_is_five_percent() -> None:
    """Twenty requests earn one hedge; all-or-nothing takes nothing when it is short."""
    budget = HedgeBudget()
    assert budget.take(100, whole=False) == HEDGE_TOKENS_FIRST
    assert budget.take(1, whole=False) == 0
    budget.earn(39)
    assert budget.take(2, whole=True) == 0
    assert budget.take(2, whole=False) == 1
    budget.earn(1 << 20)
    assert budget.take(1 << 20, whole=False) == 40


def test_wanted_shards_alone_are_asked() -> None:
    """One needed data shard is one request."""
    sources = [source(index) for index in range(N)]
    plan = plan_of(sources, [2])
    assert indices(plan.start(0.0)) == [2]
    plan.arrived(sources[2], 0.001)
    assert outcome(plan) is Outcome.DONE


@pytest.mark.parametrize("how", ["failed", "silent"])
def test_a_wanted_shard_that_cannot_be_had_is_decoded_from_k_others(how: str) -> None:
    """Refused or silent: k other shards are asked at once."""
    sources = [source(index) for index in range(N)]
    plan = plan_of(sources, [2], budget=Budget(0))
    plan.start(0.0)
    asked = plan.failed(sources[2], "refused", 0.001) if how == "failed" else plan.tick(SILENT_S)
    assert indices(asked) == [0, 1, 3, 4]
    for other in asked:
        plan.arrived(other, 0.06)
    assert outcome(plan) is Outcome.DONE


def test_a_wanted_shard_on_a_demoted_member_is_not_waited_for() -> None:
    """When the holder is known to be away, k others are asked from the start."""
    sources = [source(index) for index in range(N)]
    plan = plan_of(sources, [2], {3: Trust.DEMOTED})
    assert indices(plan.start(0.0)) == [0, 1, 3, 4]


def test_hedging_one_wanted_shard_takes_a_whole_stripe_of_tokens_or_none() -> None:
    """k + 1 requests for one late shard are made only if the budget has them all."""
    for tokens, expected in ((K, []), (K + 1, [0, 1, 3, 4, 5])):
        sources = [source(index, late_s=0.010) for index in range(N)]
        plan = plan_of(sources, [2], budget=Budget(tokens))
        plan.start(0.0)
        assert indices(plan.tick(0.010)) == expected


def test_demoted_members_are_the_last_resort() -> None:
    """They are asked only when without them there are fewer than k, and not waited for long."""
    sources = [source(index) for index in range(N)]
    trusts = {1: Trust.DEMOTED, 2: Trust.DEMOTED, 3: Trust.DEMOTED}
    plan = plan_of(sources, trusts=trusts)
    assert indices(plan.start(0.0)) == [0, 3, 4, 5]
    for index in (3, 4, 5):
        plan.arrived(sources[index], 0.001)
    assert indices(plan.tick(SILENT_S)) == [1]
    assert indices(plan.tick(2 * SILENT_S)) == [2]
    plan.tick(2 * SILENT_S + GIVE_UP_DEMOTED_S)
    plan.tick(4 * SILENT_S + GIVE_UP_DEMOTED_S)
    assert outcome(plan) is Outcome.EXHAUSTED
    assert {failed.index for failed in plan.failures()} == {0, 1, 2}


def test_doubtful_members_come_after_good_ones() -> None:
    """A replacement is sought among those that answered a probe before those that have not yet."""
    sources = [source(index) for index in range(N)]
    plan = plan_of(sources, [0])
    plan.start(0.0)
    plan.trust({MemberNumber(2): Trust.DOUBTFUL})
    assert indices(plan.tick(SILENT_S)) == [2, 3, 4, 5]


def test_silence_without_spares_is_waited_for_and_then_told() -> None:
    """With nobody else to ask the silent ones have GIVE_UP_S, extended while bytes come."""
    sources = [source(index) for index in range(K)]
    plan = plan_of(sources)
    plan.start(0.0)
    for index in (0, 1, 2):
        plan.arrived(sources[index], 0.001)
    plan.tick(SILENT_S)
    assert outcome(plan) is Outcome.RUNNING
    plan.heard(sources[3], 1.0)
    assert plan.next_deadline() == pytest.approx(1.0 + GIVE_UP_S)
    plan.tick(GIVE_UP_S + 0.5)
    assert outcome(plan) is Outcome.RUNNING
    plan.tick(1.0 + GIVE_UP_S)
    assert outcome(plan) is Outcome.EXHAUSTED
    assert plan.next_deadline() is None


def test_older_layouts_and_spares_are_asked_when_the_newest_layout_has_too_few() -> None:
    """Missing in the newest layout, found in the layout before; spares come last."""
    newest = [source(index) for index in range(K)]
    older = [source(0, layer=1), replace(source(1, layer=1), layer=SPARE_LAYER)]
    plan = plan_of(newest + older)
    plan.start(0.0)
    assert plan.failed(newest[0], "does not have it", 0.001) == [older[0]]
    assert plan.failed(newest[1], "does not have it", 0.001) == [older[1]]
    assert plan.failed(newest[2], "does not have it", 0.001) == []


def test_nothing_to_ask_is_exhausted_at_once() -> None:
    """Fewer places than k and none that answers: no waiting."""
    plan = plan_of([])
    assert plan.start(0.0) == []
    assert outcome(plan) is Outcome.EXHAUSTED
    assert plan.next_deadline() is None
