"""Self-describing digests: hash code, length, digest. Only hash functions that are still safe are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import blake3

from fungistor.dag import varint
from fungistor.errors import InvalidError

IDENTITY = 0x00
SHA2_256 = 0x12
SHA2_512 = 0x13
BLAKE2B_256 = 0xB220
BLAKE3 = 0x1E

DIGEST_BYTES_MAX = 128
"""IPIP-512: no longer identity CID is made or read; no hash in use has a longer digest."""

_TRUNCATED_DIGEST_BYTES_MIN = 20
"""Kubo's bound: a shorter digest no longer stands for one content."""

SHA2_256_PREFIX = bytes((SHA2_256, 32))

_FUNCTIONS: dict[int, Callable[[bytes | memoryview], bytes]] = {
    0x1013: lambda data: hashlib.sha224(data).digest(),
    SHA2_256: lambda data: hashlib.sha256(data).digest(),
    0x20: lambda data: hashlib.sha384(data).digest(),
    SHA2_512: lambda data: hashlib.sha512(data).digest(),
    0x17: lambda data: hashlib.sha3_224(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0x15: lambda data: hashlib.sha3_384(data).digest(),
    0x14: lambda data: hashlib.sha3_512(data).digest(),
    0xB240: lambda data: hashlib.blake2b(data).digest(),
    BLAKE2B_256: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
    0xB260: lambda data: hashlib.blake2s(data).digest(),
    BLAKE3: lambda data: blake3.blake3(data).digest(length=DIGEST_BYTES_MAX),
    0x56: lambda data: hashlib.sha256(hashlib.sha256(data).digest()).digest(),
}


def sha256_multihash(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 34-byte multihash that every import profile uses."""
    return SHA2_256_PREFIX + hashlib.sha256(data).digest()


def split(multihash: bytes) -> tuple[int, bytes]:
    """Return hash code and digest of a whole multihash.

    Raises:
        InvalidError: malformed, of another length than it says, or a digest longer than DIGEST_BYTES_MAX.
    """
    if len(multihash) == 34 and multihash.startswith(SHA2_256_PREFIX):
        return SHA2_256, multihash[2:]
    code, position = varint.decode_strict(multihash, 0)
    length, position = varint.decode_strict(multihash, position)
    if length > DIGEST_BYTES_MAX:
        raise InvalidError(f"a digest of {length} bytes, at most {DIGEST_BYTES_MAX} are accepted")
    digest = multihash[position:]
    if len(digest) != length:
        raise InvalidError(f"a digest of {len(digest)} bytes where {length} were announced")
    return code, digest


def matches(multihash: bytes, data: bytes | memoryview) -> bool:
    """Say whether data hashes to the multihash.

    Raises:
        InvalidError: a malformed multihash, a hash function that is not computed here, or a digest too short to trust.
    """
    code, digest = split(multihash)
    if code == SHA2_256 and len(digest) == 32:
        return hashlib.sha256(data).digest() == digest
    if code == IDENTITY:
        return data == digest
    function = _FUNCTIONS.get(code)
    if function is None:
        raise InvalidError(f"hash function 0x{code:x} is not supported")
    whole = function(data)
    if not _TRUNCATED_DIGEST_BYTES_MIN <= len(digest) <= len(whole):
        raise InvalidError(f"a digest of {len(digest)} bytes for hash 0x{code:x}, which has up to {len(whole)}")
    return whole.startswith(digest)
