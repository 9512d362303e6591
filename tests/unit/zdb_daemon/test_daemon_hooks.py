"""Hooks are told what the original tells them, and hold up nobody who did not ask."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fungistor.zdb.daemon.hooks import CLOSINGS_MAX
from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, Daemon, Reply, daemon

SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >> "{home}/events"
case "$1" in
missing-data)
    while [ ! -e "{home}/go" ]; do sleep 0.02; done
    if [ -e "{home}/refuse" ]; then exit 1; fi
    name=$(basename "$3")
    mv "{home}/away/$name" "$3" ;;
ready) exit $(cat "{home}/ready" 2>/dev/null || echo 0) ;;
esac
"""


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    program = tmp_path / "hook"
    program.write_text(SCRIPT.format(home=tmp_path))
    program.chmod(0o700)
    (tmp_path / "away").mkdir()
    return program


def _events(hook: Path) -> list[list[str]]:
    return [line.split(" ") for line in (hook.parent / "events").read_text().splitlines()]


def _finished(client: Client, event: str) -> None:
    """Wait until a run of that event is over."""
    while True:
        rows = client.call("HOOKS")
        assert isinstance(rows, list)
        if any(isinstance(row, list) and row[0] == event.encode() and row[4] for row in rows):
            return
        client.error("WAIT", "DEL", "100")


def test_events_come_in_order_with_their_arguments(tmp_path: Path, hook: Path) -> None:
    """From the start over namespaces and a rotation to the end: the original's events, arguments and order."""
    home = tmp_path / "z"
    with daemon(home, "--hook", str(hook), "--debug-commands") as running:
        client = running.client()
        client.call("NSNEW", "n")
        client.call("NSSET", "n", "maxsize", "1000")
        client.call("SELECT", "n")
        client.call("SET", "k", "1")
        client.call("NSJUMP")
        client.call("SET", "k", "2")
        client.call("NSJUMP")
        client.call("SELECT", "default")
        client.call("RELOAD", "n")
        client.call("NSDEL", "n")
        _finished(client, "namespace-deleted")
        assert client.call("INDEX", "DIRTY") == []
        assert running.stop() == 0
    found = _events(hook)
    index, data = f"{home}/index", f"{home}/data"
    instance = found[0][1]
    assert instance.startswith("tcp://127.0.0.1:")
    expected = [
        ["namespaces-init", instance, index, data],
        ["ready", instance],
        ["namespace-created", instance, "n"],
        ["namespace-updated", instance, "n"],
        ["jump-index", instance, f"{index}/n/i0", f"{index}/n/i1", ""],
        ["jump-data", instance, f"{data}/n/d0", f"{data}/n/d1"],
        ["jump-index", instance, f"{index}/n/i1", f"{index}/n/i2", "0"],
        ["jump-data", instance, f"{data}/n/d1", f"{data}/n/d2"],
        ["namespace-reloaded", instance, "n"],
        ["namespace-deleted", instance, "n"],
        ["close", instance],
    ]
    assert found[: len(expected)] == expected
    closing = ["namespace-closing", instance, "default", f"{index}/default/i0", f"{data}/default/d0", ""]
    # It may outlive the daemon, so that it is there or not yet.
    assert found[len(expected) :] in ([], [closing[:-1]], [closing])


def _with_a_file_away(home: Path, hook: Path, *flags: str) -> Daemon:
    with daemon(home) as running:
        client = running.client()
        client.call("SET", "old", "value in d0")
        client.call("SET", "older", "also in d0")
        client.call("NSJUMP")
        client.call("SET", "new", "value in d1")
        assert running.stop() == 0
    os.rename(home / "data" / "default" / "d0", hook.parent / "away" / "d0")
    return Daemon(home, "--hook", str(hook), *flags)


def test_a_missing_file_is_brought_while_others_are_served(tmp_path: Path, hook: Path) -> None:
    """A GET from an absent file waits for the hook, other clients do not; one run serves all who ask."""
    running = _with_a_file_away(tmp_path / "z", hook)
    try:
        first, second, other = running.client(), running.client(), running.client()
        first.send("GET", "old")
        first.send("GET", "new")
        second.send("MGET", "older", "new", "none")
        for _ in range(50):
            assert other.call("PING") == b"PONG"
        assert other.call("GET", "new") == b"value in d1"
        assert other.call("LENGTH", "old") == 11
        assert not (tmp_path / "z" / "data" / "default" / "d0").exists()
        (tmp_path / "go").touch()
        assert first.read() == b"value in d0"
        assert first.read() == b"value in d1"
        assert second.read() == [b"also in d0", b"value in d1", None]
        assert [event[0] for event in _events(hook)].count("missing-data") == 1
        assert other.call("CHECK", "old") == 1
    finally:
        running.stop()


def test_a_hook_in_vain_is_an_error_to_who_asked(tmp_path: Path, hook: Path) -> None:
    """Where the hook fails the command fails, each command asks once, and a SET of the same value is stored anew."""
    (tmp_path / "go").touch()
    (tmp_path / "refuse").touch()
    running = _with_a_file_away(tmp_path / "z", hook)
    try:
        client = running.client()
        assert client.error("GET", "old") == "Internal Error"
        assert client.call("CHECK", "old") == -1
        assert client.error("HISTORY", "old") == "Internal Error"
        assert client.error("DATA", "RAW", "0", "28") == "Invalid Request"
        assert [event[0] for event in _events(hook)].count("missing-data") == 4
        assert client.call("SET", "old", "value in d0") == b"old"
        assert client.call("GET", "old") == b"value in d0"
        big = os.urandom(200_000)
        assert client.call("SET", "older", big) == b"older"
        assert client.call("GET", "older") == big
    finally:
        running.stop()


def test_a_client_that_leaves_while_a_hook_runs_harms_nobody(tmp_path: Path, hook: Path) -> None:
    """The connection is gone when the file comes; the daemon goes on and the next client has the value."""
    running = _with_a_file_away(tmp_path / "z", hook)
    try:
        leaving, staying = running.client(), running.client()
        leaving.send("GET", "old")
        assert staying.call("PING") == b"PONG"
        leaving.close()
        staying.send("GET", "old")
        (tmp_path / "go").touch()
        assert staying.read() == b"value in d0"
        assert "Traceback" not in running.log.read_text()
    finally:
        running.stop()


def test_a_hook_may_stop_the_start(tmp_path: Path, hook: Path) -> None:
    """When `ready` is answered with another code than 0 the daemon stops with exit code 0."""
    (tmp_path / "ready").write_text("3")
    with pytest.raises(RuntimeError, match="not ready"):
        Daemon(tmp_path / "z", "--hook", str(hook))


def test_compaction_is_refused_where_a_hook_keeps_files(tmp_path: Path, hook: Path) -> None:
    """Files that are kept elsewhere are not dropped here unless that is forced."""
    with daemon(tmp_path / "z", "--hook", str(hook)) as running:
        client = running.client()
        assert "kept elsewhere" in client.error("COMPACT")
        assert client.call("COMPACT", "1", "FORCE") == [0, 0, 0]


def _told(hook: Path, event: str) -> int:
    try:
        return [words[0] for words in _events(hook)].count(event)
    except FileNotFoundError:
        return 0


def _until_told(hook: Path, event: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not _told(hook, event):
        assert time.monotonic() < deadline, f"{event} was not told"
        time.sleep(0.01)


def test_a_crash_is_told(tmp_path: Path, hook: Path) -> None:
    """However the daemon is killed the hook is told `crash`; after a stop, and after a start that failed, it is not."""
    home = tmp_path / "z"
    for number, times in ((signal.SIGKILL, 1), (signal.SIGSEGV, 2)):
        running = Daemon(home, "--hook", str(hook))
        running.process.send_signal(number)
        assert running.process.wait(DEADLINE_S) == -number
        running.stop()
        deadline = time.monotonic() + DEADLINE_S
        while _told(hook, "crash") < times:
            assert time.monotonic() < deadline, "crash was not told"
            time.sleep(0.01)
    with daemon(home, "--hook", str(hook)) as running:
        with pytest.raises(RuntimeError, match="in use"):
            Daemon(tmp_path / "other", "--hook", str(hook), "--data", f"{home}/data")
        assert running.stop() == 0
    assert _told(hook, "crash") == 2
    assert next(words for words in _events(hook) if words[0] == "crash")[1].startswith("tcp://127.0.0.1:")


def test_a_hook_that_hangs_is_ended(tmp_path: Path, hook: Path) -> None:
    """A restore that takes too long is ended with what it started; who asked gets an error, later events are told."""
    running = _with_a_file_away(tmp_path / "z", hook, "--hook-timeout", "1")
    try:
        client = running.client()
        assert client.error("GET", "old") == "Internal Error"
        client.call("NSNEW", "n")
        _until_told(hook, "namespace-created")
        assert "hook.timeout" in running.log.read_text()
        # The shell and what it waits for were one group: none of it is left.
        pids = [row[2] for row in _rows(client) if row[0] == b"missing-data"]
        assert pids and all(not _group_members(pid) for pid in pids if isinstance(pid, int))
    finally:
        running.stop()


def _rows(client: Client) -> list[list[Reply]]:
    rows = client.call("HOOKS")
    assert isinstance(rows, list)
    return [row for row in rows if isinstance(row, list)]


def _group_members(group: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    state, _, pgrp = stat.read().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(pgrp) == group and state != "Z":
                found.append(int(entry))
    return found


def test_many_namespaces_close_a_few_at_a_time(tmp_path: Path) -> None:
    """At the end each namespace is told of, by no more runs at a time than a few; the hook's output reaches no log."""
    program = tmp_path / "hook"
    program.write_text(
        f"#!/bin/sh\necho spoken-by-the-hook\n[ $1 = namespace-closing ] || exit 0\n"
        f"mkdir {tmp_path}/now/$3; ls {tmp_path}/now | wc -l >> {tmp_path}/counts\n"
        f"echo $3 >> {tmp_path}/closed; rmdir {tmp_path}/now/$3\n"
    )
    program.chmod(0o700)
    (tmp_path / "now").mkdir()
    with daemon(tmp_path / "z", "--hook", str(program)) as running:
        client = running.client()
        for number in range(40):
            client.call("NSNEW", f"n{number}")
        assert running.stop() == 0
        assert "spoken-by-the-hook" not in running.log.read_text()
    names = {"default", *(f"n{number}" for number in range(40))}
    assert sorted((tmp_path / "closed").read_text().split()) == sorted(names)
    assert max(map(int, (tmp_path / "counts").read_text().split())) <= CLOSINGS_MAX
