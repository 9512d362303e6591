"""Commands about named policies, and layouts that have a table for each. The bytes stand in docs/formats/catalog.md."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.catalog.fields import Fields
from fungistor.errors import InvalidError
from fungistor.ids import LayoutNumber, MemberNumber, PolicyNumber
from fungistor.limits import COMMAND_BYTES_MAX
from fungistor.placement.policy import (
    NAME_CHARACTERS_MAX,
    REGIONS_MAX,
    SHARD_BYTES_LEAST,
    SHARD_BYTES_MOST,
    ZONE_DEPTH_MAX,
    StoragePolicy,
    Zone,
)
from fungistor.placement.tracks import LAYOUT_MAX, POLICY_NUMBER_MAX

POLICIES_MAX = 16
"""At a time: each has a table in every layout's command."""

SHARDS_MAX = 255
ZONE_PART_BYTES_MAX = 64
CAPACITY_MAX = 1 << 60
MEMBERS_MAX = 4096
MEMBER_NUMBER_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class AddPolicy:
    """Let a policy be published by. `number` is one more than that of any before; `table` is that of the newest layout,
    whose number is `layout`."""

    number: PolicyNumber
    policy: StoragePolicy
    layout: LayoutNumber
    table: bytes


@dataclass(frozen=True, slots=True)
class RemovePolicy:
    """Forget a policy that nothing is stored by."""

    number: PolicyNumber


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """The table of one policy in a layout."""

    policy: PolicyNumber
    table: bytes


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many bytes a member may hold."""

    member: MemberNumber
    bytes: int


@dataclass(frozen=True, slots=True)
class ClearLayouts:
    """Copies that lay where retired layouts wanted them are deleted: nobody needs to look for them any more.

    `layouts` are their numbers, rising; `newest` is the newest layout's, and refused if another is.
    """

    newest: LayoutNumber
    layouts: tuple[LayoutNumber, ...]


def add_policy_fields(body: AddPolicy) -> list[object]:
    """As in a command."""
    return [body.number, policy_fields(body.policy), body.layout, body.table]


def policy_fields(policy: StoragePolicy) -> list[object]:
    """What a policy says."""
    regions = [list(region) for region in policy.regions]
    return [policy.name, policy.k, policy.m, policy.shard_bytes_min, policy.zone_depth, policy.zones, regions]


def take_add_policy(fields: Fields) -> AddPolicy:
    """Read it again."""
    number = PolicyNumber(fields.uint("number", POLICY_NUMBER_MAX, least=1))
    policy = _take_policy(fields.array("policy", 7))
    layout = LayoutNumber(fields.uint("layout", LAYOUT_MAX, least=1))
    table = fields.bytes("table", 1, COMMAND_BYTES_MAX)
    fields.end()
    return AddPolicy(number, policy, layout, table)


def _take_policy(fields: Fields) -> StoragePolicy:
    policy = StoragePolicy(
        name=fields.text("name", NAME_CHARACTERS_MAX),
        k=fields.uint("k", SHARDS_MAX, least=1),
        m=fields.uint("m", SHARDS_MAX, least=1),
        shard_bytes_min=fields.uint("least shard", SHARD_BYTES_MOST, least=SHARD_BYTES_LEAST),
        zone_depth=fields.uint("zone depth", ZONE_DEPTH_MAX),
        zones=fields.uint("zones", SHARDS_MAX),
        regions=_take_regions(fields.array("regions", REGIONS_MAX)),
    )
    fields.end()
    try:
        policy.check()
    except InvalidError as error:
        raise fields.wrong("policy", f"is none: {error.message}") from error
    return policy


def _take_regions(rows: Fields) -> tuple[Zone, ...]:
    regions: list[Zone] = []
    while rows.more():
        parts = rows.array("region", ZONE_DEPTH_MAX)
        region: list[str] = []
        while parts.more():
            region.append(parts.text("part", ZONE_PART_BYTES_MAX))
        regions.append(tuple(region))
    return tuple(regions)


def remove_policy_fields(body: RemovePolicy) -> list[object]:
    """As in a command."""
    return [body.number]


def take_remove_policy(fields: Fields) -> RemovePolicy:
    """Read it again."""
    body = RemovePolicy(PolicyNumber(fields.uint("number", POLICY_NUMBER_MAX, least=1)))
    fields.end()
    return body


def tables_fields(tables: tuple[PolicyTable, ...]) -> list[object]:
    """Tables by policy, for a layout."""
    return [[table.policy, table.table] for table in tables]


def take_tables(rows: Fields) -> tuple[PolicyTable, ...]:
    """Read them again: by rising policy."""
    tables: list[PolicyTable] = []
    while rows.more():
        row = rows.array("policy table", 2)
        least = tables[-1].policy + 1 if tables else 1
        number = PolicyNumber(row.uint("policy", POLICY_NUMBER_MAX, least=least))
        tables.append(PolicyTable(number, row.bytes("table", 1, COMMAND_BYTES_MAX)))
        row.end()
    return tuple(tables)


def capacities_fields(capacities: tuple[Capacity, ...]) -> list[object]:
    """Member and bytes by turns."""
    return [number for capacity in capacities for number in (capacity.member, capacity.bytes)]


def take_capacities(rows: Fields) -> tuple[Capacity, ...]:
    """Read them again: by rising member."""
    capacities: list[Capacity] = []
    while rows.more():
        least = capacities[-1].member + 1 if capacities else 1
        member = MemberNumber(rows.uint("member", MEMBER_NUMBER_MAX, least=least))
        capacities.append(Capacity(member, rows.uint("bytes", CAPACITY_MAX, least=1)))
    return tuple(capacities)


def clear_fields(body: ClearLayouts) -> list[object]:
    """As in a command."""
    return [body.newest, list(body.layouts)]


def take_clear(fields: Fields) -> ClearLayouts:
    """Read it again."""
    newest = LayoutNumber(fields.uint("newest", LAYOUT_MAX, least=1))
    rows = fields.array("layouts", MEMBERS_MAX)
    layouts: list[LayoutNumber] = []
    while rows.more():
        layouts.append(LayoutNumber(rows.uint("layout", LAYOUT_MAX, least=layouts[-1] + 1 if layouts else 1)))
    fields.end()
    if not layouts:
        raise fields.wrong("layouts", "are none")
    return ClearLayouts(newest, tuple(layouts))
