"""Members are stopped, paused or killed, and the main job goes on."""

from __future__ import annotations

import functools
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fungistor.zdb.client import Client, Login
from tests.e2e.running import Line, Up, fungistor, running
from tests.faults.world import (
    MIB,
    fetch_digest,
    last_error,
    member_ids,
    object_cids,
    publish,
    random_file,
    seed,
    small_tree,
    status,
    wait_paid,
)

ROUNDS = 3


@dataclass(slots=True)
class World:
    """A network of twenty members with a file and a tree in it."""

    up: Up
    rng: random.Random
    folder: Path
    file: Line
    digest: str
    tree: Line

    @property
    def url(self) -> str:
        return f"{self.up.gateway}/ipfs/{self.file['cid']}"

    def read_all(self) -> None:
        """Every byte of the file arrives from members, and the tree is the same, empty folders and links included."""
        out = self.folder / "out"
        for cid in (self.file["cid"], self.tree["cid"]):
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
            done = self.up.command("get", "--no-cache", str(cid), "-o", str(out))
            assert done.returncode == 0, done.stderr
            source = self.folder / ("file" if cid == self.file["cid"] else "tree")
            compared = subprocess.run(
                ["diff", "-r", "--no-dereference", source, out], capture_output=True, text=True, check=False
            )
            assert compared.returncode == 0, compared.stdout


def make_world(up: Up, folder: Path, size: int) -> World:
    rng = random.Random(seed())
    digest = random_file(folder / "file", size, rng)
    small_tree(folder / "tree", rng)
    file, tree = publish(up, folder / "file", folder / "tree")
    return World(up, rng, folder, file, digest, tree)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("lost")
    with running(folder / "home", ("--members", "20")) as up:
        yield make_world(up, folder, 24 * MIB)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """The shared world; members that a failed test left away are brought back for the next."""
    yield shared
    lines = shared.up.lines("member", "list") if shared.up.process.poll() is None else []
    for state, verb in (("paused", "resume"), ("down", "start")):
        if away := [str(line["id"]) for line in lines if line["state"] == state]:
            shared.up.lines("member", verb, *away)


def lose_four_in_turn(world: World, rounds: int) -> None:
    ids = member_ids(world.up)
    for turn in range(rounds):
        four = world.rng.sample(ids, 4)
        if turn % 2:
            assert fetch_digest(world.url, functools.partial(world.up.lines, "member", "stop", *four)) == world.digest
        else:
            world.up.lines("member", "stop", *four)
            assert fetch_digest(world.url) == world.digest
        world.read_all()
        world.up.lines("member", "start", *four)


def test_any_four_members_may_stop(world: World) -> None:
    """With any four of twenty stopped, before a read or in the middle of it, every byte arrives."""
    lose_four_in_turn(world, ROUNDS)
    assert status(world.up)["at_risk"] == 0


def test_a_fifth_loss_is_told_and_survived(world: World) -> None:
    """With five stopped a read ends with exit 3 and their names; when one is back, reads go on."""
    five = world.rng.sample(member_ids(world.up), 5)
    world.up.lines("member", "stop", *five)
    # Not `cat`: it may well write the blocks whose data shards are all there before it meets one that is not.
    done = world.up.command("--json", "get", str(world.file["cid"]), "-o", str(world.folder / "fifth"))
    assert done.returncode == 3
    assert not (world.folder / "fifth").exists()
    error = last_error(done.stderr)
    assert error["kind"] == "unavailable"
    assert all(name in str(error["message"]) for name in five), error
    assert status(world.up)["unreadable"] == 2
    world.up.lines("member", "start", five[0])
    world.read_all()
    world.up.lines("member", "start", *five[1:])


def test_four_paused_members_are_read_around(world: World) -> None:
    """Members that accept and never answer hold up neither commands nor the gateway."""
    four = world.rng.sample(member_ids(world.up), 4)
    world.up.lines("member", "pause", *four)
    world.read_all()
    assert fetch_digest(world.url) == world.digest
    members = status(world.up)["members"]
    assert isinstance(members, list)
    assert {line["id"] for line in members if line["state"] == "paused"} == set(four)
    world.up.lines("member", "resume", *four)


def test_a_publish_with_four_stopped_owes_and_pays(world: World) -> None:
    """A publish goes through with four stopped, says what is owed, and the debt is paid when they are back."""
    four = world.rng.sample(member_ids(world.up), 4)
    world.up.lines("member", "stop", *four)
    path = world.folder / "while-down"
    random_file(path, 9 * MIB, world.rng)
    (line,) = publish(world.up, path)
    assert int(str(line["owed"])) > 0
    assert int(str(line["survives"])) >= 2
    assert status(world.up)["owed_shards"] == line["owed"]
    world.up.lines("member", "start", *four)
    wait_paid(world.up)
    (report,) = world.up.lines("verify", str(line["cid"]))
    assert report["good"] == report["shards"]
    assert world.up.lines("stat", str(line["cid"]))[0]["survives"] == 4


def test_four_stopped_in_the_middle_of_a_publish_leave_no_half_object(world: World) -> None:
    """A publish whose members stop meanwhile either succeeds or ends with exit 3 and leaves nothing visible."""
    four = world.rng.sample(member_ids(world.up), 4)
    path = world.folder / "meanwhile"
    digest = random_file(path, 64 * MIB, world.rng)
    before = object_cids(world.up)
    argv = [sys.executable, "-m", "fungistor.node", "--home", str(world.up.home), "--json", "publish", str(path)]
    publisher = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    world.up.lines("member", "stop", *four)
    out, err = publisher.communicate(timeout=60)
    visible = object_cids(world.up) - before
    if publisher.returncode == 0:
        (cid,) = visible
        assert cid in out
        assert fetch_digest(f"{world.up.gateway}/ipfs/{cid}") == digest
    else:
        assert publisher.returncode == 3, err
        assert visible == set()
    world.up.lines("member", "start", *four)
    wait_paid(world.up)


def test_members_serve_what_is_read_and_caches_may_go(world: World) -> None:
    """After `index` and `cache` were deleted and the network restarted, reads come from members, and they count it."""
    up = world.up
    assert up.end() == 0
    shutil.rmtree(up.home / "index")
    shutil.rmtree(up.home / "cache")
    with running(up.home, ("--members", "20")) as again:
        moved = World(again, world.rng, world.folder, world.file, world.digest, world.tree)
        before = served_bytes(again)
        out = str(world.folder / "counted")
        assert again.command("get", "--no-cache", str(world.file["cid"]), "-o", out).returncode == 0
        assert served_bytes(again) - before >= int(str(world.file["sealed"]))
        moved.read_all()
        assert fetch_digest(moved.url) == world.digest
        below = str(again.lines("ls", str(world.tree["cid"]))[0]["cid"])
        assert again.lines("stat", below)[0]["cid"] == below


def served_bytes(up: Up) -> int:
    """What the members' own counters say they sent."""
    total = 0
    for member in tomllib.loads((up.home / "pool.toml").read_text())["member"]:
        with Client(member["address"], Login(member["namespace"], member["password"]), timeout_s=5) as client:
            info = client.call("INFO")
        assert isinstance(info, bytes)
        words = dict(line.split(": ", 1) for line in info.decode().splitlines() if ": " in line)
        total += int(words["network_tx_bytes"])
    return total


@pytest.mark.soak
def test_any_four_members_may_stop_under_a_large_file(tmp_path: Path) -> None:
    """The long form: 1 GiB, ten rounds of four random members."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        lose_four_in_turn(make_world(up, tmp_path, 1024 * MIB), 10)


@pytest.mark.soak
def test_cold_reads_beside_four_paused_members(tmp_path: Path) -> None:
    """A hundred cold reads of 1 MiB, each by a process of its own: the figures are printed, beside the healthy ones."""
    rng = random.Random(seed())
    with running(tmp_path / "home", ("--members", "20")) as up:
        paths = [tmp_path / f"file-{number}" for number in range(200)]
        for path in paths:
            random_file(path, MIB, rng)
        cids = [str(line["cid"]) for line in publish(up, *paths)]

        def cold(cid: str) -> float:
            begun = time.monotonic()
            out = tmp_path / f"out-{cid}"
            assert up.command("get", "--no-cache", cid, "-o", str(out)).returncode == 0
            return time.monotonic() - begun

        healthy = sorted(cold(cid) for cid in cids[:100])
        up.lines("member", "pause", *rng.sample(member_ids(up), 4))
        paused = sorted(cold(cid) for cid in cids[100:])
        print(f"healthy: median {healthy[50]:.3f} s, worst {healthy[-1]:.3f} s; "
              f"4 paused: median {paused[50]:.3f} s, worst {paused[-1]:.3f} s; "
              f"mark {3 * healthy[50] + 0.2:.3f} s")  # fmt: skip


def test_no_command_hangs_without_a_network(tmp_path: Path) -> None:
    """A read where no network ever ran ends at once with exit 3."""
    done = fungistor(tmp_path / "home", "--json", "cat", "bafkqaaa")
    assert done.returncode == 3
    assert last_error(done.stderr)["kind"] == "unavailable"
