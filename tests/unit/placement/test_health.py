"""What evidence makes of a member, on virtual time."""

from __future__ import annotations

import pytest

from fungistor.ids import MemberNumber
from fungistor.placement import distance_km
from fungistor.placement.health import (
    LATE_WRITE_S,
    LATE_WRITE_S_MIN,
    RETRY_S_FIRST,
    RETRY_S_MAX,
    SAMPLES,
    SILENT_S,
    SILENT_S_MAX,
    STALE_S,
    Board,
    Health,
    Latencies,
    MemberState,
    Trust,
    Work,
    read_work,
)
from fungistor.placement.topology import round_trip_guess_s

READ = Work.LARGE_READ
BERLIN, SYDNEY = (52.52, 13.405), (-33.87, 151.21)


def test_percentiles_are_nearest_rank_over_the_last_samples() -> None:
    """Old samples leave the ring; p50 of 1..64 is 32."""
    latencies = Latencies()
    for value in [1000.0] * 10 + [float(value) for value in range(1, SAMPLES + 1)]:
        latencies.add(value, 0.0)
    assert (latencies.at(50), latencies.at(98), latencies.at(100)) == (32.0, 63.0, 64.0)


def test_a_stranger_is_trusted_and_guessed_by_distance() -> None:
    """Without history a member is asked, in the order of great-circle distance, and has 50 ms plus its distance."""
    assert distance_km(BERLIN, SYDNEY) == pytest.approx(16_100, rel=0.01)
    far = Health(round_trip_guess_s(BERLIN, SYDNEY))
    near = Health(round_trip_guess_s(BERLIN, BERLIN))
    assert round_trip_guess_s(None, BERLIN) == 0.0
    assert far.trust is near.trust is Trust.GOOD
    assert far.expected_s(READ, 0.0) > 0.15 > near.expected_s(READ, 0.0) == 0.0
    assert near.silent_after_s(READ) == SILENT_S
    assert far.silent_after_s(READ) > 0.3
    assert near.tail_s(READ, 98) is None


def test_measurements_replace_the_guess_and_set_the_deadlines() -> None:
    """p90 orders, p98 hedges, 4 x p98 is silence, 3 x p99 is a late write; each within its bounds."""
    health = Health(1.0)
    for _ in range(20):
        health.answered(READ, 0.030, 0.0)
        health.answered(Work.WRITE, 0.300, 0.0)
    assert health.expected_s(READ, 0.0) == 0.030
    assert health.tail_s(READ, 98) == 0.030
    assert health.silent_after_s(READ) == pytest.approx(0.120)
    assert health.late_write_s() == pytest.approx(0.9)
    for _ in range(SAMPLES):
        health.answered(READ, 3.0, 0.0)
        health.answered(Work.WRITE, 0.001, 0.0)
    assert health.silent_after_s(READ) == SILENT_S_MAX
    assert health.late_write_s() == LATE_WRITE_S_MIN
    assert Health().late_write_s() == LATE_WRITE_S


def test_small_and_large_reads_are_told_apart() -> None:
    """A member known by small reads only lends that latency as a guess, not as a tail."""
    health = Health()
    for _ in range(20):
        health.answered(read_work(4096), 0.002, 0.0)
    assert read_work(4096) is Work.SMALL_READ
    assert read_work(1 << 18) is READ
    assert health.expected_s(READ, 0.0) == 0.002
    assert health.tail_s(READ, 98) is None


def test_once_demoted_stays_demoted_until_a_probe_answers() -> None:
    """Silence pauses, a refusal downs; time alone changes nothing but that a probe becomes due."""
    board = Board({MemberNumber(1): 0.0, MemberNumber(2): 0.0, MemberNumber(3): 0.0})
    board[MemberNumber(1)].silent(10.0, "no answer in 50 ms")
    board[MemberNumber(2)].failed(10.0, "cannot connect: Connection refused")
    assert board.up() == [3]
    assert board.due(10.5) == []
    assert board.next_due() == 10.0 + RETRY_S_FIRST
    assert board.due(11.0) == [1, 2]
    assert board.up() == [3]
    board[MemberNumber(1)].probe_started()
    assert board.due(11.0) == [2]
    board[MemberNumber(1)].probe_answered()
    assert board.up() == [1, 3]
    states = board.standings(11.0)
    assert states[MemberNumber(1)].state is MemberState.UP
    assert (states[MemberNumber(2)].state, states[MemberNumber(2)].reason) == (
        MemberState.DOWN,
        "cannot connect: Connection refused",
    )


def test_a_member_that_flaps_is_probed_ever_less_until_real_work_succeeds() -> None:
    """Each demotion doubles the wait; a probe that answers does not reset it, an answer to real work does."""
    health = Health()
    waits = []
    for _ in range(8):
        health.silent(0.0, "silent")
        waits.append(health.retry_at)
        health.probe_answered()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, RETRY_S_MAX, RETRY_S_MAX, RETRY_S_MAX]
    health.answered(READ, 0.01, 0.0)
    health.silent(0.0, "silent")
    assert health.retry_at == RETRY_S_FIRST


def test_a_member_being_probed_for_the_first_time_is_doubtful() -> None:
    """Between question and answer it ranks below those that have answered; one seen before does not."""
    board = Board({MemberNumber(1): 0.0, MemberNumber(2): 0.0})
    board[MemberNumber(2)].answered(READ, 0.01, 0.0)
    assert board.unknown(board.numbers()) == [1]
    for number in board.numbers():
        board[number].probe_started()
    assert (board[MemberNumber(1)].trust, board[MemberNumber(2)].trust) == (Trust.DOUBTFUL, Trust.GOOD)
    assert board.unknown(board.numbers()) == []


def test_hints_demote_only_those_not_heard_of_and_are_probed_at_once() -> None:
    """Somebody else's word is believed until own evidence."""
    board = Board({MemberNumber(1): 0.0, MemberNumber(2): 0.0})
    board[MemberNumber(2)].answered(READ, 0.01, 0.0)
    for number in board.numbers():
        board[number].hinted(5.0, MemberState.PAUSED, "said to be so")
    assert board.up() == [2]
    assert board.due(5.0) == [1]


def test_slow_is_many_times_its_peers() -> None:
    """A member whose p90 is far above the median is slow, and still counted on."""
    board = Board({MemberNumber(number): 0.0 for number in range(1, 6)})
    for number in board.numbers():
        for _ in range(10):
            board[number].answered(Work.SMALL_READ, 0.5 if number == 3 else 0.004, 0.0)
    states = board.standings(11.0)
    assert [states[number].state for number in board.numbers()] == [
        MemberState.UP,
        MemberState.UP,
        MemberState.SLOW,
        MemberState.UP,
        MemberState.UP,
    ]
    assert states[MemberNumber(3)].reason == "p90 500 ms, its peers 4 ms"
    assert 3 in board.up()


def test_a_new_layout_keeps_what_is_known() -> None:
    """Members that stay keep their history, others go and come."""
    board = Board({MemberNumber(1): 0.0, MemberNumber(2): 0.0})
    board[MemberNumber(1)].silent(0.0, "silent")
    board.keep({MemberNumber(1): 0.0, MemberNumber(3): 0.0})
    assert board.numbers() == [1, 3]
    assert board.up() == [3]
    assert MemberNumber(2) not in board


def test_what_was_slow_once_is_tried_again() -> None:
    """After STALE_S without an answer the guess orders again, and the first new answer replaces the old ones."""
    health = Health(0.005)
    for _ in range(SAMPLES):
        health.answered(READ, 2.0, 100.0)
    assert health.expected_s(READ, 100.0 + STALE_S) == 2.0
    assert health.expected_s(READ, 100.1 + STALE_S) == 0.005
    health.answered(READ, 0.010, 101.0 + STALE_S)
    assert health.expected_s(READ, 101.0 + STALE_S) == 0.010
