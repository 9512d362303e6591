"""Writes tests/vectors/stripe.json: ids, geometry, sealing and parity of format version 0.

Run `python -m tests.vectors.make_stripe` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.coding.compress import decompress
from fungistor.coding.erasure import encode, matrix
from fungistor.coding.seal import Purpose, block_aad, page_aad, seal
from fungistor.coding.stripe import data_shards, geometry, stripe_id

SECRET = bytes(range(32))
KEY = bytes(range(32, 64))
MULTIHASH = bytes((0x12, 0x20)) + bytes(range(64, 96))
PLAIN = b"fungi store what the forest needs"
# Made once by zstd 1.5.7, level 1. What zstd writes may change with its version; what it reads may not.
ZSTD_FRAME = "28b52ffd2064750000406d7963656c69756d0100f9e488"
ZSTD_PLAIN = b"myce" * 24 + b"lium"


def stripe_bytes(length: int) -> bytes:
    """The stripe that the parity vectors are made of: byte i is (7 i + i / 256) mod 256."""
    return bytes((7 * i + i // 256) % 256 for i in range(length))


def parity_of(length: int, members: int) -> list[bytes]:
    """Parity shards of that stripe on a pool of so many members, all up."""
    shape = geometry(length, members, members)
    padded = memoryview(stripe_bytes(length).ljust(shape.padded_bytes, b"\0"))
    parity = [memoryview(bytearray(shape.shard_bytes)) for _ in range(shape.m)]
    encode(shape.k, shape.m, data_shards(shape, padded), parity)
    return [bytes(shard) for shard in parity]


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    shapes = [(1, 20, 20), (4096, 20, 20), (4097, 20, 20), (65_537, 20, 20), (4_194_304, 20, 16), (100_000, 12, 12)]
    return {
        "version": 0,
        "stripe_id": {
            "secret": SECRET.hex(),
            "counter_0": stripe_id(SECRET, 0).hex(),
            "counter_1": stripe_id(SECRET, 1).hex(),
        },
        "geometry": {
            f"{size}_bytes_{members}_members_{up}_up": "{0.k}+{0.m} x {0.shard_bytes}".format(
                geometry(size, members, up)
            )
            for size, members, up in shapes
        },
        "seal": {
            "key": KEY.hex(),
            "plain": PLAIN.hex(),
            "multihash": MULTIHASH.hex(),
            "block_aad": block_aad(MULTIHASH, 0, len(PLAIN)).hex(),
            "sealed_block": seal(KEY, PLAIN, block_aad(MULTIHASH, 0, len(PLAIN))).hex(),
            "list_page_aad": page_aad(Purpose.LIST_PAGE, 1, 70_000).hex(),
            "map_root_page_aad": page_aad(Purpose.MAP_ROOT_PAGE, 0, 5).hex(),
        },
        "zstd": {"frame": ZSTD_FRAME, "plain": decompress(1, bytes.fromhex(ZSTD_FRAME), len(ZSTD_PLAIN)).hex()},
        "matrix": {f"row_{row}_of_k_16": matrix(16)[row].hex() for row in (0, 16, 17, 18, 19, 254)},
        "parity": {f"shard_{1 + row}_of_5_bytes": shard.hex() for row, shard in enumerate(parity_of(5, 20))}
        | {
            f"shard_{4 + row}_of_12300_bytes_first_32": shard[:32].hex()
            for row, shard in enumerate(parity_of(12_300, 20))
        },
    }


if __name__ == "__main__":
    (Path(__file__).parent / "stripe.json").write_text(json.dumps(vectors(), indent=1) + "\n")
