"""Delete the copies that shards left where retired layouts wanted them, once nobody reads there any more.

Where such copies lie is worked out anew each time, from the layouts; nothing is queued. A layout is done with when
every member has deleted what it may have had: one that is away has its turn when it is back.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command
from fungistor.catalog.policies import ClearLayouts
from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.errors import ConflictError, FungiStorError
from fungistor.ids import LayoutNumber, MemberNumber, SessionId
from fungistor.objects.ports import ShardStore
from fungistor.objects.results import Progress, no_progress

SLOTS_AT_ONCE = 128


@dataclass(slots=True)
class Cleared:
    """What was done. `layouts`: how many are done with; `later_s`: until the next one's grace is over; `pending`:
    members that have to delete something still, with reasons; `unsettled`: stripes that had to keep their copies."""

    layouts: int = 0
    freed: int = 0
    later_s: int = 0
    unsettled: int = 0
    pending: dict[MemberNumber, str] = field(default_factory=dict)
    stuck: dict[MemberNumber, str] = field(default_factory=dict)


class Clearer:
    """Keyless. One at a time on a machine; several machines at once do no harm."""

    def __init__(
        self,
        catalog: Catalog,
        store: ShardStore,
        slots_of: Callable[[Record], Iterator[Slot]],
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._slots_of = slots_of
        self._clock = clock

    def due(self, grace_s: int) -> tuple[LayoutNumber, ...]:
        """The layouts that were retired so long ago that no reader goes by them."""
        now = self._clock()
        return tuple(number for number, at in self._catalog.left_layouts() if at + grace_s <= now)

    def run(self, grace_s: int, progress: Progress = no_progress) -> Cleared:
        """Delete what is due, have members give its space back, and say so in the catalog when all is deleted.

        Nothing is deleted of a shard that is not where the newest layout wants it.
        """
        cleared = Cleared()
        self._catalog.catch_up()
        left, newest = self._catalog.left_layouts(), self._catalog.layout()
        layouts = self.due(grace_s)
        later = [at + grace_s for number, at in left if number not in layouts]
        cleared.later_s = max(0, round(min(later) - self._clock())) if later else 0
        if not layouts or newest is None or len(self._catalog.layouts()) > 1:
            return cleared
        touched: set[MemberNumber] = set()
        for number, record in enumerate(self._records()):
            progress(number, None, "deleting old copies")
            try:
                slots = self._slots_of(record)
                while chunk := list(itertools.islice(slots, SLOTS_AT_ONCE)):
                    self._delete(chunk, layouts, cleared, touched)
            except FungiStorError:
                cleared.unsettled += 1  # its stripe list cannot be read now
        if touched:
            compacted = self._store.compact(sorted(touched))
            cleared.freed, cleared.stuck = compacted.freed, dict(compacted.stuck)
        if not cleared.pending and not cleared.unsettled:
            try:
                self._catalog.commit(Command(SessionId(os.urandom(16)), 0, ClearLayouts(newest.number, layouts)))
                cleared.layouts = len(layouts)
            except ConflictError:
                cleared.unsettled += 1  # another layout came meanwhile: a repair has to settle it first
        return cleared

    def _records(self) -> Iterator[Record]:
        """All that stands, can be brought back, or was dropped and waits to be collected."""
        removal = self._catalog.removal
        yield from self._catalog.records()
        yield from (record for record, _ in removal.windows())
        yield from (retired.record for retired in removal.retired())

    def _delete(
        self, slots: list[Slot], layouts: tuple[LayoutNumber, ...], cleared: Cleared, touched: set[MemberNumber]
    ) -> None:
        homes = self._store.at_home(slots)
        # Of a shard that is not at home just now, an old copy may be all there is.
        sure = [{index for index, there in home.items() if there} for home in homes]
        cleared.unsettled += sum(len(found) < len(home) for found, home in zip(sure, homes, strict=True))
        outcome = self._store.delete_stale(slots, sure, layouts)
        touched |= outcome.confirmed
        cleared.pending.update(outcome.failed)
