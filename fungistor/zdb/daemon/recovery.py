"""Opening a namespace's files after any end: what the data files say is true, the index is made to agree.

A pair of files (`dN`, `iN`) that a checkpoint vouches for is taken from the index alone. Any other is settled by
walking the data: records that the index lacks are indexed, records that the data lost leave the index, flags follow
from which version is the last. Only bytes behind the last record that holds are ever cut off, and that is reported.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from dataclasses import dataclass, field, replace
from typing import Final

from fungistor.errors import FailedError
from fungistor.zdb.daemon.datawalk import Walk, ends_in_zeros, walk_data_file
from fungistor.zdb.daemon.files import create_file, read_file, replace_file, write_all
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DATA_MAGIC,
    DATA_RECORD,
    DATA_VERSION,
    DELETED,
    ENTRY,
    INDEX_FLAGS_AT,
    INDEX_HEADER,
    INDEX_MAGIC,
    INDEX_RECORD,
    INDEX_VERSION,
    MODE_USER,
    Checkpoint,
    DataRecord,
    SegmentMark,
    checksum,
    data_header,
    index_header,
)
from fungistor.zdb.daemon.segments import Ends

_NUMBERED: Final = re.compile(r"[di](0|[1-9][0-9]{0,9})")


@dataclass(slots=True)
class Recovered:
    """A namespace's live keys, where its newest files end, and what had to be done to get there."""

    keys: dict[bytes, bytes]
    ends: Ends
    index_records: int
    report: list[str]
    marks: dict[int, SegmentMark]
    changed: bool


@dataclass(slots=True)
class _Loader:
    index_path: str
    data_path: str
    keys: dict[bytes, bytes] = field(default_factory=dict)
    report: list[str] = field(default_factory=list)
    superseded: list[tuple[int, int]] = field(default_factory=list)
    flagged: set[tuple[int, int]] = field(default_factory=set)
    index_records: int = 0
    changed: bool = False
    walked: bool = False
    durable: int = 0
    """Data files below this were flushed when they were whole, so no power cut can have holes in them."""
    recent: int = 0
    """From here on payloads are checked."""
    data_last: int | None = 0
    index_last: int = 0

    # replay

    def put(self, key: bytes, entry: bytes) -> None:
        """The key has a new version."""
        self.drop(key)
        self.keys[key] = entry

    def drop(self, key: bytes) -> None:
        """The key's version so far is none any more; its index record has to say so."""
        old = self.keys.pop(key, None)
        if old is None:
            return
        file_id, _, _, _, _, index_offset = ENTRY.unpack(old)
        if index_offset and (file_id, index_offset) not in self.flagged:
            self.superseded.append((file_id, index_offset))

    # one pair of files

    def load(self, file_id: int, mark: SegmentMark | None) -> SegmentMark:
        """Take over one pair of files and return up to where it agrees now."""
        index = self._index_bytes(file_id)
        data_fd = self._open_data(file_id)
        try:
            if data_fd is None and mark is None and file_id >= self.durable:
                return self._never_written(file_id)
            if data_fd is None:
                return self._from_index_alone(file_id, index)
            if (
                mark is not None
                and index is not None
                and not self.walked
                and self._trusted(mark, index, os.fstat(data_fd).st_size)
            ):
                return self._from_mark(file_id, mark, index, data_fd)
            return self._from_data(file_id, index, data_fd, self.data_last)
        finally:
            if data_fd is not None:
                os.close(data_fd)

    def _index_bytes(self, file_id: int) -> bytes | None:
        """Return the index file whole, or None when it is missing or no index file at all.

        Raises:
            FailedError: it is of a version or mode that is not supported; it is left alone.
        """
        data = read_file(f"{self.index_path}/i{file_id}")
        if data is None or len(data) < INDEX_HEADER.size:
            self.report.append(
                f"i{file_id} is missing" if data is None else f"i{file_id} has {len(data)} bytes and no header"
            )
            return None
        magic, version, _, _, number, mode = INDEX_HEADER.unpack_from(data)
        if magic != INDEX_MAGIC or number != file_id or mode not in (0, 1) or not 1 <= version <= 64:
            self.report.append(f"i{file_id} has a damaged header")
            return None
        if version != INDEX_VERSION:
            raise FailedError(
                f"{self.index_path}/i{file_id} is of version {version}, supported is {INDEX_VERSION}",
                hint="open it with the program that wrote it",
            )
        if mode != MODE_USER:
            raise FailedError(
                f"{self.index_path}/i{file_id} is in sequential mode, which is not available yet",
                hint="open it with the original 0-db",
            )
        return data

    def _open_data(self, file_id: int) -> int | None:
        """Open the data file; None when it is gone, and then the index alone speaks for it.

        Raises:
            FailedError: it is of a version that is not supported.
        """
        path = f"{self.data_path}/d{file_id}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        head = os.pread(fd, DATA_HEADER.size, 0)
        try:
            magic, version, _, _, number = DATA_HEADER.unpack(head)
        except struct.error:
            magic, version, number = b"", DATA_VERSION, file_id
        if magic == DATA_MAGIC and 1 <= version <= 64 and version != DATA_VERSION:
            os.close(fd)
            raise FailedError(
                f"{path} is of version {version}, supported is {DATA_VERSION}",
                hint="open it with the program that wrote it",
            )
        if (magic, version, number) != (DATA_MAGIC, DATA_VERSION, file_id):
            self.report.append(f"d{file_id} has a damaged header ({len(head)} bytes of it): written anew")
            write_all(fd, [data_header(file_id)], 0)
            self.changed = True
        return fd

    def _trusted(self, mark: SegmentMark, index: bytes, data_bytes: int) -> bool:
        """Whether the checkpoint speaks of these very bytes."""
        if len(index) < mark.index_end or data_bytes < mark.data_end:
            return False
        return checksum(index[: mark.index_end]) == mark.index_crc

    def _from_mark(self, file_id: int, mark: SegmentMark, index: bytes, data_fd: int) -> SegmentMark:
        """The index up to the mark is right; only what the data holds behind it must be walked."""
        rest = _index_rest(index, mark.index_end)
        if os.fstat(data_fd).st_size == mark.data_end and not rest.by_offset and rest.end == len(index):
            self._replay_index(file_id, index, mark.index_end)
            self.data_last, self.index_last = mark.data_last, mark.index_last
            return mark
        walk = walk_data_file(data_fd, mark.data_end, mark.data_last or None, rest.ends(), verify=True)
        _strip_torn(walk, rest)
        settled = _settle(walk, rest)
        if settled is None:
            return self._from_data(file_id, index, data_fd, None)
        self._replay_index(file_id, index, mark.index_end)
        return self._apply(file_id, index, data_fd, walk, settled, mark.index_last)

    def _from_data(self, file_id: int, index: bytes | None, data_fd: int, last: int | None) -> SegmentMark:
        """Nothing vouches for the index: walk the data file whole and compare.

        Deletions stand in no index file, so all later files have to be walked, too.
        """
        self.changed = self.walked = True
        rest = _index_rest(index or b"", INDEX_HEADER.size)
        first = last if last else None
        walk = walk_data_file(data_fd, DATA_HEADER.size, first, rest.ends(), verify=file_id >= self.recent)
        if file_id >= self.recent:
            _strip_torn(walk, rest)
        settled = _settle(walk, rest) if index is not None else None
        if settled is None:
            return self._rebuild(file_id, data_fd, walk, rest)
        return self._apply(file_id, index or b"", data_fd, walk, settled, self.index_last)

    def _from_index_alone(self, file_id: int, index: bytes | None) -> SegmentMark:
        """The data file is elsewhere: its keys are known, its values answer an error until it is back."""
        path = f"{self.index_path}/i{file_id}"
        if index is None:
            replace_file(path, index_header(file_id), sync=False)
            index = index_header(file_id)
            self.changed = True
        rest = _index_rest(index, INDEX_HEADER.size)
        if rest.end < len(index):
            self.report.append(f"i{file_id}: {len(index) - rest.end} bytes of a torn record dropped")
            os.truncate(path, rest.end)
            self.changed = True
        self._replay_index(file_id, index, rest.end)
        self.index_last = rest.last or self.index_last
        if rest.by_offset:
            self.report.append(f"d{file_id} is missing: the values of {len(rest.by_offset)} records cannot be read")
        return SegmentMark(file_id, 0, self.data_last or 0, rest.end, self.index_last, checksum(index[: rest.end]))

    def _never_written(self, file_id: int) -> SegmentMark:
        """The data file was made after the last barrier and its entry never reached the disk: the index speaks of
        values that do not count."""
        os.close(create_file(f"{self.data_path}/d{file_id}", data_header(file_id)))
        replace_file(f"{self.index_path}/i{file_id}", index_header(file_id), sync=False)
        self.report.append(f"d{file_id} was never wholly written: begun anew with i{file_id}")
        self.changed = True
        return SegmentMark(file_id, DATA_HEADER.size, 0, INDEX_HEADER.size, 0, 0)

    def _replay_index(self, file_id: int, index: bytes, end: int) -> None:
        """Replay index records up to `end` as they stand, the way the original does."""
        at = INDEX_HEADER.size
        unpack, size = INDEX_RECORD.unpack_from, INDEX_RECORD.size
        while at + size <= end:
            key_bytes, data_offset, length, _, flags, _, timestamp, crc, _, _ = unpack(index, at)
            key = index[at + size : at + size + key_bytes]
            self.drop(key)
            if not flags & DELETED:
                self.keys[key] = ENTRY.pack(file_id, data_offset, length, crc, timestamp, at)
            at += size + key_bytes
            self.index_records += 1

    def _apply(
        self, file_id: int, index: bytes, data_fd: int, walk: Walk, settled: _Settled, index_last: int
    ) -> SegmentMark:
        """Replay the walked records with their index records, and cut both files where they end."""
        self._cut_data(file_id, data_fd, walk, settled.lost)
        if settled.index_end < len(index):
            self.changed = True
            os.truncate(f"{self.index_path}/i{file_id}", settled.index_end)
        for record in walk.records:
            witness = settled.matched.get(record.offset)
            if record.flags & DELETED:
                self.drop(record.key)
                continue
            self._put_record(file_id, record, witness)
        self.index_records += len(settled.matched)
        self.index_last = settled.index_last or index_last
        self.data_last = walk.last
        self._report_damage(file_id, walk)
        return SegmentMark(file_id, walk.end, walk.last, settled.index_end, self.index_last, 0)

    def _put_record(self, file_id: int, record: DataRecord, witness: _Witness | None) -> None:
        index_offset = 0 if witness is None else witness.offset
        if witness is not None and witness.flags & DELETED:
            self.flagged.add((file_id, index_offset))
        self.put(
            record.key,
            ENTRY.pack(file_id, record.offset, record.payload_bytes, record.crc, record.timestamp, index_offset),
        )

    def _rebuild(self, file_id: int, data_fd: int, walk: Walk, rest: _IndexRest) -> SegmentMark:
        """Write the index file anew from the data; what only the index knows of damaged records goes in as well."""
        self._cut_data(file_id, data_fd, walk, 0)
        body = bytearray(index_header(file_id))
        last = self.index_last
        count = 0
        for record in _reconciled(data_fd, walk, rest):
            if record.flags & DELETED:
                self.drop(record.key)
                continue
            offset = len(body)
            body += INDEX_RECORD.pack(
                len(record.key), record.offset, record.payload_bytes, last, 0, file_id,
                record.timestamp, record.crc, 0, 0,
            ) + record.key  # fmt: skip
            self.put(
                record.key,
                ENTRY.pack(file_id, record.offset, record.payload_bytes, record.crc, record.timestamp, offset),
            )
            last = offset
            count += 1
        replace_file(f"{self.index_path}/i{file_id}", bytes(body), sync=False)
        self.report.append(f"i{file_id} rebuilt from d{file_id}: {count} records")
        self.index_records += count
        self.index_last, self.data_last, self.changed = last, walk.last, True
        self._report_damage(file_id, walk)
        return SegmentMark(file_id, walk.end, walk.last, len(body), last, 0)

    def _cut_data(self, file_id: int, data_fd: int, walk: Walk, lost: int) -> None:
        size = os.fstat(data_fd).st_size
        if size > walk.end:
            self.changed = True
            os.ftruncate(data_fd, walk.end)
            self.report.append(f"d{file_id}: {size - walk.end} bytes behind the last whole record dropped")
        if lost:
            self.report.append(f"i{file_id}: {lost} records dropped whose values are not in d{file_id}")

    def _report_damage(self, file_id: int, walk: Walk) -> None:
        for offset in walk.damaged:
            self.report.append(f"d{file_id}: damaged record at {offset}; its value is not served")
        for offset in walk.torn:
            if offset < walk.end:
                self.report.append(f"d{file_id}: record at {offset} was never wholly written; it does not count")

    # after all pairs

    def finish(self, marks: dict[int, SegmentMark]) -> None:
        """Bring the index files in line with the replay: flags, and records that only the data had."""
        missing: dict[int, list[bytes]] = {}
        restored = 0
        for key, packed in self.keys.items():
            file_id, _, _, _, _, index_offset = ENTRY.unpack(packed)
            if not index_offset:
                missing.setdefault(file_id, []).append(key)
            elif (file_id, index_offset) in self.flagged:
                self._flag(file_id, index_offset, 0)
                restored += 1
        for file_id, index_offset in self.superseded:
            self._flag(file_id, index_offset, DELETED)
        for file_id, keys in missing.items():
            marks[file_id] = self._add_records(marks[file_id], keys)
        if restored:
            self.report.append(f"{restored} index records were marked deleted, which the data does not say: restored")
        if self.superseded:
            self.report.append(f"{len(self.superseded)} index records marked as superseded")

    def _flag(self, file_id: int, index_offset: int, flags: int) -> None:
        self.changed = True
        fd = os.open(f"{self.index_path}/i{file_id}", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes([flags]), index_offset + INDEX_FLAGS_AT)
        finally:
            os.close(fd)

    def _add_records(self, mark: SegmentMark, keys: list[bytes]) -> SegmentMark:
        """Append index records for live values that the index did not know."""
        self.changed = True
        self.report.append(f"i{mark.file_id}: {len(keys)} records added that only d{mark.file_id} had")
        body = bytearray()
        last = mark.index_last
        for key in keys:
            file_id, offset, length, crc, timestamp, _ = ENTRY.unpack(self.keys[key])
            at = mark.index_end + len(body)
            body += INDEX_RECORD.pack(len(key), offset, length, last, 0, file_id, timestamp, crc, 0, 0) + key
            self.keys[key] = ENTRY.pack(file_id, offset, length, crc, timestamp, at)
            last = at
        fd = os.open(f"{self.index_path}/i{mark.file_id}", os.O_RDWR | os.O_CLOEXEC)
        try:
            write_all(fd, [body], mark.index_end)
        finally:
            os.close(fd)
        self.index_records += len(keys)
        self.index_last = max(self.index_last, last)
        return SegmentMark(mark.file_id, mark.data_end, mark.data_last, mark.index_end + len(body), last, 0)


@dataclass(frozen=True, slots=True)
class _Witness:
    """What the index says of one data record."""

    offset: int
    length: int
    crc: int
    timestamp: int
    flags: int
    key: bytes


@dataclass(slots=True)
class _IndexRest:
    """Index records from some offset on, by the data offset that they name."""

    by_offset: dict[int, _Witness]
    end: int
    last: int

    def ends(self) -> dict[int, int]:
        size = DATA_RECORD.size
        return {offset: offset + size + len(found.key) + found.length for offset, found in self.by_offset.items()}


@dataclass(frozen=True, slots=True)
class _Settled:
    """Index records matched with data records by offset, and where the index must end."""

    matched: dict[int, _Witness]
    index_end: int
    index_last: int
    lost: int


def _index_rest(index: bytes, start: int) -> _IndexRest:
    by_offset: dict[int, _Witness] = {}
    at, last = start, 0
    while at + INDEX_RECORD.size <= len(index):
        key_bytes, data_offset, length, _, flags, _, timestamp, crc, _, _ = INDEX_RECORD.unpack_from(index, at)
        end = at + INDEX_RECORD.size + key_bytes
        if end > len(index):
            break
        key = index[at + INDEX_RECORD.size : end]
        by_offset[data_offset] = _Witness(at, length, crc, timestamp, flags, key)
        at, last = end, at
    return _IndexRest(by_offset, min(at, len(index)), last)


def _settle(walk: Walk, rest: _IndexRest) -> _Settled | None:
    """Match index with data; None when they contradict each other beyond a cut tail, and the index must be rebuilt."""
    matched: dict[int, _Witness] = {}
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
        return _Settled(matched, rest.end, rest.last, 0)
    first_lost = min(witness.offset for witness in lost)
    kept = [witness.offset for witness in matched.values()]
    if max(kept, default=0) > first_lost:
        return None
    if any(offset < walk.end for offset in rest.by_offset if offset not in matched):
        return None
    return _Settled(matched, first_lost, max(kept, default=0), len(lost))


def _strip_torn(walk: Walk, rest: _IndexRest) -> None:
    """Take out records that may have lost a page of their head, unless the index has the same key for them."""
    for record in [record for record in walk.records if ends_in_zeros(record)]:
        witness = rest.by_offset.get(record.offset)
        if witness is None or witness.key != record.key:
            walk.records.remove(record)
            walk.torn.append(record.offset)


def _reconciled(data_fd: int, walk: Walk, rest: _IndexRest) -> list[DataRecord]:
    """Return what a rebuilt index must hold, in order: the walked records, set right by what the index knew.

    Where the two name different keys for one place nobody can tell which was damaged, so both keys get a record that
    a read finds wrong. Where the head of a record is gone, the index's word for it stands in, to the same end.
    """
    found: list[DataRecord] = []
    for record in walk.records:
        witness = rest.by_offset.get(record.offset)
        if witness is None or record.flags & DELETED or witness.key == record.key:
            told = _told_by(record.offset, witness)
            keeps = told is None or bool(record.flags & DELETED) or _payload_matches(data_fd, record)
            found.append(record if keeps or told is None else told)
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
        if (told.key, told.payload_bytes, told.crc) not in unwitnessed:
            found.append(told)
    return sorted(found, key=lambda record: record.offset)


def _told_by(offset: int, witness: _Witness | None) -> DataRecord | None:
    """Return the record that the index describes."""
    if witness is None or not witness.key:
        return None
    return DataRecord(offset, witness.length, 0, witness.crc, 0, witness.timestamp, witness.key)


def _payload_matches(data_fd: int, record: DataRecord) -> bool:
    return checksum(os.pread(data_fd, record.payload_bytes, record.payload_at)) == record.crc


def recover(index_path: str, data_path: str, checkpoint: Checkpoint | None) -> Recovered:
    """Read and mend the files of one namespace; with none there, create the first pair.

    Raises:
        FailedError: a file is of a version or mode that is not supported.
        OSError: the disk refused.
    """
    numbers = {
        int(match[1])
        for path in (index_path, data_path)
        for name in os.listdir(path)
        if (match := _NUMBERED.fullmatch(name))
    }
    loader = _Loader(index_path, data_path)
    _drop_stillborn(index_path, data_path, numbers, loader.report)
    marks: dict[int, SegmentMark] = {}
    if not numbers:
        _create_pair(index_path, data_path, 0)
        loader.changed = True
        marks[0] = SegmentMark(0, DATA_HEADER.size, 0, INDEX_HEADER.size, 0, 0)
    else:
        newest = max(numbers)
        vouched = _vouched(data_path, checkpoint)
        # A folder that only the original wrote does not say what was flushed: its missing files are elsewhere.
        loader.durable = checkpoint.durable if checkpoint is not None else newest + 1
        loader.recent = checkpoint.durable if checkpoint is not None else newest - 1
        elsewhere = newest in vouched or newest < loader.durable
        if elsewhere and not os.path.exists(f"{data_path}/d{newest}"):
            numbers.add(newest + 1)
            _create_pair(index_path, data_path, newest + 1)
            loader.changed = True
        for number in sorted(numbers):
            marks[number] = loader.load(number, vouched.get(number))
        loader.finish(marks)
    top = marks[max(marks)]
    ends = Ends(top.file_id, top.data_end, loader.data_last or 0, top.index_end, loader.index_last)
    return Recovered(loader.keys, ends, loader.index_records, loader.report, marks, loader.changed)


def _drop_stillborn(index_path: str, data_path: str, numbers: set[int], report: list[str]) -> None:
    """Remove a newest pair that a crash or a full disk left half made and empty: completing it would need space."""
    if not numbers:
        return
    newest = max(numbers)
    paths = (f"{data_path}/d{newest}", f"{index_path}/i{newest}")
    sizes = [os.path.getsize(path) if os.path.exists(path) else 0 for path in paths]
    if sizes[0] > DATA_HEADER.size or sizes[1] > INDEX_HEADER.size or sizes == [DATA_HEADER.size, INDEX_HEADER.size]:
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    numbers.discard(newest)
    report.append(f"d{newest} and i{newest} were begun and empty: removed")


def _vouched(data_path: str, checkpoint: Checkpoint | None) -> dict[int, SegmentMark]:
    """Return the marks by file; none if a data file is shorter than its mark says.

    What such a file lost may have superseded records in any other, so no index can be taken at its word then.
    """
    marks = {} if checkpoint is None else {mark.file_id: mark for mark in checkpoint.segments}
    for mark in marks.values():
        path = f"{data_path}/d{mark.file_id}"
        if os.path.exists(path) and os.path.getsize(path) < mark.data_end:
            return {}
    return marks


def _create_pair(index_path: str, data_path: str, number: int) -> None:
    os.close(create_file(f"{data_path}/d{number}", data_header(number)))
    os.close(create_file(f"{index_path}/i{number}", index_header(number)))
