"""A rebuild that is killed at moments of its placing, and started again."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.pool_campaign import seed
from tests.e2e.pool_world import members
from tests.e2e.rebuilding import Network, State, check, commands, day_one, day_two, given_root, killed, state_of, told
from tests.e2e.running import COMMAND_S, fungistor, running, start

COUNT = 8
KILLS = int(os.environ.get("FUNGISTOR_REBUILD_KILLS", "60"))
GATHERED = "ready.json"
"""The file whose coming says that all is gathered: from then on it is placed."""


def rebuild(home: Path, pool: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    """Rebuild, killed at a step of the placing, or at none."""
    words = ["--home", str(home), "--json", "catalog", "rebuild", "--pool", str(pool)]
    argv = [sys.executable, "-m", "tests.e2e.killed_at", GATHERED, str(fatal), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False)


def steps_of(done: subprocess.CompletedProcess[str]) -> int:
    """How many steps a run had that was not killed."""
    found = re.findall(r"steps=(\d+)", done.stderr)
    assert found, done.stderr
    return int(found[0])


def same(home: Path, before: State) -> int:
    """The catalog is as it was; how many nodes may write, this one among them."""
    after = state_of(home)
    for table, rows in before.items():
        assert after[table] == rows, table
    standing = [line for line in commands(home).lines("node", "list") if not line["revoked"]]
    assert sum(bool(line["this"]) for line in standing) == 1
    return len(standing)


@pytest.mark.parametrize("kills", [2, pytest.param(KILLS, marks=pytest.mark.soak)])
def test_killed_at_any_step_of_the_placing_it_ends_the_same(tmp_path: Path, kills: int) -> None:
    """Two tenants' network is rebuilt again and again from the same members, each time killed at a step that a seed
    chose: half the times the same command goes on, else that machine is lost, too, and another begins anew. All come to
    the same catalog, and it publishes and serves what there was."""
    drawn = random.Random(seed() if kills > 2 else 11)
    old, new = tmp_path / "old", tmp_path / "new"
    with members(tmp_path / "members", COUNT) as world, ExitStack() as ending:
        assert fungistor(old, "pool", "apply", str(world.pool), "--yes").returncode == 0
        up = start(old, ("--no-sync",))
        ending.callback(killed, up)
        network = Network(tmp_path, up, policy=("--k", "3", "--m", "4"))
        day_one(network)
        day_two(network, 3)
        killed(up)
        before, said, root = state_of(old), told(old), (old / "keys" / "root.key").read_bytes()
        shutil.rmtree(old)

        whole = rebuild(given_root(new, root), world.pool, 0)
        assert whole.returncode == 0, whole.stderr
        print(f"{kills} kills among the steps of a rebuild: {(steps := steps_of(whole))}")
        nodes = same(new, before)
        for number in range(kills):
            fatal = drawn.randrange(number * steps // kills, (number + 1) * steps // kills) + 1
            shutil.rmtree(new)
            cut = rebuild(given_root(new, root), world.pool, fatal)
            # One run may have a step less than another, and then ends before the last.
            assert cut.returncode == -signal.SIGKILL or steps_of(cut) < fatal, (fatal, cut.stderr)
            if anew := number % 2 == 1 or cut.returncode == 0:
                shutil.rmtree(new)
                given_root(new, root)
            done = rebuild(new, world.pool, 0)
            assert done.returncode == 0, (fatal, steps, done.stderr)
            now = same(new, before)
            assert now - nodes in ((1, 2) if anew else (1,)), "each machine that came so far is a node"
            nodes = now
        assert told(new) == said
        with running(new, ("--no-sync",)) as again:
            network.up = again
            network.publish("0", {"afterwards": 50_000})
            check(network, again, tmp_path / "copy", by_command=False)
