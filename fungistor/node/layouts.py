"""Layouts of the pool: who the members are, under which numbers, how they are placed, and what a change would move."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Command, LayoutMember, SetLayout
from fungistor.errors import ConflictError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, SessionId
from fungistor.node.pool_file import PoolMember
from fungistor.placement.planner import Policy, plan
from fungistor.placement.table import GROUPS, PlacementTable
from fungistor.placement.topology import Member

DEFAULT_POLICY = b""
"""Of a layout whose rows promise only distinct members. Other policies will have bytes of their own."""

Numbered = Sequence[tuple[PoolMember, MemberNumber]]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What a change of the pool comes to. `layout` is the number of the layout it would make.

    `moved_share`: of all shards, how many would have to lie elsewhere; `moved_bytes`: of what is stored now.
    """

    layout: int
    members: int
    taking_shards: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved_share: float
    moved_bytes: int

    def to_json(self) -> dict[str, object]:
        """The contract's keys."""
        return asdict(self) | {"added": list(self.added), "removed": list(self.removed)}


class CatalogRoll:
    """The members' numbers, kept in the catalog's layouts."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def numbers(self) -> Mapping[MemberId, MemberNumber]:
        """Give each member's number in the newest layout; nothing where there is no layout yet."""
        newest = self._catalog.layout()
        return {} if newest is None else {member.id: member.number for member in newest.members}

    def next_number(self) -> MemberNumber:
        """Draw a number that no layout has ever used: what lies under the old one must never be looked for here."""
        return MemberNumber(self._catalog.highest_member() + 1)

    def holders(self) -> set[MemberNumber]:
        """The members that shards may lie at, by the newest layout or by those before it that are not drained yet."""
        tables = (PlacementTable.from_bytes(layout.table) for layout in self._catalog.layouts())
        return {number for table in tables for row in table.rows for number in row}

    def changed(self, members: Numbered) -> tuple[str, ...]:
        """The members of the newest layout that it has with another weight, zone or place."""
        newest = self._catalog.layout()
        before = {} if newest is None else {member.id: member for member in newest.members}
        return tuple(
            spec.id for spec, number in members if spec.id in before and before[spec.id] != _line(spec, number)
        )

    def plan(self, members: Numbered) -> PoolPlan:
        """What making these members the newest layout would come to.

        Raises: InvalidError where they cannot be placed; ConflictError where stripes would be left without a place.
        """
        newest = self._catalog.layout()
        table = self._table(members, newest)
        before = {} if newest is None else {member.id: member.number for member in newest.members}
        after = {spec.id: number for spec, number in members}
        share = 0.0 if newest is None else _moved(PlacementTable.from_bytes(newest.table), table)
        stored = sum(record.sizes.stored for record in self._catalog.records())
        return PoolPlan(
            layout=1 if newest is None else newest.number + 1,
            members=len(members),
            taking_shards=sum(spec.weight > 0 for spec, _ in members),
            added=tuple(name for name, number in after.items() if before.get(name) != number),
            removed=tuple(name for name, number in before.items() if after.get(name) != number),
            moved_share=round(share, 6),
            moved_bytes=round(share * stored),
        )

    def commit(self, members: Numbered) -> None:
        """Plan the placement of these members and make it the newest layout.

        Raises: InvalidError where they cannot be placed; ConflictError where another layout came first, or where
        stripes would be left without a place.
        """
        newest = self._catalog.layout()
        ordered = sorted(members, key=lambda pair: pair[1])
        command = SetLayout(
            number=LayoutNumber(1 if newest is None else newest.number + 1),
            members=tuple(_line(spec, number) for spec, number in ordered),
            table=self._table(members, newest).to_bytes(),
            policy=DEFAULT_POLICY,
        )
        session = SessionId(secrets.token_bytes(SESSION_BYTES))
        self._catalog.commit(Command(session=session, sequence=0, body=command))

    def _table(self, members: Numbered, newest: SetLayout | None) -> PlacementTable:
        ordered = sorted(members, key=lambda pair: pair[1])
        places = [Member(number, spec.id, spec.zone, spec.weight, spec.lat, spec.lon) for spec, number in ordered]
        previous = None if newest is None else PlacementTable.from_bytes(newest.table)
        table = plan(places, previous, Policy())
        if previous is not None and table.row_len < previous.row_len and self._catalog.status().objects:
            raise ConflictError(
                f"{table.row_len} members would take shards, and stripes lie on {previous.row_len}: they would be left "
                "without a place",
                hint=f"add {previous.row_len - table.row_len} first (`fungistor pool add`)",
            )
        return table


def _moved(before: PlacementTable, after: PlacementTable) -> float:
    """Of all entries of the rows, how many name another member than before."""
    if before.row_len != after.row_len:
        return 1.0
    changed = sum(
        old != new for rows in zip(before.rows, after.rows, strict=True) for old, new in zip(*rows, strict=True)
    )
    return changed / (GROUPS * after.row_len)


def _line(spec: PoolMember, number: MemberNumber) -> LayoutMember:
    return LayoutMember(number, spec.id, spec.zone, spec.weight, _micro(spec.lat), _micro(spec.lon))


def _micro(degrees: float | None) -> int | None:
    return None if degrees is None else round(degrees * 1_000_000)
