"""Where the shards of a stripe may lie, by all layouts that are not drained yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fungistor.errors import InvalidError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber, StripeId
from fungistor.placement import PlacementTable, spares, window
from fungistor.placement.read_plan import SPARE_LAYER

SPARES_TRIED = 4
"""Places beyond the window where a shard may have been put while its own member was away."""


@dataclass(frozen=True, slots=True)
class Place:
    """One member that may hold one shard; `layer` as in `read_plan.Source`."""

    index: int
    member: MemberNumber
    layer: int


class Places:
    """Immutable view of the layouts."""

    def __init__(self, layouts: Mapping[LayoutNumber, PlacementTable]) -> None:
        self._layouts = dict(sorted(layouts.items(), reverse=True))

    def newest(self) -> LayoutNumber:
        """Raises: UnavailableError where the pool has no layout yet."""
        for number in self._layouts:
            return number
        raise UnavailableError("the pool has no layout yet", hint="start the network with `fungistor up` first")

    def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
        """Of a layout that was retired: where the newest wants its shards, and so has them.

        Raises: UnavailableError for a layout this process has not heard of, InvalidError for too many shards.
        """
        table = self._layouts.get(layout)
        if table is None and layout < self.newest():
            table = self._layouts[self.newest()]
        if table is None:
            raise UnavailableError(
                f"layout {layout} is not known here", hint="let the catalog catch up, then try again"
            )
        return window(table, stripe_id, shards)

    def of(self, stripe_id: StripeId, shards: int) -> Iterator[Place]:
        """Every place once, the likeliest first."""
        seen: set[tuple[int, MemberNumber]] = set()
        newest = True
        layer = 0
        beyond: list[MemberNumber] = []
        for table in self._layouts.values():
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
