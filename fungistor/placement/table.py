"""The placement table of a layout: which members hold the shards of a stripe. Format: docs/formats/placement.md."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import MemberNumber, StripeId
from fungistor.limits import SHARD_INDEX_MAX

GROUPS = 4096
"""12 bits of BLAKE3(stripe id): fine enough that weights are met within 0.1 %, small enough for one command."""

VERSION = 0
HEAD = struct.Struct("<BBHH")
NUMBER_BYTES = 4
MEMBERS_MAX = 4096

Row = tuple[MemberNumber, ...]


@dataclass(frozen=True, slots=True)
class PlacementTable:
    """GROUPS rows of `row_len` distinct members. Shard `i` of a stripe lies on the i-th member of its window."""

    row_len: int
    rows: tuple[Row, ...]

    def to_bytes(self) -> bytes:
        """The one encoding of this table; equal tables have equal bytes."""
        distinct = list(dict.fromkeys(self.rows))
        members = sorted({number for row in distinct for number in row})
        place = {number: index for index, number in enumerate(members)}
        entry_bits, row_bits = _bits(len(members)), _bits(len(distinct))
        parts = [HEAD.pack(VERSION, self.row_len, len(members), len(distinct))]
        parts += [number.to_bytes(NUMBER_BYTES, "little") for number in members]
        parts += [_pack([place[number] for number in row], entry_bits) for row in distinct]
        where = {row: index for index, row in enumerate(distinct)}
        parts.append(_pack([where[row] for row in self.rows], row_bits))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> PlacementTable:
        """Read a table. Raises: CorruptError for anything but the encoding that `to_bytes` gives."""
        if len(data) < HEAD.size:
            raise CorruptError(f"placement table of {len(data)} bytes is too short")
        version, row_len, member_count, distinct_count = HEAD.unpack_from(data)
        if version != VERSION:
            raise CorruptError(f"placement table has version {version}, this program reads {VERSION}")
        members = _read_members(data, row_len, member_count, distinct_count)
        entry_bits, row_bits = _bits(member_count), _bits(distinct_count)
        row_bytes, groups_bytes = _packed_bytes(row_len, entry_bits), _packed_bytes(GROUPS, row_bits)
        start = HEAD.size + NUMBER_BYTES * member_count
        groups_start = start + row_bytes * distinct_count
        if len(data) != groups_start + groups_bytes:
            raise CorruptError(f"placement table has {len(data)} bytes instead of {groups_start + groups_bytes}")
        distinct = [
            _read_row(data[at : at + row_bytes], row_len, entry_bits, members)
            for at in (start + row_bytes * row for row in range(distinct_count))
        ]
        picks = _unpack(data[groups_start:], GROUPS, row_bits)
        if max(picks) >= distinct_count:
            raise CorruptError(f"placement table names row {max(picks)} of {distinct_count}")
        table = cls(row_len, tuple(distinct[pick] for pick in picks))
        if table.to_bytes() != data:
            raise CorruptError("placement table is not in its one canonical encoding")
        return table

    def members(self) -> frozenset[MemberNumber]:
        """All that stand in some row."""
        return frozenset(number for row in set(self.rows) for number in row)

    def counts(self) -> dict[MemberNumber, int]:
        """Rows that each member stands in."""
        counts: dict[MemberNumber, int] = {}
        for row in self.rows:
            for number in row:
                counts[number] = counts.get(number, 0) + 1
        return counts


def group_of(stripe_id: StripeId) -> int:
    """The table row of a stripe: the low 12 bits of BLAKE3(stripe id)'s first two bytes, little-endian."""
    return int.from_bytes(blake3(stripe_id).digest(length=2), "little") % GROUPS


def window_start(stripe_id: StripeId, row_len: int) -> int:
    """Where in its row a stripe begins: bytes 2..6 of BLAKE3(stripe id), little-endian, modulo the row's length."""
    return int.from_bytes(blake3(stripe_id).digest(length=6)[2:], "little") % row_len


def window(table: PlacementTable, stripe_id: StripeId, shards: int) -> tuple[MemberNumber, ...]:
    """The members of shards 0..shards-1, in order. Raises: InvalidError when the row has fewer members than that."""
    if not 1 <= shards <= table.row_len:
        raise InvalidError(f"a stripe of {shards} shards does not fit on rows of {table.row_len} members")
    return _turned(table, stripe_id)[:shards]


def spares(table: PlacementTable, stripe_id: StripeId, shards: int) -> tuple[MemberNumber, ...]:
    """The rest of the stripe's row, nearest to the window first: where a shard is looked for or put next."""
    return _turned(table, stripe_id)[shards:]


def moves(before: PlacementTable, after: PlacementTable) -> int:
    """Entries of `after` whose member held no shard of that row `before`."""
    return sum(len(set(new) - set(old)) for old, new in zip(before.rows, after.rows, strict=True))


def _turned(table: PlacementTable, stripe_id: StripeId) -> Row:
    row = table.rows[group_of(stripe_id)]
    start = window_start(stripe_id, table.row_len)
    return row[start:] + row[:start]


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def _packed_bytes(count: int, bits: int) -> int:
    return (count * bits + 7) // 8


def _pack(values: Sequence[int], bits: int) -> bytes:
    packed = 0
    for value in reversed(values):
        packed = packed << bits | value
    return packed.to_bytes(_packed_bytes(len(values), bits), "little")


def _unpack(data: bytes, count: int, bits: int) -> list[int]:
    packed, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    return [packed >> at & mask for at in range(0, count * bits, bits)] if bits else [0] * count


def _read_members(data: bytes, row_len: int, member_count: int, distinct_count: int) -> list[MemberNumber]:
    if not 1 <= row_len <= min(member_count, SHARD_INDEX_MAX + 1) or member_count > MEMBERS_MAX:
        raise CorruptError(f"placement table has rows of {row_len} out of {member_count} members")
    if not 1 <= distinct_count <= GROUPS:
        raise CorruptError(f"placement table has {distinct_count} distinct rows for {GROUPS} groups")
    end = HEAD.size + NUMBER_BYTES * member_count
    raw = data[HEAD.size : end]
    if len(raw) != NUMBER_BYTES * member_count:
        raise CorruptError(f"placement table ends inside its {member_count} member numbers")
    return [MemberNumber(number) for (number,) in struct.iter_unpack("<I", raw)]


def _read_row(data: bytes, row_len: int, bits: int, members: Sequence[MemberNumber]) -> Row:
    places = _unpack(data, row_len, bits)
    if max(places) >= len(members) or len(set(places)) != row_len:
        raise CorruptError("placement table has a row that names a member twice or one that it does not list")
    return tuple(members[place] for place in places)
