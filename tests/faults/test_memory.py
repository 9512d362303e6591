"""Memory of the whole network and of a command while a large object passes through: bounded, whatever its size."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.running import Up, running
from tests.faults.world import MIB, fetch_digest, pss_bytes, random_file, seed

ABOVE_IDLE_BYTES = 150 * MIB
SAMPLE_S = 0.1


class Watch:
    """Samples the memory of a network and of one command until told to stop; keeps the highest sum."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self.idle = pss_bytes(up.processes())
        self.peak = 0
        self.command: psutil.Process | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def over(self, action: Callable[[], object]) -> int:
        """Run something; give the bytes above idle at the highest moment of it."""
        self._thread.start()
        try:
            action()
        finally:
            self._done.set()
            self._thread.join()
        return self.peak - self.idle

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            processes = self._up.processes()
            if self.command is not None:
                processes.append(self.command)
            self.peak = max(self.peak, pss_bytes(processes))


def run_watched(up: Up, *words: str) -> int:
    """Run a command that must succeed; give the bytes above idle, its own memory counted whole."""
    watch = Watch(up)

    def action() -> None:
        argv = [sys.executable, "-m", "fungistor.node", "--home", str(up.home), *words]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        watch.command = psutil.Process(process.pid)
        _, err = process.communicate()
        assert process.returncode == 0, err

    return watch.over(action)


def check_memory(up: Up, folder: Path, size: int) -> None:
    digest = random_file(folder / "large", size, random.Random(seed()))
    published = run_watched(up, "publish", str(folder / "large"))
    (line,) = up.lines("objects")
    got = run_watched(up, "get", str(line["cid"]), "-o", str(folder / "out"), "--no-cache")
    fetched: list[str] = []
    served = Watch(up).over(lambda: fetched.append(fetch_digest(f"{up.gateway}/ipfs/{line['cid']}")))
    print(f"{size // MIB} MiB: publish +{published // MIB}, get +{got // MIB}, gateway +{served // MIB} MiB above idle")
    assert fetched == [digest]
    assert max(published, got, served) <= ABOVE_IDLE_BYTES


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """256 MiB through publish, get and gateway take at most 150 MiB above idle, all processes counted."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_memory(up, tmp_path, 256 * MIB)


@pytest.mark.soak
def test_memory_stays_bounded_at_1_gib(tmp_path: Path) -> None:
    """The long form, with 1 GiB."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_memory(up, tmp_path, 1024 * MIB)
