"""Walking a data file record by record, past damage, up to the torn end that a crash may have left.

Only payloads have a checksum on disk; heads and keys have none. What vouches for a head is the chain (each record
holds the offset of the one before), the payload's checksum, and the index records that a start has at hand.
A record that fails all of it is torn when nothing that holds comes after it, and damaged when something does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from fungistor.limits import ZDB_VALUE_BYTES_MAX
from fungistor.zdb.daemon.format import (
    DATA_RECORD,
    DELETED,
    TRUNCATED,
    DataRecord,
    checksum,
    parse_data_record,
)

_PREVIOUS_AT: Final = 5
_U32: Final = Struct("<I")
_WINDOW_BYTES: Final = 64 << 10
_SEARCH_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 4096
_PIECE_BYTES_MIN: Final = 4
"""The least part of a page that tells a hole from a value that happens to have zeros there."""


@dataclass(slots=True)
class Walk:
    """What lies in a data file from some offset on."""

    records: list[DataRecord] = field(default_factory=list)
    """Those whose heads hold, in order."""
    damaged: list[int] = field(default_factory=list)
    """Offsets of records whose head or payload does not hold although records that do come after."""
    torn: list[int] = field(default_factory=list)
    """Offsets of records with pages that never reached the disk: they are as if they had not been written."""
    end: int = 0
    """Behind the last record that is kept; what follows is torn."""
    last: int = 0
    """Offset of the last record that is kept."""


class _Reader:
    """Reads heads through a window, so that small records cost a call per many."""

    def __init__(self, fd: int) -> None:
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._start = 0
        self._window = b""

    def head(self, offset: int) -> DataRecord | None:
        at = offset - self._start
        if at < 0 or at + DATA_RECORD.size + 255 > len(self._window):
            near = 0 <= at <= len(self._window)
            self._window = os.pread(self._fd, _WINDOW_BYTES if near else DATA_RECORD.size + 255, offset)
            self._start, at = offset, 0
        return parse_data_record(self._window, at, offset)

    def payload(self, record: DataRecord) -> bytes:
        at = record.payload_at - self._start
        if at >= 0 and at + record.payload_bytes <= len(self._window):
            return self._window[at : at + record.payload_bytes]
        return os.pread(self._fd, record.payload_bytes, record.payload_at)

    def bytes_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._fd, count, offset)


def _plausible(record: DataRecord | None, size: int) -> bool:
    """Whether a head could be one: a key, known flags, a payload that fits, a deletion without payload."""
    if record is None or not record.key or record.flags & ~(DELETED | TRUNCATED):
        return False
    if record.payload_bytes > ZDB_VALUE_BYTES_MAX or record.end > size:
        return False
    if not (record.crc or record.timestamp or any(record.key)):
        # Zeros that run from a head into its payload have the checksum 0: they would pass for a value of id 0.
        return False
    return not (record.flags & DELETED and (record.payload_bytes or record.crc))


def walk_data_file(fd: int, start: int, last: int | None, witnesses: Mapping[int, int], *, verify: bool) -> Walk:
    """Walk the records from `start`.

    Args:
        last: offset of the record before `start`; None when it is not known.
        witnesses: for the offsets that the index names, where it says that the record ends.
        verify: also read the payloads and check them.
    """
    reader = _Reader(fd)
    walk = Walk(end=start, last=last or 0)
    offset, previous = start, last
    while offset < reader.size:
        record = reader.head(offset)
        chain = previous if offset > start else None
        if (
            record is not None
            and _plausible(record, reader.size)
            and (record.previous == previous or _holds(reader, record, chain, verify=verify))
        ):
            if (verify or record.previous != previous) and not _payload_holds(reader, record):
                if _hole(reader, offset, record.end):
                    walk.torn.append(offset)
                    previous, offset = offset, record.end
                    continue
                walk.damaged.append(offset)
            walk.records.append(record)
            walk.end, walk.last = record.end, offset
            previous, offset = offset, record.end
            continue
        bad = _blame(reader, walk, offset)
        onward = _resume(reader, bad, witnesses)
        if onward is None:
            break
        if bad != offset:
            walk.records.pop()
        _condemn(reader, walk, bad, onward, witnesses)
        previous, offset = None, onward
        if bad not in walk.torn:
            # What is appended next names it as the record before: that is how a walk without an index gets past it.
            walk.end, walk.last = onward, bad
    return walk


def ends_in_zeros(record: DataRecord, least: int = _PIECE_BYTES_MIN) -> bool:
    """Whether a record's head runs into a page of which it has nothing but zeros, and its payload is zeros or none.

    Such a head may have lost its second page: nothing in it contradicts that, as zeros have the checksum 0.
    """
    boundary = (record.offset // _PAGE_BYTES + 1) * _PAGE_BYTES - record.offset
    head = DATA_RECORD.pack(
        len(record.key), record.payload_bytes, record.previous, record.crc, record.flags, record.timestamp
    )
    tail = (head + record.key)[boundary:]
    return record.crc == 0 and len(tail) >= least and not any(tail)


def _condemn(reader: _Reader, walk: Walk, bad: int, onward: int, witnesses: Mapping[int, int]) -> None:
    """Say of what lies between a head that does not hold and the next that does whether it is damaged or torn."""
    for offset, end in witnesses.items():
        if bad <= offset < onward and _hole(reader, offset, min(end, onward)):
            walk.torn.append(offset)
    if bad in walk.torn:
        return
    if bad not in witnesses and _hole(reader, bad, onward):
        walk.torn.append(bad)
    elif bad not in walk.damaged:
        walk.damaged.append(bad)


def _blame(reader: _Reader, walk: Walk, offset: int) -> int:
    """Return which record is bad when no head holds at `offset`: the one before, if its own length led here."""
    if walk.records and walk.records[-1].end == offset and not _payload_holds(reader, walk.records[-1]):
        return walk.records[-1].offset
    return offset


def _holds(reader: _Reader, record: DataRecord, previous: int | None, *, verify: bool) -> bool:
    """Whether its payload vouches for a head that the chain does not: where it is broken, or none can be known."""
    if previous is None and not verify:
        return True
    # No payload at all is in step with any head that zeros have run into.
    return (record.payload_bytes > 0 or previous is None) and _payload_holds(reader, record)


def _payload_holds(reader: _Reader, record: DataRecord) -> bool:
    return bool(record.flags & TRUNCATED) or checksum(reader.payload(record)) == record.crc


def _hole(reader: _Reader, start: int, end: int) -> bool:
    """Whether some page of the record is all zeros: one that never reached the disk before the power went.

    Rot looks otherwise. No barrier can have covered such a record, so the version before it is the one to serve.
    """
    data = reader.bytes_at(start, end - start)
    if not any(data[: DATA_RECORD.size]):
        return True
    at = 0
    while at < len(data):
        step = _PAGE_BYTES - (start + at) % _PAGE_BYTES
        piece = data[at : at + step]
        if len(piece) >= _PIECE_BYTES_MIN and not any(piece):
            return True
        at += step
    return False


def _resume(reader: _Reader, bad: int, witnesses: Mapping[int, int]) -> int | None:
    """Return where the walk can go on after a head that does not hold, or None if nothing holds from there on."""
    end = witnesses.get(bad)
    if end is not None and end <= reader.size and (end == reader.size or _witnessed(reader, end, bad, witnesses)):
        return end
    found = _search(reader, bad)
    if found is not None:
        return found
    for offset in sorted(offset for offset in witnesses if offset > bad):
        record = reader.head(offset)
        if record is not None and _plausible(record, reader.size) and _payload_holds(reader, record):
            return offset
    return None


def _witnessed(reader: _Reader, offset: int, previous: int, witnesses: Mapping[int, int]) -> bool:
    record = reader.head(offset)
    if record is None or not _plausible(record, reader.size):
        return False
    return record.previous == previous or witnesses.get(offset) == record.end or _payload_holds(reader, record)


def _search(reader: _Reader, bad: int) -> int | None:
    """Find the record whose chain field names the bad one and whose payload holds."""
    needle = _U32.pack(bad)
    start = bad + DATA_RECORD.size
    while start < reader.size:
        block = reader.bytes_at(start, _SEARCH_BYTES + 3)
        at = block.find(needle)
        while at >= 0:
            offset = start + at - _PREVIOUS_AT
            record = reader.head(offset) if offset > bad else None
            if record is not None and _plausible(record, reader.size) and _payload_holds(reader, record):
                return offset
            at = block.find(needle, at + 1)
        start += _SEARCH_BYTES
    return None
