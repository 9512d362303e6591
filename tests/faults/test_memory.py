"""Memory of the whole network and of a command while a large object passes through: bounded, whatever its size."""

from __future__ import annotations

import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.running import Up, running
from tests.faults.world import MIB, WAIT_S, fetch_digest, pss_bytes, publish, random_file, seed

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


def outside_members(home: Path) -> int:
    """Bytes on disk of a home, its members' folders left out."""
    # The cache has a bound of its own, whatever is read.
    apart = {home / "members", home / "cache"}
    files = (path for path in home.rglob("*") if path.is_file() and apart.isdisjoint(path.parents))
    return sum(path.stat().st_blocks * 512 for path in files)


def check_memory(up: Up, folder: Path, size: int) -> None:
    before = outside_members(up.home)
    digest = random_file(folder / "large", size, random.Random(seed()))
    published = run_watched(up, "publish", str(folder / "large"))
    (line,) = up.lines("objects")
    got = run_watched(up, "get", str(line["cid"]), "-o", str(folder / "out"), "--no-cache")
    fetched: list[str] = []
    served = Watch(up).over(lambda: fetched.append(fetch_digest(f"{up.gateway}/ipfs/{line['cid']}")))
    print(f"{size // MIB} MiB: publish +{published // MIB}, get +{got // MIB}, gateway +{served // MIB} MiB above idle")
    assert fetched == [digest]
    assert max(published, got, served) <= ABOVE_IDLE_BYTES
    assert outside_members(up.home) - before <= size // 50


class SlowReaders:
    """Clients that take a file at a fixed rate, as people far away do."""

    def __init__(self, up: Up, cid: str, count: int, bytes_per_s: int) -> None:
        host, _, port = up.gateway.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))
        self._cid = cid
        self._bytes_per_s = bytes_per_s
        self._done = threading.Event()
        self._started = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._read) for _ in range(count)]

    def __enter__(self) -> SlowReaders:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._started.acquire(timeout=WAIT_S), "a slow reader got no answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        with socket.create_connection(self._address, timeout=WAIT_S) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.sendall(f"GET /ipfs/{self._cid} HTTP/1.1\r\nHost: slow\r\n\r\n".encode())
            data = client.recv(1 << 16)
            self._started.release()
            while data and not self._done.wait(len(data) / self._bytes_per_s):
                data = client.recv(1 << 16)


def check_slow_readers(up: Up, folder: Path, size: int, readers: int) -> None:
    digest = random_file(folder / "large", size, random.Random(seed()))
    cid = str(publish(up, folder / "large")[0]["cid"])
    url = f"{up.gateway}/ipfs/{cid}"
    alone_s = timed(lambda: fetch_digest(url))
    beside: list[float] = []

    def fast_ones() -> None:
        with SlowReaders(up, cid, readers, MIB):
            beside.extend(timed(lambda: fetched.append(fetch_digest(url))) for _ in range(4))

    fetched: list[str] = []
    above = Watch(up).over(fast_ones)
    print(f"{readers} readers at 1 MiB/s: +{above // MIB} MiB above idle; a fast one takes {alone_s:.2f} s alone, "
          f"{statistics.median(beside):.2f} s beside them")  # fmt: skip
    assert set(fetched) == {digest}
    assert above <= ABOVE_IDLE_BYTES


def timed(action: Callable[[], object]) -> float:
    """Seconds that something took; printed, never judged."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def test_slow_readers_hold_little_and_hold_up_nobody(tmp_path: Path) -> None:
    """Four readers at 1 MiB/s beside fast ones: all within the bound, and the fast ones get every byte."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_slow_readers(up, tmp_path, 128 * MIB, 4)


@pytest.mark.soak
def test_eight_slow_readers_of_1_gib(tmp_path: Path) -> None:
    """The long form: eight of them, on 1 GiB."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_slow_readers(up, tmp_path, 1024 * MIB, 8)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """256 MiB through publish, get and gateway take at most 150 MiB above idle, all processes counted."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_memory(up, tmp_path, 256 * MIB)


@pytest.mark.soak
def test_memory_stays_bounded_at_1_gib(tmp_path: Path) -> None:
    """The long form, with 1 GiB."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_memory(up, tmp_path, 1024 * MIB)
