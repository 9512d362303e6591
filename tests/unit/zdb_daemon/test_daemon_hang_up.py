"""Why a client is hung up on reaches it, whatever it is still sending."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, ErrorReply, daemon, encode


def babble(client: Client, total: int) -> None:
    """Send so many bytes that nobody asked for."""
    piece = b"\0" * 65536
    for _ in range(total // len(piece)):
        client.sock.sendall(piece)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_the_reason_outlives_what_was_sent_behind_it(tmp_path: Path, kind: str) -> None:
    """A GET, a malformed request and 8 MiB more, before anything is read: the value arrives, the reason behind it, then
    the end, and no reset."""
    flags = ("--socket", str(tmp_path / "s")) if kind == "unix" else ()
    with daemon(tmp_path / "home", *flags) as running:
        other = running.client()
        value = bytes(100_000)
        assert other.call("SET", "key", value) == b"key"
        client = running.client()
        client.sock.sendall(encode("GET", "key") + b"*0\r\n")
        babble(client, 8 << 20)
        assert client.read() == value
        refusal = client.read()
        assert isinstance(refusal, ErrorReply)
        assert str(refusal) == "Missing arguments"
        with pytest.raises(EOFError):
            client.read()
        assert other.call("PING") == b"PONG"


def test_who_stays_on_the_line_is_dropped(tmp_path: Path) -> None:
    """A client that goes on sending after it was hung up on is dropped after some seconds."""
    with daemon(tmp_path) as running:
        client = running.client()
        client.sock.sendall(b"*0\r\n")
        deadline = time.monotonic() + DEADLINE_S
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                client.sock.sendall(b"\0" * 4096)
                select.select((), (), (), 0.05)
        assert running.client().call("PING") == b"PONG"
