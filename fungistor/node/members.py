"""Members as the pool knows them, joined from the pool file, the catalog's layouts and what `up` last saw."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.layouts import SetLayout
from fungistor.errors import InvalidError, UnavailableError
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
    path = config.pool or home.pool_file
    if config.pool is None and not os.path.exists(path):
        return ()
    return with_places(load_pool(path), config.geoip_database)


def check_known(pool: Sequence[PoolMember], newest: SetLayout | None, path: str) -> None:
    """Refuse the pool file of another network, or of one that has changed since.

    Raises:
        InvalidError: a member of it is in no layout.
        UnavailableError: nothing is known of the network's layouts yet.
    """
    if newest is None:
        raise UnavailableError("this node has not followed the catalog yet", hint="try again when etcd answers")
    known = {member.id for member in newest.members}
    unknown = [member.id for member in pool if member.id not in known]
    if unknown:
        raise InvalidError(
            f"{path}: this network has no member {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}",
            hint="`fungistor pool export` on a node of that network writes its pool file",
        )


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


def unknown_spec(member: PoolMember) -> MemberSpec:
    """A member whose number is not known: by what the pool file says alone, whoever answers there is taken. For what is
    sealed and checked by itself."""
    return MemberSpec(
        number=MemberNumber(0),
        id=member.id,
        address=member.address,
        namespace=member.namespace,
        password=member.password,
        zone=member.zone,
        durable=member.durable,
        tls=member.trust,
    )


def placement_tables(catalog: Catalog, *, left: bool = False) -> dict[LayoutNumber, PlacementTable]:
    """Every table by which shards lie; with `left` those by which copies may lie that nobody reads any more."""
    return {number: PlacementTable.from_bytes(table) for number, table in catalog.tables(left=left).items()}


def last_states(home: Home, numbers: Mapping[MemberId, MemberNumber]) -> dict[MemberNumber, MemberState]:
    """What the running `up` last saw of its members, for a process that has seen nothing yet. Only a hint."""
    try:
        content = read_bounded(home.states_file, STATES_BYTES_MAX)
        said = json.loads(content or b"{}")
        return {numbers[MemberId(name)]: MemberState(line["state"]) for name, line in said.items() if name in numbers}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
