"""Sequential mode: keys are ids that the namespace hands out, and an id's place in the index is computed from it.

An id names a slot of 42 bytes. A new value takes the next one. An update keeps the old version as a copy in the next
slot, so it consumes an id too, and rewrites the id's own slot in place. Ids are never handed out twice.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from fungistor.zdb.daemon.format import INDEX_HEADER, MODE_SEQUENTIAL, SLOT_BYTES

ID_BYTES: Final = 8
ID_MAX: Final = (1 << 64) - 1


def id_bytes(number: int) -> bytes:
    """Return an id as clients see it."""
    return number.to_bytes(ID_BYTES, "little")


class Slots:
    """Where the slots of all ids lie: by file, the first id that it holds."""

    def __init__(self) -> None:
        self._files: list[int] = []
        self._firsts: list[int] = []

    def begin(self, file_id: int, first: int) -> None:
        """Note that the slots of `first` and later ids lie in this file, up to the next one begun."""
        self._files.append(file_id)
        self._firsts.append(first)

    def place(self, key: bytes) -> tuple[int, int]:
        """Return the index file and offset of an id's slot."""
        number = int.from_bytes(key, "little")
        at = bisect_right(self._firsts, number) - 1
        return self._files[at], INDEX_HEADER.size + (number - self._firsts[at]) * SLOT_BYTES


def first_slots(mode: int) -> Slots | None:
    """Return where the ids of an empty namespace will lie; None in user mode, which has no ids."""
    if mode != MODE_SEQUENTIAL:
        return None
    slots = Slots()
    slots.begin(0, 0)
    return slots
