"""Kubo beside us: `ipfs add` and `ipfs get` on a repository of its own, and its gateway with no network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil

from benchmarks.contenders import Published
from benchmarks.processes import Ran, curl, end, run, serve, tree_of, wait_ready
from benchmarks.record import KUBO


class Kubo:
    """One repository in a temporary folder. Its blocks are not synced: that is its default."""

    name = KUBO
    has_trees = True
    has_gateway = True

    def __init__(self, folder: Path, program: str) -> None:
        self._program = program
        self._folder = folder / "kubo"
        self._repository = self._folder / "repository"
        self._env = {"IPFS_PATH": str(self._repository), "IPFS_TELEMETRY": "off"}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._gateway = ""

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        # The profile puts every port on loopback, any free one, and knows no peers.
        self._run("init", "--empty-repo", "--profile", "test")

    def end(self) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self, path: Path) -> Published:
        ran = self._run("add", "--cid-version=1", "--quieter", "--recursive", path)
        return Published(ran.output.split()[-1], ran)

    def take_car(self, path: Path) -> None:
        """Import a CAR."""
        self._run("dag", "import", "--pin-roots=false", path)

    def restart(self) -> None:
        """Start the gateway; commands that follow go through it, since the repository can have one user."""
        self._stop()
        log = self._folder / "daemon.log"
        place = self._repository / "gateway"
        place.unlink(missing_ok=True)
        self._daemon = serve([self._program, "daemon", "--offline"], log, env=self._env)
        wait_ready(lambda: place.exists() and "Daemon is ready" in log.read_text(), [self._daemon], log)
        self._gateway = place.read_text().strip()

    def stop_gateway(self) -> None:
        """End the gateway, so that a command opens the repository by itself."""
        self._stop()

    def lose_four(self) -> bool:
        return False

    def fetch(self, name: str, size: int) -> Ran:
        return curl(self.url(name), size)

    def get(self, name: str, target: Path) -> Ran:
        return self._run("get", "--progress=false", "--output", target, name)

    def url(self, name: str) -> str:
        return f"{self._gateway}/ipfs/{name}"

    def processes(self) -> list[psutil.Process]:
        return tree_of(self._daemon.pid) if self._daemon is not None else []

    def words(self, *words: str | Path) -> list[str]:
        """The command line of a command on this repository."""
        return ["env", *(f"{name}={value}" for name, value in self._env.items()), self._program, *map(str, words)]

    def _run(self, *words: str | Path) -> Ran:
        return run([self._program, *words], env=self._env)

    def _stop(self) -> None:
        if self._daemon is not None:
            end([self._daemon])
            self._daemon = None
            (self._folder / "daemon.log").unlink(missing_ok=True)
