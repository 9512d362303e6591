"""Layouts of the pool as `up` makes them: who the members are, under which numbers, placed by the planner."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Command, LayoutMember, SetLayout
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, SessionId
from fungistor.node.pool_file import PoolMember
from fungistor.placement.planner import Policy, plan
from fungistor.placement.table import PlacementTable
from fungistor.placement.topology import Member

DEFAULT_POLICY = b""
"""Of a layout whose rows promise only distinct members. Other policies will have bytes of their own."""


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

    def commit(self, members: Sequence[tuple[PoolMember, MemberNumber]]) -> None:
        """Plan the placement of these members and make it the newest layout.

        Raises: InvalidError where they cannot be placed; ConflictError where another layout came first.
        """
        newest = self._catalog.layout()
        ordered = sorted(members, key=lambda pair: pair[1])
        places = [Member(number, spec.id, spec.zone, spec.weight, spec.lat, spec.lon) for spec, number in ordered]
        previous = None if newest is None else PlacementTable.from_bytes(newest.table)
        command = SetLayout(
            number=LayoutNumber(1 if newest is None else newest.number + 1),
            members=tuple(
                LayoutMember(number, spec.id, spec.zone, spec.weight, _micro(spec.lat), _micro(spec.lon))
                for spec, number in ordered
            ),
            table=plan(places, previous, Policy()).to_bytes(),
            policy=DEFAULT_POLICY,
        )
        session = SessionId(secrets.token_bytes(SESSION_BYTES))
        self._catalog.commit(Command(session=session, sequence=0, body=command))


def _micro(degrees: float | None) -> int | None:
    return None if degrees is None else round(degrees * 1_000_000)
