"""Opening a namespace's files after any end: what the data files say is true, the index is made to agree.

A pair of files (`dN`, `iN`) that a checkpoint vouches for is taken from the index alone. Any other is settled by
walking the data: records that the index lacks are indexed, records that the data lost leave the index, flags follow
from which version is the last. Only bytes behind the last record that holds are ever cut off, and that is reported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from fungistor.errors import FailedError
from fungistor.zdb.daemon.agreement import agreed
from fungistor.zdb.daemon.checkpoint import load_flushed
from fungistor.zdb.daemon.datawalk import Walk, walk_data_file
from fungistor.zdb.daemon.files import create_file, replace_file, write_all
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DELETED,
    INDEX_FLAGS_AT,
    INDEX_HEADER,
    INDEX_RECORD,
    MODE_SEQUENTIAL,
    MODE_USER,
    SLOT_BYTES,
    Checkpoint,
    DataRecord,
    SegmentMark,
    checksum,
    data_header,
    index_header,
)
from fungistor.zdb.daemon.keytable import Entry, KeyTable
from fungistor.zdb.daemon.matching import (
    IndexRest,
    Settled,
    Witness,
    index_rest,
    reconciled,
    settle,
    strip_torn,
    strip_unindexed,
    strip_unpromised,
)
from fungistor.zdb.daemon.recovery_files import (
    PairFiles,
    Recovered,
    begins_with_id,
    create_pair,
    drop_stillborn,
    file_numbers,
    lost_numbers,
    stored_mode,
    vouched_marks,
)
from fungistor.zdb.daemon.recovery_sequential import SequentialLoader
from fungistor.zdb.daemon.segments import Ends
from fungistor.zdb.daemon.sequential import first_slots

MODE_NAMES: Final = ("user", "seq")


@dataclass(slots=True)
class _Loader(PairFiles):
    keys: KeyTable = field(default_factory=KeyTable)
    superseded: list[tuple[int, int]] = field(default_factory=list)
    flagged: set[int] = field(default_factory=set)
    """Index records, by file and offset, that say of a live version that it is none."""
    index_records: int = 0
    walked: bool = False
    data_last: int | None = 0
    index_last: int = 0

    # replay

    def put(self, key: bytes, entry: Entry) -> None:
        """The key has a new version."""
        self._superseded(self.keys.put(key, entry))

    def drop(self, key: bytes) -> None:
        """The key's version so far is none any more; its index record has to say so."""
        self._superseded(self.keys.pop(key))

    def _superseded(self, old: Entry | None) -> None:
        if old is None or not old[5]:
            return
        place = old[0] << 32 | old[5]
        if place in self.flagged:
            self.flagged.remove(place)
        else:
            self.superseded.append((old[0], old[5]))

    # one pair of files

    def load(self, file_id: int, mark: SegmentMark | None) -> SegmentMark:
        """Take over one pair of files and return up to where it agrees now."""
        index = self.index_bytes(file_id)
        data_fd = self.open_data(file_id)
        try:
            if data_fd is None and mark is None and file_id >= self.durable:
                return self._never_written(file_id)
            if data_fd is None:
                return self._from_index_alone(file_id, index)
            if (
                mark is not None
                and index is not None
                and not self.walked
                and self.trusted(mark, index, os.fstat(data_fd).st_size)
            ):
                return self._from_mark(file_id, mark, index, data_fd)
            return self._from_data(file_id, index, data_fd)
        finally:
            if data_fd is not None:
                os.close(data_fd)

    def _from_mark(self, file_id: int, mark: SegmentMark, index: bytes, data_fd: int) -> SegmentMark:
        """The index up to the mark is right; only what lies behind it in both files must be looked at."""
        self._replay_index(file_id, index, mark.index_end)
        self.data_last, self.index_last = mark.data_last, mark.index_last
        if (os.fstat(data_fd).st_size, len(index)) == (mark.data_end, mark.index_end):
            return mark
        return self._onward(file_id, index, data_fd, mark.data_end, mark.index_end, verify=True)

    def _from_data(self, file_id: int, index: bytes | None, data_fd: int) -> SegmentMark:
        """Nothing vouches for the index: go through both files whole.

        Deletions stand in no index file, so all later files have to be gone through, too.
        """
        self.walked = True
        # An index can speak for what a closed file holds; nothing but its payloads can without.
        verify = file_id >= self.recent or index is None or len(index) <= INDEX_HEADER.size
        return self._onward(file_id, index, data_fd, DATA_HEADER.size, INDEX_HEADER.size, verify=verify)

    def _expect(self, index: bytes) -> None:
        """Say how many keys may come from an index file, going by the length of the first."""
        if len(index) > INDEX_HEADER.size:
            records = len(index) // (INDEX_RECORD.size + index[INDEX_HEADER.size])
            self.keys.expected = len(self.keys) + records

    def _onward(
        self, file_id: int, index: bytes | None, data_fd: int, start: int, index_at: int, *, verify: bool
    ) -> SegmentMark:
        """Take over what data and index say alike from there on, then walk what is left and compare."""
        self.changed = True
        whole, last = index or b"", self.data_last or None
        if index_at == INDEX_HEADER.size:
            self._expect(whole)
        for key, offset, end, length, crc, timestamp, at, flags in agreed(
            data_fd, start, last, whole, index_at, verify=verify
        ):
            start, last = end, offset
            if not at:
                self.drop(key)
                self.unsafe_deletions.pop(key, None)
                continue
            if flags & DELETED:
                self.flagged.add(file_id << 32 | at)
            self.put(key, (file_id, offset, length, crc, timestamp, at))
            self.index_records += 1
            self.index_last, index_at = at, at + INDEX_RECORD.size + len(key)
        rest = index_rest(whole, index_at)
        # An index record that speaks of what is settled already is wrong, and all behind it is written anew.
        stale = [offset for offset in rest.by_offset if offset < start]
        for offset in stale:
            del rest.by_offset[offset]
        walk = walk_data_file(data_fd, start, last, rest.ends(), verify=verify)
        strip_unpromised(walk, rest, self.promised(file_id), self.keys.__contains__)
        if verify:
            strip_torn(walk, rest)
        else:
            strip_unindexed(walk, rest.by_offset, data_fd, self.keys.__contains__)
        settled = settle(walk, rest) if index is not None and not stale else None
        if settled is None:
            return self._rebuild(file_id, data_fd, walk, rest, whole[:index_at])
        return self._apply(file_id, whole, data_fd, walk, settled, self.index_last)

    def _from_index_alone(self, file_id: int, index: bytes | None) -> SegmentMark:
        """The data file is elsewhere: its keys are known, its values answer an error until it is back."""
        path = f"{self.index_path}/i{file_id}"
        if index is None:
            if self.may_write():
                replace_file(path, index_header(file_id), sync=False)
            index = index_header(file_id)
        rest = index_rest(index, INDEX_HEADER.size)
        if rest.end < len(index):
            self.report.append(f"i{file_id}: {len(index) - rest.end} bytes of a torn record dropped")
            if self.may_write():
                os.truncate(path, rest.end)
        self._replay_index(file_id, index, rest.end)
        self.index_last = rest.last or self.index_last
        if rest.by_offset:
            self.report.append(f"d{file_id} is missing: the values of {len(rest.by_offset)} records cannot be read")
        return SegmentMark(file_id, 0, self.data_last or 0, rest.end, self.index_last, checksum(index[: rest.end]))

    def _never_written(self, file_id: int) -> SegmentMark:
        """The data file was made after the last barrier and its entry never reached the disk: the index speaks of
        values that do not count."""
        if self.may_write():
            os.close(create_file(f"{self.data_path}/d{file_id}", data_header(file_id)))
            replace_file(f"{self.index_path}/i{file_id}", index_header(file_id), sync=False)
        self.report.append(f"d{file_id} was never wholly written: begun anew with i{file_id}")
        self.changed = True
        return SegmentMark(file_id, DATA_HEADER.size, 0, INDEX_HEADER.size, 0, 0)

    def _replay_index(self, file_id: int, index: bytes, end: int) -> None:
        """Replay index records up to `end` as they stand, the way the original does."""
        self._expect(index)
        at, count = INDEX_HEADER.size, 0
        unpack, size, put = INDEX_RECORD.unpack_from, INDEX_RECORD.size, self.keys.put
        while at + size <= end:
            key_bytes, data_offset, length, _, flags, _, timestamp, crc, _, _ = unpack(index, at)
            key_at = at + size
            key = index[key_at : key_at + key_bytes]
            if flags & DELETED:
                self.drop(key)
            else:
                old = put(key, (file_id, data_offset, length, crc, timestamp, at))
                if old is not None:
                    self._superseded(old)
            at = key_at + key_bytes
            count += 1
        self.index_records += count

    def _apply(
        self, file_id: int, index: bytes, data_fd: int, walk: Walk, settled: Settled, index_last: int
    ) -> SegmentMark:
        """Replay the walked records with their index records, and cut both files where they end."""
        self.cut_data(file_id, data_fd, walk, settled.lost)
        if settled.index_end < len(index) and self.may_write():
            os.truncate(f"{self.index_path}/i{file_id}", settled.index_end)
        for record in walk.records:
            witness = settled.matched.get(record.offset)
            if record.flags & DELETED:
                self.drop(record.key)
                self.note_deletion(record, walk)
                continue
            self._put_record(file_id, record, witness)
        self.index_records += len(settled.matched)
        self.index_last = settled.index_last or index_last
        self.data_last = walk.last
        self.report_damage(file_id, walk)
        return SegmentMark(file_id, walk.end, walk.last, settled.index_end, self.index_last, 0)

    def _put_record(self, file_id: int, record: DataRecord, witness: Witness | None) -> None:
        index_offset = 0 if witness is None else witness.offset
        if witness is not None and witness.flags & DELETED:
            self.flagged.add(file_id << 32 | index_offset)
        self.put(
            record.key,
            (file_id, record.offset, record.payload_bytes, record.crc, record.timestamp, index_offset),
        )

    def _rebuild(self, file_id: int, data_fd: int, walk: Walk, rest: IndexRest, settled: bytes) -> SegmentMark:
        """Write the index file anew from the data, behind what of it is settled; what only the index knows of damaged
        records goes in as well."""
        self.cut_data(file_id, data_fd, walk, 0)
        body = bytearray(settled or index_header(file_id))
        last = self.index_last
        count = 0
        for record in reconciled(data_fd, walk, rest):
            if record.flags & DELETED:
                self.drop(record.key)
                self.note_deletion(record, walk)
                continue
            offset = len(body)
            body += INDEX_RECORD.pack(
                len(record.key), record.offset, record.payload_bytes, last, 0, file_id,
                record.timestamp, record.crc, 0, 0,
            ) + record.key  # fmt: skip
            self.put(record.key, (file_id, record.offset, record.payload_bytes, record.crc, record.timestamp, offset))
            last = offset
            count += 1
        if self.may_write():
            replace_file(f"{self.index_path}/i{file_id}", bytes(body), sync=False)
        self.report.append(f"i{file_id} rebuilt from d{file_id}: {count} records")
        self.index_records += count
        self.index_last, self.data_last, self.changed = last, walk.last, True
        self.report_damage(file_id, walk)
        return SegmentMark(file_id, walk.end, walk.last, len(body), last, 0)

    # after all pairs

    def finish(self, marks: dict[int, SegmentMark]) -> None:
        """Bring the index files in line with the replay: flags, and records that only the data had."""
        missing: dict[int, list[tuple[int, bytes]]] = {}
        restored = 0
        for key, (file_id, offset, _, _, _, index_offset) in self.keys.items():
            if not index_offset:
                missing.setdefault(file_id, []).append((offset, key))
            elif file_id << 32 | index_offset in self.flagged:
                self._flag(file_id, index_offset, 0)
                restored += 1
        for file_id, index_offset in self.superseded:
            self._flag(file_id, index_offset, DELETED)
        for file_id, keys in missing.items():
            marks[file_id] = self._add_records(marks[file_id], [key for _, key in sorted(keys)])
        if restored:
            self.report.append(f"{restored} index records were marked deleted, which the data does not say: restored")
        if self.superseded:
            self.report.append(f"{len(self.superseded)} index records marked as superseded")

    def _flag(self, file_id: int, index_offset: int, flags: int) -> None:
        if not self.may_write():
            return
        fd = os.open(f"{self.index_path}/i{file_id}", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes([flags]), index_offset + INDEX_FLAGS_AT)
        finally:
            os.close(fd)

    def _add_records(self, mark: SegmentMark, keys: list[bytes]) -> SegmentMark:
        """Append index records for live values that the index did not know."""
        if not self.may_write():
            self.report.append(f"i{mark.file_id} lacks {len(keys)} records: scans do not find them")
            return mark
        self.report.append(f"i{mark.file_id}: {len(keys)} records added that only d{mark.file_id} had")
        body = bytearray()
        last = mark.index_last
        for key in keys:
            entry = self.keys.get(key)
            assert entry is not None, "it is live"
            file_id, offset, length, crc, timestamp, _ = entry
            at = mark.index_end + len(body)
            body += INDEX_RECORD.pack(len(key), offset, length, last, 0, file_id, timestamp, crc, 0, 0) + key
            self.keys.put(key, (file_id, offset, length, crc, timestamp, at))
            last = at
        fd = os.open(f"{self.index_path}/i{mark.file_id}", os.O_RDWR | os.O_CLOEXEC)
        try:
            write_all(fd, [body], mark.index_end)
        finally:
            os.close(fd)
        self.index_records += len(keys)
        self.index_last = max(self.index_last, last)
        return SegmentMark(mark.file_id, mark.data_end, mark.data_last, mark.index_end + len(body), last, 0)


def recover(
    index_path: str, data_path: str, checkpoint: Checkpoint | None, mode: int | None = None, *, readonly: bool = False
) -> Recovered:
    """Read and mend the files of one namespace; with none there, create the first pair.

    Args:
        mode: the only mode that is served; None where each namespace has its own.
        readonly: nothing can be written: what would be mended is right in memory alone.

    Raises:
        FailedError: a file is of a version or mode that is not supported.
        OSError: the disk refused.
    """
    numbers = file_numbers(index_path, data_path)
    report: list[str] = []
    drop_stillborn(index_path, data_path, numbers, report, readonly=readonly)
    actual = _mode_of(index_path, data_path, numbers, mode)
    if mode not in (None, actual):
        raise FailedError(
            f"{index_path} is in {MODE_NAMES[actual]} mode, this daemon serves {MODE_NAMES[mode or 0]} mode alone",
            hint="start it without --mode",
        )
    vouched = vouched_marks(data_path, checkpoint)
    flushed = load_flushed(index_path)
    lost: set[int] = set()
    if actual == MODE_SEQUENTIAL and numbers:
        # Every id ever given has its slot: where a pair is gone with both files, its ids still are not given again.
        lost = lost_numbers(numbers, checkpoint, flushed)
        numbers |= lost
    # A folder that only the original wrote does not say what was flushed: its missing files are elsewhere.
    newest = max(numbers, default=0)
    durable = checkpoint.durable if checkpoint is not None else newest + 1
    recent = checkpoint.durable if checkpoint is not None else newest - 1
    elsewhere = newest in vouched or newest < durable
    changed = not numbers
    if not numbers and readonly:
        ends = Ends(0, DATA_HEADER.size, 0, INDEX_HEADER.size, 0)
        return Recovered(KeyTable(), ends, 0, report, {}, False, first_slots(actual))
    if not numbers or (elsewhere and not readonly and not os.path.exists(f"{data_path}/d{newest}")):
        newest += 1 if numbers else 0
        create_pair(index_path, data_path, newest, actual)
        numbers.add(newest)
        changed = True
    if actual == MODE_SEQUENTIAL:
        walker = SequentialLoader(index_path, data_path, actual, report, changed, durable, recent, flushed, readonly)
        walker.lost = dict.fromkeys(lost, 0)
        for mark in checkpoint.segments if checkpoint is not None else ():
            if mark.file_id in lost:
                walker.lost[mark.file_id] = (mark.index_end - INDEX_HEADER.size) // SLOT_BYTES
        return walker.load(sorted(numbers), vouched)
    loader = _Loader(index_path, data_path, actual, report, changed, durable, recent, flushed, readonly)
    marks: dict[int, SegmentMark] = {}
    for number in sorted(numbers):
        marks[number] = loader.load(number, vouched.get(number))
    loader.keys.expected = 0
    loader.finish(marks)
    number = max(marks)
    if loader.begin_anew(number):
        marks[number + 1] = SegmentMark(
            number + 1, DATA_HEADER.size, loader.data_last or 0, INDEX_HEADER.size, loader.index_last, 0
        )
    top = loader.repeat_deletions(lambda key: key not in loader.keys, marks[max(marks)])
    marks[top.file_id], loader.data_last = top, top.data_last
    ends = Ends(top.file_id, top.data_end, loader.data_last or 0, top.index_end, loader.index_last)
    return Recovered(loader.keys, ends, loader.index_records, loader.report, marks, loader.changed)


def _mode_of(index_path: str, data_path: str, numbers: set[int], wanted: int | None) -> int:
    """Return the namespace's mode: what its index headers say, or else what its data looks like."""
    if not numbers:
        return wanted or MODE_USER
    stored = stored_mode(index_path, numbers)
    if stored is not None:
        return stored
    if wanted is not None:
        return wanted
    return MODE_SEQUENTIAL if begins_with_id(data_path, numbers) else MODE_USER
