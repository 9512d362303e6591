"""A real `fungistor up` in a process group of its own, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fungistor.node.children import wait_until

READY_S = 60.0
COMMAND_S = 60.0

Line = dict[str, object]


@dataclass(slots=True)
class Up:
    """A running network, and what its ready file said."""

    process: subprocess.Popen[bytes]
    home: Path
    ready_file: Path
    log: Path
    ready: Line

    @property
    def gateway(self) -> str:
        return str(self.ready["gateway"])

    def processes(self) -> list[psutil.Process]:
        """Everything below `up`, and itself."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def gateway_workers(self) -> list[psutil.Process]:
        """The gateway's workers that are there now: one that ends while it is looked at is not."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "gateway" in process.cmdline():
                    found.append(process)
        return found

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return fungistor(self.home, *words)

    def lines(self, *words: str) -> list[Line]:
        """Run a command that must succeed, and give its JSON lines."""
        done = self.command("--json", *words)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(READY_S)


def fungistor(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command as a user would."""
    argv = [sys.executable, "-m", "fungistor.node", "--home", str(home), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False)


def published(home: Path, path: Path, *words: str) -> str:
    """Publish with a home, which need not run; the CID."""
    done = fungistor(home, "--json", "publish", str(path), *words)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["cid"])


def waiting_publish(home: Path, path: Path) -> subprocess.Popen[str]:
    """A publish that waits, seen to wait."""
    words = [sys.executable, "-m", "fungistor.node", "--home", str(home), "--json", "publish", str(path), "--wait"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("waiting" in line for line in process.stderr)
    return process


def new_home(first: Up, home: Path) -> Path:
    """A home with the node key of a network, and nothing else."""
    (home / "keys").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    shutil.copy(first.home / "keys" / "node.key", home / "keys" / "node.key")
    return home


def start(home: Path, options: Sequence[str] = ("--members", "6"), argv: Sequence[str] = ()) -> Up:
    """Start `up` (or `argv` in its place, with its options) and wait until it is ready."""
    ready_file, log = home.with_name(f"{home.name}.ready"), home.with_name(f"{home.name}.log")
    ready_file.unlink(missing_ok=True)
    words = argv or [sys.executable, "-m", "fungistor.node", "up"]
    words = [*words, "--home", str(home), "--gateway", "127.0.0.1:0", "--ready-file", str(ready_file), *options]
    with log.open("ab") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: ready_file.exists() or process.poll() is not None, READY_S, 0.02)
    if not ready_file.exists():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AssertionError(f"up ended with {process.returncode}: {log.read_text()}")
    return Up(process, home, ready_file, log, json.loads(ready_file.read_text()))


@contextlib.contextmanager
def running(home: Path, options: Sequence[str] = ("--members", "6"), argv: Sequence[str] = ()) -> Iterator[Up]:
    """A network for the time of a test; ended, and its exit code looked at, after it."""
    up = start(home, options, argv)
    try:
        yield up
        if up.process.poll() is None:
            assert up.end() == 0, up.log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(up.process.pid, signal.SIGKILL)
        up.process.wait()
