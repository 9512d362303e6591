from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fungistor.cache import flight
from fungistor.cache.flight import Flights

_HOLDER = """
import sys
from fungistor.cache.flight import Flights
with Flights(sys.argv[1]).of(b"stripe", 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time() -> None:
    """Of many threads that want one thing, one is at it at any time, and only the first was not kept waiting."""
    flights = Flights()
    inside, most = 0, 0
    waited: list[bool] = []
    start = threading.Barrier(16)

    def want(_: int) -> None:
        nonlocal inside, most
        start.wait()
        with flights.of(b"stripe", 0) as others_first:
            inside += 1
            most = max(most, inside)
            waited.append(others_first)
            inside -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(want, range(16)))
    assert most == 1
    assert False in waited
    assert not flights._seats, "nothing is remembered of flights that ended"


def test_a_flight_that_ended_since_one_looked_counts_as_before_us() -> None:
    """Who looked while a flight was under way, and comes when it has ended, is told to look again."""
    flights = Flights()
    looked = flights.landed
    with flights.of(b"stripe", looked) as before:
        pass
    with flights.of(b"stripe", looked) as after:
        pass
    assert (before, after) == (False, True)


def test_other_things_do_not_wait() -> None:
    """Flights of different things go side by side."""
    flights = Flights()
    with flights.of(b"one", 0) as first, flights.of(b"two", 0) as second:
        assert (first, second) == (False, False)


def test_processes_wait_for_each_other_and_a_dead_one_for_nobody(tmp_path: Path) -> None:
    """A flight that another process holds is waited for; when that process is killed, the wait ends."""
    lock = str(tmp_path / "flight.lock")
    argv = [sys.executable, "-c", _HOLDER, lock]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        killer = threading.Timer(0.05, holder.kill)
        killer.start()
        with Flights(lock).of(b"stripe", 0) as waited:
            assert holder.wait() == -9
        assert waited
        killer.join()


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits longer than the bound goes ahead."""
    monkeypatch.setattr(flight, "WAIT_S_MAX", 0.05)
    flights = Flights(str(tmp_path / "flight.lock"))
    with flights.of(b"stripe", 0), ThreadPoolExecutor(1) as pool:

        def want() -> bool:
            with flights.of(b"stripe", 0) as waited:
                return waited

        assert pool.submit(want).result(10)
