"""What the tests of this room share: blocks in memory, Kubo's stream of test data, and small profiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import settings

from fungistor.dag import CID, Block, Profile, verify
from fungistor.dag.profiles import DirectorySize
from fungistor.errors import NotFoundError

SAME_EACH_RUN = settings(deadline=None, derandomize=True)
"""Decorates every property of this room: the same examples each run, and no deadline on a shared machine."""

TINY = Profile("test-tiny", 1, True, 7, 3, DirectorySize.BLOCK, shard_above_bytes=300, fanout=8)
TINY_V0 = Profile("test-tiny-v0", 0, False, 5, 2, DirectorySize.LINKS, shard_above_bytes=200, fanout=16)


class MemoryBlocks:
    """A verified block source that remembers what was asked for and announced. Keyed by multihash, as stores are."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.asked: list[CID] = []
        self.hinted: list[CID] = []

    def emit(self, block: Block) -> None:
        verify(block.cid, block.data)
        self.blocks[block.cid.multihash] = block.data

    def add(self, cid: CID, data: bytes) -> CID:
        self.blocks[cid.multihash] = data
        return cid

    def get(self, cid: CID) -> bytes:
        self.asked.append(cid)
        try:
            return self.blocks[cid.multihash]
        except KeyError:
            raise NotFoundError(f"block {cid} is not here") from None

    def hint(self, cids: Sequence[CID]) -> None:
        self.hinted += cids


def stream(seed: str) -> Iterator[bytes]:
    """Yield Kubo's deterministic test data without end, 1 MiB at a time: the ChaCha20 key stream of sha256(seed)."""
    cipher = Cipher(algorithms.ChaCha20(hashlib.sha256(seed.encode()).digest(), bytes(16)), mode=None).encryptor()
    zeros = bytes(1 << 20)
    while True:
        yield cipher.update(zeros)


def stream_bytes(seed: str, size: int) -> bytes:
    """Return the first bytes of `stream`."""
    cipher = Cipher(algorithms.ChaCha20(hashlib.sha256(seed.encode()).digest(), bytes(16)), mode=None).encryptor()
    return cipher.update(bytes(size))


def stream_chunks(seed: str, size: int, chunk_bytes: int) -> Iterator[bytes]:
    """Cut the first `size` bytes of `stream` into chunks, in bounded memory."""
    cipher = Cipher(algorithms.ChaCha20(hashlib.sha256(seed.encode()).digest(), bytes(16)), mode=None).encryptor()
    while size > 0:
        take = min(size, chunk_bytes)
        yield cipher.update(bytes(take))
        size -= take


def cut(data: bytes, chunk_bytes: int) -> list[bytes]:
    """Cut data into chunks; none for none."""
    return [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
