"""Bringing shards home: the use case behind `repair`, and a worker of `up` that deletes what stays behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.errors import ConflictError
from fungistor.ids import MemberNumber
from fungistor.node.config import load_config
from fungistor.node.damage import DamageNotes
from fungistor.node.files import locked
from fungistor.node.members import member_specs, placement_tables, pool_members
from fungistor.node.network import Parts
from fungistor.objects.owed import Payer
from fungistor.objects.results import Progress, RepairReport, no_progress
from fungistor.repair.clearing import Cleared, Clearer
from fungistor.repair.mover import Look, Mover
from fungistor.repair.pace import Pace
from fungistor.repair.tour import Tour

GRACE_S = 600
"""How long after a layout's retirement the copies go that only it wanted. A reader hears of it within a second, one
that cannot reach the catalog later: from then on it finds shards by the newest layout alone."""


class Repairs:
    """What a node can do for shards, without any content key."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._notes = DamageNotes(parts.home)

    def repair(
        self,
        *,
        bytes_a_second: float | None = None,
        look: Look = Look.WHOLE,
        grace_s: int = GRACE_S,
        progress: Progress = no_progress,
    ) -> RepairReport:
        """Bring every shard where the newest layout wants it, replace damaged ones, retire the layouts before, and
        delete what old ones left behind. Publishes and reads go on.

        Raises: ConflictError where one runs in this home.
        """
        with self._alone():
            started = time.monotonic()
            parts, pace = self._parts, Pace(bytes_a_second)
            parts.pool.probe()
            suspected = self._notes.take()
            toured = Tour(
                parts.catalog,
                self._slots,
                lambda: Mover(parts.pool, parts.mender(), pace.take, suspected.of, look),
                Payer(parts.catalog, parts.pool, parts.stripe_list, parts.mender).mend_whole,
            ).run(progress)
            moved = toured.moved
            cleared = Cleared()
            if moved.is_settled and not toured.unreadable:
                self._notes.settle()
                self._follow()
                cleared = self._clearer().run(grace_s, progress)
        return RepairReport(
            objects=toured.objects,
            copied=moved.copied,
            rebuilt=moved.rebuilt,
            moved_bytes=moved.moved_bytes,
            waiting=moved.waiting_shards,
            waiting_for=self._names(moved.waiting),
            unreadable=len(toured.unreadable),
            retired_layouts=toured.retired,
            left=toured.left,
            seconds=time.monotonic() - started,
            damaged=moved.damaged,
            cleared_layouts=cleared.layouts,
            clear_in=cleared.later_s,
            freed=cleared.freed,
            pending=self._names(cleared.pending),
            stuck=self._names(cleared.stuck),
        )

    def clear_due(self) -> bool:
        """Background work of `up`: delete old copies where that is due and no member is away that may have some."""
        parts, clearer = self._parts, self._clearer()
        if not clearer.due(GRACE_S) or len(parts.pool.up_members()) < len(parts.pool.members()):
            return False
        with contextlib.suppress(ConflictError), self._alone():
            self._follow()  # a process that runs for long looks by retired layouts, too
            clearer.run(GRACE_S)
        return False

    def _follow(self) -> None:
        """Have the pool know which layouts were retired just now."""
        parts = self._parts
        specs, _ = member_specs(pool_members(parts.home, load_config(parts.home)), parts.catalog.layout(), parts.keys)
        parts.pool.replace(specs, placement_tables(parts.catalog), placement_tables(parts.catalog, left=True))

    def _clearer(self) -> Clearer:
        return Clearer(self._parts.catalog, self._parts.pool, self._slots, time.time)

    def _slots(self, record: Record) -> Iterator[Slot]:
        return self._parts.stripe_list(record).all_slots()

    def _names(self, numbers: Iterable[MemberNumber]) -> tuple[str, ...]:
        return tuple(sorted(self._parts.pool.name(number) for number in numbers))

    def _alone(self) -> AbstractContextManager[None]:
        busy = ConflictError("a repair runs already in this home", hint="wait until it has ended")
        return locked(self._parts.home.path("run", "repair.lock"), busy)
