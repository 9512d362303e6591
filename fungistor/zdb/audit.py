"""Asking a member to show that it has a shard: PROVE where it knows the word, else the whole value."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.coding.proof import PROOF_VERSION, Proof, verify_proof
from fungistor.coding.shard import check_shard, shard_key
from fungistor.errors import CorruptError
from fungistor.ids import StripeId
from fungistor.zdb.client import Client, MemberError
from fungistor.zdb.resp import Reply

_UNKNOWN_WORD = "answered: Command not supported"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: which shard, by which nonce (fresh each time), how many leaves; its length where it is known."""

    stripe_id: StripeId
    index: int
    nonce: bytes
    leaves: int
    payload_bytes: int | None = None


def audit(client: Client, question: Question, *, timeout_s: float | None = None) -> bool:
    """Whether the member has the shard; False when it says that it has not.

    On an original 0-db the whole value is fetched and checked.

    Raises:
        MemberError: it does not answer in time, or answers an error.
        CorruptError: what it shows is not the shard.
    """
    key = shard_key(question.stripe_id, question.index)
    try:
        reply = client.call("PROVE", key, question.nonce, question.leaves, timeout_s=timeout_s)
    except MemberError as error:
        if not error.message.startswith(_UNKNOWN_WORD):
            raise
    else:
        if reply is None:
            return False
        proof = parse_proof(reply)
        verify_proof(question.stripe_id, question.index, question.nonce, question.leaves, proof, question.payload_bytes)
        return True
    return _audit_whole(client, question, key, timeout_s)


def parse_proof(reply: Reply) -> Proof:
    """Read the reply to PROVE. Raises: CorruptError."""
    if not isinstance(reply, list) or len(reply) < 5 or reply[0] != PROOF_VERSION:
        raise CorruptError("reply to PROVE is no proof of version 0")
    length, tag, others, leaves = reply[1], reply[2], reply[3], reply[4:]
    shown = tuple(leaf for leaf in leaves if isinstance(leaf, bytes))
    if not isinstance(length, int) or not isinstance(tag, bytes) or not isinstance(others, bytes):
        raise CorruptError("reply to PROVE has no length, tag and digests")
    if len(shown) != len(leaves):
        raise CorruptError("reply to PROVE has leaves that are no strings")
    return Proof(length, tag, others, shown)


def _audit_whole(client: Client, question: Question, key: bytes, timeout_s: float | None) -> bool:
    value = client.call("GET", key, timeout_s=timeout_s)
    if value is None:
        return False
    if not isinstance(value, bytes):
        raise CorruptError("reply to GET is no string")
    check_shard(question.stripe_id, question.index, value, question.payload_bytes)
    return True
