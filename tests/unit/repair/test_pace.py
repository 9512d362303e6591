"""A bound on bytes a second, on virtual time."""

from __future__ import annotations

from fungistor.repair.pace import Pace


def test_takers_wait_as_long_as_those_before_them_need() -> None:
    """At 128 bytes a second the second waits for the 64 bytes of the first, and idle time is not saved up."""
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(128.0, lambda: now, sleep)
    pace.take(64)
    pace.take(128)
    pace.take(32)
    assert slept == [0.5, 1.5]
    now = 100.0
    pace.take(32)
    pace.take(32)
    assert slept == [0.5, 1.5, 0.25]


def test_without_a_rate_nobody_waits() -> None:
    """No rate is no bound."""
    slept: list[float] = []
    pace = Pace(None, lambda: 0.0, slept.append)
    pace.take(1 << 40)
    pace.take(1 << 40)
    assert slept == []
