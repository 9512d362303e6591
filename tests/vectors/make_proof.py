"""Writes tests/vectors/proof.json: which leaves a nonce chooses, and digests of whole proofs, format version 0.

Run `python -m tests.vectors.make_proof` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blake3 import blake3

from fungistor.coding.proof import chosen_leaves, prove
from fungistor.coding.shard import payload_root, shard_tag
from tests.vectors.make_shard import STRIPE_ID, payload

NONCE = bytes(range(100, 132))


def value(index: int, length: int) -> bytes:
    """What a member holds for the shard of that length."""
    data = payload(length)
    return data + shard_tag(STRIPE_ID, index, length, payload_root(data))


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    proofs = {}
    for index, length, count in ((0, 0, 1), (3, 65_536, 2), (19, 65_537, 1), (254, 200_000, 2)):
        proof = prove(value(index, length), NONCE, count)
        proofs[f"index_{index}_{length}_bytes_{count}_leaves"] = {
            "tag": proof.tag.hex(),
            "others": proof.others.hex(),
            "leaves": [blake3(leaf).hexdigest() for leaf in proof.leaves],
        }
    return {
        "version": 0,
        "stripe_id": STRIPE_ID.hex(),
        "nonce": NONCE.hex(),
        "chosen": {
            f"{length}_bytes_{count}_leaves": chosen_leaves(NONCE, length, count)
            for length, count in ((0, 3), (65_537, 1), (1_000_000, 4), (8_388_592, 8))
        },
        "proof": proofs,
    }


if __name__ == "__main__":
    (Path(__file__).parent / "proof.json").write_text(json.dumps(vectors(), indent=1) + "\n")
