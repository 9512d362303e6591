"""A tour of all objects that brings every shard home, pays what members owe, and retires the layouts before the newest.

Publishes go on meanwhile. The tour looks at every record once, then again and again at those that changed while it
looked, until there is nothing new: then it asks the catalog to retire the older layouts, which refuses if a publisher
that began before the last look has committed since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command, RetireLayouts
from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.errors import ConflictError, NotEnoughShardsError
from fungistor.ids import ObjectId, Revision, SessionId
from fungistor.objects.results import Progress, no_progress
from fungistor.repair.mover import SLOTS_AT_ONCE, Moved, Mover

ROUNDS_MAX = 100
"""Rounds over what was published meanwhile. After so many, publishers are quicker than this tour."""

THREADS = 3


@dataclass(slots=True)
class Toured:
    """The whole tour. `retired`: how many layouts readers need no more look by; `left`: why some had to stay."""

    moved: Moved = field(default_factory=Moved)
    objects: int = 0
    unreadable: list[ObjectId] = field(default_factory=list)
    retired: int = 0
    left: str = ""


class Tour:
    """Keyless: needs the records' stripe lists and no object's key."""

    def __init__(
        self,
        catalog: Catalog,
        slots_of: Callable[[Record], Iterator[Slot]],
        new_mover: Callable[[], Mover],
        pay: Callable[[Record], object],
    ) -> None:
        """`pay` tells the catalog what a record's debtors owe no more."""
        self._catalog = catalog
        self._slots_of = slots_of
        self._new_mover = new_mover
        self._pay = pay

    def run(self, progress: Progress = no_progress) -> Toured:
        """Go until all is home or cannot be brought there now."""
        toured = Toured()
        self._catalog.catch_up()
        total = self._catalog.status().objects
        seen = self._catalog.revision
        self._visit(self._catalog.records(), toured, lambda: progress(toured.objects, total, "objects"))
        for _ in range(ROUNDS_MAX):
            self._catalog.catch_up()
            last, seen = seen, self._catalog.revision
            changed = [record for revision, record in self._catalog.records_after(last) if revision <= seen]
            self._visit(changed, toured, lambda: None)
            if changed:
                continue
            if self._retire(seen, toured):
                break
        return toured

    def _visit(self, records: Iterable[Record], toured: Toured, told: Callable[[], None]) -> None:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="repair") as threads:
            movers = [self._new_mover() for _ in range(THREADS)]
            for record in records:
                toured.objects += 1
                if not self._settle(record, toured, threads, movers):
                    toured.unreadable.append(record.object_id)
                elif record.owed:
                    self._pay(record)
                told()

    def _settle(self, record: Record, toured: Toured, threads: ThreadPoolExecutor, movers: list[Mover]) -> bool:
        parts = [Moved() for _ in movers]
        slots = self._slots_of(record)
        try:
            while chunks := _chunks(slots, len(movers)):
                jobs = [
                    threads.submit(mover.settle, chunk, part)
                    for mover, chunk, part in zip(movers, chunks, parts, strict=False)
                ]
                for job in jobs:
                    job.result()
        except NotEnoughShardsError:
            return False  # the stripe list itself cannot be read now
        finally:
            for part in parts:
                _add(toured.moved, part)
        return not any(part.unreadable for part in parts)

    def _retire(self, seen: Revision, toured: Toured) -> bool:
        """True when there is nothing more to do; False to look again."""
        live = self._catalog.layouts()
        if len(live) < 2:
            return True
        if not toured.moved.is_settled or toured.unreadable:
            toured.left = "some shards could not be brought where the newest layout wants them"
            return True
        command = Command(SessionId(os.urandom(16)), 0, RetireLayouts(live[-1].number, seen))
        try:
            self._catalog.commit(command)
        except ConflictError:
            return False
        toured.retired = len(live) - 1
        return True


def _chunks(slots: Iterator[Slot], count: int) -> list[list[Slot]]:
    """The next stripes, shared out; fewer parts, or none, at the end."""
    batch: list[Slot] = []
    for slot in slots:
        batch.append(slot)
        if len(batch) == count * SLOTS_AT_ONCE // 4:
            break
    return [part for start in range(count) if (part := batch[start::count])]


def _add(whole: Moved, part: Moved) -> None:
    whole.stripes += part.stripes
    whole.damaged += part.damaged
    whole.copied += part.copied
    whole.rebuilt += part.rebuilt
    whole.moved_bytes += part.moved_bytes
    whole.unreadable += part.unreadable
    for member, count in part.waiting.items():
        whole.waiting[member] = whole.waiting.get(member, 0) + count
