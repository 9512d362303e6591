"""Seeded contents: files that nothing compresses, and a tree like the source of a large program."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.figures import MIB

PIECE_BYTES = 4 * MIB
TREE_FILES = 46_000
TREE_BYTES = 720 * MIB
TEXT_POOL_BYTES = 16 * MIB
FILES_A_FOLDER = 16
TEXT_SHARE = 0.9
"""Of a tree's files, how many are words; the others are random, as pictures and archives are."""
BYTES_SPREAD = 1.3
"""Sigma of the log-normal sizes: most files small, a few of them hundreds of times larger."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder that was made, and some of its files by their path below it."""

    root: Path
    files: int
    bytes: int
    samples: tuple[str, ...]


def random_file(path: Path, size: int, seed: int) -> None:
    """Write `size` bytes of a cipher's stream: as fast as the disk, and the same for the same seed."""
    key = hashlib.sha256(b"benchmark content %d" % seed).digest()
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    with path.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(stream.update(bytes(min(PIECE_BYTES, size - start))))


def tree(root: Path, files: int, total_bytes: int, seed: int) -> Tree:
    """Write a tree of `files` files in nested folders, about `total_bytes` in all."""
    rng = random.Random(seed)
    pool = _words(rng, min(TEXT_POOL_BYTES, 4 * total_bytes))
    mean = math.log(total_bytes / files) - BYTES_SPREAD**2 / 2
    folders = _folders(root, max(1, files // FILES_A_FOLDER), rng)
    names: list[str] = []
    written = 0
    for number in range(files):
        size = min(int(rng.lognormvariate(mean, BYTES_SPREAD)), len(pool) // 2)
        start = rng.randrange(len(pool) - size)
        is_text = rng.random() < TEXT_SHARE
        data = pool[start : start + size] if is_text else rng.randbytes(size)
        path = rng.choice(folders) / f"{number:05d}.{'txt' if is_text else 'bin'}"
        path.write_bytes(data)
        written += size
        if number % max(1, files // 200) == 0 and size:
            names.append(str(path.relative_to(root)))
    return Tree(root, files, written, tuple(names))


def _folders(root: Path, count: int, rng: random.Random) -> list[Path]:
    root.mkdir()
    made = [root]
    for number in range(count):
        parent = rng.choice(made[-200:])
        path = (root if len(parent.relative_to(root).parts) >= 8 else parent) / f"part-{number:04d}"
        path.mkdir()
        made.append(path)
    return made


def _words(rng: random.Random, size: int) -> bytes:
    """Text of seeded words, common ones common: it compresses to about a third, as sources do."""
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(6000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    piece = max(1, min(size, MIB) // 4)
    text = bytearray()
    while len(text) < size:
        words = rng.choices(vocabulary, weights, k=piece // 4)
        text += " ".join(words).replace(" the", "\n    ").encode()
    return bytes(text[:size])
