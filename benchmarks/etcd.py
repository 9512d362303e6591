"""One etcd of this machine, and what it needs."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from benchmarks.figures import MIB
from benchmarks.processes import free_ports, wait_ready

SAMPLE_S = 0.5


class Etcd:
    """A member that is alone. Its file and memory are looked at all the while."""

    def __init__(self, folder: Path, port: int, process: psutil.Popen) -> None:
        self.url = f"etcd://127.0.0.1:{port}/benchmark"
        self._own = f"http://127.0.0.1:{port}"
        self._file = folder / "member" / "snap" / "db"
        self._process = process
        self._ended = threading.Event()
        self._file_max = self._rss_max = 0
        self._sampling = threading.Thread(target=self._sample)
        self._sampling.start()

    def answers(self) -> bool:
        """Whether it can be asked."""
        with contextlib.suppress(httpx.HTTPError):
            return bool(httpx.get(f"{self._own}/health", trust_env=False).json().get("health") == "true")
        return False

    def figures(self) -> dict[str, float]:
        """Its file and its memory: the most so far, and now."""
        self._look()
        return {
            "etcd's file at most, MiB": self._file_max / MIB,
            "etcd's file at the end, MiB": self._file.stat().st_size / MIB,
            "etcd's memory at most, MiB": self._rss_max / MIB,
            "etcd's memory at the end, MiB": self._process.memory_info().rss / MIB,
        }

    def end(self) -> None:
        """Stop it."""
        self._ended.set()
        self._sampling.join()
        self._process.kill()
        self._process.wait()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            with contextlib.suppress(OSError, psutil.Error):
                self._look()

    def _look(self) -> None:
        self._file_max = max(self._file_max, self._file.stat().st_size)
        self._rss_max = max(self._rss_max, self._process.memory_info().rss)


@contextlib.contextmanager
def serving(place: Path) -> Iterator[Etcd]:
    """An etcd with its folder below `place`. Raises: FileNotFoundError: there is none on PATH."""
    program = shutil.which("etcd")
    if program is None:
        raise FileNotFoundError("etcd is not on PATH: apt-get install etcd-server")
    port, peer = free_ports(2)
    own, among = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    folder = place / "etcd"
    words = [program, "--data-dir", str(folder), "--listen-client-urls", own, "--advertise-client-urls", own]
    words += ["--listen-peer-urls", among, "--initial-advertise-peer-urls", among]
    words += ["--initial-cluster", f"default={among}"]
    with open(place / "etcd.log", "wb") as log:
        process = psutil.Popen(words, stdout=log, stderr=log)
    etcd = Etcd(folder, port, process)
    try:
        wait_ready(etcd.answers, [process], place / "etcd.log")
        yield etcd
    finally:
        etcd.end()
