"""Members as the pool knows them, joined from the pool file, the catalog's layouts and what `up` last saw."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from fungistor.catalog.commands import SetLayout
from fungistor.ids import LayoutNumber, MemberId, MemberNumber
from fungistor.keys.ring import NodeKeys
from fungistor.node.config import Config
from fungistor.node.files import read_bounded
from fungistor.node.geo import with_places
from fungistor.node.home import Home
from fungistor.node.identity import member_identity
from fungistor.node.pool_file import PoolMember, load_pool
from fungistor.placement import PlacementTable
from fungistor.placement.health import MemberState
from fungistor.pool.members import MemberSpec

STATES_BYTES_MAX = 1 << 20


def pool_members(home: Home, config: Config) -> tuple[PoolMember, ...]:
    """The pool file's members with the places that can be told; none before the first `up`.

    Raises:
        InvalidError, FailedError: the pool file or the GeoIP database cannot be used, and why.
    """
    if not os.path.exists(home.pool_file):
        return ()
    return with_places(load_pool(home.pool_file), config.geoip_database)


def member_specs(
    pool: Sequence[PoolMember], newest: SetLayout | None, keys: NodeKeys
) -> tuple[list[MemberSpec], dict[MemberId, MemberNumber]]:
    """The members of the newest layout, where the pool file says they are. Others of the file are not yet trusted."""
    numbers = {} if newest is None else {member.id: member.number for member in newest.members}
    specs = [
        MemberSpec(
            number=numbers[member.id],
            id=member.id,
            address=member.address,
            namespace=member.namespace,
            password=member.password,
            zone=member.zone,
            durable=member.durable,
            lat=member.lat,
            lon=member.lon,
            tls=member.trust,
            identity=member_identity(keys.network_key, numbers[member.id], member.id),
        )
        for member in pool
        if member.id in numbers
    ]
    return specs, numbers


def placement_tables(layouts: Sequence[SetLayout]) -> dict[LayoutNumber, PlacementTable]:
    """Every layout's table."""
    return {layout.number: PlacementTable.from_bytes(layout.table) for layout in layouts}


def last_states(home: Home, numbers: Mapping[MemberId, MemberNumber]) -> dict[MemberNumber, MemberState]:
    """What the running `up` last saw of its members, for a process that has seen nothing yet. Only a hint."""
    try:
        content = read_bounded(home.states_file, STATES_BYTES_MAX)
        said = json.loads(content or b"{}")
        return {numbers[MemberId(name)]: MemberState(line["state"]) for name, line in said.items() if name in numbers}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
