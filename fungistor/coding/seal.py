"""Sealing: AES-256-GCM under a key that encrypts once, so the nonce is constant and none can ever repeat.

A retry must send the same sealed bytes again or draw a new key: the same key over other bytes would give away
both. The associated data binds what a reader takes from elsewhere: format version, kind, compression, plain
length and, for a block, its multihash (never CID text, which has many spellings).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fungistor.coding.buffers import Buffer
from fungistor.errors import CorruptError

KEY_BYTES: Final = 32
SEAL_TAG_BYTES: Final = 16
SEAL_VERSION: Final = 0

_NONCE = bytes(12)
_HAS_INTO = hasattr(AESGCM, "encrypt_into")


class Purpose(IntEnum):
    """What a seal protects; one kind of bytes can never be passed off as another. Part of the formats."""

    BLOCK = 0
    LIST_PAGE = 1
    MAP_PAGE = 2
    LIST_ROOT_PAGE = 3
    MAP_ROOT_PAGE = 4


def block_aad(multihash: bytes, compression: int, plain_bytes: int) -> bytes:
    """The associated data of a sealed block."""
    return _aad(Purpose.BLOCK, compression, plain_bytes) + multihash


def page_aad(purpose: Purpose, compression: int, plain_bytes: int) -> bytes:
    """The associated data of a sealed manifest page."""
    return _aad(purpose, compression, plain_bytes)


def seal_into(key: bytes, plain: Buffer, aad: bytes, out: memoryview) -> int:
    """Write the sealed bytes, SEAL_TAG_BYTES longer than `plain`, to the start of `out`; their count.

    `out` must not overlap `plain`, and `key` must never seal anything else.
    Raises: ValueError if `out` is too short or the key is not KEY_BYTES long.
    """
    sealed_bytes = len(plain) + SEAL_TAG_BYTES
    if len(out) < sealed_bytes:
        raise ValueError(f"{sealed_bytes} sealed bytes do not fit into {len(out)}")
    cipher = _cipher(key)
    if _HAS_INTO:
        # Writing into the caller's buffer halves the cost: fresh megabytes are page faults.
        return cipher.encrypt_into(_NONCE, plain, aad, out[:sealed_bytes])
    out[:sealed_bytes] = cipher.encrypt(_NONCE, plain, aad)
    return sealed_bytes


def seal(key: bytes, plain: Buffer, aad: bytes) -> bytes:
    """The sealed bytes as new bytes, for what is small. See `seal_into`."""
    return _cipher(key).encrypt(_NONCE, plain, aad)


def open_into(key: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> int:
    """Write the plain bytes to the start of `out` and give back their count. `out` must not overlap `sealed`.

    Raises: CorruptError if the bytes, the key or the associated data are not those of the seal; `out` is then
    undefined. ValueError if `out` is too short.
    """
    plain_bytes = len(sealed) - SEAL_TAG_BYTES
    if plain_bytes < 0:
        raise CorruptError(f"{len(sealed)} bytes are too short to be sealed")
    if len(out) < plain_bytes:
        raise ValueError(f"{plain_bytes} plain bytes do not fit into {len(out)}")
    cipher = _cipher(key)
    try:
        if _HAS_INTO:
            return cipher.decrypt_into(_NONCE, sealed, aad, out[:plain_bytes])
        out[:plain_bytes] = cipher.decrypt(_NONCE, sealed, aad)
    except InvalidTag as error:
        raise _broken(sealed) from error
    return plain_bytes


def open_sealed(key: bytes, sealed: Buffer, aad: bytes) -> bytes:
    """The plain bytes.

    Raises: CorruptError if the bytes, the key or the associated data are not those of the seal.
    """
    if len(sealed) < SEAL_TAG_BYTES:
        raise CorruptError(f"{len(sealed)} bytes are too short to be sealed")
    cipher = _cipher(key)
    try:
        return cipher.decrypt(_NONCE, sealed, aad)
    except InvalidTag as error:
        raise _broken(sealed) from error


def _aad(purpose: Purpose, compression: int, plain_bytes: int) -> bytes:
    return bytes((SEAL_VERSION, purpose, compression)) + plain_bytes.to_bytes(4, "big")


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return AESGCM(key)


def _broken(sealed: Buffer) -> CorruptError:
    return CorruptError(f"{len(sealed)} sealed bytes do not open: changed bytes, or another key")
