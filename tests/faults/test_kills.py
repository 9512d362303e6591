"""kill -9 of the publisher, and of the whole network, at moments of a publish, classified afterwards by their times."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.running import Up, start
from tests.faults.judgement import Attempt, Judge, Publisher, forget_caches, kill_network
from tests.faults.moments import COMMIT, SHARD, watched
from tests.faults.world import MIB, random_file, seed

FILE_BYTES = 8 * MIB
MOMENT_S = 30.0

NEAR_S = 0.010
"""So near to the commit, on either side of it, is `near the commit`."""

AFTER_S = 0.050
"""So soon after the acknowledgement was read is `just acknowledged`."""

BEFORE, UNDER_WAY, NEAR, COMMITTED, ACKNOWLEDGED, LATER = (
    "before the first shard", "shards under way", "near the commit", "committed", "just acknowledged", "later",
)  # fmt: skip
CLASSES = (BEFORE, UNDER_WAY, NEAR, COMMITTED, ACKNOWLEDGED, LATER)

QUOTAS = {UNDER_WAY: 20, NEAR: 10, ACKNOWLEDGED: 5}
"""How many kills of each class the long form has at least."""

ATTEMPTS_A_KILL = 4
"""The long form ends, and fails, when the quotas are not filled by this many times the kills it wants."""


def classify(kill: float, first_shard: float | None, commit: float | None, acknowledged: float | None) -> str:
    """Where a kill fell, from the times of what it fell among."""
    if acknowledged is not None and acknowledged <= kill:
        return ACKNOWLEDGED if kill - acknowledged <= AFTER_S else LATER
    if commit is not None and abs(kill - commit) <= NEAR_S:
        return NEAR
    if commit is not None and commit < kill:
        return COMMITTED
    return UNDER_WAY if first_shard is not None and first_shard <= kill else BEFORE


@dataclass(slots=True)
class Campaign:
    """Publishes under kills, and the judgement after each restart."""

    folder: Path
    rng: random.Random
    members: int
    judge: Judge = field(default_factory=Judge)
    span_s: float = 0.0
    histogram: Counter[str] = field(default_factory=Counter)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self) -> Up:
        return start(self.home, ("--members", str(self.members)))

    def undisturbed(self) -> None:
        """Publish once without a kill: kills are spread over the time from the first shard to the commit."""
        path = self.folder / "undisturbed"
        digest = random_file(path, FILE_BYTES, self.rng)
        with watched(self.home) as moments:
            publisher = Publisher(self.home, path)
            assert publisher.finish() == 0
            assert moments.commit is not None, f"{path.name} was acknowledged and is gone: nothing is in the log"
            assert moments.first_shard is not None
            self.span_s = moments.commit - moments.first_shard
        self.judge.attempts.append(Attempt("undisturbed", digest, tuple(publisher.lines), "undisturbed"))

    def kill(self, up: Up, name: str, aim: str, whole_network: bool) -> None:
        """Publish and kill at a moment of that class, or near it: what it was is told by the times."""
        path = self.folder / name
        digest = random_file(path, FILE_BYTES, self.rng)
        delay_s = {
            BEFORE: self.rng.uniform(0, 0.4),
            UNDER_WAY: self.rng.uniform(0, self.span_s),
            NEAR: self.rng.uniform(0, NEAR_S / 2),
            ACKNOWLEDGED: self.rng.uniform(0, AFTER_S / 10),
        }[aim]
        killed = threading.Event()
        killed_at = 0.0
        striking = threading.Lock()

        def strike() -> None:
            nonlocal killed_at
            if not striking.acquire(blocking=False):
                return
            until = time.monotonic() + delay_s
            while (killed_at := time.monotonic()) < until:
                killed.wait(until - killed_at)
            if whole_network:
                kill_network(up)
            publisher.kill()
            killed.set()

        with watched(self.home) as moments:
            moments.arm({UNDER_WAY: SHARD, NEAR: COMMIT}.get(aim), strike)
            # An acknowledgement is the last moment for every aim.
            publisher = Publisher(self.home, path, strike)
            if aim == BEFORE:
                strike()
            assert killed.wait(MOMENT_S), f"no moment to kill at within {MOMENT_S:g} s ({aim})"
            publisher.finish()
            if whole_network:
                up.process.wait()
            found = classify(killed_at, moments.first_shard, moments.commit, publisher.acknowledged_at)
        self.histogram[found] += 1
        self.judge.attempts.append(Attempt(name, digest, tuple(publisher.lines), found))

    def restart(self, up: Up) -> Up:
        """Start again without caches, whether it was killed or is to be ended first."""
        if up.process.poll() is None:
            assert up.end() == 0, up.log.read_text()
        forget_caches(self.home)
        return self.start()

    def next_aim(self, turn: int) -> str:
        """The class that lacks most of its quota, and every fourth time any."""
        worst = min(QUOTAS, key=lambda name: self.histogram[name] / QUOTAS[name])
        if turn % 4 == 3 or self.histogram[worst] >= QUOTAS[worst]:
            return self.rng.choice((BEFORE, UNDER_WAY, NEAR, ACKNOWLEDGED))
        return worst

    def told(self, kinds: Sequence[bool]) -> str:
        """The histogram as a line."""
        what = " and ".join("the whole network" if whole else "the publisher" for whole in kinds)
        counts = ", ".join(f"{name} {self.histogram[name]}" for name in CLASSES)
        return f"{self.histogram.total()} kills of {what}: {counts}; {self.judge.acknowledged - 1} acknowledged"


def run_campaign(
    folder: Path, kinds: Sequence[bool], kills: int, *, members: int, restart_every: int, fill: bool = False
) -> str:
    """Kill as often as said, the whole network or the publisher in the order of `kinds`; give the histogram.

    `fill`: until the quotas are filled, too. What was killed whole, and every so many kills the rest, starts again
    without its caches and is judged.
    """
    campaign = Campaign(folder, random.Random(seed()), members)
    up = campaign.start()
    try:
        campaign.undisturbed()
        turn = 0
        while turn < kills or (fill and any(campaign.histogram[name] < count for name, count in QUOTAS.items())):
            assert turn < kills * ATTEMPTS_A_KILL, campaign.told(kinds)
            whole_network = kinds[turn % len(kinds)]
            campaign.kill(up, f"kill-{turn}", campaign.next_aim(turn), whole_network)
            turn += 1
            if whole_network or turn % restart_every == 0:
                up = campaign.restart(up)
                campaign.judge.judge(up)
        if not kinds[(turn - 1) % len(kinds)]:
            up = campaign.restart(up)
            campaign.judge.judge(up)
        assert up.end() == 0, up.log.read_text()
    finally:
        kill_network(up)
        up.process.wait()
    return campaign.told(kinds)


def test_moments_are_classified_by_their_times() -> None:
    """A kill's class follows from the times of first shard, commit and acknowledgement alone."""
    cases: list[tuple[str, tuple[float, float | None, float | None, float | None]]] = [
        (BEFORE, (1.0, None, None, None)),
        (BEFORE, (1.0, 1.1, None, None)),
        (UNDER_WAY, (1.0, 0.5, None, None)),
        (UNDER_WAY, (1.0, 0.5, 1.011, 1.1)),
        (NEAR, (1.0, 0.5, 1.009, 1.1)),
        (NEAR, (1.0, 0.5, 0.991, None)),
        (COMMITTED, (1.0, 0.5, 0.98, 1.001)),
        (ACKNOWLEDGED, (1.0, 0.5, 0.995, 0.999)),
        (LATER, (1.0, 0.5, 0.6, 0.7)),
    ]
    for expected, times in cases:
        assert classify(*times) == expected, times


def test_kills_lose_nothing_acknowledged_and_show_nothing_half(tmp_path: Path) -> None:
    """The short form: the publisher and the whole network by turns, at shards under way, commit, acknowledgement."""
    print(run_campaign(tmp_path, (False, True), 4, members=8, restart_every=9))


@pytest.mark.soak
@pytest.mark.parametrize("whole_network", [False, True])
def test_fifty_kills(tmp_path: Path, whole_network: bool) -> None:
    """The long form: fifty moments, and as many more as it takes to fill the quotas."""
    print(run_campaign(tmp_path, (whole_network,), 50, members=20, restart_every=10, fill=True))
