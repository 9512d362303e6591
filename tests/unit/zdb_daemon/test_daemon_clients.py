"""Clients that others wrote, on our wire: hiredis and redis-benchmark. redis-cli and redis-py are with the commands."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hiredis
import pytest

from tests.unit.zdb_daemon.harness import Daemon, daemon


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path / "home") as running:
        yield running


def test_hiredis_reads_every_kind_of_reply(server: Daemon) -> None:
    """What hiredis packs is understood, and it reads what comes back: status, bulk, nil, number, lists, error."""
    reader = hiredis.Reader()
    sock = server.client().sock

    def ask(*words: bytes | str | int) -> object:
        sock.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
        while (reply := reader.gets()) is False:
            reader.feed(sock.recv(65536))
        return reply

    value = bytes(range(256)) * 2000
    assert ask("PING") == b"PONG"
    assert ask("SET", "k", value) == b"k"
    assert ask("SET", "k", value) is None
    assert (ask("GET", "k"), ask("GET", "none")) == (value, None)
    assert (ask("LENGTH", "k"), ask("EXISTS", "none")) == (len(value), 0)
    assert ask("MGET", "k", "none") == [value, None]
    scanned = ask("SCAN")
    assert isinstance(scanned, list)
    assert scanned[1][0][:2] == [b"k", len(value)]
    assert isinstance(ask("NOPE"), hiredis.ReplyError)
    for number in range(500):
        sock.sendall(hiredis.pack_command(("SET", f"p{number}", "v" * number)))  # type: ignore[arg-type]
    got: list[object] = []
    while len(got) < 500:
        while (reply := reader.gets()) is not False:
            got.append(reply)
        if len(got) < 500:
            reader.feed(sock.recv(65536))
    assert got == [b"p%d" % number for number in range(500)]


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not on PATH")
@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark_runs_to_its_end(server: Daemon, pipeline: int) -> None:
    """SET, GET and PING of 20 clients, with and without pipelining, are all answered, none with an error."""
    words = [
        "redis-benchmark",
        "-p",
        server.address.rpartition(":")[2],
        "-t",
        "ping_mbulk,set,get",
        "-c",
        "20",
        "-d",
        "512",
    ]
    words += ["-n", "2000", "-r", "500", "-P", str(pipeline), "--csv"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stdout.replace("Unable to get redis config", "")
    tests = [row[0] for row in csv.reader(io.StringIO(done.stdout)) if row and row[0] in ("SET", "GET", "PING_MBULK")]
    assert tests == ["PING_MBULK", "SET", "GET"]
    entries = server.client().call("DBSIZE")
    assert isinstance(entries, int)
    assert 400 < entries <= 500
