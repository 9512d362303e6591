"""Layouts as commands: which members there are, and where shards go from then on."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.catalog.fields import Fields
from fungistor.catalog.policies import (
    POLICIES_MAX,
    Capacity,
    PolicyTable,
    capacities_fields,
    tables_fields,
    take_capacities,
    take_tables,
)
from fungistor.catalog.record import MEMBER_NUMBER_MAX
from fungistor.ids import LayoutNumber, MemberId, MemberNumber
from fungistor.limits import COMMAND_BYTES_MAX

MEMBERS_MAX = 4096
MEMBER_ID_BYTES_MAX = 64
ZONE_PARTS_MAX = 8
WEIGHT_MAX = 2**32 - 1
POLICY_BYTES_MAX = 64 << 10
LATITUDE_MICRODEGREES = 90_000_000
LONGITUDE_MICRODEGREES = 180_000_000


@dataclass(frozen=True, slots=True)
class LayoutMember:
    """A member's place in a layout. Degrees are integers in millionths, so that no float is ever compared."""

    number: MemberNumber
    id: MemberId
    zone: tuple[str, ...]
    weight: int
    lat_microdegrees: int | None = None
    lon_microdegrees: int | None = None


@dataclass(frozen=True, slots=True)
class SetLayout:
    """Make a layout the newest one. Its number is one more than the newest's; `table` and `policy` are placement's."""

    number: LayoutNumber
    members: tuple[LayoutMember, ...]
    table: bytes
    policy: bytes


@dataclass(frozen=True, slots=True)
class PlacePool:
    """As `SetLayout`, with a table for every named policy that stands, and what members may hold where they say."""

    layout: SetLayout
    tables: tuple[PolicyTable, ...]
    capacities: tuple[Capacity, ...] = ()


def layout_fields(body: SetLayout) -> list[object]:
    """The body of a `SetLayout`."""
    members = [[m.number, m.id, list(m.zone), m.weight, m.lat_microdegrees, m.lon_microdegrees] for m in body.members]
    return [body.number, members, body.table, body.policy]


def pool_fields(body: PlacePool) -> list[object]:
    """The body of a `PlacePool`."""
    return [*layout_fields(body.layout), tables_fields(body.tables), capacities_fields(body.capacities)]


def take_layout(fields: Fields) -> SetLayout:
    """Read a body. Raises: CorruptError."""
    layout = _take_fields(fields)
    fields.end()
    return layout


def take_pool(fields: Fields) -> PlacePool:
    """Read a body. Raises: CorruptError."""
    layout = _take_fields(fields)
    tables = take_tables(fields.array("policy tables", POLICIES_MAX))
    capacities = take_capacities(fields.array("capacities", 2 * MEMBERS_MAX))
    fields.end()
    return PlacePool(layout, tables, capacities)


def _take_fields(fields: Fields) -> SetLayout:
    number = LayoutNumber(fields.uint("number", least=1))
    rows = fields.array("members", MEMBERS_MAX)
    members: list[LayoutMember] = []
    before = 0
    while rows.more():
        member = _take_member(rows.array("member", 6), least=before + 1)
        before = member.number
        members.append(member)
    if len({member.id for member in members}) != len(members):
        raise fields.wrong("members", "name the same id twice")
    table = fields.bytes("table", 0, COMMAND_BYTES_MAX)
    policy = fields.bytes("policy", 0, POLICY_BYTES_MAX)
    return SetLayout(number, tuple(members), table, policy)


def _take_member(fields: Fields, least: int) -> LayoutMember:
    number = MemberNumber(fields.uint("number", MEMBER_NUMBER_MAX, least=least))
    member_id = MemberId(fields.text("id", MEMBER_ID_BYTES_MAX))
    parts = fields.array("zone", ZONE_PARTS_MAX)
    zone: list[str] = []
    while parts.more():
        zone.append(parts.text("part", MEMBER_ID_BYTES_MAX))
    weight = fields.uint("weight", WEIGHT_MAX)
    lat = fields.optional_int("lat", -LATITUDE_MICRODEGREES, LATITUDE_MICRODEGREES)
    lon = fields.optional_int("lon", -LONGITUDE_MICRODEGREES, LONGITUDE_MICRODEGREES)
    if (lat is None) != (lon is None):
        raise fields.wrong("lat and lon", "stand only together")
    fields.end()
    return LayoutMember(number, member_id, tuple(zone), weight, lat, lon)
