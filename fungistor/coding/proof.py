"""Proofs of access: a member shows leaves of a shard that a nonce chooses, and whoever has the stripe id checks them.

Nothing is rebuilt and little is sent. The member cannot make the tag, so the digests it sends must be those of the
shard that was stored; and it cannot know before the nonce which leaves it will have to show. The format is in
docs/formats/proof.md.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from math import comb
from typing import Final

from blake3 import blake3

from fungistor.coding.buffers import Buffer
from fungistor.coding.shard import (
    DIGEST_BYTES,
    LEAF_BYTES,
    SHARD_TAG_BYTES,
    leaf_digests,
    root_of_leaves,
    shard_tag,
)
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import StripeId
from fungistor.limits import ZDB_VALUE_BYTES_MAX

PROOF_VERSION: Final = 0
NONCE_BYTES_MIN: Final = 16
NONCE_BYTES_MAX: Final = 64
LEAVES_MAX: Final = -(-ZDB_VALUE_BYTES_MAX // LEAF_BYTES)
_CHOICE_CONTEXT: Final = "fungistor v0 proof leaves"
_DRAW_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Proof:
    """What a member answers: the length of the payload, its tag, the digests of leaves not shown, those shown."""

    payload_bytes: int
    tag: bytes
    others: bytes
    leaves: tuple[bytes, ...]


def leaf_count(payload_bytes: int) -> int:
    """How many leaves a payload has; an empty one has one."""
    return max(-(-payload_bytes // LEAF_BYTES), 1)


def chosen_leaves(nonce: bytes, payload_bytes: int, count: int) -> list[int]:
    """The numbers of the leaves to show, ascending: `count` different ones, or all there are.

    The first steps of a Fisher-Yates shuffle, with 8 bytes of BLAKE3 each.
    """
    leaves = leaf_count(payload_bytes)
    wanted = min(count, leaves)
    seed = blake3(nonce + payload_bytes.to_bytes(4, "big"), derive_key_context=_CHOICE_CONTEXT)
    draws = seed.digest(_DRAW_BYTES * wanted)
    numbers = list(range(leaves))
    for step in range(wanted):
        draw = int.from_bytes(draws[step * _DRAW_BYTES : (step + 1) * _DRAW_BYTES], "big")
        other = step + draw % (leaves - step)
        numbers[step], numbers[other] = numbers[other], numbers[step]
    return sorted(numbers[:wanted])


def prove(value: Buffer, nonce: bytes, count: int) -> Proof:
    """What a member that holds `value` answers.

    Raises: InvalidError when the value is too short for a shard, or nonce or count are out of bounds.
    """
    check_question(nonce, count)
    view = memoryview(value)
    payload_bytes = len(view) - SHARD_TAG_BYTES
    if payload_bytes < 0:
        raise InvalidError(f"a value of {len(view)} bytes is no shard")
    payload = view[:payload_bytes]
    digests = leaf_digests(payload)
    chosen = chosen_leaves(nonce, payload_bytes, count)
    shown = set(chosen)
    others = b"".join(digest for number, digest in enumerate(digests) if number not in shown)
    leaves = tuple(bytes(payload[number * LEAF_BYTES : (number + 1) * LEAF_BYTES]) for number in chosen)
    return Proof(payload_bytes, bytes(view[payload_bytes:]), others, leaves)


def verify_proof(
    stripe_id: StripeId, index: int, nonce: bytes, count: int, proof: Proof, payload_bytes: int | None = None
) -> None:
    """Check that a proof answers this nonce and speaks of shard `index` of the stripe.

    `payload_bytes`, where given, is the length that the slot says. Raises: CorruptError.
    """
    length = proof.payload_bytes
    if not 0 <= length <= ZDB_VALUE_BYTES_MAX - SHARD_TAG_BYTES or payload_bytes not in (None, length):
        raise CorruptError(f"proof of shard {index} speaks of {length} bytes")
    chosen = chosen_leaves(nonce, length, count)
    others = leaf_count(length) - len(chosen)
    if len(proof.leaves) != len(chosen) or len(proof.others) != others * DIGEST_BYTES:
        raise CorruptError(
            f"proof of shard {index} shows {len(proof.leaves)} leaves and {len(proof.others)} bytes of digests, "
            f"{len(chosen)} and {others * DIGEST_BYTES} were asked for"
        )
    shown = dict(zip(chosen, proof.leaves, strict=True))
    for number, leaf in shown.items():
        expected = min(length - number * LEAF_BYTES, LEAF_BYTES)
        if len(leaf) != expected:
            raise CorruptError(f"leaf {number} of shard {index} has {len(leaf)} bytes, {expected} were expected")
    rest = iter(range(0, len(proof.others), DIGEST_BYTES))
    digests = [
        blake3(shown[number]).digest() if number in shown else _digest_at(proof.others, next(rest))
        for number in range(leaf_count(length))
    ]
    if not hmac.compare_digest(shard_tag(stripe_id, index, length, root_of_leaves(digests)), proof.tag):
        raise CorruptError(f"proof of shard {index} of {length} bytes does not match its tag")


def caught_rate(leaves: int, dropped: int, count: int) -> float:
    """The chance that a member which dropped so many leaves cannot answer a fresh nonce."""
    shown = min(count, leaves)
    return 1 - comb(leaves - dropped, shown) / comb(leaves, shown)


def check_question(nonce: bytes, count: int) -> None:
    """Raises: InvalidError when nonce or count are out of bounds."""
    if not NONCE_BYTES_MIN <= len(nonce) <= NONCE_BYTES_MAX:
        raise InvalidError(f"a nonce has {NONCE_BYTES_MIN} to {NONCE_BYTES_MAX} bytes, this has {len(nonce)}")
    if not 1 <= count <= LEAVES_MAX:
        raise InvalidError(f"{count} leaves are not within 1..{LEAVES_MAX}")


def _digest_at(digests: bytes, start: int) -> bytes:
    return digests[start : start + DIGEST_BYTES]
