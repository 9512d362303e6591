"""Our network under test: a real `fungistor up` and real commands, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.contenders import Published
from benchmarks.processes import Ran, cpu_s, curl, end, run, serve, tree_of, wait_ready
from benchmarks.record import DURABLE, OURS

LOST = 4


def command() -> list[str]:
    """The command of the environment that runs this."""
    script = Path(sys.executable).with_name("fungistor")
    return [str(script)] if script.exists() else [sys.executable, "-m", "fungistor.node"]


class Network:
    """One home, and the `up` on it."""

    has_trees = True
    has_gateway = True

    def __init__(self, folder: Path, members: int, *, sync: bool, more: Sequence[str] = ()) -> None:
        """`more`: further options of `up`."""
        self.name = DURABLE if sync else OURS
        self._folder = folder / ("durable" if sync else "unsynced")
        self.home = self._folder / "home"
        self._ready_file = self._folder / "ready.json"
        self._options = ["--members", str(members), *([] if sync else ["--no-sync"]), *more]
        self._up: subprocess.Popen[bytes] | None = None
        self._gateway = ""
        self.ready_s = 0.0
        """Seconds of the last start, until requests were served."""
        self.network_cpu_s = 0.0
        """CPU that `up` and all below it used during the last command."""

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._start()

    def restart(self) -> None:
        self._end()
        self._start()

    def end(self) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self, path: Path) -> Published:
        ran = self.run("--json", "publish", path)
        (line,) = [json.loads(text) for text in ran.output.splitlines()]
        return Published(str(line["cid"]), ran, float(line["seconds"]))

    def publish_many(self, paths: Sequence[Path]) -> list[Published]:
        """Publish several paths with one command; what each took is what the command says."""
        ran = self.run("--json", "publish", *paths)
        lines = [json.loads(text) for text in ran.output.splitlines()]
        return [Published(str(line["cid"]), ran, float(line["seconds"])) for line in lines]

    def take_car(self, path: Path) -> None:
        """Import a CAR."""
        self.run("car", "import", path)

    def lose_four(self) -> bool:
        ids = [json.loads(text)["id"] for text in self.run("--json", "member", "list").output.splitlines()]
        # `member stop` ends their processes and keeps `up` from starting them again, which it would at once.
        self.run("member", "stop", *ids[:: max(1, len(ids) // LOST)][:LOST])
        return True

    def fetch(self, name: str, size: int) -> Ran:
        return self._counted(lambda: curl(self.url(name), size))

    def get(self, name: str, target: Path) -> Ran:
        return self.run("get", name, "-o", target)

    def url(self, name: str) -> str:
        return f"{self._gateway}/ipfs/{name}"

    def processes(self) -> list[psutil.Process]:
        return tree_of(self._up.pid) if self._up is not None else []

    def run(self, *words: str | Path) -> Ran:
        """Run a command on this home."""
        return self._counted(lambda: run([*command(), "--home", self.home, *words]))

    def words(self, *words: str | Path) -> list[str]:
        """The command line of a command on this home."""
        return [*command(), "--home", str(self.home), *map(str, words)]

    def _counted(self, action: Callable[[], Ran]) -> Ran:
        before = self.processes()
        used = cpu_s(before)
        ran = action()
        self.network_cpu_s = cpu_s(before) - used
        return ran

    def _start(self) -> None:
        log = self._folder / "up.log"
        words: list[str | Path] = [*command(), "--home", self.home, "up", *self._options]
        words += ["--gateway", "127.0.0.1:0", "--ready-file", self._ready_file]
        started = time.perf_counter()
        self._up = serve(words, log)
        wait_ready(self._ready_file.exists, [self._up], log)
        self.ready_s = time.perf_counter() - started
        self._gateway = str(json.loads(self._ready_file.read_text())["gateway"])

    def _end(self) -> None:
        if self._up is not None:
            end([self._up])
            self._up = None
        if self._ready_file.exists():
            os.unlink(self._ready_file)
