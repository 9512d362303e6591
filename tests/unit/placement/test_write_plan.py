"""When a write has settled, on virtual time."""

from __future__ import annotations

import pytest

from fungistor.ids import MemberNumber
from fungistor.placement.health import LATE_WRITE_S
from fungistor.placement.write_plan import (
    FLUSH_GIVE_UP_S,
    FLUSH_LATE_S,
    GIVE_UP_S,
    HOPELESS_S,
    FlushPlan,
    Settled,
    Target,
    WritePlan,
)

N, NEED = 6, 4


def plan_of(**known_bad: str) -> WritePlan:
    bad = {int(name[1:]): reason for name, reason in known_bad.items()}
    targets = [Target(index, MemberNumber(index + 1), LATE_WRITE_S, bad.get(index, "")) for index in range(N)]
    return WritePlan(targets, NEED)


def store(plan: WritePlan, now: float, *indices: int) -> None:
    for index in indices:
        plan.stored(index, now)


def test_all_that_answer_are_waited_for() -> None:
    """k + 2 are stored, but the others are not late yet."""
    plan = plan_of()
    assert plan.start(0.0) == [0, 1, 2, 3, 4, 5]
    store(plan, 0.01, 0, 1, 2, 3, 4)
    assert plan.outcome(0.02) is Settled.RUNNING
    store(plan, 0.03, 5)
    assert plan.outcome(0.03) is Settled.ENOUGH
    assert plan.owed() == {}


def test_it_settles_without_the_late() -> None:
    """At the late deadline k + 2 are enough, and the late ones owe."""
    plan = plan_of()
    plan.start(0.0)
    store(plan, 0.01, 0, 1, 2, 3)
    assert plan.next_deadline() == pytest.approx(LATE_WRITE_S)
    assert plan.outcome(LATE_WRITE_S - 0.001) is Settled.RUNNING
    assert plan.outcome(LATE_WRITE_S) is Settled.ENOUGH
    assert plan.owed() == {4: "no answer in time", 5: "no answer in time"}


def test_a_slow_uplink_makes_nobody_late() -> None:
    """When k + 2 took 3 s, the others have until 6 s."""
    plan = plan_of()
    plan.start(0.0)
    store(plan, 3.0, 0, 1, 2, 3)
    assert plan.outcome(5.9) is Settled.RUNNING
    assert plan.outcome(6.0) is Settled.ENOUGH


def test_those_known_to_be_away_are_not_tried() -> None:
    """Two demoted members cost nothing and owe from the start."""
    plan = plan_of(_1="paused: no answer", _4="down: refused")
    assert plan.start(0.0) == [0, 2, 3, 5]
    store(plan, 0.01, 0, 2, 3, 5)
    assert plan.outcome(0.01) is Settled.ENOUGH
    assert plan.owed() == {1: "paused: no answer", 4: "down: refused"}


def test_those_known_to_be_away_are_tried_when_they_are_needed() -> None:
    """A failure that leaves too few makes the demoted the last hope."""
    plan = plan_of(_1="paused: no answer", _4="down: refused")
    plan.start(0.0)
    assert plan.failed(0, "cannot connect", 0.01) == [1, 4]
    store(plan, 0.02, 2, 3, 5)
    assert plan.outcome(0.02) is Settled.RUNNING
    store(plan, 0.03, 4)
    assert plan.outcome(0.03) is Settled.ENOUGH
    assert plan.owed() == {0: "cannot connect", 1: "paused: no answer"}


def test_too_few_is_told_as_soon_as_it_is_certain() -> None:
    """Three refusals of six leave three: no waiting."""
    plan = plan_of()
    plan.start(0.0)
    for index in (0, 1, 2):
        plan.failed(index, "cannot connect", 0.01)
    assert plan.outcome(0.01) is Settled.TOO_FEW
    assert not plan.gave_up(0.01)
    assert plan.pending() == [3, 4, 5]


@pytest.mark.parametrize(("doubted", "give_up_s"), [(False, GIVE_UP_S), (True, HOPELESS_S)])
def test_too_few_is_told_at_last(doubted: bool, give_up_s: float) -> None:
    """Those that are silent are waited for, less long when a probe did not reach them either."""
    plan = plan_of()
    plan.start(0.0)
    store(plan, 0.01, 0, 1, 2)
    if doubted:
        for index in (3, 4, 5):
            plan.doubted(index, "paused: no answer to a probe")
    assert plan.next_deadline() == pytest.approx(give_up_s)
    assert plan.outcome(give_up_s - 0.01) is Settled.RUNNING
    assert plan.outcome(give_up_s) is Settled.TOO_FEW


def test_the_doubted_are_late_at_once() -> None:
    """With k + 2 stored nobody waits for a member that a probe found silent."""
    plan = plan_of()
    plan.start(0.0)
    store(plan, 0.01, 0, 1, 2, 3, 4)
    plan.doubted(5, "paused: no answer to a probe")
    assert plan.outcome(1.05) is Settled.ENOUGH
    assert plan.owed() == {5: "paused: no answer to a probe"}


def flush_of(count: int, **known_bad: str) -> FlushPlan:
    bad = {int(name[1:]): reason for name, reason in known_bad.items()}
    return FlushPlan({MemberNumber(number): bad.get(number, "") for number in range(count)}, 0.0)


def test_a_barrier_ends_with_the_last_flush() -> None:
    """All flush: nobody failed."""
    plan = flush_of(4)
    for number in range(4):
        assert not plan.done(0.1)
        plan.flushed(MemberNumber(number), 0.1 * (number + 1))
    assert plan.done(0.4)
    assert plan.failures == {}


def test_a_straggler_is_left_behind_by_what_the_others_took() -> None:
    """Fifteen of twenty flush in 2 s: the others have until 6 s. In 0.1 s: until FLUSH_LATE_S."""
    for took, late in ((2.0, 6.0), (0.1, FLUSH_LATE_S)):
        plan = flush_of(20)
        for number in range(15):
            plan.flushed(MemberNumber(number), took)
        assert plan.next_deadline() == pytest.approx(late)
        assert not plan.done(late - 0.01)
        assert plan.done(late)
        assert set(plan.failures) == {15, 16, 17, 18, 19}


def test_the_known_bad_do_not_hold_up_a_barrier() -> None:
    """A member demoted before the barrier gets a moment after the others."""
    plan = flush_of(20, _3="paused: no answer")
    for number in (*range(3), *range(4, 20)):
        plan.flushed(MemberNumber(number), 0.2)
    assert plan.next_deadline() == pytest.approx(0.4)
    assert plan.done(0.4)
    assert plan.failures == {3: "paused: no answer"}


def test_a_barrier_that_nobody_passes_ends() -> None:
    """With all disks stuck it gives up."""
    plan = flush_of(3)
    assert not plan.done(FLUSH_GIVE_UP_S - 0.1)
    assert plan.done(FLUSH_GIVE_UP_S)
    assert len(plan.failures) == 3


def test_an_empty_barrier_is_done() -> None:
    """Nothing was stored: nothing to flush."""
    assert flush_of(0).done(0.0)
