"""A folder as the original writes it, stored as bytes: what we, and the original itself, make and read of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Client, ErrorReply, daemon
from tests.unit.zdb_daemon.model import history
from tests.unit.zdb_daemon.original import needs_original, original
from tests.vectors import make_zdb_folder
from tests.vectors.make_zdb_folder import SCRIPT, word

STORED = Path(make_zdb_folder.__file__).with_name("zdb_folder.json")


def stored() -> dict[str, bytes]:
    """The frozen files, by path."""
    return {path: bytes.fromhex(data) for path, data in json.loads(STORED.read_text()).items()}


def lay_out(home: Path) -> None:
    """Put the stored folder on disk."""
    for path, data in stored().items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)


def play(client: Client) -> None:
    """Say the script."""
    for words in SCRIPT:
        assert not isinstance(client.call(*map(word, words)), ErrorReply), words


def written(home: Path) -> dict[str, bytes]:
    """The files that both daemons know, as they are on disk."""
    files = [path for root in ("data", "index") for path in sorted((home / root).rglob("*")) if path.is_file()]
    ours = ("fungistor-checkpoint", "fungistor-flushed", ".lockfile")
    return {str(path.relative_to(home)): path.read_bytes() for path in files if path.name not in ours}


def check(client: Client, *, misreads: bool = False) -> None:
    """Every value, and the histories; `misreads`: the original's HISTORY of a key that began in a later file."""
    values = {"alpha": "one, changed in a later file", "beta": "two is back", "gamma": "first written in a later file"}
    assert client.call("DBSIZE") == 3
    for key, value in values.items():
        assert (client.call("GET", key), client.call("CHECK", key)) == (value.encode(), 1)
    assert client.call("GET", "empty") is None
    assert [value for _, value in history(client, b"alpha")] == [
        b"one, changed in a later file", b"one, changed", b"one"
    ]  # fmt: skip
    assert client.call("KEYTIME", "alpha") == 1600000008
    if not misreads:
        assert history(client, b"beta") == [(1600000009, b"two is back")]
    assert client.error("SELECT", "ids", "a-long-password") == "Access denied"
    assert client.call("SELECT", "ids", "short") == b"OK"
    assert client.call("GET", word("id:0")) is None
    assert history(client, word("id:1")) == [(1600000015, b"one, changed in a later file"), (1600000012, b"one")]
    assert client.call("GET", word("id:3")) == b"four: two was the version before"
    assert client.call("DBSIZE") == 2
    assert client.call("SET", "", "next") == word("id:5")


def test_the_stored_folder_is_what_its_maker_writes() -> None:
    """The frozen files equal what the generator writes today."""
    assert json.loads(STORED.read_text()) == make_zdb_folder.vectors()


def test_ours_serves_the_stored_folder(tmp_path: Path) -> None:
    """Values, histories, times, passwords and ids of a folder in the original's bytes are all there, and nothing in it
    is taken for damage."""
    lay_out(tmp_path)
    with daemon(tmp_path) as server:
        check(server.client())
        assert "recovery.found" not in server.log.read_text()
        assert server.stop() == 0


def test_ours_writes_the_originals_bytes(tmp_path: Path) -> None:
    """The same commands make the same files: data files byte for byte, index files but for the number of the data file
    in a key's first record, where the original puts 0, descriptors but for what the original leaves behind a short one.
    """
    with daemon(tmp_path) as server:
        play(server.client())
        assert server.stop() == 0
    ours, expected = written(tmp_path), stored()
    assert set(ours) == set(expected)
    for path, data in expected.items():
        if path.endswith("zdb-namespace"):
            assert data.startswith(ours[path])
        elif path == "index/default/i1":
            assert with_file_number(data, 1) == with_file_number(ours[path], 1)
        else:
            assert ours[path] == data, path


def with_file_number(index: bytes, number: int) -> bytes:
    """An index file of user mode with this data file number in all its records."""
    out, at = bytearray(index), 29
    while at < len(index):
        out[at + 14 : at + 18] = struct.pack("<I", number)
        at += 34 + index[at]
    return bytes(out)


@needs_original
def test_the_original_writes_the_stored_folder(tmp_path: Path) -> None:
    """A real 0-db makes exactly these files of the same commands."""
    with original(tmp_path, "--datasize", "524288") as server:
        play(server.client())
        server.stop()
    assert written(tmp_path) == stored()


@needs_original
@pytest.mark.parametrize("ours", [False, True], ids=["stored", "ours"])
def test_the_original_serves_it(tmp_path: Path, ours: bool) -> None:
    """A real 0-db reads the stored folder, and the one that ours writes, as ours does."""
    if ours:
        with daemon(tmp_path) as server:
            play(server.client())
            assert server.stop() == 0
    else:
        lay_out(tmp_path)
    with original(tmp_path) as old:
        check(old.client(), misreads=not ours)
