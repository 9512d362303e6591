"""The simulation itself: small, the same twice, and able to fail."""

from __future__ import annotations

import pytest

from fungistor.placement import Policy
from simulations import lose_members
from simulations.lose_members import MEMBERS_A_SITE, Scale, domains, lines, main, run, world

SMALL = Scale(objects=9, losses=4)


def test_the_same_seed_plays_the_same() -> None:
    """Two runs of one seed agree in every line, another seed does not, and all promises are kept."""
    one, two, other = run(7, SMALL), run(7, SMALL), run(8, SMALL)
    assert one.trace == two.trace
    assert one.counts == two.counts
    assert one.trace != other.trace
    assert (one.verdict, one.broken, other.broken) == ("kept", [], [])
    assert one.counts["loud failures"] == 2 * SMALL.losses
    assert one.counts["losses"] == 4 * SMALL.losses + 15 + 5
    assert one.counts["reads"] == one.counts["losses"] * SMALL.objects


def test_a_promise_that_is_not_given_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a policy that spreads nothing, whole countries lost are noticed: the simulation can fail."""
    monkeypatch.setattr(lose_members, "Policy", lambda survive_depth: Policy())
    report = run(7, SMALL)
    assert report.verdict == "BROKEN"
    assert any("cannot be read with" in line for line in report.broken)
    assert next(lines(report)) == "seed 7: promises BROKEN"


def test_the_world_has_the_shape_it_says() -> None:
    """Sixty members, fifteen sites of four, five countries of twelve."""
    members = world()
    assert [len(domains(members, depth)) for depth in (0, 1, 2, 3)] == [1, 5, 15, 60]
    assert all(len(site) == MEMBERS_A_SITE for site in domains(members, 2).values())


def test_the_command_prints_seed_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """Seed, verdict, counts and the trace's digest; exit code 0."""
    assert main(["--seed", "7", "--objects", "2", "--losses", "1", "--trace"]) == 0
    told = capsys.readouterr().out
    assert "seed 7: promises kept" in told
    assert "policy: any 4 members and any country" in told
