"""Replies and error texts on a real socket: what the original's clients match on."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fungistor.zdb.daemon.vocabulary import COMMANDS
from tests.unit.zdb_daemon.harness import Client, Daemon, ErrorReply, daemon, encode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("zdb"), "--admin", "root", "--datasize", "600000") as running:
        yield running


@pytest.fixture
def client(server: Daemon) -> Client:
    return server.client()


@pytest.fixture
def admin(server: Daemon) -> Client:
    client = server.client()
    assert client.call("AUTH", "root") == b"OK"
    return client


NSINFO_NAMES = """
name entries public worm locked password data_size_bytes data_size_mb data_limits_bytes index_size_bytes
index_size_kb next_internal_id mode stats_index_io_errors stats_index_io_error_last stats_index_faults
stats_data_io_errors stats_data_io_error_last stats_data_faults index_disk_freespace_bytes
index_disk_freespace_mb data_disk_freespace_bytes data_disk_freespace_mb data_path data_active index_path
index_active data_current_id data_current_offset
"""

_names = iter(range(1_000_000))


@pytest.fixture
def space(admin: Client) -> Client:
    """An admin in a namespace of its own."""
    name = admin.name = f"space-{next(_names)}"
    assert admin.call("NSNEW", name) == b"OK"
    assert admin.call("SELECT", name) == b"OK"
    return admin


def info_of(client: Client, *words: str) -> dict[str, str]:
    text = client.call(*words)
    assert isinstance(text, bytes)
    return dict(line.split(": ", 1) for line in text.decode().splitlines() if ": " in line)


def test_a_value_comes_back(space: Client) -> None:
    """SET answers the key, an identical SET nil, GET the value, and an empty value is one."""
    assert space.call("SET", "k", "v") == b"k"
    assert space.call("SET", "k", "v") is None
    assert space.call("GET", "k") == b"v"
    assert space.call("SET", "k", "") == b"k"
    assert space.call("GET", "k") == b""
    assert space.call("LENGTH", "k") == 0
    assert space.call("CHECK", "k") == 1
    assert space.call("EXISTS", "k") == 1
    assert space.call("DBSIZE") == 1
    assert space.call("DEL", "k") == b"OK"
    assert space.call("GET", "k") is None
    assert space.call("EXISTS", "k") == 0
    assert space.call("LENGTH", "k") is None
    assert space.call("CHECK", "k") is None
    assert space.call("KEYTIME", "k") is None
    assert space.error("DEL", "k") == "Key not found"
    assert space.error("KEYCUR", "k") == "Key not found"


def test_words_are_refused_in_the_originals_words(space: Client) -> None:
    """Wrong arity, empty and too long arguments have the texts that clients know."""
    assert space.error("SET", "k", "v", "EX", "10") == "Unexpected arguments"
    assert space.error("SET", "k" * 256, "v") == "Key too large"
    assert space.error("SET", "", "v") == "Invalid argument, key needed"
    for command in ("GET", "EXISTS", "CHECK", "LENGTH", "KEYTIME", "DEL"):
        assert space.error(command) == "Unexpected arguments"
        assert space.error(command, "") == "Invalid argument"
        assert space.error(command, "k" * 256) == "Invalid key"
    assert space.error("MGET") == "Invalid arguments"
    assert space.error("MGET", "k", "k" * 256) == "Invalid key"
    assert space.error("NOPE") == "Command not supported"
    assert space.error("SETT", "k", "v") == "Command not supported"
    assert space.error("") == "This is not a valid command"
    assert space.error("*") == "This is not a valid command"
    assert space.error("x" * 8178) == "Command not supported"
    assert space.call("ping", "ignored") == b"PONG"
    assert isinstance(space.call("TIME"), list)


def test_timestamps_are_read_as_c_does(space: Client) -> None:
    """An admin may give a time; text is read like atoll and cut to 32 bits."""
    for text, value in (("1234", 1234), ("abc", 0), ("-5", 4294967291), ("99999999999", 1215752191), ("", 0)):
        assert space.call("SET", "k", os.urandom(8), text) == b"k"
        assert space.call("KEYTIME", "k") == value
    before = int(time.time())
    space.call("SET", "k", "now")
    moment = space.call("KEYTIME", "k")
    assert isinstance(moment, int)
    assert before <= moment <= time.time()


def test_rights_come_before_arity(client: Client) -> None:
    """Without the admin password, what changes namespaces or times is denied before anything is looked at."""
    for words in (("NSNEW",), ("NSDEL", "x"), ("NSSET", "a"), ("NSJUMP",), ("SET", "k", "v", "1"), ("DEL", "k", "1")):
        assert client.error(*words) == "Permission denied"
    assert client.call("SET", "everybody", "writes default") in (b"everybody", None)


def test_auth(client: Client) -> None:
    """AUTH takes the password, or the SHA-1 answer to a nonce that is used up by it."""
    assert client.error("AUTH", "wrong") == "Access denied"
    assert client.error("AUTH", "") == "Invalid argument"
    assert client.error("AUTH", "x" * 129) == "Password too long"
    assert client.error("AUTH", "a", "b") == "Only SECURE extra method supported"
    assert client.error("AUTH") == "Unexpected arguments"
    assert client.error("AUTH", "SECURE", "0" * 40).startswith("No CHALLENGE requested")
    nonce = client.call("AUTH", "SECURE", "CHALLENGE")
    assert isinstance(nonce, bytes)
    assert re.fullmatch(rb"[0-9a-f]{16}", nonce)
    assert client.error("AUTH", "SECURE", "short") == "Invalid hash length"
    answer = hashlib.sha1(nonce + b":root").hexdigest()
    assert client.call("AUTH", "SECURE", answer) == b"OK"
    assert client.error("AUTH", "SECURE", answer).startswith("No CHALLENGE requested")
    assert client.call("AUTH", "root") == b"OK"
    assert client.error("AUTH", "wrong") == "Access denied"
    assert client.call("NSNEW", "by-auth") == b"OK"


def test_namespaces(admin: Client, client: Client) -> None:
    """Namespaces are created, listed, guarded by password and removed, with the original's texts."""
    assert admin.call("NSNEW", "n1") == b"OK"
    assert admin.error("NSNEW", "n1") == "This namespace is not available"
    for name in (".", "..", "a/b", "default"):
        assert admin.error("NSNEW", name) == "This name is not allowed"
    assert admin.error("NSNEW", "x" * 129) == "Namespace too long"
    assert admin.error("NSNEW", ".lockfile") == "Could not create namespace"
    names = client.call("NSLIST")
    assert isinstance(names, list)
    assert names[0] == b"default"
    assert b"n1" in names
    assert admin.error("NSSET", "default", "maxsize", "1") == "Cannot update default namespace"
    assert admin.error("NSSET", "n1", "colour", "red") == "Invalid property"
    assert admin.error("NSSET", "n1", "maxsize", "1" * 64) == "Argument too long"
    assert admin.error("NSSET", "none", "maxsize", "1") == "Namespace not found"
    assert admin.call("NSSET", "n1", "password", "pw") == b"OK"
    assert client.call("SELECT", "n1") == b"OK"
    assert client.error("SET", "k", "v") == "Namespace is in read-only mode"
    assert client.call("SELECT", "n1", "pw") == b"OK"
    assert client.call("SET", "k", "v") == b"k"
    assert admin.call("NSSET", "n1", "public", "0") == b"OK"
    assert admin.error("SELECT", "n1") == "Namespace protected and private"
    assert admin.error("SELECT", "n1", "no") == "Access denied"
    assert admin.error("SELECT", "n1", "a", "b") == "Only SECURE extra method supported"
    nonce = admin.call("AUTH", "SECURE", "CHALLENGE")
    assert isinstance(nonce, bytes)
    assert admin.call("SELECT", "n1", "SECURE", hashlib.sha1(nonce + b":pw").hexdigest()) == b"OK"
    assert admin.error("NSDEL", "n1") == "Cannot remove namespace you're currently using."
    assert admin.call("SELECT", "default") == b"OK"
    assert admin.error("NSDEL", "default") == "Cannot remove default namespace"
    assert admin.error("NSDEL", "none") == "This namespace doesn't exists"
    assert admin.call("NSDEL", "n1") == b"OK"
    assert client.error("GET", "k").startswith("Your active namespace is not available anymore")
    assert client.sock.recv(1) == b""
    assert admin.error("SELECT", "0") == "Namespace not found"


def test_quota_worm_lock_and_freeze(space: Client) -> None:
    """Each property refuses what it should, in its words."""
    name = space.name
    assert space.call("NSSET", name, "maxsize", "10") == b"OK"
    assert space.call("SET", "a", "12345") == b"a"
    assert space.call("SET", "b", "12345") == b"b"
    assert space.error("SET", "c", "1") == "No space left on this namespace"
    assert space.call("SET", "b", "54321") == b"b"
    assert space.call("SET", "c", "") == b"c"
    assert space.call("DEL", "a") == b"OK"
    assert space.call("SET", "c", "12345") == b"c"
    assert space.call("NSSET", name, "worm", "1") == b"OK"
    assert space.error("SET", "b", "54321") == "Namespace is protected by worm mode"
    assert space.error("DEL", "b") == "Cannot delete a key when namespace is in worm mode"
    assert space.call("NSSET", name, "lock", "1") == b"OK"
    assert space.error("SET", "b", "1") == "Namespace is temporarily locked (read-only)"
    assert space.call("GET", "b") == b"54321"
    assert space.call("NSSET", name, "freeze", "1") == b"OK"
    assert space.error("GET", "b") == "Namespace is temporarily frozen (read-write disabled)"
    assert space.call("DBSIZE") == 2
    assert space.call("NSSET", name, "lock", "0") == b"OK"
    assert space.call("GET", "b") == b"54321"


def test_mget_and_getrange(space: Client) -> None:
    """MGET keeps order and gaps; GETRANGE reads both ends inclusive, negative ones from the end."""
    space.call("SET", "a", "Hello World")
    assert space.call("MGET", "a", "", "none", "a") == [b"Hello World", None, None, b"Hello World"]
    value = b"Hello World"
    for first in range(-13, 13):
        for last in range(-13, 13):
            begin = max(first + 11, 0) if first < 0 else first
            end = last + 11 if last < 0 else last
            expected = value[begin : end + 1] if begin <= end else b""
            assert space.call("GETRANGE", "a", str(first), str(last)) == expected, (first, last)
    assert space.call("GETRANGE", "none", "0", "1") is None
    assert space.error("GETRANGE", "a", "x", "1") == "Invalid argument"
    assert space.error("GETRANGE", "a", "1") == "Unexpected arguments"
    big = os.urandom(3_000_000)
    space.call("SET", "big", big)
    assert space.call("GETRANGE", "big", "1000000", "1999999") == big[1_000_000:2_000_000]


def test_scan_goes_over_segments_in_order_of_writing(space: Client) -> None:
    """A scan gives every live key once in order of its last write, a cursor goes on behind its key."""
    for number in range(2500):
        space.call("SET", b"k%d" % number, b"v" * (number % 400))
        if number % 500 == 0:
            space.call("NSJUMP")
    for number in range(0, 2500, 3):
        space.call("DEL", b"k%d" % number)
    space.call("SET", b"k1", b"rewritten")
    expected = [b"k%d" % number for number in range(2500) if number % 3 and number != 1] + [b"k1"]
    found: list[bytes] = []
    cursor: list[bytes] = []
    while True:
        reply = space.call("SCAN", *cursor)
        if isinstance(reply, ErrorReply):
            assert str(reply) == "No more data"
            break
        assert isinstance(reply, list)
        head, entries = reply
        assert isinstance(head, bytes)
        assert isinstance(entries, list)
        for entry in entries:
            assert isinstance(entry, list)
            assert isinstance(entry[0], bytes)
            found.append(entry[0])
        cursor = [head]
    assert found == expected
    place = space.call("KEYCUR", "k2498")
    assert isinstance(place, bytes)
    assert len(place) == 17
    rest = space.call("SCANX", place)
    assert isinstance(rest, list)
    assert isinstance(rest[1], list)
    assert [entry[0] for entry in rest[1] if isinstance(entry, list)] == [b"k1"]
    for wrong in (b"x", bytes(17), b"\xff" * 17):
        assert space.error("SCAN", wrong) == "Invalid key format"


def test_nsinfo_has_the_originals_names_in_order(server: Daemon, space: Client) -> None:
    """NSINFO lists the original's lines in its order; what only admins may see is for admins."""
    space.call("SET", "hello", "world")
    name = space.name
    lines = info_of(space, "NSINFO", name)
    assert list(lines) == NSINFO_NAMES.split()
    assert (lines["entries"], lines["data_size_bytes"], lines["index_size_bytes"]) == ("1", "5", "69")
    assert lines["next_internal_id"] == "0x100000000000000"
    assert "data_path" not in info_of(server.client(), "NSINFO", name)
    assert space.error("NSINFO", "none") == "Namespace not found"
    assert space.error("NSINFO", "n" * 511) == "Namespace too long"


def test_info_counts(space: Client) -> None:
    """INFO carries the original's names, the run id, and counters that grow with what is served."""
    before = info_of(space, "INFO")
    space.call("SET", "k", b"x" * 100_000)
    space.call("GET", "k")
    space.error("NOPE")
    after = info_of(space, "INFO")
    assert after["run_id"] == before["run_id"]
    assert re.fullmatch("[0-9a-f]{40}", after["run_id"])
    assert int(after["network_tx_bytes"]) - int(before["network_tx_bytes"]) >= 100_000
    assert int(after["network_rx_bytes"]) - int(before["network_rx_bytes"]) >= 100_000
    assert int(after["data_disk_read_bytes"]) - int(before["data_disk_read_bytes"]) >= 100_000
    assert int(after["commands_failed"]) == int(before["commands_failed"]) + 1
    assert int(after["operation_get"]) == int(before.get("operation_get", "0")) + 1
    for name in (
        "server_name",
        "boot_time",
        "clients_lifetime",
        "sequential_key_size",
        "data_version",
        "network_tx_mb",
    ):
        assert name in after


def test_pipelines_of_any_size_are_answered_whole(space: Client) -> None:
    """Bursts whose commands divide the original's read size exactly, and mixes of sizes, get every reply in order."""
    for size in (1, 40, 8192 - 36):
        commands = [encode("SET", b"%06d" % number, b"%d" % number * size) for number in range(100)]
        space.sock.sendall(b"".join(commands))
        assert [space.read() for _ in commands] == [b"%06d" % number for number in range(100)]
    values = [os.urandom(size) for size in (0, 10, 20_000, 300_000, 5, 70_000)]
    burst = b""
    for number, value in enumerate(values):
        key = b"m%d" % number
        burst += encode("SET", key, value) + encode("GET", key) + encode("DEL", key)
    space.sock.sendall(burst)
    for number, value in enumerate(values):
        assert [space.read(), space.read(), space.read()] == [b"m%d" % number, value, b"OK"]
    space.sock.sendall(encode("SET", "same", "1") + encode("SET", "same", "2") + encode("GET", "same"))
    assert [space.read(), space.read(), space.read()] == [b"same", b"same", b"2"]


def test_values_up_to_the_bound(space: Client) -> None:
    """A value of exactly 8 MiB is stored and served, one byte more is refused and the connection closed."""
    value = os.urandom(1 << 16) * 128
    assert space.call("SET", "big", value) == b"big"
    assert space.call("GET", "big") == value
    space.sock.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388609\r\n")
    assert str(space.read()) == "Payload too big"
    assert space.sock.recv(1) == b""


def test_a_client_that_does_not_read_is_not_read_from(server: Daemon, space: Client) -> None:
    """A thousand large replies asked for at once cost the daemon a bounded amount of memory, and all arrive."""
    value = os.urandom(1 << 20)
    space.call("SET", "v", value)
    before = rss_kib(server)
    space.sock.sendall(encode("GET", "v") * 100 + encode("MGET", *["v"] * 100))
    time_limit = time.monotonic() + 0.5
    peak = before
    while time.monotonic() < time_limit:
        peak = max(peak, rss_kib(server))
    assert peak - before < 24 << 10
    for _ in range(100):
        assert space.read() == value
    everything = space.read()
    assert isinstance(everything, list)
    assert all(item == value for item in everything)


def rss_kib(server: Daemon) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def test_half_a_value_leaves_nothing(server: Daemon, space: Client) -> None:
    """A client that dies in the middle of a value leaves no trace in the files, and its buffer is free again."""
    end = info_of(space, "NSINFO", "default")["data_current_offset"]
    for _ in range(40):
        broken = server.client()
        broken.sock.sendall(encode("SET", "half", bytes(8 << 20))[: 5 << 20])
        broken.close()
    whole = server.client()
    assert whole.call("GET", "half") is None
    assert info_of(space, "NSINFO", "default")["data_current_offset"] == end
    assert whole.call("SET", "whole-one", os.urandom(300_000)) == b"whole-one"


def test_no_command_crashes_the_daemon(tmp_path: Path) -> None:
    """Random words in random numbers get replies, never a traceback in the log or a dead daemon."""
    rng = random.Random(11)
    names = [*(name for name in COMMANDS if name not in (b"MASTER", b"MIRROR", b"WAIT")), b"nope"]
    words = b"k default n1 1 -1 0 SECURE CHALLENGE * password maxsize public lock freeze 99999999999999999999 - a/b"
    pool = [b"", *words.split(), b"\xff\x00\n", b"x" * 300, bytes(17), b"y" * 20_000]
    with daemon(tmp_path) as server:
        client = server.client()
        for _ in range(3000):
            client.send(rng.choice(names), *[rng.choice(pool) for _ in range(rng.randrange(5))])
            reply = client.read()
            if isinstance(reply, ErrorReply) and "not available anymore" in str(reply):
                client = server.client()
        for name in (b"n1", b"k", b"\xff"):
            client.call("NSNEW", name)
            assert isinstance(client.call("NSINFO", name), bytes)
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    with daemon(tmp_path) as server:
        names_after = server.client().call("NSLIST")
        assert isinstance(names_after, list)
        assert {b"n1", b"k", b"\xff"} <= set(names_after)


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on this machine")
def test_redis_cli(server: Daemon) -> None:
    """redis-cli sets, gets, pings and gives up its probes without harm."""

    def cli(*words: str) -> str:
        done = subprocess.run(
            ["redis-cli", "-p", server.address.rpartition(":")[2], *words], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0
        return done.stdout.strip()

    assert cli("PING") == "PONG"
    assert cli("SET", "cli", "value") in ("cli", "")
    assert cli("GET", "cli") == "value"
    assert "No such" not in cli("INFO")
    assert "not supported" in cli("COMMAND", "DOCS")


def test_redis_py(server: Daemon) -> None:
    """redis-py works with the callbacks of SET and DEL turned off, as it does with the original."""
    host, _, port = server.address.rpartition(":")
    connection: Any = redis.Redis(host=host, port=int(port), protocol=2)
    for name in ("SET", "DEL"):
        connection.response_callbacks.pop(name, None)
    assert connection.ping() is True
    assert connection.execute_command("SET", "py", os.urandom(20)) == b"py"
    assert connection.execute_command("SET", "py", "value") == b"py"
    assert connection.get("py") == b"value"
    assert connection.mget(["py", "none"]) == [b"value", None]
    assert connection.execute_command("DEL", "py") == b"OK"
    assert connection.dbsize() >= 0
    with connection.pipeline(transaction=False) as pipeline:
        for number in range(50):
            pipeline.execute_command("SET", f"p{number}", os.urandom(30))
        assert pipeline.execute() == [b"p%d" % number for number in range(50)]
    connection.close()
