"""Read and check every shard of an object: what is good, what is missing, what lies, and on which member."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import check_shard, content_root, payload_root
from fungistor.errors import CorruptError, UnavailableError
from fungistor.ids import MemberId
from fungistor.limits import PARITY_SHARDS
from fungistor.objects.ports import ShardStore

THREADS = 4

GOOD, MISSING, CORRUPT, ABSENT_MEMBER = "good", "missing", "corrupt", "its member does not answer"


@dataclass(slots=True)
class Tally:
    """What a tour found. `survives` is the least any stripe still survives; below 0 it cannot be read."""

    shards: int = 0
    good: int = 0
    missing: int = 0
    corrupt: int = 0
    survives: int = PARITY_SHARDS
    by_member: dict[MemberId, Counter[str]] = field(default_factory=dict)

    def describe(self) -> dict[str, str]:
        """For each member with something wrong: what, and how often."""
        return {
            member: ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            for member, counts in sorted(self.by_member.items())
        }


class Verifier:
    """Checks whole stripes, a few at a time. Needs no content key."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store

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

    def _stripe(self, slot: Slot) -> tuple[Slot, list[tuple[MemberId, str]]]:
        window = self._store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
        roots: dict[int, bytes] = {}
        found: list[tuple[MemberId, str]] = []
        for index, member in enumerate(window):
            try:
                value = self._store.get_shard(slot, index)
                if value is None:
                    outcome = MISSING
                else:
                    roots[index] = payload_root(check_shard(slot.stripe_id, index, value, slot.shard_bytes))
                    outcome = GOOD
            except CorruptError:
                outcome = CORRUPT
            except UnavailableError:
                outcome = ABSENT_MEMBER
            found.append((self._store.member_id(member), outcome))
        if all(index in roots for index in range(slot.k)):
            # A stripe id checks a shard, and forges one, too: only the content root tells a forgery apart.
            if content_root([roots[index] for index in range(slot.k)]) != slot.content_root:
                found = [(member, CORRUPT if outcome == GOOD else outcome) for member, outcome in found]
        return slot, found


def _count(tally: Tally, slot: Slot, found: list[tuple[MemberId, str]]) -> None:
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
        tally.by_member.setdefault(member, Counter())[outcome] += 1
    tally.good += good
    tally.survives = min(tally.survives, good - slot.k)
