"""Sealing manifest pages: compressed where it pays, AES-256-GCM under a key of the page's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from fungistor.coding.buffers import Buffer
from fungistor.coding.compress import Compression, compress, decompress
from fungistor.coding.seal import Purpose, open_sealed, page_aad, seal
from fungistor.errors import CorruptError
from fungistor.limits import MANIFEST_PAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class SealedPage:
    """A page ready for a stripe, and what it takes to open it beside the key."""

    sealed: bytes = field(repr=False)
    plain_bytes: int
    compression: Compression


def seal_page(key: bytes, purpose: Purpose, plain: bytes) -> SealedPage:
    """Compress and seal a page. The caller draws `key` afresh for it: it seals nothing else, ever."""
    compression, packed = compress(plain)
    return SealedPage(seal(key, packed, page_aad(purpose, compression, len(plain))), len(plain), compression)


def open_page(key: bytes, purpose: Purpose, sealed: Buffer, compression: int, plain_bytes: int) -> bytes:
    """A page's plain bytes.

    Raises: CorruptError if the bytes, the key, the purpose or the lengths are not those it was sealed with.
    """
    if not 0 <= plain_bytes <= MANIFEST_PAGE_BYTES_MAX or not 0 <= compression <= max(Compression):
        raise CorruptError(f"a page of {plain_bytes} bytes, compression {compression}, is out of bounds")
    packed = open_sealed(key, sealed, page_aad(purpose, compression, plain_bytes))
    return decompress(compression, packed, plain_bytes)
