"""Background work on virtual time: hours pass in milliseconds, on trio's own test clock."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from fungistor.errors import UnavailableError
from fungistor.node.workers import BACKOFF_S_MAX, Worker, run_workers

SETTLED_S = 0.02
"""Real seconds of silence after which the clock jumps: a step's thread must have had time to come back."""


def run_for(seconds: float, *workers: Worker) -> None:
    """Run workers until that much virtual time has passed."""

    async def main() -> None:
        with trio.move_on_after(seconds):
            await run_workers(workers)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=SETTLED_S))


def test_a_step_is_taken_again_after_its_interval() -> None:
    """A step with nothing more to do waits its interval, whatever real time it takes."""
    worker = Worker("idle", 600.0, lambda: False)
    run_for(3601.0, worker)
    assert worker.runs == 7
    assert worker.errors == 0


def test_a_step_with_more_to_do_is_taken_at_once() -> None:
    """Work that waits is done without a pause, then the interval counts again."""
    left = [True] * 5
    worker = Worker("busy", 600.0, lambda: bool(left) and left.pop())
    run_for(601.0, worker)
    assert worker.runs == 7


def test_a_failing_step_backs_off_and_ends_nothing() -> None:
    """Pauses double up to the bound, errors are counted, and the worker beside it goes on."""

    def fail() -> bool:
        raise UnavailableError("the members are asleep")

    failing, healthy = Worker("failing", 1.0, fail), Worker("healthy", 10.0, lambda: False)

    run_for(300.0, failing, healthy)
    doublings = math.ceil(math.log2(BACKOFF_S_MAX))
    assert failing.errors == failing.runs
    assert doublings + 5 <= failing.runs <= doublings + 300 / BACKOFF_S_MAX
    assert failing.last_error == "the members are asleep"
    assert healthy.errors == 0
    assert healthy.runs >= 30


@pytest.mark.trio
async def test_the_clock_of_the_tests_is_virtual(autojump_clock: trio.testing.MockClock) -> None:
    """A week's sleep ends at once: if this hangs, the tests above measure real time."""
    await trio.sleep(7 * 24 * 3600)
    assert autojump_clock.current_time() >= 7 * 24 * 3600
