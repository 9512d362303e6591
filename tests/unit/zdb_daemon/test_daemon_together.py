"""SETs of many clients that arrive together are stored together, and each client sees what it would see alone."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import DEADLINE_S, Client, ErrorReply, daemon, encode


@pytest.mark.parametrize("flags", [(), ("--sync",)], ids=["plain", "sync"])
def test_clients_that_write_together_see_their_own_writes(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Bursts of SET, GET and DEL from a dozen clients: every reply fits, the last value of a key is somebody's last."""
    chance = random.Random(8)
    with daemon(tmp_path / "z", *flags) as running:
        clients = [running.client() for _ in range(12)]
        for turn in range(30):
            asked: list[list[tuple[str, bytes, bytes]]] = []
            for number, client in enumerate(clients):
                burst = []
                for step in range(chance.randrange(1, 9)):
                    key = b"shared-%d" % chance.randrange(4) if chance.random() < 0.5 else b"own-%d" % number
                    value = b"%d/%d/%d" % (turn, number, step)
                    word = chance.choice(("SET", "SET", "SET", "GET", "DEL"))
                    burst.append((word, key, value))
                asked.append(burst)
                words = [(word, key, value) if word == "SET" else (word, key) for word, key, value in burst]
                client.sock.sendall(b"".join(encode(*parts) for parts in words))
            for number, (client, burst) in enumerate(zip(clients, asked, strict=True)):
                own: bytes | None = client_state(clients, number)
                for word, key, value in burst:
                    reply = client.read()
                    if word == "SET":
                        assert reply in (key, None)
                    elif word == "GET" and key.startswith(b"own"):
                        assert reply == own
                    elif word == "DEL":
                        assert reply == b"OK" or isinstance(reply, ErrorReply)
                    if key.startswith(b"own"):
                        own = value if word == "SET" else None if word == "DEL" else own
                client.name = "" if own is None else own.decode()
        for number, client in enumerate(clients):
            assert client.call("GET", b"own-%d" % number) == client_state(clients, number)
        running.kill()
    with daemon(tmp_path / "z") as running:
        for number in range(len(clients)):
            assert running.client().call("GET", b"own-%d" % number) == client_state(clients, number)


def client_state(clients: list[Client], number: int) -> bytes | None:
    """What a client's own key must hold."""
    return clients[number].name.encode() or None


def test_a_command_comes_after_the_writes_before_it(tmp_path: Path) -> None:
    """A lock or a removal by one client never overtakes the SETs of another that were read before it."""
    with daemon(tmp_path / "z") as running:
        admin, writer = running.client(), running.client()
        admin.call("NSNEW", "n")
        writer.call("SELECT", "n")
        for number in range(40):
            writer.send("SET", f"k{number}", "v")
            admin.send("NSSET", "n", "lock", "1")
            locked = writer.read()
            assert admin.read() == b"OK"
            stored = admin.call("NSINFO", "n")
            assert isinstance(stored, bytes)
            assert isinstance(locked, ErrorReply) or writer.call("GET", f"k{number}") == b"v"
            admin.call("NSSET", "n", "lock", "0")


def test_a_client_that_leaves_at_once_has_its_writes_stored(tmp_path: Path) -> None:
    """SETs sent by a client that closes without waiting are stored whole or not at all, and the daemon goes on."""
    with daemon(tmp_path / "z") as running:
        staying = running.client()
        for number in range(20):
            leaving = running.client()
            leaving.sock.sendall(b"".join(encode("SET", f"{number}-{step}", b"v" * 50) for step in range(20)))
            leaving.close()
            staying.call("SET", "k", str(number))
        assert staying.call("GET", "k") == b"19"
        reply = staying.call("SCAN")
        assert isinstance(reply, list)
        assert "Traceback" not in running.log.read_text()


def test_words_in_any_order_and_cut_are_answered_in_order(tmp_path: Path) -> None:
    """Plain GETs and SETs, large values, odd words and errors in one stream, cut anywhere: replies as one by one."""
    rng = random.Random(11)
    words: list[tuple[bytes, ...]] = []
    for number in range(400):
        key = b"k%d" % rng.randrange(30)
        value = rng.randbytes(rng.choice((0, 1, 200, 5000, 20_000, 70_000)))
        words.append(
            rng.choice(
                (
                    *[(b"SET", key, value)] * 4,
                    *[(b"GET", key)] * 4,
                    *((b"get", key), (b"DEL", key), (b"LENGTH", key), (b"MGET", key, b"k1")),
                    *(
                        (b"GET", b""),
                        (b"GET", key, key),
                        (b"SET", key),
                        (b"GET", b"x" * 256),
                        (b"PING", b"%d" % number),
                    ),
                )
            )
        )
    with daemon(tmp_path / "one") as one, daemon(tmp_path / "many") as many:
        single, piped, other = one.client(), many.client(), many.client()
        expected = [repr(single.call(*request)) for request in words]
        stream = b"".join(encode(*request) for request in words)
        replies: list[str] = []
        reader = threading.Thread(target=lambda: replies.extend(repr(piped.read()) for _ in words))
        reader.start()
        sent = 0
        while sent < len(stream):
            step = rng.choice((1, 3, 100, 4000, 30_000, 300_000))
            piped.sock.sendall(stream[sent : sent + step])
            sent += step
        reader.join(DEADLINE_S)
        assert replies == expected
        assert other.call("PING") == b"PONG"
