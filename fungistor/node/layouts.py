"""Layouts of the pool: who the members are, under which numbers, how they are placed, and what a change would move."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Command
from fungistor.catalog.layouts import WEIGHT_MAX, LayoutMember, PlacePool, SetLayout
from fungistor.catalog.policies import Capacity, PolicyTable
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, PolicyNumber, SessionId
from fungistor.node.pool_file import PoolMember
from fungistor.placement import DEFAULT_NUMBER, DEFAULT_POLICY, StoragePolicy, plan, policy_of, table_policy, track
from fungistor.placement.table import GROUPS, PlacementTable
from fungistor.placement.topology import Member

NO_POLICY = b""
"""A layout's own bytes of policy: there were none before policies had commands of their own."""

CAPACITY_UNIT = 1 << 30
"""Weights are whole numbers: a member's share of the bytes is met to the GiB."""

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
        tables = (PlacementTable.from_bytes(table) for table in self._catalog.tables().values())
        return {number for table in tables for number in table.members()}

    def changed(self, members: Numbered) -> tuple[str, ...]:
        """The members of the newest layout that it has with another weight, capacity, zone or place."""
        newest = self._catalog.layout()
        before = {} if newest is None else {member.id: member for member in newest.members}
        return tuple(line.id for line in _lines(members) if line.id in before and before[line.id] != line)

    def plan(self, members: Numbered) -> PoolPlan:
        """What making these members the newest layout would come to.

        Raises: InvalidError where they cannot be placed; ConflictError where stripes would be left without a place, or
        a policy could not be met any more.
        """
        newest = self._catalog.layout()
        tables, previous = self._tables(members, newest), self._newest_tables(newest)
        before = {} if newest is None else {member.id: member.number for member in newest.members}
        after = {spec.id: number for spec, number in members}
        stored = self._stored()
        shares = {n: _moved(previous[n], table) if n in previous else 0.0 for n, table in tables.items()}
        moved = sum(shares[number] * stored[number] for number in shares)
        return PoolPlan(
            layout=1 if newest is None else newest.number + 1,
            members=len(members),
            taking_shards=sum(spec.weight > 0 for spec, _ in members),
            added=tuple(name for name, number in after.items() if before.get(name) != number),
            removed=tuple(name for name, number in before.items() if after.get(name) != number),
            moved_share=round(moved / stored.total() if stored.total() else shares[DEFAULT_NUMBER], 6),
            moved_bytes=round(moved),
        )

    def commit(self, members: Numbered) -> None:
        """Plan the placement of these members by every policy, and make it the newest layout.

        Raises: InvalidError where they cannot be placed; ConflictError where another layout or policy came first, or
        where stripes would be left without a place.
        """
        newest = self._catalog.layout()
        tables = self._tables(members, newest)
        layout = SetLayout(
            number=LayoutNumber(1 if newest is None else newest.number + 1),
            members=_lines(members),
            table=tables.pop(DEFAULT_NUMBER).to_bytes(),
            policy=NO_POLICY,
        )
        placed = tuple(PolicyTable(number, table.to_bytes()) for number, table in sorted(tables.items()))
        capacities = tuple(Capacity(number, spec.capacity) for spec, number in _ordered(members) if spec.capacity)
        body = PlacePool(layout, placed, capacities) if placed or capacities else layout
        session = SessionId(secrets.token_bytes(SESSION_BYTES))
        self._catalog.commit(Command(session=session, sequence=0, body=body))

    def _tables(self, members: Numbered, newest: SetLayout | None) -> dict[PolicyNumber, PlacementTable]:
        """A table for each policy, the default among them."""
        places = _places(members)
        previous = self._newest_tables(newest)
        tables = {DEFAULT_NUMBER: self._default_table(places, previous.get(DEFAULT_NUMBER))}
        for row in self._catalog.policies():
            tables[row.number] = _table_of(row.policy, places, previous.get(row.number))
        return tables

    def _newest_tables(self, newest: SetLayout | None) -> dict[PolicyNumber, PlacementTable]:
        if newest is None:
            return {}
        return {
            policy_of(number): PlacementTable.from_bytes(table)
            for number, table in self._catalog.tables().items()
            if number == track(policy_of(number), newest.number)
        }

    def _default_table(self, places: Sequence[Member], previous: PlacementTable | None) -> PlacementTable:
        table = plan(places, previous, table_policy(DEFAULT_POLICY))
        if previous is not None and table.row_len < previous.row_len and self._catalog.status().objects:
            raise ConflictError(
                f"{table.row_len} members would take shards, and stripes lie on {previous.row_len}: they would be left "
                "without a place",
                hint=f"add {previous.row_len - table.row_len} first (`fungistor pool add`)",
            )
        return table

    def _stored(self) -> Counter[PolicyNumber]:
        """Bytes stored by each policy."""
        numbers = {row.policy.name: row.number for row in self._catalog.policies()}
        stored: Counter[PolicyNumber] = Counter()
        for record in self._catalog.records():
            stored[numbers.get(record.policy, DEFAULT_NUMBER)] += record.sizes.stored
        return stored


def check_policy(policy: StoragePolicy, members: Sequence[PoolMember]) -> None:
    """See that these members could meet a policy. Raises: InvalidError: they cannot, and what to add."""
    numbered = [(member, MemberNumber(place)) for place, member in enumerate(members, 1)]
    try:
        plan(_places(numbered), None, table_policy(policy))
    except InvalidError as error:
        raise InvalidError(f"policy {policy.name} cannot be met: {error.message}", hint=error.hint) from error


def _table_of(policy: StoragePolicy, places: Sequence[Member], previous: PlacementTable | None) -> PlacementTable:
    try:
        return plan(places, previous, table_policy(policy))
    except InvalidError as error:
        raise ConflictError(
            f"policy {policy.name} could not be met any more: {error.message}",
            hint=f"{error.hint}; or first `fungistor policy remove {policy.name}`, if nothing is stored by it",
        ) from error


def _moved(before: PlacementTable, after: PlacementTable) -> float:
    """Of all entries of the rows, how many name another member than before."""
    if before.row_len != after.row_len:
        return 1.0
    changed = sum(
        old != new for rows in zip(before.rows, after.rows, strict=True) for old, new in zip(*rows, strict=True)
    )
    return changed / (GROUPS * after.row_len)


def _ordered(members: Numbered) -> list[tuple[PoolMember, MemberNumber]]:
    return sorted(members, key=lambda pair: pair[1])


def _places(members: Numbered) -> list[Member]:
    return [
        Member(line.number, line.id, line.zone, line.weight, spec.lat, spec.lon)
        for line, (spec, _) in zip(_lines(members), _ordered(members), strict=True)
    ]


def _lines(members: Numbered) -> tuple[LayoutMember, ...]:
    """The members as a layout has them. A weight there is a share: the pool file's times what the member may hold."""
    known = [spec.capacity for spec, _ in members if spec.capacity and spec.weight]
    # Who does not say is thought to be as large as the others are on average.
    usual = sum(known) // len(known) if known else 0
    return tuple(
        LayoutMember(number, spec.id, spec.zone, _share(spec, usual), _micro(spec.lat), _micro(spec.lon))
        for spec, number in _ordered(members)
    )


def _share(spec: PoolMember, usual: int) -> int:
    units = max(1, round((spec.capacity or usual) / CAPACITY_UNIT)) if usual else 1
    return min(WEIGHT_MAX, spec.weight * units)


def _micro(degrees: float | None) -> int | None:
    return None if degrees is None else round(degrees * 1_000_000)
