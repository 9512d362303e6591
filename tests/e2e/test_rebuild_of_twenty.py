"""Rebuild on an empty machine of a network of twenty: four members gone, and another a day stale."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from fungistor.node.children import wait_until
from fungistor.node.home import Home
from tests.contracts.etcd_world import etcd_cluster
from tests.e2e.pool_campaign import seed
from tests.e2e.pool_world import Members, members
from tests.e2e.rebuilding import (
    LOST,
    Network,
    check,
    commands,
    day_one,
    day_two,
    given_root,
    holders,
    key_names,
    killed,
    state_of,
    told,
)
from tests.e2e.running import fungistor, running, start

COUNT = 20
WAIT_S = 60.0


@pytest.mark.parametrize(
    ("engine", "count"),
    [
        ("sqlite", 6),
        pytest.param("sqlite", 60, marks=pytest.mark.soak),
        pytest.param("etcd", 60, marks=pytest.mark.soak),
    ],
)
def test_four_of_twenty_are_gone_and_another_is_a_day_stale(tmp_path: Path, engine: str, count: int) -> None:
    """One of twenty was away for a day on which publishing went on; right after the last acknowledgement the home is
    killed (and etcd), four other members are wiped, and that one comes back as it was: all five of those few that have
    copies of the catalog. On an empty machine the root key brings the same objects of both tenants, names, policies,
    quotas and tokens, nothing rolled back; what was unpublished stays so, its keys are gone, and every byte reads."""
    drawn = random.Random(seed() if count > 6 else 3)
    old, new = tmp_path / "old", tmp_path / "new"
    with members(tmp_path / "members", COUNT) as world, ExitStack() as ending:
        catalog: tuple[str, ...] = ()
        if engine == "etcd":
            cluster = ending.enter_context(etcd_cluster(tmp_path / "etcd", 1))
            cluster.wait_ready()
            catalog = ("--catalog", f"etcd://127.0.0.1:{cluster.client_ports[0]}/net")
        made = fungistor(old, "pool", "apply", str(world.pool), "--yes", *catalog)
        assert made.returncode == 0, made.stderr
        up = start(old, ("--no-sync",))
        ending.callback(killed, up)
        network = Network(tmp_path, up)
        day_one(network)
        first_keys, _ = key_names(old)
        stale = drawn.choice(holders(world, first_keys))
        world.kill(stale)
        assert wait_until(lambda: stale in _told_down(old), WAIT_S, 0.1)
        day_two(network, count)
        killed(up)
        before = state_of(old)
        said, (standing, dropped) = told(old), key_names(old)
        lost = drawn.sample(holders(world, standing - first_keys), LOST)
        print(f"{stale} is stale, {lost} are lost")
        root = (old / "keys" / "root.key").read_bytes()
        shutil.rmtree(old)
        ending.close()
        lose(world, lost, stale)
        assert holders(world, dropped) == [stale], "it was away when keys were dropped, and brings copies back"

        rebuilding = commands(given_root(new, root))
        [found] = rebuilding.lines("catalog", "rebuild", "--pool", str(world.pool))
        assert (found["proven"], found["keys_missing"], found["missing"]) == (True, 0, sorted(lost)), found
        assert int(str(found["revision"])) >= network.revision
        after = state_of(new)
        for table, rows in before.items():
            assert after[table] >= rows, table
            assert table in ("session",) or after[table] == rows, table
        assert told(new) == said
        assert holders(world, dropped) == []
        with running(new, ("--no-sync",)) as again:
            check(network, again, tmp_path / "copy", by_command=count > 6)


def lose(world: Members, lost: list[str], stale: str) -> None:
    """Members end and their folders with them; the one that was away is started as it was when it left."""
    for name in lost:
        world.kill(name)
        shutil.rmtree(world.folder / name)
    world.start(stale)
    world.write_pool()


def _told_down(home: Path) -> set[str]:
    """Members of which `up` has told commands that they are down: `status` asks by itself, and may know it sooner."""
    states = json.loads(Path(Home(str(home)).states_file).read_text())
    return {name for name, line in states.items() if line["state"] == "down"}
