"""Opened and verified blocks in memory: a segmented LRU, so that one pass over much does not drive out what is used."""

from __future__ import annotations

import threading
from collections import OrderedDict

PROTECTED_SHARE = 0.8
"""Of the bytes, for blocks that were asked for again. The rest is where new ones wait for that."""

ENTRY_BYTES = 200
"""What an entry costs beside its bytes: keys, links, objects. A million tiny blocks must not be free."""


class MemoryCache:
    """Bounded in bytes; thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._lock = threading.Lock()
        self._probation: OrderedDict[bytes, bytes] = OrderedDict()
        self._protected: OrderedDict[bytes, bytes] = OrderedDict()
        self._probation_bytes = 0
        self._protected_bytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        return self._probation_bytes + self._protected_bytes

    def get(self, key: bytes) -> bytes | None:
        """The block, None where it is not held."""
        with self._lock:
            block = self._protected.get(key)
            if block is not None:
                self._protected.move_to_end(key)
            elif (block := self._probation.pop(key, None)) is not None:
                self._promote(key, block)
            if block is None:
                self.misses += 1
            else:
                self.hits += 1
            return block

    def __contains__(self, key: bytes) -> bool:
        """Tell whether it is held, without counting that as a use."""
        return key in self._protected or key in self._probation

    def put(self, key: bytes, block: bytes) -> None:
        """Take a block; others make room for it."""
        cost = len(block) + ENTRY_BYTES
        if cost > self.bytes_max // 4:
            return
        with self._lock:
            if key in self._protected or key in self._probation:
                return
            self._probation[key] = block
            self._probation_bytes += cost
            self._shrink()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._probation.clear()
            self._protected.clear()
            self._probation_bytes = self._protected_bytes = 0

    def _promote(self, key: bytes, block: bytes) -> None:
        cost = len(block) + ENTRY_BYTES
        self._probation_bytes -= cost
        self._protected[key] = block
        self._protected_bytes += cost
        while self._protected_bytes > self.bytes_max * PROTECTED_SHARE and len(self._protected) > 1:
            # It may come back: what was used twice goes out by the same door as what was used once.
            old, bytes_of_old = self._protected.popitem(last=False)
            freed = len(bytes_of_old) + ENTRY_BYTES
            self._protected_bytes -= freed
            self._probation[old] = bytes_of_old
            self._probation_bytes += freed
        self._shrink()

    def _shrink(self) -> None:
        while self._probation_bytes + self._protected_bytes > self.bytes_max and self._probation:
            _, block = self._probation.popitem(last=False)
            self._probation_bytes -= len(block) + ENTRY_BYTES
