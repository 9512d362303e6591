"""Shards that were found damaged, by readers and `verify`: noted in the home, for `repair` to replace.

Only a hint: what is noted is looked at again before anything is done, and a lost note is found anew by who reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping

from fungistor.coding.manifest import Slot
from fungistor.coding.stripe import STRIPE_ID_BYTES
from fungistor.ids import StripeId
from fungistor.node.files import read_bounded
from fungistor.node.home import Home

NOTES_BYTES_MAX = 8 << 20
"""Some hundred thousand notes: a pool in which more is damaged is toured by `repair` shard by shard anyway."""


class DamageNotes:
    """Any number of processes note at once; one repair takes them."""

    def __init__(self, home: Home) -> None:
        self._path = home.path("index", "damaged")
        self._taken = home.path("index", "damaged.taken")

    def note(self, slot: Slot, index: int) -> None:
        """Write down a shard. What cannot be written is left to who finds it next."""
        line = f"{slot.stripe_id.hex()} {index}\n".encode()
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(file).st_size < NOTES_BYTES_MAX:
                    os.write(file, line)
            finally:
                os.close(file)

    def take(self) -> Suspected:
        """All that was noted until now, with what an earlier repair took and did not come to settle."""
        with contextlib.suppress(OSError):
            content = read_bounded(self._path, NOTES_BYTES_MAX + 4096) or b""
            with open(self._taken, "ab") as taken:
                taken.write(content)
            os.unlink(self._path)
        with contextlib.suppress(OSError):
            return Suspected(_parse(read_bounded(self._taken, 4 * NOTES_BYTES_MAX) or b""))
        return Suspected({})

    def settle(self) -> None:
        """What was taken is mended, or was no damage."""
        with contextlib.suppress(OSError):
            os.unlink(self._taken)


class Suspected:
    """Shards by stripe."""

    def __init__(self, found: Mapping[StripeId, Collection[int]]) -> None:
        self._found = found

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def of(self, slot: Slot) -> Collection[int]:
        """Those of a stripe, as far as it has such shards."""
        return [index for index in self._found.get(slot.stripe_id, ()) if index < slot.k + slot.m]


def _parse(content: bytes) -> dict[StripeId, set[int]]:
    found: dict[StripeId, set[int]] = {}
    for line in content.splitlines():
        name, _, index = line.partition(b" ")
        with contextlib.suppress(ValueError):
            stripe = bytes.fromhex(name.decode("ascii"))
            if len(stripe) == STRIPE_ID_BYTES and index.isdigit():
                found.setdefault(StripeId(stripe), set()).add(int(index[:4]))
    return found
