"""Members whose folders are wiped, or whose bytes are flipped: nothing wrong is ever served, and they are named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.node.children import wait_until
from tests.e2e.running import Line, Up, running
from tests.faults.world import MIB, WAIT_S, fetch_digest, member_ids, publish, random_file, seed, status

HEADER_BYTES = 28
"""Of a data file; flips begin behind it."""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path / "home", ("--members", "20")) as up:
        yield up


def state_of(up: Up, name: str) -> Line:
    members = status(up)["members"]
    assert isinstance(members, list)
    found: Line = next(line for line in members if line["id"] == name)
    return found


def flip_everywhere(data: Path, rng: random.Random, step: int) -> int:
    """Flip one bit in every `step` bytes of a member's data file; give how many."""
    content = bytearray(data.read_bytes())
    flipped = 0
    for start in range(HEADER_BYTES, len(content), step):
        place = min(start + rng.randrange(step), len(content) - 1)
        content[place] ^= 1 << rng.randrange(8)
        flipped += 1
    data.write_bytes(content)
    return flipped


def test_a_wiped_member_is_noticed_and_taken_back(up: Up, tmp_path: Path) -> None:
    """Reads go on without a wiped member, `status` says `wiped`, and a reset takes it back under a new number."""
    digest = random_file(tmp_path / "file", 12 * MIB, random.Random(seed()))
    (line,) = publish(up, tmp_path / "file")
    name = member_ids(up)[4]
    up.lines("member", "stop", name)
    shutil.rmtree(up.home / "members" / name)
    up.command("member", "start", name)
    assert wait_until(lambda: state_of(up, name)["reason"] == "wiped", WAIT_S, 0.2), state_of(up, name)
    assert state_of(up, name)["state"] == "down"
    url = f"{up.gateway}/ipfs/{line['cid']}"
    assert fetch_digest(url) == digest
    plain = up.command("member", "start", name)
    assert plain.returncode == 6, plain.stderr
    assert "--reset" in plain.stderr
    up.lines("member", "start", "--reset", name)
    assert state_of(up, name)["state"] == "up"
    assert wait_until(lambda: fetch_digest(url) == digest, WAIT_S, 0.5)
    (again,) = publish(up, tmp_path / "file")
    assert again["cid"] == line["cid"]
    (report,) = up.lines("verify", str(line["cid"]))
    assert report["good"] == report["shards"], "publishing again did not mend what the wiped member lost"


def test_flipped_bits_on_four_members_are_never_served(up: Up, tmp_path: Path) -> None:
    """With bits flipped in every shard of four members, all reads are right, and `verify` names the four."""
    rng = random.Random(seed())
    digest = random_file(tmp_path / "file", 20 * MIB, rng)
    (line,) = publish(up, tmp_path / "file")
    four = rng.sample(member_ids(up), 4)
    up.lines("member", "stop", *four)
    for name in four:
        for data in (up.home / "members" / name / "data" / "fungistor").glob("d*"):
            flip_everywhere(data, rng, 32 * 1024)
    started = up.command("member", "start", *four)
    url = f"{up.gateway}/ipfs/{line['cid']}"
    assert fetch_digest(url) == digest
    done = up.command("get", "--no-cache", str(line["cid"]), "-o", str(tmp_path / "out"))
    assert done.returncode == 0, (done.stderr, started.stderr)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "file").read_bytes()
    done = up.command("--json", "verify", str(line["cid"]))
    assert done.returncode == 1, done.stdout
    assert all(name in done.stdout for name in four), done.stdout
