"""A pool that changes under a running network: one member added, one drained, one wiped, while all goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.pool_campaign import Campaign, seed
from tests.e2e.running import Up, running


def test_a_member_added_one_drained_one_wiped(tmp_path: Path) -> None:
    """What moves is at most 1.1 times what must, a killed repair included; reads and publishes go on meanwhile; then
    every shard is good, the drained member holds nothing and can go, and old copies are deleted."""
    with running(tmp_path / "home", ("--no-sync",)) as up:
        Campaign(up, tmp_path, objects=6, object_bytes=1 << 20, seed=7, rate=2.0).run()
        assert next(line for line in up.lines("pool", "list") if line["id"] == "m20")["drained"]
        [gone] = up.lines("pool", "remove", "m20")
        assert gone["removed"] == ["m20"]
        assert up.command("pool", "remove", "m19").returncode == 6
        assert_cleared(up, layouts=4)


def assert_cleared(up: Up, layouts: int) -> None:
    """Copies that old layouts left stay for readers, and go when their time is over; then every shard is good."""
    kept = up.lines("repair")[0]
    assert (kept["cleared_layouts"], int(str(kept["clear_in"])) > 0) == (0, True), kept
    done = up.lines("repair", "--grace", "0")[0]
    assert (done["cleared_layouts"], done["pending"], done["clear_in"]) == (layouts, [], 0), done
    assert up.command("verify", "--all").returncode == 0


@pytest.mark.soak
def test_a_member_added_one_drained_one_wiped_in_full(tmp_path: Path) -> None:
    """The same with 160 MiB and more, which are published and read for minutes."""
    with running(tmp_path / "home", ()) as up:
        campaign = Campaign(up, tmp_path, objects=40, object_bytes=4 << 20, seed=seed(), rate=4.0)
        campaign.run()
        print(campaign.moved, campaign.reads, campaign.publishes)
        assert_cleared(up, layouts=3)


def test_a_pool_that_would_be_too_small_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Six members cannot lose one while stripes lie on all six; a dry run changes nothing; unknown ids are named."""
    with running(tmp_path / "home", ("--no-sync", "--members", "6")) as up:
        (tmp_path / "f").write_bytes(random.Random(1).randbytes(100_000))
        up.lines("publish", str(tmp_path / "f"))
        refused = up.command("pool", "drain", "m06")
        assert refused.returncode == 6
        assert "pool add" in refused.stderr
        assert up.command("pool", "drain", "m09").returncode == 4
        assert up.command("pool", "label", "m01").returncode == 2
        assert up.command("pool", "label", "m01", "--zone", "a b").returncode == 2
        up.lines("pool", "add", "--dry-run")
        assert len(up.lines("pool", "list")) == 6
        up.lines("pool", "label", "m01", "--zone", "nl/ams", "--capacity", "1000000000")
        [line] = [line for line in up.lines("pool", "list") if line["id"] == "m01"]
        assert (line["zone"], line["capacity"], line["weight"]) == ("nl/ams", 1_000_000_000, 1)
        assert up.command("repair", "--rate", "0").returncode == 2
        assert up.lines("repair")[0]["waiting"] == 0
