"""Small dead values overwritten where they lie, in files of which too little is dead to be dropped.

What takes a value's place has its length and its checksum, so that no head, no index and no walk is any the wiser: only
the bytes are gone. For secrets that were deleted, as wrapped keys are.
"""

from __future__ import annotations

import functools
import os
from typing import Final

from fungistor.zdb.daemon.format import checksum

VALUE_BYTES_MAX: Final = 4096
"""Longer values are left: theirs are bulk bytes, which somebody else's key seals."""

VALUE_BYTES_MIN: Final = 16
"""Shorter ones are told, more or less, by the checksum that stays."""

_CHECKSUM_BYTES: Final = 4
_FILLER: Final = b"\xa5"
"""Not zeros: a page of those is taken for one that never reached the disk."""


def filler(length: int, wanted: int) -> bytes | None:
    """Bytes that say nothing, of that length and checksum; None for one too short or long."""
    if not VALUE_BYTES_MIN <= length <= VALUE_BYTES_MAX:
        return None
    head = _FILLER * (length - _CHECKSUM_BYTES)
    # The checksum is linear: what the last four bytes have to add is what makes up the difference.
    return head + (_last_four(wanted) ^ checksum(head)).to_bytes(_CHECKSUM_BYTES, "little")


def wipe(fd: int, payload_at: int, length: int, wanted: int) -> bool:
    """Overwrite a value; False where that was done before.

    Raises:
        OSError: the disk refused; it can be done again.
    """
    bytes_now = filler(length, wanted)
    if bytes_now is None or os.pread(fd, length, payload_at) == bytes_now:
        return False
    os.pwrite(fd, bytes_now, payload_at)
    return True


def _last_four(wanted: int) -> int:
    """The four bytes, as a little-endian number, whose own checksum is `wanted`."""
    found = 0
    for pivot, image, number in _solved():
        if wanted >> pivot & 1:
            wanted ^= image
            found ^= number
    assert not wanted, "four bytes reach every checksum"
    return found


@functools.cache
def _solved() -> tuple[tuple[int, int, int], ...]:
    """The checksums of single bits of four bytes, solved by their highest bits: bit, checksum, bits that give it."""
    rows: list[tuple[int, int, int]] = []
    for bit in range(32):
        number = 1 << bit
        image = checksum(number.to_bytes(_CHECKSUM_BYTES, "little"))
        for pivot, other, bits in rows:
            if image >> pivot & 1:
                image, number = image ^ other, number ^ bits
        rows.append((image.bit_length() - 1, image, number))
        rows.sort(reverse=True)
    return tuple(rows)
