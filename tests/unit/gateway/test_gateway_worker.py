"""Worker processes on one inherited socket: start, drain, signals, and the end of their supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest

from fungistor.testing.memory_content import MemoryContent
from tests.unit.gateway.live import wait_until
from tests.unit.gateway.worker_under_test import BODY

MODULE = "tests.unit.gateway.worker_under_test"
WAIT_S = 20


@dataclass(frozen=True, slots=True)
class Workers:
    """Two workers that share a port."""

    port: int
    processes: list[subprocess.Popen[bytes]]


def _start(listener: socket.socket) -> subprocess.Popen[bytes]:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, str(listener.fileno()), str(writing), str(os.getpid())],
        pass_fds=(listener.fileno(), writing),
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as ready:
        assert ready.read() == b"ready\n", "the worker closes the pipe after one line"
    return process


@contextmanager
def _workers(count: int) -> Iterator[Workers]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        processes = [_start(listener) for _ in range(count)]
        try:
            yield Workers(listener.getsockname()[1], processes)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.communicate(timeout=WAIT_S)


def test_workers_share_a_socket_drain_and_log() -> None:
    """Two workers serve one port; SIGINT passes them by; SIGTERM lets an answer under way end, then they exit 0."""
    cid = MemoryContent().add_file(BODY).cid
    with _workers(2) as workers:
        url = f"http://127.0.0.1:{workers.port}"
        for process in workers.processes:
            process.send_signal(signal.SIGINT)
        with httpx.Client(timeout=WAIT_S) as client, client.stream("GET", f"{url}/ipfs/{cid}") as answer:
            parts = answer.iter_raw()
            received = len(next(parts))
            for process in workers.processes:
                process.send_signal(signal.SIGTERM)
            received += sum(len(part) for part in parts)
        assert received == len(BODY)
        logs = [process.communicate(timeout=WAIT_S)[1].decode() for process in workers.processes]
        assert [process.returncode for process in workers.processes] == [0, 0]
    lines = [json.loads(line) for log in logs for line in log.splitlines()]
    assert [(line["path"], line["status"], line["bytes"]) for line in lines] == [(f"/ipfs/{cid}", 200, len(BODY))]


def test_a_drain_is_bounded() -> None:
    """A client that does not read cannot keep a worker from ending."""
    cid = MemoryContent().add_file(BODY).cid
    with _workers(1) as workers, socket.create_connection(("127.0.0.1", workers.port), timeout=WAIT_S) as peer:
        peer.sendall(f"GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        peer.recv(1024)
        (process,) = workers.processes
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_killed_supervisor_leaves_no_worker() -> None:
    """When the process that started a worker is killed, the worker ends."""
    supervisor = (
        "import os, socket, subprocess, sys\n"
        "with socket.create_server(('127.0.0.1', 0)) as listener:\n"
        "    reading, writing = os.pipe()\n"
        f"    child = subprocess.Popen([sys.executable, '-m', '{MODULE}', str(listener.fileno()), str(writing),\n"
        "        str(os.getpid())], pass_fds=(listener.fileno(), writing))\n"
        "    os.close(writing)\n"
        "    os.read(reading, 64)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", supervisor], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate(timeout=WAIT_S)
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker has ended")
