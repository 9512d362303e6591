"""Named policies from outside: sites that die, regions that hold nothing, and changes of the pool that are refused."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import tomli_w

from fungistor.node.children import wait_until
from tests.e2e.running import fungistor, running
from tests.e2e.test_pool_apply import lines as lines_of
from tests.e2e.test_pool_apply import made, write_pool

WAIT_S = 60.0
SITES = {"de/a": ("m01", "m02"), "de/b": ("m03", "m04"), "nl/c": ("m05", "m06"), "us/d": ("m07", "m08", "m09")}


def test_a_policy_of_sites_and_regions(tmp_path: Path) -> None:
    """What is published by it reads with a whole site stopped, and nothing of it lies in us; the pool cannot be changed
    so that it could not be met; while in use it stays, then it goes."""
    content = os.urandom(300_000)
    (tmp_path / "f").write_bytes(content)
    with running(tmp_path / "home", ("--no-sync", "--members", "9")) as up:
        for zone, ids in SITES.items():
            up.lines("pool", "label", *ids, "--zone", zone)
        words = (
            "policy",
            "add",
            "eu",
            "--k",
            "4",
            "--m",
            "2",
            "--survive",
            "1/site",
            "--region",
            "de",
            "--region",
            "nl",
        )
        refused = up.command(*words[:4], "6", *words[5:])
        assert (refused.returncode, "add 2 members in de, nl" in refused.stderr) == (2, True), refused.stderr
        assert up.lines(*words, "--dry-run")[0]["added"] is False
        assert [line["name"] for line in up.lines("policy", "list")] == ["default"]
        assert up.lines(*words)[0]["added"] is True
        assert up.lines(*words)[0]["added"] is False
        assert up.command(*words[:4], "3", *words[5:]).returncode == 2, "another policy of that name"
        [published] = up.lines("publish", str(tmp_path / "f"), "--policy", "eu")
        cid = str(published["cid"])
        assert (published["policy"], published["survives"], published["survives_zones"]) == ("eu", 2, 1)
        assert up.command("pool", "drain", "m01").returncode == 6
        broken = up.command("pool", "label", "m01", "--zone", "us/d")
        assert broken.returncode == 6
        assert "policy eu" in broken.stderr
        assert "add 1 members" in broken.stderr
        up.lines("member", "stop", *SITES["de/b"])
        assert wait_until(
            lambda: up.lines("stat", cid)[0]["survives"] == 0, WAIT_S, 0.1
        )  # until they are known to be gone
        assert up.command("get", cid, "-o", str(tmp_path / "copy")).returncode == 0
        assert (tmp_path / "copy").read_bytes() == content
        up.lines("member", "start", *SITES["de/b"])
        assert up.command("policy", "remove", "eu").returncode == 6
        assert up.command("publish", str(tmp_path / "f"), "--policy", "none").returncode == 2
        [shown] = up.lines("policy", "show", "eu")
        assert (shown["objects"], shown["members"], shown["regions"]) == (1, 6, ["de", "nl"])
        up.lines("publish", str(tmp_path / "f"))
        up.lines("gc", "--grace", "0")
        assert up.lines("policy", "remove", "eu")[0]["removed"] is True
        assert up.command("verify", "--all").returncode == 0


def test_policies_of_a_pool_file(tmp_path: Path) -> None:
    """The plan names them, applied they are there, the same file again changes nothing, and one that says otherwise is
    refused."""
    home, file = tmp_path / "home", tmp_path / "pool.toml"
    with ExitStack() as ending:
        members = [made(ending, tmp_path, number) for number in range(1, 9)]
        policy = {"name": "sites", "k": 2, "m": 2, "survive": "2/site"}
        text = tomli_w.dumps({"member": members, "policy": [policy]})
        file.write_text(text)
        file.chmod(0o600)
        [plan] = lines_of(home, "pool", "apply", str(file))
        assert (plan["policies"], plan["applied"]) == (["sites"], False)
        [done] = lines_of(home, "pool", "apply", str(file), "--yes")
        assert (done["policies"], done["applied"]) == (["sites"], True)
        assert lines_of(home, "pool", "apply", str(file), "--yes")[0]["unchanged"] is True
        (tmp_path / "f").write_bytes(b"content")
        assert lines_of(home, "publish", str(tmp_path / "f"), "--policy", "sites")[0]["survives_zones"] == 2
        file.write_text(text.replace("k = 2", "k = 3"))
        refused = fungistor(home, "pool", "apply", str(file), "--yes")
        assert (refused.returncode, "does not change" in refused.stderr) == (2, True)
        write_pool(file, members)
        assert lines_of(home, "pool", "apply", str(file))[0]["unchanged"] is True
