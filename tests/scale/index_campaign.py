"""Build a block index of many rows and look blocks up in it, in a process of its own, so that its memory is known.

`python -m tests.scale.index_campaign FOLDER ROWS OBJECTS SEED` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from hashlib import shake_128

import psutil

from fungistor.catalog.index import HASH_BYTES, BlockIndex, Holder
from fungistor.ids import ObjectId

LOOKUPS = 20_000
NODE_LINKS = 1024


def hashes(seed: int, number: int, count: int) -> bytes:
    """The hashes of an object's blocks, one after the other."""
    return shake_128(b"%d/%d" % (seed, number)).digest(HASH_BYTES * count)


def places(drawn: bytes) -> Iterator[tuple[bytes, int, int]]:
    for index in range(len(drawn) // HASH_BYTES):
        yield drawn[HASH_BYTES * index : HASH_BYTES * (index + 1)], index // NODE_LINKS, index % NODE_LINKS


def object_of(number: int) -> ObjectId:
    return ObjectId(number.to_bytes(32, "big"))


def run(folder: str, rows: int, objects: int, seed: int) -> dict[str, float]:
    """Objects are as large as each other but for every tenth, which is small. Every lookup must find its block."""
    rng = random.Random(seed)
    sizes = [rows // objects // (100 if number % 10 == 9 else 1) for number in range(objects)]
    sizes[0] += rows - sum(sizes)
    index = BlockIndex(os.path.join(folder, "runs.sqlite"))
    drawing = peak = 0.0
    process = psutil.Process()
    started, started_cpu = time.perf_counter(), time.process_time()
    for number, size in enumerate(sizes):
        begun = time.perf_counter()
        drawn = hashes(seed, number, size)
        drawing += time.perf_counter() - begun
        index.add(object_of(number), bytes(16), places(drawn))
        peak = max(peak, process.memory_info().rss - len(drawn))
    build = time.perf_counter() - started - drawing
    build_cpu = time.process_time() - started_cpu - drawing
    drawn_of = {number: hashes(seed, number, sizes[number]) for number in rng.sample(range(objects), min(5, objects))}
    taken = []
    for _ in range(LOOKUPS):
        number = rng.choice(list(drawn_of))
        at = rng.randrange(sizes[number])
        wanted = drawn_of[number][HASH_BYTES * at : HASH_BYTES * (at + 1)]
        begun = time.perf_counter()
        found = index.holders(wanted)
        taken.append(time.perf_counter() - begun)
        assert found == [Holder(object_of(number), at // NODE_LINKS, at % NODE_LINKS)]
    absent = [rng.randbytes(HASH_BYTES) for _ in range(LOOKUPS)]
    begun = time.perf_counter()
    assert index.holders_of(absent, 4) == {}
    batched = (time.perf_counter() - begun) / LOOKUPS
    index.close()
    taken.sort()
    return {
        "rows": rows, "rows_per_s": round(rows / build), "rows_per_cpu_s": round(rows / build_cpu),
        "lookup_p50_ms": taken[LOOKUPS // 2] * 1e3, "lookup_p99_ms": taken[LOOKUPS * 99 // 100] * 1e3,
        "batched_us": batched * 1e6, "resident": int(peak),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], *map(int, sys.argv[2:]))))
