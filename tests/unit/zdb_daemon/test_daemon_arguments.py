"""The command line: the original's flags with its meanings, and refusals that say why and repeat no secret."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fungistor.errors import InvalidError
from fungistor.zdb.daemon.arguments import USAGE, parse_arguments
from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, daemon

COMMAND = (sys.executable, "-m", "fungistor.node", "zdb")

PLACE = "--data {home}/d --index {home}/i"
BOTH = "--listen :: --port {port} --socket {home}/s --dualnet"
START_LINES = {
    "grid": f"--protect --admin {{secret}} {PLACE}  {BOTH}",
    "grid-sequential": f"{PLACE} --mode seq {BOTH}",
    "startup-manager": (
        f"--socket {{home}}/s --port {{port}} --admin {{secret}} {PLACE} --dualnet --protect --rotate 900 --mode seq"
    ),
    "file-system": f"--datasize 33554432 --mode seq --listen 127.0.0.1 --port {{port}} --hook /bin/true {PLACE}",
    "tests-hook": f"--background --verbose --socket {{home}}/s {PLACE}/ --hook /bin/true --datasize 134217728",
    "tests-synctime": (
        f"--background --verbose --socket {{home}}/s {PLACE}/ --admin {{secret}} --synctime 10 --mode user"
    ),
    "tests-logfile": (
        f"--background --verbose {PLACE}/ --admin {{secret}} --logfile {{home}}/logs --listen 127.0.0.1"
        " --port {port} --sync"
    ),
}
"""How operators whose scripts are public start the original."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--mode", "both"], "is unknown"),
        (["--what"], "unknown option --what"),
        (["--port"], "needs a value"),
        (["--port", "70000"], "not a whole number"),
        (["--port", "٣"], "not a whole number"),
        (["--maxsize", "10k"], "not a whole number"),
        (["--datasize", "100"], "not between"),
        (["--datasize", "4G"], "not between"),
        (["--protect"], "needs --admin"),
        (["--data", "a", "--index", "a"], "two folders"),
        (["--data", "a/", "--index", "./a"], "two folders"),
        (["--sync", "--no-sync"], "exclude"),
        (["--no-sync", "--synctime", "3"], "excludes"),
        (["--sync=yes"], "takes no value"),
        (["--p", "1"], "may be any of --port, --protect"),
        (["--v"], "may be any of --verbose, --version"),
        (["--rotate", "soon"], "not a whole number"),
        (["--log-format", "xml"], "json or text"),
        (["--tls-port", "1"], "needs --tls-cert"),
        (["--tls-ca", "f"], "needs --tls-port"),
        (["--admin", "x" * 129], "longer than 128 bytes"),
        (["--data", "d", "stray"], "word 3 after `zdb`"),
    ],
)
def test_arguments_are_refused(words: list[str], text: str) -> None:
    """Options that are wrong are named, with exit code 2."""
    with pytest.raises(InvalidError, match=text) as caught:
        parse_arguments(words)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "words",
    [["--admin", "hunter", "hunter2"], ["--admni=hunter2"], ["hunter2"], ["--protect=hunter2"]],
)
def test_a_refusal_repeats_no_password(words: list[str]) -> None:
    """What may be a password in the wrong place is not in the message."""
    with pytest.raises(InvalidError) as caught:
        parse_arguments(words)
    assert "hunter" not in f"{caught.value} {caught.value.hint}"


def test_arguments_are_the_originals(tmp_path: Path) -> None:
    """The original's flags are understood: one dash or two, cut short, sizes with its suffixes."""
    words = "-data d --index=i --datasize 1.5MB --adm x --prot --maxsize 9 -syncti 10 --rot 7 --secure --dual --back"
    config = parse_arguments(words.split())
    assert (config.data, config.index, config.datasize, config.maxsize) == ("d", "i", 3 << 19, 9)
    assert (config.listen, config.port, config.admin, config.protect) == ("127.0.0.1", 9900, "x", True)
    assert (config.synctime, config.rotate, config.secure, config.dualnet, config.background) == (
        10,
        7,
        True,
        True,
        True,
    )
    secret = tmp_path / "secret"
    secret.write_text("from a file\nnot this\n")
    assert parse_arguments(["--admin-file", str(secret)]).admin == "from a file"
    assert "from a file" not in repr(parse_arguments(["--admin-file", str(secret)]))


def test_help_names_every_flag() -> None:
    """Each option of ours and of the original is in --help."""
    from fungistor.zdb.daemon import arguments

    for name in arguments._VALUES | arguments._SWITCHES:
        assert f"--{name}" in USAGE, name


@pytest.mark.parametrize("line", START_LINES.values(), ids=START_LINES.keys())
def test_start_lines_for_the_original_start_ours(tmp_path: Path, line: str) -> None:
    """The lines by which known operators start the original serve on the addresses that they name, and stop with 0."""
    port = _free_port()
    words = line.format(home=tmp_path, port=port, secret="top-secret-word").split()
    out = tmp_path / "out"
    with out.open("wb") as log:
        process = subprocess.Popen([*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    addresses = [f"{tmp_path}/s"] if "--socket" in words else []
    if "--port" in words:
        addresses.append(f"127.0.0.1:{port}")
    pid = process.pid
    try:
        if "--background" in words:
            assert process.wait(DEADLINE_S) == 0, out.read_text()
            pid = _owner_of(f"{tmp_path}/d")
        for address in addresses:
            client = _connected(address)
            assert client.call("PING") == b"PONG"
            client.close()
    finally:
        os.kill(pid, signal.SIGTERM)
        if pid == process.pid:
            assert process.wait(DEADLINE_S) == 0, out.read_text()
        _wait_gone(pid)
    logs = out.read_text() + ((tmp_path / "logs").read_text() if "--logfile" in words else "")
    assert "top-secret-word" not in logs


def _connected(address: str) -> Client:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return Client(address)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _owner_of(folder: str) -> int:
    """The process that has a file open below the folder."""
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            if any(
                os.readlink(f"/proc/{entry}/fd/{fd}").startswith(f"{folder}/") for fd in os.listdir(f"/proc/{entry}/fd")
            ):
                return int(entry)
        except OSError:
            continue
    raise AssertionError(f"nobody has {folder}")


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.01)


def test_dump_lists_and_ends(tmp_path: Path) -> None:
    """--dump opens folders as a start does, lists live keys and ends with 0; a wrong mode is an error."""
    words = [*COMMAND, "--data", f"{tmp_path}/data", "--index", f"{tmp_path}/index", "--dump"]
    assert subprocess.run([*words, "--mode", "user"], check=True, capture_output=True).stdout == b""
    with daemon(tmp_path) as running:
        running.client().call("SET", "hello", "world")
        assert running.stop() == 0
    found = subprocess.run([*words, "--background"], check=True, capture_output=True, text=True).stdout
    assert b"hello".hex() in found and found.count("\n") == 1
    refused = subprocess.run([*words, "--mode", "seq"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1 and "error: " in refused.stderr


def test_background_tells_why_it_does_not_start(tmp_path: Path) -> None:
    """The process that was started ends with the error and its exit code when nothing comes to serve."""
    with daemon(tmp_path):
        words = [
            "--data",
            f"{tmp_path}/data",
            "--index",
            f"{tmp_path}/index",
            "--background",
            "--port",
            str(_free_port()),
        ]
        tried = subprocess.run([*COMMAND, *words], check=False, capture_output=True, text=True)
        assert tried.returncode == 6
        assert "in use by another daemon" in tried.stderr
