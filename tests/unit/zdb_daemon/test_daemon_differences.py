"""Where the original is wrong and ours is not: the page lists each, with the test that shows it."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Client, Daemon, daemon

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "zdb.md"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path / "home") as running:
        yield running


def named() -> list[str]:
    """The tests that the page names in its tables."""
    _, _, rest = PAGE.read_text().partition("## Deliberate differences")
    return re.findall(r"`(test_\w+)`", rest)


def test_every_difference_on_the_page_has_its_test() -> None:
    """Each row of the tables names tests, and each of them exists in the daemon's tests."""
    _, _, rest = PAGE.read_text().partition("## Deliberate differences")
    rows = [line for line in rest.splitlines() if line.startswith("| ") and not line.startswith("| ours")]
    assert len(rows) >= 40
    assert [row for row in rows if "`test_" not in row] == []
    sources = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py")))
    assert [name for name in named() if f"def {name}(" not in sources] == []


def test_words_match_whole(server: Daemon) -> None:
    """What only begins like a command is none: `F` flushes nothing, `S` stores nothing."""
    client = server.client()
    for words in (("F",), ("S", "k", "v"), ("G", "k"), ("DE", "k"), ("ST",), ("AUTH", "SEC", "CHALLENGE")):
        assert client.error(*words) in ("Command not supported", "Only SECURE extra method supported")
    assert client.call("DBSIZE") == 0


def test_a_nonce_serves_once(server: Daemon) -> None:
    """The answer to a challenge opens a namespace once; said again, it is refused."""
    client = server.client()
    client.call("NSNEW", "ns")
    client.call("NSSET", "ns", "password", "secret")
    nonce = client.call("AUTH", "SECURE", "CHALLENGE")
    assert isinstance(nonce, bytes)
    answer = hashlib.sha1(nonce + b":secret").hexdigest()
    assert client.call("SELECT", "ns", "SECURE", answer) == b"OK"
    assert client.error("SELECT", "ns", "SECURE", answer).startswith("No CHALLENGE requested")


def test_no_space_left_is_zero(server: Daemon) -> None:
    """A quota set below what is there leaves no space, not 2^64 bytes."""
    client = server.client()
    client.call("NSNEW", "ns")
    client.call("SELECT", "ns")
    client.call("SET", "k", bytes(5000))
    assert client.call("NSSET", "ns", "maxsize", "100") == b"OK"
    info = client.call("NSINFO", "ns")
    assert isinstance(info, bytes)
    assert b"\nspace_available: 0\n" in info


def test_a_namespace_takes_no_space_before_it_has_values(server: Daemon) -> None:
    """Ten empty namespaces take less than a MiB of disk."""
    client = server.client()
    for number in range(10):
        assert client.call("NSNEW", f"ns-{number}") == b"OK"
    assert sum(path.stat().st_blocks * 512 for path in server.home.rglob("*")) < 1 << 20


def test_a_shorter_password_leaves_nothing_of_the_longer(server: Daemon) -> None:
    """The descriptor holds the new password and no end of the old one."""
    client = server.client()
    client.call("NSNEW", "ns")
    for password in ("a-long-password", "short"):
        assert client.call("NSSET", "ns", "password", password) == b"OK"
    assert (server.home / "index" / "ns" / "zdb-namespace").read_bytes().endswith(b"nsshort")


def test_the_admin_password_reaches_no_disk(tmp_path: Path) -> None:
    """Under --protect, locking the default namespace does not write the admin password into its descriptor, and a start
    without --protect is open as before."""
    home = tmp_path / "home"
    with daemon(home, "--admin", "r00t-secret", "--protect") as server:
        client = server.client()
        assert client.error("SET", "k", "v") == "Namespace is in read-only mode"
        assert client.call("AUTH", "r00t-secret") == b"OK"
        assert client.call("NSSET", "default", "lock", "1") == b"OK"
        assert client.call("NSSET", "default", "lock", "0") == b"OK"
        assert client.call("SELECT", "default", "r00t-secret") == b"OK"
        assert client.call("SET", "k", "v") == b"k"
        assert server.stop() == 0
    assert not [path for path in home.rglob("*") if path.is_file() and b"r00t-secret" in path.read_bytes()]
    with daemon(home) as server:
        client = server.client()
        assert client.call("SELECT", "default") == b"OK"
        assert client.call("SET", "k", "w") == b"k"


def test_cursors_that_never_were_are_refused(server: Daemon) -> None:
    """Zeros are no cursor, and one of a record that is not there is none."""
    client = server.client()
    client.call("SET", "k", "v")
    for cursor in (bytes(17), b"\xff" * 17, bytes(16)):
        assert client.error("SCAN", cursor) == "Invalid key format"


def test_a_key_is_not_cut_to_eight_bits(server: Daemon) -> None:
    """KEYCUR and HISTORY of `hello` and 256 more bytes do not find `hello`."""
    client = server.client()
    client.call("SET", "hello", "v")
    for word in ("KEYCUR", "HISTORY"):
        assert client.error(word, b"hello" + bytes(256)) in ("Key not found", "Invalid key", "Key too large")


def test_ids_are_found_across_empty_files(tmp_path: Path) -> None:
    """Ids in and behind a file that was empty, at a rotation or at a start, are there; the original loses them."""
    home = tmp_path / "home"
    values = {}
    for turn in range(3):
        with daemon(home, "--mode", "seq") as server:
            client = server.client()
            for value in (b"a%d" % turn, b"b%d" % turn):
                key = client.call("SET", "", value)
                assert isinstance(key, bytes)
                values[key] = value
            first = next(iter(values))
            assert client.call("SET", first, b"new%d" % turn) == first
            values[first] = b"new%d" % turn
            assert {key: client.call("GET", key) for key in values} == values
            assert [client.call("NSJUMP") for _ in range(turn + 1)] == [b"OK"] * (turn + 1)
            assert server.stop() == 0


def test_values_set_again_cost_no_memory(server: Daemon) -> None:
    """The same MiB stored 200 times, and large replies that nobody reads, leave the daemon as small as it was."""
    client = server.client()
    value = bytes(1 << 20)

    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) << 10

    for _ in range(20):
        client.call("SET", "k", value)
    before = resident()
    for _ in range(200):
        assert client.call("SET", "k", value) is None
    for _ in range(20):
        leaver = Client(server.address)
        for _ in range(8):
            leaver.send("GET", "k")
        leaver.sock.shutdown(socket.SHUT_RDWR)
        leaver.close()
    assert client.call("PING") == b"PONG"
    assert resident() < before + (32 << 20)
