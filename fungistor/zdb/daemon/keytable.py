"""The live keys of a namespace in memory: some 52 bytes for a key of 20, where a dict of bytes takes 230.

Keys of one length lie in one group. Its rows, key and packed entry, fill chunks one after the other without a gap; a
row that goes is overwritten by the last one, so nothing is ever collected. Which row a key has stands in open-addressed
tables of four bytes a slot, at most three quarters full, searched from the place that the key's hash names:

    group      {key length: group}
    directory  hash, its lowest bits      -> table (several places may name one table)
    table      hash, its bits from 24 on  -> number of the row plus one, 0 for none; taken: the next slot
    chunk      row number                 -> key, file, data offset, length, checksum, time, index offset

A table that is full is doubled up to 8192 slots, then split in two by one more bit of the hash (extendible
hashing). So no insertion ever moves more than some 6000 keys, a few milliseconds, however many there are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from fungistor.zdb.daemon.format import ENTRY

_ENTRY_BYTES: Final = ENTRY.size
_CHUNK_SHIFT: Final = 10
_CHUNK_ROWS: Final = 1 << _CHUNK_SHIFT
_CHUNK_MASK: Final = _CHUNK_ROWS - 1
_PLACE_SHIFT: Final = 24
"""The directory takes the bits below: 2^24 tables, 10^11 keys."""
_SLOTS_MIN: Final = 8
_SLOTS_MAX: Final = 8192

Entry = tuple[int, ...]

_pack = ENTRY.pack
_unpack = ENTRY.unpack_from
_pack_into = ENTRY.pack_into


class _Table:
    """Slots of the keys whose hashes share their lowest `depth` bits."""

    __slots__ = ("depth", "mask", "slots", "used")

    def __init__(self, size: int, depth: int) -> None:
        self.slots = array("I", bytes(4 * size))
        self.mask = size - 1
        self.used = 0
        self.depth = depth


class _Group:
    """All keys of one length."""

    __slots__ = ("_chunks", "_depth", "_directory", "_key_bytes", "_owner", "_stride", "rows")

    def __init__(self, key_bytes: int, owner: KeyTable) -> None:
        self._owner = owner
        self._key_bytes = key_bytes
        self._stride = key_bytes + _ENTRY_BYTES
        self._chunks: list[bytearray] = []
        self.rows = 0
        self._directory = [_Table(_SLOTS_MIN, 0)]
        self._depth = 0

    def get(self, key: bytes) -> Entry | None:
        number = hash(key)
        table = self._directory[number & (len(self._directory) - 1)]
        slots, mask = table.slots, table.mask
        place = (number >> _PLACE_SHIFT) & mask
        while row := slots[place]:
            row -= 1
            chunk = self._chunks[row >> _CHUNK_SHIFT]
            at = (row & _CHUNK_MASK) * self._stride
            if chunk.startswith(key, at):
                return _unpack(chunk, at + self._key_bytes)
            place = (place + 1) & mask
        return None

    def put(self, key: bytes, entry: Entry) -> Entry | None:
        number = hash(key)
        table = self._directory[number & (len(self._directory) - 1)]
        slots, mask = table.slots, table.mask
        place = (number >> _PLACE_SHIFT) & mask
        while row := slots[place]:
            row -= 1
            chunk = self._chunks[row >> _CHUNK_SHIFT]
            at = (row & _CHUNK_MASK) * self._stride
            if chunk.startswith(key, at):
                old = _unpack(chunk, at + self._key_bytes)
                _pack_into(chunk, at + self._key_bytes, *entry)
                return old
            place = (place + 1) & mask
        row = self.rows
        at = (row & _CHUNK_MASK) * self._stride
        if at == 0:
            self._make_room(row)
        chunk = self._chunks[row >> _CHUNK_SHIFT]
        chunk[at : at + self._stride] = key + _pack(*entry)
        self.rows = row = row + 1
        slots[place] = row
        table.used = used = table.used + 1
        if 4 * used > 3 * mask:
            self._enlarge(table, number)
        return None

    def pop(self, key: bytes) -> Entry | None:
        number = hash(key)
        table = self._directory[number & (len(self._directory) - 1)]
        place = (number >> _PLACE_SHIFT) & table.mask
        while row := table.slots[place]:
            if self._key(row - 1) == key:
                chunk, at = self._chunks[(row - 1) >> _CHUNK_SHIFT], ((row - 1) & _CHUNK_MASK) * self._stride
                entry = _unpack(chunk, at + self._key_bytes)
                self._empty(table, place)
                self._remove(row - 1)
                return entry
            place = (place + 1) & table.mask
        return None

    def items(self) -> Iterator[tuple[bytes, Entry]]:
        for row in range(self.rows):
            chunk, at = self._chunks[row >> _CHUNK_SHIFT], (row & _CHUNK_MASK) * self._stride
            yield bytes(chunk[at : at + self._key_bytes]), _unpack(chunk, at + self._key_bytes)

    # rows

    def _key(self, row: int) -> bytes:
        at = (row & _CHUNK_MASK) * self._stride
        return bytes(self._chunks[row >> _CHUNK_SHIFT][at : at + self._key_bytes])

    def _make_room(self, row: int) -> None:
        """Make the chunk of a row. The first grows with what is in it, as most namespaces are small; the others are
        made whole, which leaves no holes in the heap."""
        if row >> _CHUNK_SHIFT == len(self._chunks):
            self._chunks.append(bytearray(_CHUNK_ROWS * self._stride if self._chunks else 0))

    def _remove(self, row: int) -> None:
        """Fill the gap with the last row."""
        last = self.rows - 1
        at = (last & _CHUNK_MASK) * self._stride
        moved = self._chunks[last >> _CHUNK_SHIFT][at : at + self._stride]
        if row != last:
            number = hash(bytes(moved[: self._key_bytes]))
            table = self._directory[number & (len(self._directory) - 1)]
            place = (number >> _PLACE_SHIFT) & table.mask
            while table.slots[place] != last + 1:
                place = (place + 1) & table.mask
            table.slots[place] = row + 1
            at = (row & _CHUNK_MASK) * self._stride
            self._chunks[row >> _CHUNK_SHIFT][at : at + self._stride] = moved
        self.rows = last
        if last + _CHUNK_ROWS <= (len(self._chunks) - 1) << _CHUNK_SHIFT:
            self._chunks.pop()

    # slots

    def _empty(self, table: _Table, place: int) -> None:
        """Empty a slot and close up those behind it, so that every key is still found from where its hash names."""
        slots, mask = table.slots, table.mask
        table.used -= 1
        behind = place
        while True:
            behind = (behind + 1) & mask
            row = slots[behind]
            if not row:
                break
            home = (hash(self._key(row - 1)) >> _PLACE_SHIFT) & mask
            if (behind - home) & mask >= (behind - place) & mask:
                slots[place] = row
                place = behind
        slots[place] = 0

    def _enlarge(self, table: _Table, number: int) -> None:
        rows = [row for row in table.slots if row]
        size = table.mask + 1
        if size < _SLOTS_MAX:
            table.slots, table.mask = array("I", bytes(8 * size)), 2 * size - 1
            self._fill(table, rows)
            return
        if self._depth == 0 and (depth := self._expected_depth()) > 1:
            self._spread(rows, depth)
            return
        bit = 1 << table.depth
        if table.depth == self._depth:
            self._directory += self._directory
            self._depth += 1
        halves = (_Table(_SLOTS_MAX, table.depth + 1), _Table(_SLOTS_MAX, table.depth + 1))
        parted: tuple[list[int], list[int]] = ([], [])
        for row in rows:
            parted[1 if hash(self._key(row - 1)) & bit else 0].append(row)
        for half, part in zip(halves, parted, strict=True):
            self._fill(half, part)
        for place in range(number & (bit - 1), len(self._directory), bit):
            self._directory[place] = halves[1 if place & bit else 0]

    def _expected_depth(self) -> int:
        """Return how far to split at once, going by this group's share of the keys that are expected."""
        expected = self._owner.expected * self.rows // max(len(self._owner), 1)
        return min((expected // (_SLOTS_MAX * 5 // 8)).bit_length(), _PLACE_SHIFT)

    def _spread(self, rows: list[int], depth: int) -> None:
        tables = [_Table(_SLOTS_MAX, depth) for _ in range(1 << depth)]
        parted: list[list[int]] = [[] for _ in tables]
        for row in rows:
            parted[hash(self._key(row - 1)) & ((1 << depth) - 1)].append(row)
        for table, part in zip(tables, parted, strict=True):
            self._fill(table, part)
        self._directory, self._depth = tables, depth

    def _fill(self, table: _Table, rows: list[int]) -> None:
        slots, mask = table.slots, table.mask
        chunks, stride, key_bytes = self._chunks, self._stride, self._key_bytes
        for row in rows:
            at = ((row - 1) & _CHUNK_MASK) * stride
            place = (hash(bytes(chunks[(row - 1) >> _CHUNK_SHIFT][at : at + key_bytes])) >> _PLACE_SHIFT) & mask
            while slots[place]:
                place = (place + 1) & mask
            slots[place] = row
        table.used = len(rows)


class KeyTable:
    """Live keys and their entries: (file, data offset, length, checksum, time, index offset), all below 2^32."""

    __slots__ = ("_groups", "expected")

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self.expected = 0
        """About how many keys a load will end with: spares it to split tables again and again."""

    def get(self, key: bytes) -> Entry | None:
        """Return a key's entry."""
        group = self._groups.get(len(key))
        return None if group is None else group.get(key)

    def put(self, key: bytes, entry: Entry) -> Entry | None:
        """Set a key's entry and return the one it had."""
        return self.group(len(key)).put(key, entry)

    def group(self, key_bytes: int) -> _Group:
        """Return the group of the keys of a length, made where there is none."""
        group = self._groups.get(key_bytes)
        if group is None:
            group = self._groups[key_bytes] = _Group(key_bytes, self)
        return group

    def pop(self, key: bytes) -> Entry | None:
        """Remove a key and return the entry it had."""
        group = self._groups.get(len(key))
        return None if group is None else group.pop(key)

    def items(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield keys and entries in no order; the table must not change meanwhile."""
        for group in self._groups.values():
            yield from group.items()

    def __iter__(self) -> Iterator[bytes]:
        return (item[0] for item in self.items())

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups.values())
