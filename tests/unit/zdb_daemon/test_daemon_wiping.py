"""COMPACT WIPE: dead secrets leave the disk where too little is dead for their file to go, and nobody is the wiser."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.zdb.daemon.format import checksum
from fungistor.zdb.daemon.wiping import VALUE_BYTES_MAX, VALUE_BYTES_MIN, filler
from tests.unit.zdb_daemon.harness import daemon


@given(st.binary(min_size=VALUE_BYTES_MIN, max_size=512))
def test_a_filler_has_the_checksum_of_what_it_replaces_and_nothing_else_of_it(value: bytes) -> None:
    """Length and checksum are kept, the bytes are the same for every value but for the last four."""
    found = filler(len(value), checksum(value))
    assert found is not None and len(found) == len(value) and checksum(found) == checksum(value)
    assert set(found[:-4]) == {0xA5}


@pytest.mark.parametrize("length", [0, 4, VALUE_BYTES_MIN - 1, VALUE_BYTES_MAX + 1])
def test_what_is_too_short_or_too_long_is_left(length: int) -> None:
    """A checksum of 32 bits tells nearly all of a very short value; long ones are not secrets of their own."""
    assert filler(length, 7) is None


def test_deleted_secrets_leave_the_files_and_what_stands_stays(tmp_path: Path) -> None:
    """Deleted and superseded values of 100 bytes among bulk are gone after COMPACT WIPE, in closed files and the newest
    one; survivors are whole after a kill and a start by the index, and after one by the data alone."""
    home, chance = tmp_path / "z", random.Random(3)
    secrets = {b"s%d" % number: chance.randbytes(100) for number in range(12)}
    bulk = {b"b%d" % number: chance.randbytes(60_000) for number in range(24)}
    gone = [secrets[b"s%d" % number] for number in range(0, 12, 2)]
    with daemon(home, "--admin", "root", "--datasize", "524288") as running:
        client = running.client()
        assert client.call("AUTH", "root") == b"OK"
        for (key, value), (other, filling) in zip(sorted(secrets.items()) * 2, bulk.items(), strict=True):
            client.call("SET", key, value)
            assert client.call("SET", other, filling) == other
        for number in range(0, 12, 2):
            assert client.call("DEL", b"s%d" % number) == b"OK"
        gone.append(secrets[b"s1"])
        secrets[b"s1"] = chance.randbytes(100)
        assert client.call("SET", "s1", secrets[b"s1"]) == b"s1"
        assert any(_holds(home, value) for value in gone)
        assert client.call("COMPACT", "25", "WIPE") == [0, 0, 0]
        assert not [value for value in gone if _holds(home, value)]
        assert client.error("COMPACT", "25", "NOW").startswith("Invalid argument")
        running.kill()
    left = {key: value for key, value in secrets.items() if value not in gone}
    for by_the_data_alone in (False, True):
        if by_the_data_alone:
            for path in (home / "index" / "default").glob("i*"):
                path.unlink()
        with daemon(home, "--datasize", "524288") as running:
            client = running.client()
            for key, value in (left | bulk).items():
                assert client.call("GET", key) == value
            for number in range(0, 12, 2):
                assert client.call("GET", b"s%d" % number) is None
            running.stop()
            assert "damage" not in running.log.read_text()


def _holds(home: Path, value: bytes) -> bool:
    return any(value in path.read_bytes() for path in home.rglob("*") if path.is_file())
