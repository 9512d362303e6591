"""Writes tests/vectors/shard.json: keys, roots and tags of shards, format version 0.

Run `python -m tests.vectors.make_shard` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.coding.shard import content_root, payload_root, shard_key, shard_tag
from fungistor.ids import StripeId

STRIPE_ID = StripeId(bytes(range(32)))


def payload(length: int) -> bytes:
    """Byte i is (5 i + i / 65536) mod 256, so that no two leaves are equal."""
    return bytes((5 * i + i // 65_536) % 256 for i in range(length))


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    lengths = (0, 1, 65_536, 65_537, 200_000)
    return {
        "version": 0,
        "stripe_id": STRIPE_ID.hex(),
        "key": {f"index_{index}": shard_key(STRIPE_ID, index).hex() for index in (0, 19, 254)},
        "root": {f"{length}_bytes": payload_root(payload(length)).hex() for length in lengths},
        "tag": {
            f"index_{index}_{length}_bytes": shard_tag(STRIPE_ID, index, length, payload_root(payload(length))).hex()
            for index, length in ((0, 0), (0, 1), (19, 65_536), (19, 65_537), (254, 200_000))
        },
        "content_root": content_root([payload_root(payload(length)) for length in (1, 65_536)]).hex(),
    }


if __name__ == "__main__":
    (Path(__file__).parent / "shard.json").write_text(json.dumps(vectors(), indent=1) + "\n")
