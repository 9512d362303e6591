"""One member added, one drained, one wiped, while objects are read and published; each shard moves once, or not at all.

The short form runs in the suite, the long one by `make soak`: both are this, of other sizes.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from fungistor.node.children import wait_until
from tests.e2e.running import Line, Up

REPAIR_S = 600.0
MOVED_MAX = 1.1
"""Times the ideal: what the changed layout wants elsewhere, of all that is stored when its repair ends."""


class Background:
    """Something done again and again until the pool has changed; its first failure is kept."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act
        self._ended = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._act(self.rounds)
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001  # told by `end`, in the test's own thread
            self.failure = error

    def end(self) -> None:
        """Stop, and raise what went wrong."""
        self._ended.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure


@dataclass(slots=True)
class Campaign:
    """A network of twenty members, its objects, and what was moved. `rate`: MB/s of repairs that are killed."""

    up: Up
    folder: Path
    objects: int
    object_bytes: int
    seed: int
    rate: float
    cids: dict[int, str] = field(default_factory=dict)
    moved: dict[str, dict[str, float]] = field(default_factory=dict)
    reads: int = 0
    publishes: int = 0
    quiet: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever publishes, and while what is stored is measured."""

    def content(self, number: int) -> bytes:
        """What object `number` holds: no compression makes it smaller."""
        return random.Random(self.seed * 1_000_003 + number).randbytes(self.object_bytes)

    def publish(self, number: int) -> None:
        path = self.folder / f"object{number}"
        path.write_bytes(self.content(number))
        with self.quiet:
            self.cids[number] = str(self.up.lines("publish", str(path))[0]["cid"])
        path.unlink()

    def read(self, number: int) -> None:
        answer = httpx.get(f"{self.up.gateway}/ipfs/{self.cids[number]}", timeout=60)
        assert answer.content == self.content(number), number

    def stored(self) -> float:
        return float(sum(int(str(line["stored"])) for line in self.up.lines("objects")))

    def run(self) -> None:
        """All of it; raises where something moved that need not, or was not served meanwhile."""
        for number in range(self.objects):
            self.publish(number)
        reader = Background(lambda turn: self.read(turn % self.objects))
        publisher = Background(lambda turn: self.publish(self.objects + turn))
        try:
            self._added()
            self._drained()
            self._wiped()
        finally:
            reader.end()
            publisher.end()
        self.reads, self.publishes = reader.rounds, publisher.rounds
        assert self.reads > 0
        assert self.publishes > 0
        last = self.repair()
        assert (last["waiting"], last["unreadable"], last["left"]) == (0, 0, "")
        for number in self.cids:
            self.read(number)

    def repair(self, *words: str) -> Line:
        return self.up.lines("repair", *words)[0]

    def _added(self) -> None:
        """A repair is killed in the middle; the next one moves what is missing alone. What the new member was sent by
        both, and by publishes, is all in its files: members only append."""
        [plan] = self.up.lines("pool", "add")
        assert plan["added"] == ["m21"], plan
        folder = self.up.home / "members" / "m21" / "data"
        floor = used(folder)
        self._repair_killed(folder, floor)
        self._settled()
        with self.quiet:
            self._note("added", 1 / 21, used(folder) - floor)

    def _drained(self) -> None:
        self.up.lines("pool", "drain", "m20")
        share = 1 / 21  # of 21 members each held so much
        self._note("drained", share, self._settled())

    def _wiped(self) -> None:
        self.up.lines("member", "stop", "m05")
        shutil.rmtree(self.up.home / "members" / "m05")
        self.up.lines("member", "start", "--reset", "m05")
        self._note("wiped", 1 / 20, self._settled())

    def _settled(self) -> float:
        done = self.repair()
        assert done["retired_layouts"] == 1, done
        return float(str(done["moved_bytes"]))

    def _repair_killed(self, folder: Path, floor: int) -> None:
        """Kill a throttled repair once the member that joined was sent something."""
        argv = [sys.executable, "-m", "fungistor.node", "--home", str(self.up.home), "repair", "--rate", str(self.rate)]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        some = 0.3 * self.objects * self.object_bytes / 16
        try:
            assert wait_until(lambda: used(folder) > floor + some or process.poll() is not None, REPAIR_S, 0.01)
            assert process.poll() is None, "the repair ended before it could be killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _note(self, change: str, share: float, moved: float) -> None:
        ideal = share * self.stored()
        self.moved[change] = {"moved": moved, "ideal": ideal}
        assert 0 < moved <= MOVED_MAX * ideal, (change, self.moved)


def used(folder: Path) -> int:
    """Bytes of a member's data files."""
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())


def seed() -> int:
    """The campaign's seed: FUNGISTOR_SEED repeats a run."""
    drawn = int(os.environ.get("FUNGISTOR_SEED", time.time_ns() % 1_000_000))
    print(f"FUNGISTOR_SEED={drawn}")
    return drawn
