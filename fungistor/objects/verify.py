"""Read and check every shard of an object: what is good, what is missing, what lies, and on which member."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import content_root, payload_root
from fungistor.ids import StripeId
from fungistor.limits import SHARD_INDEX_MAX
from fungistor.objects.ports import ShardStore
from fungistor.objects.stripe_reader import OnCorrupt

THREADS = 4

CHECKED_KEPT = 4096
"""Stripes whose shards were all checked: some 5 MB."""

GOOD, CORRUPT = "good", "corrupt"
_WORDS = {"unknown": "not answered for"}


@dataclass(slots=True)
class Tally:
    """What a tour found. `survives` is the least any stripe still survives; below 0 it cannot be read."""

    shards: int = 0
    good: int = 0
    missing: int = 0
    corrupt: int = 0
    survives: int = SHARD_INDEX_MAX
    by_member: dict[str, Counter[str]] = field(default_factory=dict)

    def describe(self) -> dict[str, str]:
        """For each member with something wrong: what, and how often."""
        return {
            member: ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            for member, counts in sorted(self.by_member.items())
        }


class Verifier:
    """Checks whole stripes, a few at a time. Needs no content key.

    What it found of the last ones is kept: small objects share stripes, whose shards need be read once a run.
    """

    def __init__(self, store: ShardStore, on_corrupt: OnCorrupt = lambda *_: None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._checked: OrderedDict[StripeId, list[tuple[str, str]]] = OrderedDict()
        self._on_corrupt = on_corrupt

    def verify(self, slots: Iterable[Slot]) -> Tally:
        """Check every shard of these stripes."""
        tally = Tally()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="verifier") as pool:
            waiting = []
            for slot in slots:
                waiting.append(pool.submit(self._stripe, slot))
                if len(waiting) > 2 * THREADS:
                    _count(tally, *waiting.pop(0).result())
            for future in waiting:
                _count(tally, *future.result())
        return tally

    def _stripe(self, slot: Slot) -> tuple[Slot, list[tuple[str, str]]]:
        with self._lock:
            found = self._checked.get(slot.stripe_id)
        if found is None:
            found = self._check(slot)
            with self._lock:
                self._checked[slot.stripe_id] = found
                if len(self._checked) > CHECKED_KEPT:
                    self._checked.popitem(last=False)
        return slot, found

    def _check(self, slot: Slot) -> list[tuple[str, str]]:
        inspected = self._store.inspect(slot)
        roots = {
            index: payload_root(memoryview(shard.value)[: slot.shard_bytes])
            for index, shard in inspected.items()
            if index < slot.k and shard.value is not None
        }
        # A stripe id checks a shard, and forges one, too: only the content root tells a forgery apart.
        forged = len(roots) == slot.k and content_root([roots[i] for i in range(slot.k)]) != slot.content_root
        found = []
        for index, shard in inspected.items():
            if shard.soundness == CORRUPT:
                self._on_corrupt(slot, index)
            outcome = CORRUPT if forged and shard.soundness == GOOD else str(shard.soundness)
            found.append((self._store.name(shard.member), outcome))
        return found


def _count(tally: Tally, slot: Slot, found: list[tuple[str, str]]) -> None:
    good = 0
    for member, outcome in found:
        tally.shards += 1
        if outcome == GOOD:
            good += 1
            continue
        if outcome == CORRUPT:
            tally.corrupt += 1
        else:
            tally.missing += 1
        tally.by_member.setdefault(member, Counter())[_WORDS.get(outcome, outcome)] += 1
    tally.good += good
    tally.survives = min(tally.survives, good - slot.k)
