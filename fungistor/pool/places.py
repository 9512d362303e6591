"""Where the shards of a stripe may lie, by all layouts that are not drained yet, each policy by its own tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from fungistor.coding.manifest import Slot
from fungistor.errors import InvalidError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber, PolicyNumber, StripeId
from fungistor.placement import DEFAULT_NUMBER, PlacementTable, layout_of, policy_of, spares, window
from fungistor.placement.read_plan import SPARE_LAYER

SPARES_TRIED = 4
"""Places beyond the window where a shard may have been put while its own member was away."""

Tables = Mapping[LayoutNumber, PlacementTable]
"""By the number that slots have: it names the policy, too."""

NO_TABLES: Tables = {}


@dataclass(frozen=True, slots=True)
class Place:
    """One member that may hold one shard; `layer` as in `read_plan.Source`."""

    index: int
    member: MemberNumber
    layer: int


@dataclass(frozen=True, slots=True)
class Seats:
    """Where the stripes of one policy may go: so many members a stripe at most, out of these."""

    row_len: int
    members: frozenset[MemberNumber]


class Places:
    """Immutable view of the layouts. `left`: those that nobody reads by any more, whose copies may still be there."""

    def __init__(self, layouts: Tables, left: Tables = NO_TABLES) -> None:
        self._tracks: dict[PolicyNumber, dict[LayoutNumber, PlacementTable]] = {}
        self._left: dict[PolicyNumber, dict[LayoutNumber, PlacementTable]] = {}
        for number, table in sorted(layouts.items(), reverse=True):
            self._tracks.setdefault(policy_of(number), {})[number] = table
        for number, table in left.items():
            self._left.setdefault(policy_of(number), {})[number] = table
        self._seats: dict[PolicyNumber, Seats] = {}

    def newest(self, policy: PolicyNumber = DEFAULT_NUMBER) -> LayoutNumber:
        """Raises: UnavailableError where the pool has no layout yet, or this process has not heard of the policy."""
        for number in self._tracks.get(policy, ()):
            return number
        if policy in (DEFAULT_NUMBER, *self._tracks):
            raise UnavailableError("the pool has no layout yet", hint="start the network with `fungistor up` first")
        raise UnavailableError(f"policy number {policy} is not known here", hint="let the catalog catch up, try again")

    def tracks(self) -> list[LayoutNumber]:
        """The newest layout of each policy."""
        return [next(iter(tables)) for tables in self._tracks.values()]

    def seats(self, layout: LayoutNumber) -> Seats:
        """Where new stripes of that layout's policy go. Raises: as `newest`."""
        policy = policy_of(layout)
        if policy not in self._seats:
            table = self._tracks[policy][self.newest(policy)]
            self._seats[policy] = Seats(table.row_len, table.members())
        return self._seats[policy]

    def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
        """Of a layout that was retired: where the newest wants its shards, and so has them.

        Raises: UnavailableError for a layout this process has not heard of, InvalidError for too many shards.
        """
        tables = self._tracks.get(policy_of(layout), {})
        table = tables.get(layout)
        if table is None and layout < self.newest(policy_of(layout)):
            table = next(iter(tables.values()))
        if table is None:
            raise UnavailableError(
                f"layout {layout} is not known here", hint="let the catalog catch up, then try again"
            )
        return window(table, stripe_id, shards)

    def of(self, slot: Slot) -> Iterator[Place]:
        """Every place once, the likeliest first."""
        stripe_id, shards = slot.stripe_id, slot.k + slot.m
        seen: set[tuple[int, MemberNumber]] = set()
        newest = True
        layer = 0
        beyond: list[MemberNumber] = []
        for table in self._tracks.get(policy_of(slot.layout), {}).values():
            try:
                members = window(table, stripe_id, shards)
            except InvalidError:
                continue  # a layout of fewer members never held this stripe whole
            if newest:
                beyond, newest = list(spares(table, stripe_id, shards))[:SPARES_TRIED], False
            for index, member in enumerate(members):
                if (index, member) not in seen:
                    seen.add((index, member))
                    yield Place(index, member, layer)
            layer += 1
        for index in range(shards):
            for member in beyond:
                if (index, member) not in seen:
                    seen.add((index, member))
                    yield Place(index, member, SPARE_LAYER)

    def stale(self, slot: Slot, only: Collection[LayoutNumber] | None = None) -> Iterator[tuple[int, MemberNumber]]:
        """Where copies may lie that nobody reads: by retired layouts (all, or `only` these), and not by one that stands
        or another of those."""
        shards = slot.k + slot.m
        wanted = {(place.index, place.member) for place in self.of(slot) if place.layer != SPARE_LAYER}
        left = self._left.get(policy_of(slot.layout), {})
        going = [table for number, table in left.items() if only is None or layout_of(number) in only]
        for table in left.values():
            if table not in going and shards <= table.row_len:
                wanted |= set(enumerate(window(table, slot.stripe_id, shards)))
        for table in going:
            if shards <= table.row_len:
                for place in enumerate(window(table, slot.stripe_id, shards)):
                    if place not in wanted:
                        wanted.add(place)
                        yield place
