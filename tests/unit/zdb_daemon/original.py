"""The original 0-db, for tests that compare the two. Where it is not on PATH they are skipped, and say so."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import DEADLINE_S, Client

ORIGINAL = shutil.which("zdb")
needs_original = pytest.mark.skipif(ORIGINAL is None, reason="the original 0-db (`zdb`) is not on PATH")


class Original:
    """One process of it on `home`/data and `home`/index, the folders that `harness.Daemon` uses."""

    def __init__(self, home: Path, *flags: str) -> None:
        assert ORIGINAL is not None
        home.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.log = home / "original.log"
        self._clients: list[Client] = []
        words = [ORIGINAL, "--data", str(home / "data"), "--index", str(home / "index")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*words, "--listen", "127.0.0.1", "--port", str(port), *flags], stdout=log, stderr=log
            )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.client()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    self.process.wait()
                    raise RuntimeError(f"the original did not start: {self.log.read_text()}") from None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.02)

    def client(self) -> Client:
        client = Client(self.address)
        self._clients.append(client)
        return client

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, cleanly unless told otherwise."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def original(home: Path, *flags: str) -> Iterator[Original]:
    """Run the original and end it whatever happens."""
    running = Original(home, *flags)
    try:
        yield running
    finally:
        running.stop()
