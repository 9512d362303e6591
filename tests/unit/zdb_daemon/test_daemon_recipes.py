"""The recipes of docs/zdb.md, run as they stand on the page."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.zdb_daemon import test_daemon_stored_folder as stored_folder
from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, Daemon, daemon
from tests.unit.zdb_daemon.original import needs_original, original

PAGE = Path(__file__).parents[3] / "docs" / "zdb.md"
needs_redis_cli = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on PATH")


def recipe(title: str) -> list[str]:
    """The blocks of commands under a heading."""
    _, found, rest = PAGE.read_text().partition(f"### {title}\n")
    assert found, title
    return re.findall(r"```sh\n(.*?)```", re.split(r"\n##+ ", rest)[0], re.DOTALL)


def environment(**settings: object) -> dict[str, str]:
    """The variables of the page, and our command on PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **{name: str(value) for name, value in settings.items()}}


def run(block: str, **settings: object) -> None:
    """Run a block to its end; any command that fails ends it."""
    done = subprocess.run(["bash", "-euc", block], env=environment(**settings), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def left_running(block: str, home: Path, **settings: object) -> Iterator[Client]:
    """Run a block whose last command goes on in the background, a daemon on $PORT; stop that in the end."""
    assert block.rstrip().endswith("&")
    pid, address = home / "pid", f"127.0.0.1:{settings['PORT']}"
    pid.unlink(missing_ok=True)
    with (home / "recipe.log").open("wb") as log:
        words = ["bash", "-euc", f'{block}echo $! > "{pid}.new"; mv "{pid}.new" "{pid}"; wait $!']
        shell = subprocess.Popen(words, env=environment(**settings), stdout=log, stderr=log)
    try:
        with connected(address, shell, home / "recipe.log") as client:
            yield client
    finally:
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)
        shell.wait(DEADLINE_S)


@contextmanager
def connected(address: str, shell: subprocess.Popen[bytes], log: Path) -> Iterator[Client]:
    """A client as soon as somebody answers there."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            client = Client(address)
            break
        except OSError:
            assert shell.poll() is None and time.monotonic() < deadline, log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):
                shell.wait(0.05)
    try:
        yield client
    finally:
        client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Busy(threading.Thread):
    """Writes while the backup runs."""

    def __init__(self, server: Daemon) -> None:
        super().__init__(daemon=True)
        self.client = server.client()
        self.written: dict[bytes, set[bytes]] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            key, value = b"busy-%d" % (number % 50), b"%d:" % number + bytes(number % 3000)
            assert self.client.call("SET", key, value) == key
            self.written.setdefault(key, set()).add(value)
            number += 1


@needs_redis_cli
def test_a_backup_is_taken_while_it_runs_and_restored(tmp_path: Path) -> None:
    """With clients writing meanwhile, a backup, a second one into the same folder, and what is restored from it: every
    value and id from before, nothing of other keys but what they once were, and no id is given again."""
    back_up, restore = recipe("A backup while it runs")
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    restored.mkdir()
    with daemon(tmp_path / "live", "--datasize", "512k") as server:
        client = server.client()
        home, port = server.home, server.address.rpartition(":")[2]
        assert client.call("NSNEW", "ids") == b"OK"
        assert client.call("NSSET", "ids", "mode", "seq") == b"OK"
        busy = Busy(server)
        busy.start()
        kept: dict[bytes, bytes] = {}
        ids: dict[bytes, bytes] = {}
        for turn in range(2):
            assert client.call("SELECT", "default") == b"OK"
            for number in range(60):
                kept[b"kept-%d" % number] = b"%d of turn %d" % (number, turn) + bytes(9000)
                client.call("SET", b"kept-%d" % number, kept[b"kept-%d" % number])
            client.call("DEL", "kept-7")
            assert client.call("SELECT", "ids") == b"OK"
            for number in range(40):
                value = b"id %d of turn %d" % (number, turn)
                reply = client.call("SET", next(iter(ids)) if number == 5 and ids else b"", value)
                assert isinstance(reply, bytes)
                ids[reply] = value
            run(back_up, DATA=home / "data", INDEX=home / "index", BACKUP=backup, PORT=port)
        after = client.call("SET", "", "after the backup")
        busy.stop.set()
        busy.join(DEADLINE_S)
    del kept[b"kept-7"]
    settings = {"BACKUP": backup, "RESTORED": restored, "PORT": free_port()}
    with left_running(restore.replace("$PORT2", "$PORT"), tmp_path, **settings) as client:
        for key, value in kept.items():
            assert (client.call("GET", key), client.call("CHECK", key)) == (value, 1)
        assert client.call("GET", "kept-7") is None
        for key, values in busy.written.items():
            assert client.call("GET", key) in {None, *values}
        assert client.call("SELECT", "ids") == b"OK"
        assert {key: client.call("GET", key) for key in ids} == ids
        assert isinstance(after, bytes)
        assert client.call("GET", after) is None
        fresh = client.call("SET", "", "goes on")
        assert fresh not in ids


def test_a_stored_folder_is_taken_over_in_place(tmp_path: Path) -> None:
    """A folder in the original's bytes: `check` finds nothing to mend and changes nothing, ours serves all of it, and
    after the stop the original's files are as the format has them."""
    stored_folder.lay_out(tmp_path)
    take_over, _ = recipe("From the original 0-db to ours, in place, and back")
    settings = {"DATA": tmp_path / "data", "INDEX": tmp_path / "index", "PORT": free_port()}
    with left_running(take_over, tmp_path, **settings) as client:
        assert stored_folder.written(tmp_path) == stored_folder.stored()
        stored_folder.check(client)
    files = stored_folder.written(tmp_path)
    for path, data in stored_folder.stored().items():
        assert files[path].startswith(data), path


@needs_original
def test_an_original_is_replaced_in_place_and_put_back(tmp_path: Path) -> None:
    """A real 0-db is stopped, ours takes over its folders and writes, and the original takes them back, all in them."""
    take_over, way_back = recipe("From the original 0-db to ours, in place, and back")
    with original(tmp_path, "--datasize", "524288") as server:
        stored_folder.play(server.client())
    settings = {"DATA": tmp_path / "data", "INDEX": tmp_path / "index", "PORT": free_port()}
    with left_running(take_over, tmp_path, **settings) as client:
        stored_folder.check(client)
        assert client.call("SELECT", "default") == b"OK"
        assert client.call("SET", "new", "by ours") == b"new"
        assert client.call("SET", "gamma", "changed by ours") == b"gamma"
        assert client.call("DEL", "beta") == b"OK"
    with left_running(way_back, tmp_path, **settings) as client:
        assert [client.call("GET", key) for key in ("alpha", "beta", "gamma", "new", "empty")] == [
            b"one, changed in a later file", None, b"changed by ours", b"by ours", None
        ]  # fmt: skip
        assert client.call("SELECT", "ids", "short") == b"OK"
        assert client.call("GET", (5).to_bytes(8, "little")) == b"next"
        assert client.call("SET", "", "by the original again") == (6).to_bytes(8, "little")
