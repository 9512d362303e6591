"""Fill stripes with sealed blocks and send them out: one writer a thread, everything in reused buffers.

A fresh buffer of several MiB costs five to ten times its use in page faults, so a writer keeps one for the data
shards and one for the parity. Padding is random: zeros would show a member where the content ends.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

from fungistor.coding import erasure
from fungistor.coding.compress import compress
from fungistor.coding.manifest import Slot
from fungistor.coding.seal import KEY_BYTES, SEAL_TAG_BYTES, block_aad, seal_into
from fungistor.coding.shard import content_root, payload_root, shard_tag
from fungistor.coding.stripe import geometry
from fungistor.errors import UnavailableError
from fungistor.limits import KIB, STRIPE_BYTES_MAX, STRIPE_CLOSE_BYTES
from fungistor.objects.ports import Buffer, ShardStore
from fungistor.objects.session import Session, WrittenStripe
from fungistor.objects.spool import StoredBlock

CODE_ATTEMPTS_MAX = 3
"""A stripe that too few members took is coded again for fewer, this often at most."""

_BUFFER_BYTES = STRIPE_BYTES_MAX + 64 * KIB


class StripeWriter:
    """Not thread-safe. `on_written` is called with the slot number and the stripe each time one went out."""

    def __init__(
        self,
        store: ShardStore,
        session: Session,
        slots: itertools.count[int],
        on_written: Callable[[int, WrittenStripe], None],
    ) -> None:
        self._store = store
        self._session = session
        self._slots = slots
        self._on_written = on_written
        # Grown as it fills: 6 MiB zeroed for a tiny object would take longer than all the rest of its publish.
        self._data = bytearray()
        self._parity = bytearray()
        self._slot = -1
        self._length = 0
        self._lengths: list[int] = []
        self._blocks: list[tuple[bytes, StoredBlock]] = []

    def append(self, multihash: bytes, plain: Buffer) -> StoredBlock:
        """Compress and seal a block into the open stripe; send the stripe when that fills it."""
        compression, packed = compress(plain)
        key = os.urandom(KEY_BYTES)
        aad = block_aad(multihash, compression, len(plain))
        room = self._room(len(packed) + SEAL_TAG_BYTES)
        number = self._appended(seal_into(key, packed, aad, room))
        stored = StoredBlock(self._slot, number, len(plain), int(compression), key)
        self._blocks.append((multihash, stored))
        self.close_if_full()
        return stored

    def append_sealed(self, sealed: bytes) -> tuple[int, int]:
        """Append bytes that are sealed already, closing nothing; return their slot number and offset."""
        if self._length + len(sealed) > STRIPE_BYTES_MAX:
            self.close_stripe()
        offset = self._length
        self._room(len(sealed))[:] = sealed
        self._appended(len(sealed))
        return self._slot, offset

    def _room(self, length: int) -> memoryview:
        self._reserve(self._length + length)
        return memoryview(self._data)[self._length : self._length + length]

    def _reserve(self, length: int) -> None:
        if length > len(self._data):
            grown = bytearray(max(length, min(_BUFFER_BYTES, 4 * len(self._data))))
            grown[: self._length] = memoryview(self._data)[: self._length]
            self._data = grown

    def _appended(self, length: int) -> int:
        if not self._lengths:
            self._slot = next(self._slots)
        self._length += length
        self._lengths.append(length)
        return len(self._lengths) - 1

    def close_if_full(self) -> None:
        """Send the open stripe if it has reached its size."""
        if self._length >= STRIPE_CLOSE_BYTES:
            self.close_stripe()

    def close_stripe(self) -> WrittenStripe | None:
        """Code and send what is in the open stripe, if anything.

        Raises:
            UnavailableError: fewer than k + 2 members took it, for any k.
        """
        if not self._lengths:
            return None
        for attempt in itertools.count(1):
            try:
                stripe = self._send()
                break
            except UnavailableError:
                # The members that failed are known to be down now: the next attempt has a smaller k and another id,
                # since an id names one content for ever.
                self._session.in_vain = True
                if attempt == CODE_ATTEMPTS_MAX:
                    raise
        slot_number, self._length, self._lengths = self._slot, 0, []
        blocks, self._blocks = self._blocks, []
        self._session.wrote(stripe, blocks)
        self._on_written(slot_number, stripe)
        return stripe

    def _send(self) -> WrittenStripe:
        layout = self._store.newest_layout(self._session.policy.number)
        seats = self._store.seats(layout)
        up = sum(member in seats.members for member in self._store.up_members())
        shape = geometry(self._length, seats.row_len, up, self._session.policy.cut)
        k, m, size = shape.k, shape.m, shape.shard_bytes
        self._reserve(k * size)
        self._data[self._length : k * size] = os.urandom(k * size - self._length)
        if len(self._parity) < m * size:
            self._parity = bytearray(m * size)
        with memoryview(self._data) as data, memoryview(self._parity) as parity:
            shards = [data[i * size : (i + 1) * size] for i in range(k)]
            shards += [parity[i * size : (i + 1) * size] for i in range(m)]
            erasure.encode(k, m, shards[:k], shards[k:])
            roots = [payload_root(shard) for shard in shards]
            stripe_id, window = self._session.draw_id(layout, k + m)
            tagged = [(shard, shard_tag(stripe_id, i, size, roots[i])) for i, shard in enumerate(shards)]
            outcome = self._store.put(stripe_id, layout, k, m, tagged)
        slot = Slot(stripe_id, k, m, size, content_root(roots[:k]), layout)
        return WrittenStripe(slot, window, tuple(self._lengths), frozenset(outcome.owed), outcome.receipts)
