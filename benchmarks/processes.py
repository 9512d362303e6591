"""Commands that are timed and servers that are started: each in a session of its own, ended by its own number."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

COMMAND_S = 900.0
START_S = 60.0
END_S = 30.0
POLL_S = 0.005
"""Fine enough for a start of half a second, coarse enough to leave the cores to it."""


class BenchmarkError(Exception):
    """Something that is measured, or measured with, did not do what it should."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended well: seconds from before it was started until it was gone, its own CPU included apart."""

    seconds: float
    cpu_s: float
    output: str


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Run a command to its end, its start counted.

    Raises: BenchmarkError where it fails, with the last of its words.
    """
    words = [str(word) for word in argv]
    before = _children_cpu()
    started = time.perf_counter()
    process = subprocess.Popen(
        words,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=COMMAND_S)
    except BaseException:
        end_group(process)
        raise
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise BenchmarkError(f"{' '.join(words[:4])} ... ended with {process.returncode}: {errors.strip()[-400:]}")
    return Ran(seconds, _children_cpu() - before, output)


def serve(
    argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server; its words go to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(word) for word in argv],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait_ready(ready: Callable[[], bool], processes: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
    """Wait until servers serve.

    Raises: BenchmarkError where one of them ends first, or it takes too long.
    """
    deadline = time.perf_counter() + START_S
    while not ready():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.perf_counter() > deadline:
            words = log.read_text(errors="replace")[-400:] if log.exists() else ""
            raise BenchmarkError(f"not ready ({len(ended)} ended): {words}")
        time.sleep(POLL_S)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End servers: SIGTERM to each, then SIGKILL to the session of whoever stays."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        end_group(process)


def end_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill what is left of a process's session, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds that processes have used so far."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def pss_bytes(processes: Sequence[psutil.Process]) -> int:
    """Memory of processes, a page shared by n of them counted as 1/n in each."""
    total = 0
    for process in processes:
        # smaps_rollup is summed by the kernel: the long smaps took 10 times the CPU of what was watched.
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def accepts(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def curl(url: str, size: int) -> Ran:
    """Fetch a URL to nowhere with curl, whose start is counted.

    Raises: BenchmarkError where the answer is not 200 or has another length.
    """
    ran = run(["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{size_download}", url])
    if ran.output.split() != ["200", str(size)]:
        raise BenchmarkError(f"{url}: {ran.output}, expected 200 and {size} bytes")
    return ran


def first_byte_s(url: str) -> float:
    """Seconds from before the connect to a body's first byte, on a connection of its own; the rest is not waited for.

    Raises: BenchmarkError where the answer is not 200.
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=COMMAND_S)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.request("GET", place.path)
        answer = connection.getresponse()
        first = answer.read(1)
        seconds = time.perf_counter() - started
    if answer.status != 200 or not first:
        raise BenchmarkError(f"{url}: {answer.status} {first!r}")
    return seconds


def get(url: str) -> tuple[float, bytes]:
    """Fetch a URL on a connection of its own: seconds from before the connect to the last byte, and the body.

    Raises: BenchmarkError where the answer is not 200.
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=COMMAND_S)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.request("GET", place.path)
        answer = connection.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - started
    if answer.status != 200:
        raise BenchmarkError(f"{url}: {answer.status} {body[:200]!r}")
    return seconds, body


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
