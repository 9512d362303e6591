"""How the compiled lane looks at values: its checksum is the format's, and a mapped file that fails is an error."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fungistor.zdb.daemon.format import checksum
from fungistor.zdb.daemon.rounds import compiled
from tests.unit.zdb_daemon.harness import Daemon, daemon

pytestmark = pytest.mark.skipif(compiled is None, reason="there was no compiler at `make env`: all is Python")

LARGE = 200_000


@pytest.mark.parametrize("by_table", [False, True])
def test_the_checksum_is_the_formats(by_table: bool) -> None:
    """Of values of any length, and lengths around those that its loops step by, it is what the library says."""
    from fungistor.zdb.daemon._values import checksum as compiled_checksum

    chance = random.Random(5)
    around = [base + more for base in (0, 8, 256, 768, 4096, 12_288, 65_536) for more in (-9, -1, 0, 1, 9)]
    for size in [*filter(lambda number: number >= 0, around), *(chance.randrange(300_000) for _ in range(100))]:
        value = chance.randbytes(size)
        assert compiled_checksum(value, by_table=by_table) == checksum(value), size


def mapped(running: Daemon, name: str) -> bool:
    """Whether the daemon has a file of that name mapped."""
    maps = Path(f"/proc/{running.process.pid}/maps").read_text()
    return any(name in line for line in maps.splitlines())


def test_damage_below_a_mapped_value_is_named_each_time(tmp_path: Path) -> None:
    """Values that were served are flipped, then cut off below the mapping: errors each time, and the daemon goes on."""
    path = tmp_path / "data/default/d0"
    with daemon(tmp_path) as running:
        client = running.client()
        for key in ("first", "second", "third"):
            assert client.call("SET", key, key.encode() * LARGE) == key.encode()
            assert client.call("GET", key) == key.encode() * LARGE
        assert mapped(running, "default/d0")
        with path.open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 1]))
        assert client.error("GET", "first") == "Internal Error"
        assert client.call("GET", "second") == b"second" * LARGE
        os.truncate(path, path.stat().st_size - LARGE)
        for _ in range(3):
            assert client.error("GET", "third") == "Internal Error"
        assert client.call("GET", "second") == b"second" * LARGE
        os.truncate(path, 100_000)
        assert client.error("GET", "second") == "Internal Error"
        assert client.call("PING") == b"PONG"


def test_files_that_go_are_not_held(tmp_path: Path) -> None:
    """After values were served from them, files that a FLUSH or a pass of compaction removes are mapped no more."""
    with daemon(tmp_path, "--datasize", "512k") as running:
        client = running.client()
        assert client.call("NSNEW", "box") == b"OK"
        assert client.call("NSSET", "box", "password", "pw") == b"OK"
        assert client.call("NSSET", "box", "public", "0") == b"OK"
        assert client.call("SELECT", "box", "pw") == b"OK"
        for number in range(12):
            assert client.call("SET", f"k{number % 3}", bytes([number]) * LARGE) is not None
            assert client.call("GET", f"k{number % 3}") == bytes([number]) * LARGE
        assert mapped(running, "box/d")
        done = client.call("COMPACT", "1")
        assert isinstance(done, list)
        assert done[0]
        assert client.call("GET", "k0") == bytes([9]) * LARGE
        assert not mapped(running, "(deleted)")
        assert client.call("FLUSH") == b"OK"
        assert not mapped(running, "box/d")
        assert client.call("GET", "k0") is None
