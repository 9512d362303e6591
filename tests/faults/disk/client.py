"""The forgetful disk as tests use it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Line

ANSWER_S = 30.0


class ForgetfulDisk:
    """A disk in a process of its own, mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.disk.server", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Planted bugs are for the product alone.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            cwd=Path(__file__).parents[3],
        )
        self._events: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = True
        self._reader = threading.Thread(target=self._read, name="disk", daemon=True)
        self._reader.start()
        first = self._events.get(timeout=ANSWER_S)
        if first["event"] != "mounted":
            self.close()
            pytest.skip(f"NOT TESTED: no power can be cut here: {first.get('error', 'the disk ended')}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put({"event": "ended"})

    def _tell(self, **words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def _ask(self, wanted: str, **words: object) -> Line:
        self._tell(**words)
        while (answer := self._events.get(timeout=ANSWER_S))["event"] != wanted:
            assert answer["event"] == "frozen", answer
        return answer

    def arm(self, kind: str, nth: int, then: int = 0) -> None:
        """Count anew, and freeze before the operation that comes `then` after the nth of that kind; 0: never."""
        self._running = True
        self._ask("armed", op="arm", kind=kind, nth=nth, then=then)

    def counts(self) -> dict[str, int]:
        """Operations since it was armed."""
        return dict(self._ask("counts", op="counts")["counts"])  # type: ignore[call-overload, no-any-return]

    def frozen(self, timeout_s: float) -> dict[str, int] | None:
        """Wait for the armed moment; give the counts at it, None if it does not come in time."""
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s)
            assert event["event"] == "frozen", event
            with self._lock:
                self._running = False
            return dict(event["counts"])  # type: ignore[call-overload, no-any-return]
        return None

    def freeze(self) -> dict[str, int]:
        """The power goes now: give the counts at that moment."""
        return dict(self._ask("frozen", op="freeze")["counts"])  # type: ignore[call-overload, no-any-return]

    def freeze_soon(self) -> None:
        """The power goes now, from any thread, unless it has gone; `frozen` tells of it."""
        with self._lock:
            if self._running:
                self._tell(op="freeze")

    def cut(self, seed: str | None) -> int:
        """The power comes back over what the disk still knows: give how many inodes lost something."""
        return int(str(self._ask("mounted", op="cut", seed=seed)["lost"]))

    def keep_all(self) -> None:
        """Take all that is there as synced."""
        self._ask("kept", op="forget-nothing")

    def close(self) -> None:
        """Unmount."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(ANSWER_S)
        self._reader.join()
        self._process.stdout.close()
        ctypes.CDLL(None).umount2(os.fsencode(self.folder), 2)  # left over only where the server died


@contextlib.contextmanager
def forgetful_disk(folder: Path) -> Iterator[ForgetfulDisk]:
    """A disk for the time of a test; the test is skipped, loudly, where none can be mounted."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED: no power can be cut here: /dev/fuse is missing or not for this user")
    disk = ForgetfulDisk(folder)
    try:
        yield disk
    finally:
        disk.close()
