"""Mixed traffic while members die and return: the short form in `make test`, the long one in `make soak`."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from tests.e2e.running import running
from tests.faults.gateway_soak import ANSWERS_MIN, DESCRIPTORS_OF_THREADS_MAX, Soak, Tally

SHORT_S = 8.0
LONG_S = float(os.environ.get("FUNGISTOR_SOAK_S", "1200"))
SETTLED_S = 300.0
SLOPE_MIB_PER_MINUTE_MAX = 1.0


def _run(folder: Path, seed: int, seconds: float, warm_s: float) -> Tally:
    with running(folder / "home", ("--no-sync",)) as up:
        tally = Soak(up, folder, seed, seconds).run()
    print(f"seed {seed}: {dict(tally.answers)}; harm {dict(tally.harm)}")
    warm = tally.descriptors_warm(warm_s)
    print(f"descriptors {tally.descriptors[0][1]} -> {warm} -> {tally.descriptors_after}")
    _tell_memory(tally, seconds)
    assert tally.wrong == [], f"seed {seed}"
    assert tally.unexplained == [], f"seed {seed}"
    assert tally.clients_left == 0, f"seed {seed}"
    assert tally.removed_kept == 0, f"seed {seed}"
    assert tally.descriptors_after <= warm + DESCRIPTORS_OF_THREADS_MAX, f"seed {seed}"
    return tally


def _tell_memory(tally: Tally, seconds: float) -> None:
    """Print before anything is judged: a run that fails has cost twenty minutes, too."""
    step = max(1, len(tally.memory) // 20)
    print("MiB by second:", {int(at): held >> 20 for at, held in tally.memory[::step]})
    print(f"{tally.slope_mib_per_minute(min(SETTLED_S, seconds / 2)):.2f} MiB a minute after it settled")


def test_a_short_soak(tmp_path: Path) -> None:
    """Eight seconds of mixed traffic over dying members: no wrong byte, nothing unexplained, descriptors back."""
    tally = _run(tmp_path, 20261121, SHORT_S, math.inf)  # all of it warms up
    assert sum(tally.answers.values()) >= ANSWERS_MIN


@pytest.mark.soak
def test_a_long_soak(tmp_path: Path) -> None:
    """Twenty minutes: the same, and after five the memory of the workers grows by 1 MiB a minute at most."""
    seed = int(time.time())
    tally = _run(tmp_path, seed, LONG_S, LONG_S / 3)
    assert tally.slope_mib_per_minute(min(SETTLED_S, LONG_S / 2)) <= SLOPE_MIB_PER_MINUTE_MAX, f"seed {seed}"
