"""The campaigns catch what they are for: with a bug planted in the product, each of them fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import planted, test_flipped_bits, test_kills, test_power_cuts
from tests.faults.planted.bugs import BUGS
from tests.faults.world import MIB

Campaign = Callable[[Path], str]


def power_cuts(folder: Path) -> str:
    return test_power_cuts.run_campaign(folder, 30, 6)


def kills(folder: Path) -> str:
    return test_kills.run_campaign(folder, (False, True), 12, members=6, restart_every=4)


def flipped_bits(folder: Path) -> str:
    return test_flipped_bits.run_campaign(folder, 9 * MIB, 2)


CAUGHT_BY: dict[str, tuple[Campaign, str]] = {
    "one_flush_left_out": (power_cuts, r"not whole|nobody owes|readable|HTTP Error"),
    "commit_before_barrier": (power_cuts, r"not whole|nobody owes|readable|HTTP Error"),
    "one_commit_of_two_lost": (kills, r"was acknowledged and is gone"),
    "any_tag_accepted": (flipped_bits, r"a lying shard was not found"),
    "no_block_checked": (flipped_bits, r"the gateway|get: "),
}
"""Which campaign must fail for each bug, and in which words."""


def test_every_bug_has_its_campaign() -> None:
    """No planted bug is left without a campaign that must catch it."""
    assert set(CAUGHT_BY) == set(BUGS)


@pytest.mark.soak
@pytest.mark.parametrize("bug", list(BUGS))
def test_planted(tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign fails, for the reason that the bug gives it."""
    monkeypatch.setenv("FUNGISTOR_TEST_PLANTED_BUG", bug)
    monkeypatch.setenv("PYTHONPATH", str(Path(planted.__file__).parent))
    campaign, words = CAUGHT_BY[bug]
    with pytest.raises((AssertionError, OSError), match=words) as caught:
        print(campaign(tmp_path))
    print(f"{bug}: caught: {str(caught.value).splitlines()[0][:200]}")
