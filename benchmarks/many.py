"""Very many small files published by one command, and what a second node on the same etcd sees of it meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.etcd import serving
from benchmarks.figures import MIB
from benchmarks.network import Network, command
from benchmarks.processes import BenchmarkError, end, pss_bytes, serve, wait_ready
from benchmarks.record import DURABLE, ETCD, Key, Record, Unit
from benchmarks.setting import Setting

FILES = 100_000
QUICK_FILES = 300
SIZES = (1024, 4096)
"""Of files: evenly between."""

FILES_A_FOLDER = 1000
CASE = "{files:,} files of 1 to 4 KiB"
RATE = "published"
READABLE = "readable at a second node, p99"
MARK_PAUSE_S = 0.2
POLL_S = 0.005
SEEN_S = 60.0


class Many:
    """`many`: on the network's own SQLite, then on etcd with a second node."""

    name = "many"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._files = QUICK_FILES if setting.quick else FILES

    def round(self, run: int, record: Record) -> None:
        """Measure once; other files each time."""
        place = self._setting.folder / "many"
        place.mkdir()
        try:
            names, size = _files(place / "files", self._files, run)
            self._alone(place, names, size, record)
            self._with_a_second_node(place, names, record)
        finally:
            shutil.rmtree(place)

    def _alone(self, place: Path, names: Path, size: int, record: Record) -> None:
        network = Network(place, self._setting.members, sync=True)
        with ExitStack() as stack:
            stack.callback(network.end)
            network.start()
            before = _disk(network.home / "members")
            ran = network.run("--json", "publish", "--paths-from", names)
            self._check(ran.output)
            held = _disk(network.home / "members") - before

            def add(what: str, value: float) -> None:
                record.add(Key("many", CASE.format(files=self._files), DURABLE, what), value, _UNITS[what])

            add(RATE, self._files / ran.seconds)
            add("CPU of an object, command", ran.cpu_s / self._files)
            add("CPU of an object, network", network.network_cpu_s / self._files)
            add("bytes on disks for one of content", held / size)
            add("memory of the network after it", pss_bytes(network.processes()) / MIB)

    def _with_a_second_node(self, place: Path, names: Path, record: Record) -> None:
        with ExitStack() as stack:
            try:
                etcd = stack.enter_context(serving(place))
            except FileNotFoundError as error:
                record.note(f"`many`: {error}")
                return
            network = Network(place, self._setting.members, sync=True, more=("--catalog", etcd.url))
            stack.callback(network.end)
            network.start()
            gateway = stack.enter_context(_second_node(place / "second", network, etcd.url))
            publishing = stack.enter_context(_published(network.words("--json", "publish", "--paths-from", names)))
            started = time.monotonic()
            seen: list[float] = []
            # One after the other from another command, as the next user would, as long as that one runs.
            while publishing.poll() is None or not seen:
                mark = place / "mark"
                mark.write_bytes(os.urandom(2000))
                found = network.publish(mark).name
                seen.append(_seen_after(f"{gateway}/ipfs/{found}"))
                time.sleep(MARK_PAUSE_S)
            seconds = time.monotonic() - started
            if publishing.returncode:
                raise BenchmarkError("the publish of many files failed")
            late = sorted(seen)

            def add(what: str, value: float) -> None:
                record.add(Key("many", CASE.format(files=self._files), ETCD, what), value, _UNITS[what])

            add(RATE, self._files / seconds)
            add(READABLE, late[int(0.99 * (len(late) - 1))])
            for what, value in etcd.figures().items():
                add(what.removesuffix(", MiB"), value)

    def _check(self, output: str) -> None:
        lines = [json.loads(line) for line in output.splitlines()]
        if len(lines) != self._files:
            raise BenchmarkError(f"{len(lines)} of {self._files} files were published")


_UNITS: dict[str, Unit] = {
    RATE: "objects/s", "CPU of an object, command": "s", "CPU of an object, network": "s",
    "bytes on disks for one of content": "", "memory of the network after it": "MiB", READABLE: "s",
    "etcd's file at most": "MiB", "etcd's file at the end": "MiB",
    "etcd's memory at most": "MiB", "etcd's memory at the end": "MiB",
}  # fmt: skip


def _files(folder: Path, count: int, seed: int) -> tuple[Path, int]:
    """Files of chance, and a file that lists them; their bytes."""
    chance = random.Random(seed)
    folder.mkdir()
    total = 0
    names = folder / "names"
    with names.open("w") as listed:
        for number in range(count):
            within = folder / f"{number // FILES_A_FOLDER:04}"
            within.mkdir(exist_ok=True)
            path = within / f"file-{number:06}"
            total += path.write_bytes(chance.randbytes(chance.randint(*SIZES)))
            listed.write(f"{path}\n")
    return names, total


def _disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@contextmanager
def _published(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _second_node(folder: Path, network: Network, catalog: str) -> Iterator[str]:
    """Another home with the network's node key, its pool and its catalog, and an `up` on it; its gateway."""
    home, pool, ready, log = folder / "home", folder / "pool.toml", folder / "ready.json", folder / "up.log"
    (home / "keys").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    shutil.copy(network.home / "keys" / "node.key", home / "keys" / "node.key")
    network.run("pool", "export", "-o", pool)
    words: list[str | Path] = [*command(), "--home", home, "up", "--pool", pool, "--catalog", catalog]
    up = serve([*words, "--gateway", "127.0.0.1:0", "--ready-file", ready], log)
    try:
        wait_ready(ready.exists, [up], log)
        yield str(json.loads(ready.read_text())["gateway"])
    finally:
        end([up])


def _seen_after(url: str) -> float:
    """Seconds until a gateway gives what was acknowledged right before."""
    started = time.monotonic()
    while time.monotonic() - started < SEEN_S:
        try:
            with urllib.request.urlopen(url, timeout=SEEN_S) as answer:  # noqa: S310 - our own gateway
                answer.read()
                return time.monotonic() - started
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(POLL_S)
    raise BenchmarkError(f"a second node did not give within {SEEN_S:g} s what was published")
