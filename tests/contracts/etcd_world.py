"""Real etcd members for tests, on free ports, each ended by its own pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdLogin

READY_S = 60.0


def etcd_program() -> str:
    """The path of etcd; without it a test is skipped, loudly, and fails where CI is set."""
    program = shutil.which("etcd")
    if program is None:
        assert not os.environ.get("CI"), "CI must have etcd: without it no test knows the catalog of a fleet"
        pytest.skip("ETCD IS MISSING: apt-get install etcd-server; the catalog of a fleet stays untested")
    return program


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


@dataclass
class EtcdCluster:
    """Members 0..n-1; `stop` and `start` one by its number."""

    folder: Path
    client_ports: list[int]
    peer_ports: list[int]
    tls: Sequence[str] = ()
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def address(self, prefix: str) -> EtcdAddress:
        """Where a log of that prefix is."""
        scheme = "https" if self.tls else "http"
        return EtcdAddress(tuple(f"{scheme}://127.0.0.1:{port}" for port in self.client_ports), prefix)

    def start(self, number: int) -> None:
        """Run a member on its folder."""
        client, scheme = self.client_ports[number], "https" if self.tls else "http"
        peer = f"http://127.0.0.1:{self.peer_ports[number]}"
        everyone = ",".join(f"n{at}=http://127.0.0.1:{port}" for at, port in enumerate(self.peer_ports))
        words = [etcd_program(), "--name", f"n{number}", "--data-dir", str(self.folder / f"n{number}")]
        words += ["--listen-client-urls", f"{scheme}://127.0.0.1:{client}"]
        words += ["--advertise-client-urls", f"{scheme}://127.0.0.1:{client}"]
        words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", everyone]
        words += ["--heartbeat-interval", "100", "--election-timeout", "1000", *self.tls]
        with (self.folder / f"n{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(words, stdout=log, stderr=log)

    def stop(self, number: int) -> None:
        """Kill a member."""
        process = self.processes.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def wait_ready(self, login: EtcdLogin | None = None) -> None:
        """Wait until a quorum answers."""
        deadline = time.monotonic() + READY_S
        scheme = "https" if self.tls else "http"
        verify = True if login is None or not login.ca else str(login.ca)
        with httpx.Client(verify=_context(verify), trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    healthy = client.get(f"{scheme}://127.0.0.1:{self.client_ports[0]}/health").json()
                    if healthy.get("health") == "true":
                        return
                assert time.monotonic() < deadline, (self.folder / "n0.log").read_text()[-2000:]
                time.sleep(0.05)

    def end(self) -> None:
        """Kill all that run."""
        for number in list(self.processes):
            self.stop(number)


def _context(verify: bool | str) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


@contextlib.contextmanager
def etcd_cluster(folder: Path, members: int, tls: Sequence[str] = ()) -> Iterator[EtcdCluster]:
    """Run a cluster for as long as the block lasts."""
    etcd_program()
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(2 * members)
    cluster = EtcdCluster(folder, ports[:members], ports[members:], tls)
    try:
        for number in range(members):
            cluster.start(number)
        yield cluster
    finally:
        cluster.end()
