"""Mixed traffic while members die and return: the short form in `make test`, the long one in `make soak`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.e2e.running import running
from tests.faults.gateway_soak import DESCRIPTORS_KEPT_MAX, Soak, Tally

SHORT_S = 8.0
LONG_S = float(os.environ.get("FUNGISTOR_SOAK_S", "1200"))
SETTLED_S = 300.0
SLOPE_MIB_PER_MINUTE_MAX = 1.0


def _run(folder: Path, seed: int, seconds: float) -> Tally:
    with running(folder / "home", ("--no-sync",)) as up:
        tally = Soak(up, folder, seed, seconds).run()
    print(f"seed {seed}: {dict(tally.answers)}; harm {dict(tally.harm)}")
    print(f"descriptors {tally.descriptors_before} -> {tally.descriptors_after}")
    assert tally.wrong == [], f"seed {seed}"
    assert tally.unexplained == [], f"seed {seed}"
    assert tally.clients_left == 0, f"seed {seed}"
    assert tally.descriptors_after <= tally.descriptors_before + DESCRIPTORS_KEPT_MAX, f"seed {seed}"
    return tally


def test_a_short_soak(tmp_path: Path) -> None:
    """Eight seconds of mixed traffic over dying members: no wrong byte, nothing unexplained, descriptors back."""
    tally = _run(tmp_path, 20261121, SHORT_S)
    assert sum(tally.answers.values()) > 50


@pytest.mark.soak
def test_a_long_soak(tmp_path: Path) -> None:
    """Twenty minutes: the same, and after five the memory of the workers grows by 1 MiB a minute at most."""
    seed = int(time.time())
    tally = _run(tmp_path, seed, LONG_S)
    slope = tally.slope_mib_per_minute(min(SETTLED_S, LONG_S / 2))
    first, last = tally.memory[0][1] >> 20, tally.memory[-1][1] >> 20
    print(f"seed {seed}: memory {first} -> {last} MiB, {slope:.2f} MiB a minute at the end")
    assert slope <= SLOPE_MIB_PER_MINUTE_MAX, f"seed {seed}"
