"""What was published under faults, and what must hold of it after every restart."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.e2e.running import Line, Up
from tests.faults.world import fetch_digest, status

PUBLISH_S = 60.0
VERIFY_TRIES = 4


class Publisher:
    """A publish under way: `fungistor publish` in a process of its own, its acknowledgement noted as it is read."""

    def __init__(self, home: Path, path: Path, on_acknowledged: Callable[[], object] | None = None) -> None:
        self.lines: list[Line] = []
        self.acknowledged_at: float | None = None
        self._on_acknowledged = on_acknowledged
        argv = [sys.executable, "-m", "fungistor.node", "--home", str(home), "--json", "publish", str(path)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, out: IO[str]) -> None:
        for text in out:
            if text.endswith("}\n"):
                self.acknowledged_at = time.monotonic()
                self.lines.append(json.loads(text))
                if self._on_acknowledged is not None:
                    self._on_acknowledged()

    def kill(self) -> None:
        """End it at once; it may be stuck on a frozen disk, so nothing is waited for."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def finish(self) -> int:
        """Wait until it is gone and all it said was read."""
        code = self.process.wait(PUBLISH_S)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@dataclass(frozen=True, slots=True)
class Attempt:
    """One publish that was disturbed: what its file holds, and what was acknowledged."""

    name: str
    digest: str
    acknowledged: tuple[Line, ...]
    moment: str


@dataclass(slots=True)
class Judge:
    """Holds every attempt against what the network shows."""

    attempts: list[Attempt] = field(default_factory=list)
    asked_again: int = 0

    def judge(self, up: Up) -> None:
        """Every acknowledged object is there and whole, every visible one too, and no shard of them is missing."""
        visible = {str(line["name"]): line for line in up.lines("objects")}
        for attempt in self.attempts:
            for line in attempt.acknowledged:
                assert attempt.name in visible, f"{attempt.name} was acknowledged and is gone ({attempt.moment})"
                assert visible[attempt.name]["cid"] == line["cid"], f"{attempt.name} has another CID"
            if attempt.name in visible:
                url = f"{up.gateway}/ipfs/{visible[attempt.name]['cid']}"
                assert fetch_digest(url) == attempt.digest, f"{attempt.name} is visible and not whole"
        unknown = set(visible) - {attempt.name for attempt in self.attempts}
        assert not unknown, f"visible, and nobody published them: {unknown}"
        self._verify(up, len(visible))

    def _verify(self, up: Up, objects: int) -> None:
        """No shard is missing beyond what is owed. A member too busy to answer is asked again: damage stays damage."""
        report = ""
        for _ in range(VERIFY_TRIES):
            done = up.command("--json", "verify", "--all")
            report = done.stdout
            lines = [json.loads(line) for line in report.splitlines()]
            assert len(lines) == objects, done.stderr
            assert all(line["readable"] and line["corrupt"] == 0 for line in lines), report
            missing = [line for line in lines if line["missing"]]
            if sum(int(line["missing"]) for line in missing) <= int(str(status(up)["owed_shards"])):
                return
            if not all("not answered for" in str(line["by_member"]) for line in missing):
                break
            self.asked_again += 1
        raise AssertionError(f"shards are missing that nobody owes: {report}")

    @property
    def acknowledged(self) -> int:
        """How many attempts were."""
        return sum(bool(attempt.acknowledged) for attempt in self.attempts)


def kill_network(up: Up) -> None:
    """kill -9 of `up` and all below it; nothing is waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(up.process.pid, signal.SIGKILL)


def forget_caches(home: Path) -> None:
    """Delete what may be deleted while nothing runs."""
    shutil.rmtree(home / "index", ignore_errors=True)
    shutil.rmtree(home / "cache", ignore_errors=True)
