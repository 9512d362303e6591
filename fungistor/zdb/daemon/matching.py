"""Matching the records of an index file with those of the data file that it speaks of."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from fungistor.zdb.daemon.datawalk import Walk, ends_in_zeros
from fungistor.zdb.daemon.format import DATA_RECORD, DELETED, INDEX_RECORD, TRUNCATED, DataRecord, checksum


@dataclass(frozen=True, slots=True)
class Witness:
    """What the index says of one data record."""

    offset: int
    length: int
    crc: int
    timestamp: int
    flags: int
    key: bytes


@dataclass(slots=True)
class IndexRest:
    """Index records from some offset on, by the data offset that they name."""

    by_offset: dict[int, Witness]
    end: int
    last: int

    def ends(self) -> dict[int, int]:
        size = DATA_RECORD.size
        return {offset: offset + size + len(found.key) + found.length for offset, found in self.by_offset.items()}


@dataclass(frozen=True, slots=True)
class Settled:
    """Index records matched with data records by offset, and where the index must end."""

    matched: dict[int, Witness]
    index_end: int
    index_last: int
    lost: int


def index_rest(index: bytes, start: int) -> IndexRest:
    by_offset: dict[int, Witness] = {}
    at, last = start, 0
    while at + INDEX_RECORD.size <= len(index):
        key_bytes, data_offset, length, _, flags, _, timestamp, crc, _, _ = INDEX_RECORD.unpack_from(index, at)
        end = at + INDEX_RECORD.size + key_bytes
        if end > len(index):
            break
        key = index[at + INDEX_RECORD.size : end]
        by_offset[data_offset] = Witness(at, length, crc, timestamp, flags, key)
        at, last = end, at
    return IndexRest(by_offset, min(at, len(index)), last)


def settle(walk: Walk, rest: IndexRest) -> Settled | None:
    """Match index with data; None when they contradict each other beyond a cut tail, and the index must be rebuilt."""
    matched: dict[int, Witness] = {}
    for record in walk.records:
        witness = rest.by_offset.get(record.offset)
        if witness is None:
            continue
        same = (witness.key, witness.length, witness.crc) == (record.key, record.payload_bytes, record.crc)
        if not same or record.flags & DELETED:
            return None
        matched[record.offset] = witness
    lost = [witness for offset, witness in rest.by_offset.items() if offset not in matched]
    if not lost:
        return Settled(matched, rest.end, rest.last, 0)
    first_lost = min(witness.offset for witness in lost)
    kept = [witness.offset for witness in matched.values()]
    if max(kept, default=0) > first_lost:
        return None
    if any(offset < walk.end for offset in rest.by_offset if offset not in matched):
        return None
    return Settled(matched, first_lost, max(kept, default=0), len(lost))


def strip_unpromised(walk: Walk, rest: IndexRest, promised: int, lives: Callable[[bytes], bool]) -> None:
    """Take out damaged records that no barrier covered and that would hide an older version of their key.

    Nobody was promised the newer value, and the older one may have been promised.

    Args:
        promised: the offset up to which a barrier may have covered what is there.
        lives: whether a key has a version before this walk.
    """
    damaged = {offset for offset in walk.damaged if offset >= promised}
    if not damaged:
        return
    told = [(record.offset, record.key, record.flags) for record in walk.records]
    known = {record.offset for record in walk.records}
    told += [(at, found.key, 0) for at, found in rest.by_offset.items() if at in damaged and at not in known]
    standing: dict[bytes, bool] = {}
    for offset, key, flags in sorted(told):
        older = standing.get(key)
        if offset in damaged and (lives(key) if older is None else older):
            walk.damaged.remove(offset)
            walk.torn.append(offset)
            walk.records = [record for record in walk.records if record.offset != offset]
        else:
            standing[key] = not flags & DELETED


def strip_unindexed(walk: Walk, indexed: Container[int], data_fd: int, lives: Callable[[bytes], bool]) -> None:
    """Take out records that no index speaks of, whose payload fails, and that would hide an older version of their key.

    For files whose payloads are not all read, since they were flushed whole: what an earlier start found unpromised and
    left without an index record must not come back with the next walk.
    """
    seen: set[bytes] = set()
    for record in list(walk.records):
        if (
            record.offset not in indexed
            and not record.flags & (DELETED | TRUNCATED)
            and (lives(record.key) or record.key in seen)
            and checksum(os.pread(data_fd, record.payload_bytes, record.payload_at)) != record.crc
        ):
            walk.records.remove(record)
            walk.torn.append(record.offset)
        else:
            seen.add(record.key)


def strip_torn(walk: Walk, rest: IndexRest) -> None:
    """Take out records that may have lost a page of their head, unless the index has the same key for them."""
    stripped: set[int] = set()
    for record in walk.records:
        witness = rest.by_offset.get(record.offset)
        # Where the index has another key, one byte that is missing is enough.
        other = witness is not None and witness.key != record.key
        missing = ends_in_zeros(record, 1) if other else witness is None and ends_in_zeros(record)
        if missing:
            stripped.add(record.offset)
    if stripped:
        walk.records = [record for record in walk.records if record.offset not in stripped]
        walk.torn += sorted(stripped)
    kept = walk.records[-1].end if walk.records else 0
    torn = [offset for offset in walk.torn if offset >= kept]
    if torn and not any(offset >= kept for offset in walk.damaged):
        # Nothing is kept behind them: they are cut off, so that a walk without an index need not get past them.
        walk.end = min(walk.end, *torn)


def reconciled(data_fd: int, walk: Walk, rest: IndexRest) -> list[DataRecord]:
    """Return what a rebuilt index must hold, in order: the walked records, set right by what the index knew.

    Where the two name different keys for one value nobody can tell which was damaged, so both keys get a record that
    a read finds wrong. Where the head of a record is gone, the index's word for it stands in, to the same end. But
    where a whole value lies, the index cannot be right about another one: it is not flushed, and after a power cut
    may speak again of what an earlier start had cut off and other records have taken the place of.
    """
    found: list[DataRecord] = []
    for record in walk.records:
        witness = rest.by_offset.get(record.offset)
        if witness is None or record.flags & DELETED or witness.key == record.key:
            told = _told_by(record.offset, witness)
            keeps = told is None or bool(record.flags & DELETED) or _payload_matches(data_fd, record)
            found.append(record if keeps or told is None else told)
            continue
        if (witness.length, witness.crc) != (record.payload_bytes, record.crc) and _payload_matches(data_fd, record):
            found.append(record)
            continue
        found += (replace(record, crc=record.crc ^ 1), replace(record, key=witness.key))
    unwitnessed = {
        (record.key, record.payload_bytes, record.crc) for record in walk.records if record.offset not in rest.by_offset
    }
    known = {record.offset for record in walk.records}.union(walk.torn)
    for offset, witness in rest.by_offset.items():
        told = _told_by(offset, witness)
        if told is None or offset >= walk.end or offset in known:
            continue
        if (told.key, told.payload_bytes, told.crc) not in unwitnessed and not _overlaid(data_fd, walk, offset):
            found.append(told)
    return sorted(found, key=lambda record: record.offset)


def _overlaid(data_fd: int, walk: Walk, offset: int) -> bool:
    """Whether a whole value lies over the place where the index has a record begin."""
    at = bisect_right(walk.records, offset, key=lambda record: record.offset) - 1
    return at >= 0 and offset < walk.records[at].end and _payload_matches(data_fd, walk.records[at])


def _told_by(offset: int, witness: Witness | None) -> DataRecord | None:
    """Return the record that the index describes."""
    if witness is None or not witness.key:
        return None
    return DataRecord(offset, witness.length, 0, witness.crc, 0, witness.timestamp, witness.key)


def _payload_matches(data_fd: int, record: DataRecord) -> bool:
    return checksum(os.pread(data_fd, record.payload_bytes, record.payload_at)) == record.crc
