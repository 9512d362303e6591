"""The power goes at chosen moments of a publish, on a disk that forgets what was not fsynced."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.running import Up, start
from tests.faults.disk.client import ForgetfulDisk, forgetful_disk
from tests.faults.judgement import Attempt, Judge, Publisher, forget_caches, kill_network
from tests.faults.world import MIB, random_file, seed

FILE_BYTES = MIB
MOMENT_S = 20.0

AIMS = (
    "log-sync",
    "after the commit",
    "acknowledged",
    "shards-sync",
    "any",
    "log-write",
    "any",
    "shards-write",
    "keys-sync",
    "journal-write",
)
"""Where a cut is aimed at, in turn: just before some operation of that kind, and any operation every third time."""

STAGES = ("before the first shard", "shards", "barrier", "commit", "committed", "acknowledged")


def stage(counts: dict[str, int], acknowledged: bool) -> str:
    """How far a publish had come on the disk when the power went."""
    if acknowledged:
        return "acknowledged"
    for kind, name in (("log-sync", "committed"), ("log-write", "commit"), ("shards-sync", "barrier")):
        if counts.get(kind, 0):
            return name
    return "shards" if counts.get("shards-write", 0) else "before the first shard"


@dataclass(slots=True)
class Campaign:
    """Publishes whose power is cut, and the judgement after each restart."""

    folder: Path
    disk: ForgetfulDisk
    members: int
    rng: random.Random
    judge: Judge = field(default_factory=Judge)
    lost: int = 0

    @property
    def home(self) -> Path:
        return self.disk.folder / "home"

    def start(self) -> Up:
        return start(self.home, ("--members", str(self.members)))

    def publish(self, name: str, on_acknowledged: bool) -> tuple[Publisher, str]:
        path = self.folder / name
        digest = random_file(path, FILE_BYTES, self.rng)
        return Publisher(self.home, path, self.disk.freeze_soon if on_acknowledged else None), digest

    def undisturbed(self) -> dict[str, int]:
        """Publish once and count what that does to the disk; cuts are spread over it."""
        self.disk.arm("any", 0)
        publisher, digest = self.publish("undisturbed", on_acknowledged=False)
        assert publisher.finish() == 0
        self.judge.attempts.append(Attempt("undisturbed", digest, tuple(publisher.lines), "undisturbed"))
        return self.disk.counts()

    def cut(self, up: Up, name: str, aim: str, usual: dict[str, int]) -> None:
        """Publish, cut the power at a moment of it, and bring the power back; nothing runs after it."""
        if aim == "after the commit":
            self.disk.arm("log-sync", 1, then=self.rng.randint(1, 8))
        elif aim == "acknowledged":
            self.disk.arm("any", 0)
        else:
            self.disk.arm(aim, self.rng.randint(1, max(1, usual.get(aim, 1))))
        publisher, digest = self.publish(name, on_acknowledged=True)
        counts = self.disk.frozen(MOMENT_S)
        assert counts is not None, f"neither {aim} nor an acknowledgement within {MOMENT_S:g} s"
        said = bool(publisher.lines)
        kill_network(up)
        publisher.kill()
        self.lost += self.disk.cut(self.rng.choice((None, str(self.rng.random()))))
        up.process.wait()
        publisher.finish()
        moment = stage(counts, said)
        self.judge.attempts.append(Attempt(name, digest, tuple(publisher.lines), moment))


def run_campaign(folder: Path, cuts: int, members: int) -> str:
    """Cut the power as often as said; give the histogram of moments."""
    with forgetful_disk(folder / "disk") as disk:
        campaign = Campaign(folder, disk, members, random.Random(seed()))
        up = campaign.start()
        try:
            usual = campaign.undisturbed()
            for turn in range(cuts):
                campaign.cut(up, f"cut-{turn}", AIMS[turn % len(AIMS)], usual)
                forget_caches(campaign.home)
                up = campaign.start()
                campaign.judge.judge(up)
            assert up.end() == 0, up.log.read_text()
        finally:
            kill_network(up)
            disk.cut(None)
            up.process.wait()
    stages = Counter(attempt.moment for attempt in campaign.judge.attempts)
    histogram = ", ".join(f"{name} {stages[name]}" for name in STAGES)
    return f"{cuts} power cuts of {members} members: {histogram}; {campaign.lost} files and folders lost something"


def test_power_cuts_lose_nothing_acknowledged_and_show_nothing_half(tmp_path: Path) -> None:
    """The short form: four cuts, before and after the commit's flush among them, on six members."""
    print(run_campaign(tmp_path, 4, 6))


@pytest.mark.soak
def test_fifty_power_cuts(tmp_path: Path) -> None:
    """The long form: fifty cuts on twenty members."""
    print(run_campaign(tmp_path, 50, 20))
