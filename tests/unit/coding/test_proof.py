"""A proof of access holds for the shard that was stored, and for nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.proof import (
    LEAVES_MAX,
    Proof,
    caught_rate,
    chosen_leaves,
    leaf_count,
    prove,
    verify_proof,
)
from fungistor.coding.shard import LEAF_BYTES, leaf_digests
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import StripeId
from tests.unit.coding.format_pages import flat, quoted, stored
from tests.vectors.make_proof import NONCE, value, vectors
from tests.vectors.make_shard import STRIPE_ID, payload

OTHER = StripeId(bytes(32))


@pytest.mark.parametrize("length", [0, 1, LEAF_BYTES, LEAF_BYTES + 1, 5 * LEAF_BYTES - 3])
@pytest.mark.parametrize("count", [1, 2, 5, LEAVES_MAX])
def test_a_true_proof_holds(length: int, count: int) -> None:
    """Whatever the length and the count of leaves, what an honest member answers is accepted."""
    proof = prove(value(7, length), NONCE, count)
    verify_proof(STRIPE_ID, 7, NONCE, count, proof, length)
    assert len(proof.leaves) == min(count, leaf_count(length))


def test_a_proof_is_of_one_shard_one_nonce_and_one_length() -> None:
    """Another stripe, index, length, or a proof for an older nonce does not do."""
    length = 20 * LEAF_BYTES
    proof = prove(value(7, length), NONCE, 3)
    for stripe, index, nonce, said in (
        (OTHER, 7, NONCE, None),
        (STRIPE_ID, 8, NONCE, None),
        (STRIPE_ID, 7, NONCE[::-1], None),
        (STRIPE_ID, 7, NONCE, length + 1),
    ):
        with pytest.raises(CorruptError):
            verify_proof(stripe, index, nonce, 3, proof, said)
    with pytest.raises(CorruptError, match="leaves"):
        verify_proof(STRIPE_ID, 7, NONCE, 4, proof)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_changed_part_is_found(data: st.DataObject) -> None:
    """A flipped bit in a leaf, a digest or the tag, a leaf too many or too short: refused with our own error."""
    proof = prove(value(0, 3 * LEAF_BYTES + 100), NONCE, 2)
    part = data.draw(st.sampled_from(("tag", "others", "leaves", "fewer", "length")))
    if part == "leaves":
        leaf = bytearray(proof.leaves[1])
        leaf[data.draw(st.integers(0, len(leaf) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed = replace(proof, leaves=(proof.leaves[0], bytes(leaf)))
    elif part == "fewer":
        changed = replace(proof, leaves=proof.leaves[: data.draw(st.integers(0, 1))])
    elif part == "length":
        changed = replace(proof, payload_bytes=data.draw(st.integers(-5, 1 << 40).filter(lambda n: n != 196_708)))
    else:
        raw = bytearray(getattr(proof, part))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed = replace(proof, tag=bytes(raw)) if part == "tag" else replace(proof, others=bytes(raw))
    with pytest.raises(CorruptError):
        verify_proof(STRIPE_ID, 0, NONCE, 2, changed)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40), st.binary(max_size=200), st.lists(st.binary(max_size=40), max_size=4), st.integers())
def test_no_answer_crashes_the_check(tag: bytes, others: bytes, leaves: list[bytes], length: int) -> None:
    """Whatever a member sends, the check raises CorruptError and nothing else."""
    with pytest.raises(CorruptError):
        verify_proof(STRIPE_ID, 0, NONCE, 2, Proof(length, tag, others, tuple(leaves)))


def test_all_leaves_are_chosen_alike() -> None:
    """Over many nonces each leaf is shown as often as any other, and always as many different ones as asked for."""
    chance, seen = random.Random(3), [0] * 16
    for _ in range(4000):
        chosen = chosen_leaves(chance.randbytes(16), 16 * LEAF_BYTES, 4)
        assert len(set(chosen)) == 4
        assert chosen == sorted(chosen)
        for number in chosen:
            seen[number] += 1
    assert max(abs(times - 1000) for times in seen) < 120


def test_a_member_that_dropped_one_percent_is_caught_at_the_computed_rate() -> None:
    """With 1 of 100 leaves gone and all digests kept, 10 leaves a question catch it in 10 % of the questions."""
    length, dropped, count, questions = 100 * LEAF_BYTES, 37, 10, 1500
    whole = value(0, length)
    honest = memoryview(whole)
    digests, tag = leaf_digests(payload(length)), whole[-16:]
    chance, caught = random.Random(11), 0
    for _ in range(questions):
        nonce = chance.randbytes(32)
        chosen = chosen_leaves(nonce, length, count)
        caught += dropped in chosen
    # The check itself finds it whenever the leaf is asked for, and only then.
    for lying in (True, False):
        while (dropped in chosen_leaves(nonce, length, count)) != lying:
            nonce = chance.randbytes(32)
        chosen = chosen_leaves(nonce, length, count)
        leaves = tuple(
            bytes(LEAF_BYTES) if number == dropped else bytes(honest[number * LEAF_BYTES : (number + 1) * LEAF_BYTES])
            for number in chosen
        )
        others = b"".join(digest for number, digest in enumerate(digests) if number not in chosen)
        answer = Proof(length, tag, others, leaves)
        if lying:
            with pytest.raises(CorruptError, match="does not match its tag"):
                verify_proof(STRIPE_ID, 0, nonce, count, answer)
        else:
            verify_proof(STRIPE_ID, 0, nonce, count, answer)
    expected = caught_rate(100, 1, count)
    assert expected == pytest.approx(0.1)
    spread = (expected * (1 - expected) / questions) ** 0.5
    assert abs(caught / questions - expected) < 4 * spread


def test_questions_out_of_bounds_are_refused() -> None:
    """Short nonces, no leaves and values that are no shards are the asker's mistake."""
    for nonce, count in ((bytes(15), 1), (bytes(65), 1), (NONCE, 0), (NONCE, LEAVES_MAX + 1)):
        with pytest.raises(InvalidError):
            prove(value(0, 1), nonce, count)
    with pytest.raises(InvalidError, match="no shard"):
        prove(b"short", NONCE, 1)


def test_vectors_are_frozen_and_quoted() -> None:
    """The code gives the stored vectors, and the page quotes them."""
    assert vectors() == stored("proof")
    rows = quoted("proof")
    assert rows
    assert rows.items() <= flat(stored("proof")).items()
