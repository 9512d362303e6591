"""Both tiers as one, for readers of stripes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from blake3 import blake3

from fungistor.cache.disk import DiskCache, DiskStatus
from fungistor.cache.flight import Flights
from fungistor.cache.memory import MemoryCache

SPAN_KEY_BYTES = 16
SPAN_PURPOSE = "fungistor 2026 cache span"

PASS_OFFSET = 2**64 - 1
"""No span begins there: a note does that an object was read from end to end."""
PASS_NOTE = b"\0"


def span_key(stripe_id: bytes, offset: int, length: int) -> bytes:
    """What a span of a stripe is kept under. A stripe's bytes never change, and the key does not tell its id."""
    place = offset.to_bytes(8, "big") + length.to_bytes(8, "big")
    return blake3(stripe_id + place, derive_key_context=SPAN_PURPOSE).digest(SPAN_KEY_BYTES)


@dataclass(slots=True)
class Cache:
    """Blocks in this process's memory, sealed spans on the home's disk, one fetch at a time. Thread-safe."""

    memory: MemoryCache
    disk: DiskCache | None = None
    flights: Flights = field(default_factory=Flights)
    _epoch: int = 0

    def __post_init__(self) -> None:
        self._epoch = 0 if self.disk is None else self.disk.epoch()

    @property
    def keeps_sealed(self) -> bool:
        """Tell whether there is a disk."""
        return self.disk is not None

    def block(self, multihash: bytes) -> bytes | None:
        """A verified block."""
        return self.memory.get(multihash)

    def has_block(self, multihash: bytes) -> bool:
        """Tell whether `block` would give it now."""
        return multihash in self.memory

    def keep_block(self, multihash: bytes, data: bytes) -> None:
        """Keep a block that was verified."""
        self.memory.put(multihash, data)

    def sealed(self, key: bytes) -> bytes | None:
        """A sealed span; only its seal says whether it is what was kept."""
        return None if self.disk is None else self.disk.get(key)

    def keep_sealed(self, spans: Mapping[bytes, bytes]) -> None:
        """Keep sealed spans that were opened."""
        if self.disk is not None:
            self.disk.put(spans)

    def damaged(self, key: bytes) -> None:
        """A kept span did not open."""
        if self.disk is not None:
            self.disk.forget(key)

    @property
    def sealed_bytes_max(self) -> int:
        """How much of spans is kept at most."""
        return 0 if self.disk is None else self.disk.bytes_max

    def note_pass(self, stripe_id: bytes) -> bool:
        """Tell whether an object was read from end to end before, and note that it is.

        The note lies among the spans, for all processes of the home, and goes as they do.
        """
        if self.disk is None:
            return False
        key = span_key(stripe_id, PASS_OFFSET, 0)
        if self.disk.get(key) is not None:
            return True
        self.disk.put({key: PASS_NOTE})
        return False

    @property
    def landed(self) -> int:
        """How many flights have ended."""
        return self.flights.landed

    def flight(self, key: bytes, looked: int) -> AbstractContextManager[bool]:
        """Hold while `key` is fetched. True where somebody was at it first, or since `looked`, and may have kept it."""
        return self.flights.of(key, looked)

    def purge(self, keys: Iterable[bytes] | None = None) -> int:
        """Forget these spans, or everything; the blocks in memory go in any case. How many spans went."""
        self.memory.clear()
        if self.disk is None:
            return 0
        return self.disk.purge() if keys is None else self.disk.drop(keys)

    def follow_purges(self) -> int:
        """Let go of what another process purged; the number of purges so far."""
        epoch = 0
        if self.disk is not None:
            epoch = self.disk.epoch()
            self.disk.let_go()
        if epoch != self._epoch:
            self._epoch = epoch
            self.memory.clear()
        return epoch

    def status(self) -> DiskStatus | None:
        """What the disk holds."""
        return None if self.disk is None else self.disk.status()

    def close(self) -> None:
        """Close the disk's files."""
        if self.disk is not None:
            self.disk.close()
