"""PROVE on a real socket, and what is done where a member does not know the word."""

from __future__ import annotations

from pathlib import Path

import pytest

from fungistor.coding.shard import LEAF_BYTES, payload_root, shard_key, shard_tag
from fungistor.errors import CorruptError
from fungistor.ids import StripeId
from fungistor.zdb.audit import Question, audit
from fungistor.zdb.client import Client
from tests.unit.zdb_daemon.harness import daemon
from tests.unit.zdb_daemon.original import needs_original, original

STRIPE = StripeId(bytes(range(32)))
NONCE = bytes(range(32))
PAYLOAD = bytes(range(256)) * 256 * 9 + b"tail"


def _value(index: int) -> bytes:
    return PAYLOAD + shard_tag(STRIPE, index, len(PAYLOAD), payload_root(PAYLOAD))


def test_a_member_proves_its_shards(tmp_path: Path) -> None:
    """A kept shard is proven, an absent one is said to be absent, one of another index or a spoilt one is a lie."""
    with daemon(tmp_path / "z") as running, Client(running.address) as client:
        client.call("SET", shard_key(STRIPE, 0), _value(0))
        client.call("SET", shard_key(STRIPE, 1), _value(0))
        spoilt = bytearray(_value(2))
        spoilt[5 * LEAF_BYTES] ^= 1
        client.call("SET", shard_key(STRIPE, 2), bytes(spoilt))
        assert audit(client, Question(STRIPE, 0, NONCE, 3, len(PAYLOAD)))
        assert not audit(client, Question(STRIPE, 9, NONCE, 3))
        for index in (1, 2):
            with pytest.raises(CorruptError, match="does not match its tag"):
                audit(client, Question(STRIPE, index, NONCE, 3))
        with pytest.raises(CorruptError, match="speaks of"):
            audit(client, Question(STRIPE, 0, NONCE, 3, len(PAYLOAD) + 1))


def test_a_proof_is_small(tmp_path: Path) -> None:
    """One leaf of ten is sent, not the value."""
    with daemon(tmp_path / "z") as running:
        client = running.client()
        client.call("SET", "k", _value(0))
        reply = client.call("PROVE", "k", NONCE, "1")
        assert isinstance(reply, list)
        assert reply[:2] == [0, len(PAYLOAD)]
        assert sum(len(item) for item in reply if isinstance(item, bytes)) <= LEAF_BYTES + 9 * 32 + 16
        assert client.error("PROVE", "k", NONCE) == "Unexpected arguments"
        assert client.error("PROVE", "k", "short", "1").startswith("Invalid argument")
        assert client.error("PROVE", "k", NONCE, "0").startswith("Invalid argument")
        assert client.error("PROVE", "k", NONCE, "x").startswith("Invalid argument")
        client.call("SET", "small", "no shard")
        assert "no shard" in client.error("PROVE", "small", NONCE, "1")


@needs_original
def test_an_original_is_asked_for_the_whole_value(tmp_path: Path) -> None:
    """An original 0-db does not know PROVE: the value is fetched and its tag checked."""
    with original(tmp_path) as server, Client(server.address) as client:
        client.call("SET", shard_key(STRIPE, 0), _value(0))
        client.call("SET", shard_key(STRIPE, 1), _value(0))
        assert audit(client, Question(STRIPE, 0, NONCE, 3))
        assert not audit(client, Question(STRIPE, 9, NONCE, 3))
        with pytest.raises(CorruptError):
            audit(client, Question(STRIPE, 1, NONCE, 3))
