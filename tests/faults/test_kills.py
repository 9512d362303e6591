"""kill -9 of the publisher, and of the whole network, at moments spread over a publish."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.running import Line, Up, start
from tests.faults.world import MIB, fetch_digest, random_file, seed

FILE_BYTES = 24 * MIB
MEMBERS = ("--members", "20")


@dataclass(slots=True)
class Attempt:
    """One publish that was killed: what its file holds, and what was acknowledged before it died."""

    name: str
    digest: str
    acknowledged: list[Line]


@dataclass(slots=True)
class Campaign:
    """Publishes under kills, and the judgement after each restart."""

    folder: Path
    rng: random.Random
    attempts: list[Attempt] = field(default_factory=list)

    def publisher(self, up: Up, name: str) -> tuple[subprocess.Popen[str], str]:
        path = self.folder / name
        digest = random_file(path, FILE_BYTES, self.rng)
        argv = [sys.executable, "-m", "fungistor.node", "--home", str(up.home), "--json", "publish", str(path)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), digest

    def time_one(self, up: Up) -> float:
        """How long an undisturbed publish takes here and now: kills are spread over that."""
        begun = time.monotonic()
        process, _ = self.publisher(up, "undisturbed")
        assert process.wait(60) == 0
        process.communicate()
        return time.monotonic() - begun

    def killed(self, up: Up, name: str, after_s: float, whole_network: bool) -> None:
        """Begin a publish and kill it, or the network below it, at a moment of its life."""
        process, digest = self.publisher(up, name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        if whole_network:
            os.killpg(up.process.pid, signal.SIGKILL)
            up.process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        out, _ = process.communicate()
        acknowledged = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        self.attempts.append(Attempt(name, digest, acknowledged))

    def judge(self, up: Up) -> None:
        """Every acknowledged object is whole, every visible one too, and nothing else is visible."""
        visible = {str(line["name"]): line for line in up.lines("objects")}
        for attempt in self.attempts:
            for line in attempt.acknowledged:
                assert visible[attempt.name]["cid"] == line["cid"], f"{attempt.name} was acknowledged and is gone"
            if attempt.name in visible:
                url = f"{up.gateway}/ipfs/{visible[attempt.name]['cid']}"
                assert fetch_digest(url) == attempt.digest, f"{attempt.name} is visible and not whole"
        assert set(visible) <= {attempt.name for attempt in self.attempts} | {"undisturbed"}


def run_campaign(folder: Path, publisher_kills: int, network_kills: int) -> str:
    """Kill as often as said; give a line on how many publishes had been acknowledged."""
    campaign = Campaign(folder, random.Random(seed()))
    home = folder / "home"
    up = start(home, MEMBERS)
    try:
        span_s = campaign.time_one(up) * 1.1
        for turn in range(publisher_kills):
            campaign.killed(up, f"publisher-{turn}", span_s * (turn + 1) / publisher_kills, whole_network=False)
        campaign.judge(up)
        for turn in range(network_kills):
            campaign.killed(up, f"network-{turn}", span_s * (turn + 1) / network_kills, whole_network=True)
            up = start(home, MEMBERS)
            campaign.judge(up)
        assert up.command("verify", "--all").returncode == 0
        leftovers = list((home / "journal").iterdir())
        assert up.end() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(up.process.pid, signal.SIGKILL)
        up.process.wait()
    acknowledged = sum(bool(attempt.acknowledged) for attempt in campaign.attempts)
    return f"{len(campaign.attempts)} kills, {acknowledged} after the acknowledgement, {len(leftovers)} journals left"


def test_kills_lose_nothing_acknowledged_and_show_nothing_half(tmp_path: Path) -> None:
    """The short form: three kills of the publisher, three of the whole network."""
    print(run_campaign(tmp_path, 3, 3))


@pytest.mark.soak
def test_twenty_kills_of_each_kind(tmp_path: Path) -> None:
    """The long form: twenty moments for the publisher, twenty for the whole network."""
    print(run_campaign(tmp_path, 20, 20))
