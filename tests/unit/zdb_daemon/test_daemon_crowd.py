"""Many connections, silent ones, ones that do not read: others are served, memory and descriptors stay bounded."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, Daemon, daemon, encode

CROWD = 1000
MIB = 1 << 20


def _descriptors(running: Daemon) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def _resident_bytes(running: Daemon) -> int:
    with open(f"/proc/{running.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _until(found: object) -> None:
    assert callable(found)
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thousand_connections_and_one_too_many(tmp_path: Path) -> None:
    """A thousand are served at once in one descriptor and a few KiB each; one more is told why not."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    crowd = min(CROWD, soft - 200)
    with daemon(tmp_path, "--max-connections", str(crowd)) as running:
        before = _descriptors(running), _resident_bytes(running)
        clients = [running.client() for _ in range(crowd)]
        for number, client in enumerate(clients):
            client.send("SET", f"k{number}", "v")
        for number, client in enumerate(clients):
            assert client.read() == f"k{number}".encode()
        assert _descriptors(running) - before[0] <= crowd + 4
        assert _resident_bytes(running) - before[1] < crowd * 32 << 10
        late = running.client()
        assert str(late.read()) == f"Too many connections, at most {crowd} are served at a time"
        with pytest.raises((EOFError, ConnectionError)):
            late.call("PING")
        for client in clients[10:]:
            client.close()
        _until(lambda: _descriptors(running) <= before[0] + 20)
        assert running.client().call("DBSIZE") == crowd
        assert clients[0].call("PING") == b"PONG"
        assert running.stop() == 0


def test_few_descriptors_are_a_limit_and_no_failure(tmp_path: Path) -> None:
    """Where only 256 files may be open the daemon refuses connections while it still has descriptors for its files."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    with daemon(tmp_path, before=few) as running:
        first = running.client()
        assert first.call("SET", "k", "v") == b"k"
        crowd = [running.client() for _ in range(300)]
        assert crowd[0].call("PING") == b"PONG"
        assert "Too many connections" in str(crowd[-1].read())
        for number in range(5):
            assert first.call("NSJUMP") == b"OK"
            assert first.call("SET", "k", f"v{number}") == b"k"
        assert first.call("NSNEW", "n") == b"OK"
        assert running.stop() == 0


def test_silent_connections_are_closed_and_idle_ones_stay(tmp_path: Path) -> None:
    """Who never sends anything is let go after --greeting-timeout; who once did may be idle for as long as it likes."""
    with daemon(tmp_path, "--greeting-timeout", "1") as running:
        idle, silent = running.client(), running.client()
        assert idle.call("PING") == b"PONG"
        assert silent.sock.recv(1) == b""
        assert idle.call("PING") == b"PONG"


def test_idle_connections_are_closed_if_that_is_asked(tmp_path: Path) -> None:
    """--idle-timeout closes connections on which nothing happens, but none that waits for others."""
    with daemon(tmp_path, "--idle-timeout", "1") as running:
        idle, waiting = running.client(), running.client()
        waiting.send("WAIT", "SET", "15000")
        assert idle.call("PING") == b"PONG"
        assert idle.sock.recv(1) == b""
        assert running.client().call("SET", "k", "v") == b"k"
        assert waiting.read() == b"SET"


def test_who_does_not_read_is_dropped_before_memory_runs_out(tmp_path: Path) -> None:
    """Replies that nobody reads take no more than --max-unsent and one reply on top; others are served meanwhile."""
    with daemon(tmp_path, "--max-unsent", "24M") as running:
        other = running.client()
        other.call("SET", "big", os.urandom(8 * MIB))
        assert other.call("LENGTH", "big") == 8 * MIB
        before = _resident_bytes(running)
        slow = [Client(running.address) for _ in range(30)]
        for client in slow:
            client.send("GET", "big")
            assert other.call("PING") == b"PONG"
        _until(lambda: running.log.read_text().count("connection.dropped") >= 20)
        assert _resident_bytes(running) - before < 64 * MIB
        # The last one was not among those dropped, and gets all of it.
        value = slow[-1].read()
        assert isinstance(value, bytes) and len(value) == 8 * MIB
        for client in slow:
            client.close()
        assert running.stop() == 0


def test_slow_writers_hold_up_nobody(tmp_path: Path) -> None:
    """Half-sent values by many clients, and clients that vanish in the middle, take bounded memory."""
    with daemon(tmp_path) as running:
        before = _resident_bytes(running)
        slow = [Client(running.address) for _ in range(40)]
        request = encode("SET", "k", bytes(8 * MIB))[: 2 * MIB]
        for client in slow:
            client.sock.setblocking(False)
            client.sock.send(request)
        other = running.client()
        for number in range(50):
            assert other.call("SET", f"small{number}", "v" * 1000) == f"small{number}".encode()
        assert _resident_bytes(running) - before < 80 * MIB
        for client in slow:
            client.close()
        assert other.call("SET", "large", bytes(8 * MIB)) == b"large"
        assert running.stop() == 0
