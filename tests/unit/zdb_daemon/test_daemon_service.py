"""A daemon as a service: signals, systemd's words, logs, and the flags that act while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, Daemon, ErrorReply, daemon, encode


def _events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _until(found: object, what: str = "") -> None:
    """Wait until `found()` is true."""
    assert callable(found)
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.01)


# signals


def test_a_stop_answers_what_was_asked(tmp_path: Path) -> None:
    """What clients had sent when SIGTERM came is answered, idle ones are let go, all is on disk; exit 0."""
    with daemon(tmp_path) as running:
        busy, idle = running.client(), running.client()
        assert idle.call("PING") == b"PONG"
        count = 2000
        busy.sock.sendall(b"".join(encode("SET", f"k{n}", b"v" * 900) for n in range(count)))
        running.process.send_signal(signal.SIGTERM)
        assert [busy.read() for _ in range(count)] == [b"k%d" % n for n in range(count)]
        assert idle.sock.recv(1) == b""
        assert running.process.wait(DEADLINE_S) == 0
    with daemon(tmp_path) as running:
        assert running.client().call("DBSIZE") == count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """While a stop waits for the hook, the next signal ends the process; the folder opens again."""
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\n[ "$1" != close ] || {{ touch {tmp_path}/closing; exec sleep 60; }}\n')
    hook.chmod(0o700)
    running = Daemon(tmp_path, "--hook", str(hook))
    try:
        running.client().call("SET", "k", "v")
        running.process.send_signal(number)
        _until((tmp_path / "closing").exists, "close")
        while running.process.poll() is None:
            running.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(0.1)
        assert running.process.returncode == -number
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
    with daemon(tmp_path) as running:
        assert running.client().call("GET", "k") == b"v"


def test_ctrl_c_is_a_clean_stop(tmp_path: Path) -> None:
    """SIGINT stops with exit 0 and no traceback; who ignores SIGINT for its children keeps them running."""
    with daemon(tmp_path) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(DEADLINE_S) == 0
        assert "Traceback" not in running.log.read_text()

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with daemon(tmp_path, before=ignore) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.client().call("PING") == b"PONG"
        assert running.stop() == 0


# systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which a service manager hears its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(DEADLINE_S)
        yield link


def _heard(manager: socket.socket, wanted: str) -> dict[str, str]:
    """The next message that has the state, as a table."""
    while True:
        message = dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
        name, _, value = wanted.partition("=")
        if message.get(name) == value:
            return message


def test_the_service_manager_hears_what_happens(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY when serving, signs of life, RELOADING and READY around SIGHUP, STOPPING; hooks see none of it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\nenv >> {tmp_path}/environment\n")
    hook.chmod(0o700)
    with daemon(tmp_path / "z", "--hook", str(hook)) as running:
        assert _heard(manager, "READY=1")["STATUS"] == f"serving on {running.address}"
        assert running.client().call("PING") == b"PONG"
        _heard(manager, "WATCHDOG=1")
        _heard(manager, "WATCHDOG=1")
        running.process.send_signal(signal.SIGHUP)
        assert int(_heard(manager, "RELOADING=1")["MONOTONIC_USEC"]) > 0
        _heard(manager, "READY=1")
        running.process.send_signal(signal.SIGTERM)
        assert int(_heard(manager, "STOPPING=1")["EXTEND_TIMEOUT_USEC"]) > 60_000_000
        assert running.process.wait(DEADLINE_S) == 0
    environment = (tmp_path / "environment").read_text()
    assert "PATH=" in environment
    assert "NOTIFY_SOCKET" not in environment and "WATCHDOG_USEC" not in environment


def test_a_passed_socket_is_served(tmp_path: Path) -> None:
    """A listening socket that the service manager made is used in place of the configured address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as early:
            early.sendall(encode("PING"))

            def pass_it() -> None:
                os.dup2(listening.fileno(), 3)
                os.set_inheritable(3, True)
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="zdb")

            words = [*("--data", f"{tmp_path}/d"), *("--index", f"{tmp_path}/i"), *("--port", "1")]
            pid = os.fork()
            if pid == 0:
                try:
                    pass_it()
                    os.execv(sys.executable, [sys.executable, "-m", "fungistor.zdb.daemon", *words])
                finally:
                    os._exit(9)
            try:
                assert early.recv(100) == b"+PONG\r\n"
                client = Client(f"127.0.0.1:{port}")
                assert client.call("SET", "k", "v") == b"k"
                client.close()
            finally:
                os.kill(pid, signal.SIGTERM)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# logs


def test_log_lines_are_objects_without_secrets(tmp_path: Path) -> None:
    """Each line is one JSON object with time, level, event and message; nothing that flags or clients said is there."""
    flags = ["--admin", "pw-flag", "--verbose", "--protect"]
    with daemon(tmp_path, *flags) as running:
        client = running.client()
        client.call("AUTH", "pw-wrong")
        client.call("AUTH", "SECURE", "pw-hash".ljust(40, "x"))
        client.call("AUTH", "pw-flag")
        client.call("NSNEW", "n")
        client.call("NSSET", "n", "password", "pw-namespace")
        client.call("SELECT", "n", "pw-other")
        client.call("SELECT", "n", "pw-namespace")
        client.call("SET", "pw-key", "pw-value")
        assert isinstance(client.call("pw-command", "pw-word"), ErrorReply)
        running.process.send_signal(signal.SIGHUP)
        _until(lambda: "daemon.reloaded" in running.log.read_text(), "reload")
        running.client().sock.sendall(b"*3\r\n$3\r\nSET\r\npw-broken")
        assert running.stop() == 0
    events = _events(running.log)
    assert [event["event"] for event in events][:2] == ["daemon.starting", "daemon.serving"]
    assert events[-1]["event"] == "daemon.stopped"
    assert all({"time", "level", "event", "message"} <= event.keys() for event in events)
    assert "pw-" not in running.log.read_text()


def test_a_log_file_is_opened_again(tmp_path: Path) -> None:
    """After the file was moved away SIGHUP begins a new one; the old one gets nothing more, stderr nothing at all."""
    log, old = tmp_path / "zdb.log", tmp_path / "zdb.log.1"
    with daemon(tmp_path / "z", "--logfile", str(log)) as running:
        assert log.stat().st_mode & 0o777 == 0o600
        log.rename(old)
        running.process.send_signal(signal.SIGHUP)
        _until(log.exists, "the new file")
        _until(lambda: "daemon.reloaded" in log.read_text(), "a line in it")
        assert running.stop() == 0
    assert [event["event"] for event in _events(old)][:2] == ["daemon.starting", "daemon.serving"]
    assert _events(log)[-1]["event"] == "daemon.stopped"
    assert running.log.read_text() == ""


def test_a_person_at_a_terminal_reads_text(tmp_path: Path) -> None:
    """On a terminal lines are text; nothing in them can command the terminal."""
    master, slave = os.openpty()
    words = [*("--data", f"{tmp_path}/d\x1b[31m"), *("--index", f"{tmp_path}/i"), *("--port", "0")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fungistor.zdb.daemon", *words], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
    )
    os.close(slave)
    said = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        while b"serving on 127.0.0.1" not in said:
            said += terminal.read(1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    assert said.startswith(b"zdb: opening the folders")
    assert b"\x1b" not in said


def test_a_terminal_that_is_closed_stops_it(tmp_path: Path) -> None:
    """SIGHUP from a terminal that is gone is a clean stop; while it is there, it is a reload."""
    master, slave = os.openpty()
    words = [*("--data", f"{tmp_path}/d"), *("--index", f"{tmp_path}/i"), *("--port", "0")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fungistor.zdb.daemon", *words], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
    )
    os.close(slave)
    with os.fdopen(master, "rb", buffering=0) as terminal:
        said = b""
        for wanted in (b"serving on 127.0.0.1", b"opened again"):
            while wanted not in said:
                said += terminal.read(1000)
            if wanted != b"opened again":
                process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(DEADLINE_S) == 0


# flags that act while it runs


def test_rotate_begins_new_files_where_something_was_written(tmp_path: Path) -> None:
    """--rotate closes files by age in namespaces that were written to, and leaves the others alone."""
    with daemon(tmp_path, "--rotate", "1") as running:
        client = running.client()
        client.call("NSNEW", "idle")
        client.call("SET", "k", "v")
        _until((tmp_path / "data" / "default" / "d1").exists, "a rotation")
        client.call("DEL", "k")
        client.call("SET", "l", "v")
        _until((tmp_path / "data" / "default" / "d2").exists, "the next one")
        assert client.call("GET", "l") == b"v"
        assert sorted(os.listdir(tmp_path / "data" / "idle")) == ["d0"]
        assert running.stop() == 0


@pytest.mark.parametrize("flags", [["--synctime", "1"], ["--secure"]])
def test_files_are_flushed_unasked(tmp_path: Path, flags: list[str]) -> None:
    """--synctime flushes what was written within its time, --secure what a rotation has closed; seen from outside."""
    trace = tmp_path / "trace"
    with daemon(tmp_path / "z", *flags) as running:
        with trace.open("wb") as out:
            tracer = subprocess.Popen(
                ["strace", "-f", "-y", "-e", "trace=fdatasync", "-p", str(running.process.pid)],
                stdout=subprocess.DEVNULL, stderr=out,
            )  # fmt: skip
        try:
            _until(lambda: "attached" in trace.read_text(), "strace")
            client = running.client()
            client.call("SET", "k", "v")
            if flags == ["--secure"]:
                client.call("NSJUMP")
            _until(lambda: "default/d0" in trace.read_text(), "the flush")
        finally:
            tracer.terminate()
            tracer.wait(DEADLINE_S)
        assert running.stop() == 0
