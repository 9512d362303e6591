"""The compiled lane and the Python code that it stands for: the same replies, the same files."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    INDEX_HEADER,
    DataRecord,
    IndexRecord,
    parse_data_record,
    parse_index_record,
)
from fungistor.zdb.daemon.rounds import PURE, compiled
from tests.unit.zdb_daemon.harness import DEADLINE_S, daemon, encode

pytestmark = pytest.mark.skipif(compiled is None, reason="there was no compiler at `make env`: all is Python")

SEED = 20261121


def burst(chance: random.Random) -> list[bytes]:
    """Some requests of one write: mostly plain, sometimes what the lane leaves alone."""
    requests = []
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        key = b"k%d" % chance.randrange(12) * chance.choice((1, 1, 1, 60))
        size = chance.choice((0, 1, 9, 10, 512, 512, 512, 4096, 16384, 16385, 70_000))
        value = bytes([chance.randrange(3)]) * size
        requests.append(
            chance.choice((
                encode("SET", key, value), encode("SET", key, value), encode("SET", key, value),
                encode("GET", key), encode("GET", key), encode("GET", key),
                encode("GET", b""), encode("SET", b"", b"x"), encode("SET", key * 20, b"x"), encode("get", key),
                encode("SET", key, b"later", b"77"), encode("DEL", key), encode("EXISTS", key), encode("LENGTH", key),
                b"*2\r\n$3\r\nGET\r\n$03\r\nabc\r\n", encode("GET", key, key), encode("DBSIZE"), encode("PING"),
            ))
        )  # fmt: skip
    return requests


def records(folder: Path) -> tuple[list[DataRecord], list[IndexRecord]]:
    """All records of a folder, but for their times."""
    data = (folder / "data/box/d0").read_bytes()
    index = (folder / "index/box/i0").read_bytes()
    stored, indexed, at = [], [], DATA_HEADER.size
    while at < len(data):
        record = parse_data_record(data, at, at)
        assert record is not None
        stored.append(replace(record, timestamp=0))
        at = record.end
    at = INDEX_HEADER.size
    while at < len(index):
        entry = parse_index_record(index, at, at)
        assert entry is not None
        indexed.append(replace(entry, timestamp=0))
        at = entry.end
    return stored, indexed


def answers(home: Path, flags: tuple[str, ...], properties: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    """Seeded bursts, cut anywhere on their way, and what a daemon answers to each; last, what it counted."""
    chance = random.Random(SEED)
    told: list[tuple[bytes, bytes]] = []
    with daemon(home, *flags) as running:
        admin, client = running.client(), running.client()
        assert admin.call("NSNEW", "box") == client.call("SELECT", "box") == b"OK"
        if properties:
            assert admin.call("NSSET", "box", *properties) == b"OK"
        for _ in range(150):
            sent = b"".join(burst(chance))
            cut = chance.randrange(len(sent)) if chance.random() < 0.3 else len(sent)
            client.sock.sendall(sent[:cut])
            if cut < len(sent):
                # The daemon has read the first part when it has answered somebody who came later.
                assert admin.call("PING") == b"PONG"
                client.sock.sendall(sent[cut:])
            client.send("ECHO-END")
            got = bytearray()
            while not got.endswith(b"-Command not supported\r\n"):
                piece = client.sock.recv(1 << 20)
                assert piece, "the daemon hung up"
                got += piece
            told.append((sent, bytes(got)))
        stats = admin.call("INFO")
        assert isinstance(stats, bytes)
        counted = [line for line in stats.split(b"\n") if line.startswith(b"commands_executed")]
        told.append((b"INFO", counted[0]))
    return told


def compare(fast: list[tuple[bytes, bytes]], slow: list[tuple[bytes, bytes]]) -> None:
    """Name the first burst that was answered differently, and where."""
    for number, ((sent, one), (_, other)) in enumerate(zip(fast, slow, strict=True)):
        if one != other:
            at = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), -1)
            part = slice(max(at - 60, 0), at + 60)
            pytest.fail(f"burst {number} of {len(sent)} bytes, reply at {at}: {one[part]!r} and {other[part]!r}")


@pytest.mark.parametrize(
    ("flags", "properties"),
    [((), ()), (("--sync",), ()), ((), ("maxsize", "60000")), ((), ("worm", "1"))],
    ids=["plain", "sync", "maxsize", "worm"],
)
def test_both_answer_and_store_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], properties: tuple[str, ...]
) -> None:
    """Seeded bursts of plain and odd requests, whole and cut: every reply byte and every record on disk is the same."""
    print(f"seed {SEED}")
    monkeypatch.delenv(PURE, raising=False)
    fast = answers(tmp_path / "lane", flags, properties)
    monkeypatch.setenv(PURE, "1")
    slow = answers(tmp_path / "python", flags, properties)
    compare(fast, slow)
    assert records(tmp_path / "lane") == records(tmp_path / "python")


def test_damage_is_named_and_mended_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped byte below a live key: an error in place of the value, until the same SET stores it anew."""
    for name, pure in (("lane", ""), ("python", "1")):
        monkeypatch.setenv(PURE, pure)
        with daemon(tmp_path / name) as running:
            client = running.client()
            client.sock.settimeout(DEADLINE_S)
            for size in (512, 60_000):
                value = b"v" * size
                assert client.call("SET", "key", value) == b"key"
                path = tmp_path / name / "data/default/d0"
                with path.open("r+b") as file:
                    file.seek(-size // 2, 2)
                    file.write(b"!")
                assert client.error("GET", "key") == "Internal Error"
                assert client.call("SET", "key", value) == b"key"
                assert client.call("GET", "key") == value
