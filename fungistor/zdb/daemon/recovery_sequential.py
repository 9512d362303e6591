"""Opening a namespace in sequential mode after any end.

The data files are replayed: the record of an id that was not there takes the next slot, that of an id that was there
takes one for the old version and rewrites the id's own. So every slot follows from the data, whatever a crash tore,
and the index files are only asked about data that is not there any more.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from fungistor.zdb.daemon.datawalk import Walk, walk_data_file
from fungistor.zdb.daemon.files import create_file, replace_file
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DATA_RECORD,
    DELETED,
    INDEX_HEADER,
    OFFSET_MAX,
    SLOT_BYTES,
    DataRecord,
    IndexRecord,
    SegmentMark,
    checksum,
    data_header,
    index_header,
    pack_index_record,
    parse_index_record,
)
from fungistor.zdb.daemon.keytable import KeyTable
from fungistor.zdb.daemon.matching import IndexRest, strip_unindexed, strip_unpromised
from fungistor.zdb.daemon.recovery_files import PairFiles, Recovered
from fungistor.zdb.daemon.segments import Ends
from fungistor.zdb.daemon.sequential import ID_BYTES, Slots, id_bytes

_KEY_AT: Final = SLOT_BYTES - ID_BYTES
_FLAGS_AT: Final = 13
_LOST_IDS_MAX: Final = 1 << 20
"""How many ids one record alone may say that lost files had; more have to be said by two."""
_NO_ID: Final = b"\xff" * ID_BYTES


@dataclass(slots=True)
class SequentialLoader(PairFiles):
    """Loads all pairs of files of one namespace."""

    table: bytearray = field(default_factory=bytearray)
    """All slots, in order of their ids."""
    firsts: dict[int, int] = field(default_factory=dict)
    previous: int = 0
    data_last: int | None = 0
    rewritten: list[int] = field(default_factory=list)
    """Slots that speak of data files that were not there to be read, from these index files."""
    named: dict[int, dict[int, IndexRecord]] = field(default_factory=dict)
    """What slots say of the records in each data file, by their offsets."""

    lost: dict[int, int] = field(default_factory=dict)
    """Pairs of which no file is left, with how many ids a checkpoint knew in them."""

    def load(self, numbers: list[int], vouched: dict[int, SegmentMark]) -> Recovered:
        """Take over the files, which must not be empty of pairs."""
        indexes = {number: self._slots_of(number) for number in numbers}
        marks = self._trusted_marks(numbers, vouched)
        if marks is None:
            self.changed = True
            self._learn(indexes)
            marks = {}
            for at, number in enumerate(numbers):
                marks[number] = self._replay(number, indexes[number], number in vouched)
                if number in self.lost:
                    self._reserve(number, indexes[numbers[at + 1]] if at + 1 < len(numbers) else b"")
            self._keep_told(numbers[-1])
            self._check_unread(set(numbers))
            self._write_back(numbers)
            if self.begin_anew(numbers[-1]):
                newest = numbers[-1] + 1
                numbers = [*numbers, newest]
                self.firsts[newest] = self._count
                marks[newest] = SegmentMark(newest, DATA_HEADER.size, self.data_last or 0, 0, self.previous, 0)
            top = self.repeat_deletions(lambda key: not self._lives(key), marks[numbers[-1]])
            marks[top.file_id], self.data_last = top, top.data_last
        else:
            for number in numbers:
                self.firsts[number] = self._count
                self.table += indexes[number]
            self.data_last, self.previous = marks[numbers[-1]].data_last, marks[numbers[-1]].index_last
        return self._recovered(numbers, marks)

    def _learn(self, indexes: dict[int, bytes]) -> None:
        """Note what the slots name: it leads the walk past damage, and tells a key that was hurt from a whole one."""
        first, sound = 0, True
        for body in indexes.values():
            sound = sound and bool(body)
            for at in range(0, len(body), SLOT_BYTES):
                slot = parse_index_record(body, at, at)
                own = id_bytes(first + at // SLOT_BYTES)
                if slot is None or slot.data_offset < DATA_HEADER.size:
                    continue
                # From the first slot on that is not where its id belongs, no slot's place vouches for its key.
                sound = sound and (bool(slot.flags) or slot.key == own)
                believed = slot if sound or slot.flags else replace(slot, key=b"")
                self.named.setdefault(slot.data_file, {})[slot.data_offset] = believed
            first += len(body) // SLOT_BYTES

    @property
    def _count(self) -> int:
        return len(self.table) // SLOT_BYTES

    def _slots_of(self, number: int) -> bytes:
        index = self.index_bytes(number)
        if index is None:
            return b""
        body = index[INDEX_HEADER.size :]
        count = len(body) // SLOT_BYTES
        slots = body[: count * SLOT_BYTES]
        if slots[::SLOT_BYTES].count(ID_BYTES) == count:
            return slots
        # Bytes were lost or came in between: a slot whose key is no id would shift all that are appended behind it.
        mended = bytearray(slots)
        for at in range(0, len(slots), SLOT_BYTES):
            if slots[at] != ID_BYTES:
                mended[at : at + SLOT_BYTES] = pack_index_record(_no_value(number, _NO_ID))
        self.report.append(f"i{number} has slots that hold no id")
        return bytes(mended)

    def _trusted_marks(self, numbers: list[int], vouched: dict[int, SegmentMark]) -> dict[int, SegmentMark] | None:
        """Return the marks if the checkpoint speaks of all these very bytes: an update may have patched any file."""
        if self.lost:
            return None
        for number in numbers:
            mark, data = vouched.get(number), f"{self.data_path}/d{number}"
            if mark is None and not os.path.exists(data) and number != numbers[-1]:
                continue
            if mark is None or not os.path.exists(data):
                return None
            index = self.index_bytes(number) or b""
            if len(index) != mark.index_end or os.path.getsize(data) != mark.data_end:
                return None
            if not self.trusted(mark, index, mark.data_end):
                return None
        return {number: vouched[number] for number in numbers if number in vouched}

    # replay

    def _replay(self, number: int, known: bytes, vouched: bool) -> SegmentMark:
        self.firsts[number] = self._count
        data_fd = self.open_data(number)
        if data_fd is None and number >= self.durable and not vouched:
            # Made after the last barrier, its entry never reached the disk: its ids count as consumed.
            self.report.append(f"d{number} was never wholly written: begun anew")
            if not self.may_write():
                self._keep_consumed(number, known)
                return SegmentMark(number, DATA_HEADER.size, self.data_last or 0, 0, self.previous, 0)
            data_fd = create_file(f"{self.data_path}/d{number}", data_header(number))
        if data_fd is None:
            self.table += known
            self.rewritten.append(number)
            return SegmentMark(number, 0, self.data_last or 0, 0, self.previous, 0)
        try:
            start = self.data_last or None
            named = self.named.pop(number, {})
            ends = {offset: offset + DATA_RECORD.size + ID_BYTES + slot.payload_bytes for offset, slot in named.items()}
            walk = walk_data_file(data_fd, DATA_HEADER.size, start, ends, verify=number >= self.recent)
            strip_unpromised(walk, IndexRest({}, 0, 0), self.promised(number), self._lives)
            if number < self.recent:
                strip_unindexed(walk, named, data_fd, self._lives)
            for record in walk.records:
                self._apply(number, self._with_its_key(number, record, named.get(record.offset)), known, walk)
            self.cut_data(number, data_fd, walk, 0)
        finally:
            os.close(data_fd)
        self.data_last = walk.last
        self.report_damage(number, walk)
        self._keep_consumed(number, known)
        return SegmentMark(number, walk.end, walk.last, 0, self.previous, 0)

    def _lives(self, key: bytes) -> bool:
        slot = int.from_bytes(key, "little")
        return slot < self._count and not self.table[slot * SLOT_BYTES + _FLAGS_AT] & DELETED

    def _apply(self, number: int, record: DataRecord, known: bytes, walk: Walk) -> None:
        slot = int.from_bytes(record.key, "little")
        if len(record.key) != ID_BYTES:
            self.report.append(f"d{number}: record at {record.offset} has no id for a key; it is not served")
            return
        if record.flags & DELETED:
            if slot < self._count:
                self.table[slot * SLOT_BYTES + _FLAGS_AT] |= DELETED
                self.note_deletion(record, walk)
            return
        if slot < self._count:
            self._update(number, slot, record, known)
            return
        missing = slot - self._count
        if missing <= _LOST_IDS_MAX and any(lost < number for lost in self.lost):
            self._reserve_up_to(slot, number)
            missing = slot - self._count
        have = self.firsts[number] * SLOT_BYTES + len(known) - len(self.table)
        if missing > max(have, 0) // SLOT_BYTES + len(walk.damaged) + len(walk.torn):
            self.report.append(f"d{number}: record at {record.offset} has an id far off; it is not served")
            return
        while self._count < slot:
            self._append_lost(number, known)
        self._append(number, _slot(record, number, 0, (0, 0)))

    def _with_its_key(self, number: int, record: DataRecord, slot: IndexRecord | None) -> DataRecord:
        """The record under the id that its slot names. Where that is not the one it has itself, reads will answer an
        error: nobody can tell which of the two was hurt."""
        if slot is None or not slot.key or slot.key == record.key or not record.payload_bytes:
            return record
        if (slot.payload_bytes, slot.crc, slot.timestamp) != (record.payload_bytes, record.crc, record.timestamp):
            return record  # of an older tail, in whose place this record was written
        if record.key == id_bytes(self._count) or int.from_bytes(slot.key, "little") > self._count:
            return record  # it has the next id; or no record can have had here the one that the slot names
        self.report.append(f"d{number}: record at {record.offset} has another key than its slot")
        return replace(record, key=slot.key)

    def _update(self, number: int, slot: int, record: DataRecord, known: bytes) -> None:
        """A new version of an id: what it was takes the next slot, as it did when it was written."""
        current = self._slot_at(slot)
        kept = self._known(number, known)
        place = (number, self._offset(number))
        of_this = (record.offset, number)
        if kept is None or kept.key != record.key or not kept.flags or (kept.data_offset, kept.data_file) == of_this:
            kept = current
        self._append(number, replace(kept, flags=kept.flags | DELETED))
        now = _slot(record, number, current.previous, place)
        self.table[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES] = pack_index_record(now)

    def _keep_consumed(self, number: int, known: bytes) -> None:
        """Slots whose values went with a torn tail: their ids may have been told, so they are not given again."""
        lost = 0
        while self._known(number, known) is not None:
            self._append_lost(number, known)
            lost += 1
        if lost:
            self.report.append(f"i{number}: {lost} ids have no value in d{number} and count as deleted")

    def _reserve(self, number: int, following: bytes) -> None:
        """Give a lost pair as many slots as it had, going by a checkpoint and by the slots of the next file.

        There a new id lies where it belongs, so that it tells where the file begins; the copy of an older version has
        a smaller id and tells less.
        """
        first = self._count
        told = Counter(
            int.from_bytes(following[at + _KEY_AT : at + SLOT_BYTES], "little") - at // SLOT_BYTES
            for at in range(0, len(following), SLOT_BYTES)
        )
        believed = [one for one, times in told.items() if times > 1 or one - first <= _LOST_IDS_MAX]
        begins = max(believed, default=0)
        self._reserve_up_to(max(first + self.lost[number], min(begins, first + OFFSET_MAX // SLOT_BYTES)), number)
        self.report.append(
            f"d{number} and i{number} are gone: {self._count - first} ids are known to have been in them"
        )

    def _keep_told(self, number: int) -> None:
        """Give no id again that was given before the last barrier."""
        if self.flushed is not None and self.flushed[2] > self._count:
            self.report.append(f"{self.flushed[2] - self._count} ids that were given lie in no file")
            self._reserve_up_to(self.flushed[2], number)

    def _reserve_up_to(self, end: int, number: int) -> None:
        while self._count < end:
            self._append(number, _no_value(number, id_bytes(self._count)))

    def _append_lost(self, number: int, known: bytes) -> None:
        slot = self._known(number, known)
        if slot is None or not slot.flags:
            slot = _no_value(number, id_bytes(self._count))
        self._append(number, slot)

    def _append(self, number: int, slot: IndexRecord) -> None:
        offset = self._offset(number)
        self.table += pack_index_record(replace(slot, previous=self.previous))
        self.previous = offset

    def _offset(self, number: int) -> int:
        """Where the next slot lies in this index file."""
        return INDEX_HEADER.size + len(self.table) - self.firsts[number] * SLOT_BYTES

    def _known(self, number: int, known: bytes) -> IndexRecord | None:
        """Return what the index file had where the next slot goes."""
        return parse_index_record(known, self._offset(number) - INDEX_HEADER.size, 0)

    def _slot_at(self, slot: int) -> IndexRecord:
        record = parse_index_record(bytes(self.table[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]), 0, 0)
        assert record is not None, "a slot has 42 bytes"
        return record

    # after all pairs

    def _check_unread(self, numbers: set[int]) -> None:
        """Slots taken from an index alone may speak of an update that was lost: then the version before it stands."""
        for number in self.rewritten:
            following = [first for first in self.firsts.values() if first > self.firsts[number]]
            for slot in range(self.firsts[number], min(following, default=self._count)):
                record = self._slot_at(slot)
                if record.flags or record.data_file == number or record.data_file not in numbers:
                    continue
                if self._holds(record):
                    continue
                self.report.append(f"i{number}: id {slot} names a value that d{record.data_file} has not")
                self._restore(slot, record)

    def _holds(self, record: IndexRecord) -> bool:
        path = f"{self.data_path}/d{record.data_file}"
        return not os.path.exists(path) or os.path.getsize(path) >= record.data_offset + record.payload_bytes

    def _restore(self, slot: int, record: IndexRecord) -> None:
        first = self.firsts.get(record.parent_file, self._count)
        copy = first + (record.parent_offset - INDEX_HEADER.size) // SLOT_BYTES
        before = record
        if record.parent_offset >= INDEX_HEADER.size and copy < self._count:
            before = self._slot_at(copy)
        flags = 0 if before.key == record.key and before is not record else DELETED
        packed = pack_index_record(replace(before, flags=flags, key=record.key, previous=record.previous))
        self.table[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES] = packed

    def _body(self, number: int, numbers: list[int]) -> bytes:
        at = numbers.index(number)
        end = self.firsts[numbers[at + 1]] if at + 1 < len(numbers) else self._count
        return bytes(self.table[self.firsts[number] * SLOT_BYTES : end * SLOT_BYTES])

    def _write_back(self, numbers: list[int]) -> None:
        """Replace the index files that do not say what the data says."""
        for number in numbers:
            whole = index_header(number, self.mode) + self._body(number, numbers)
            path = f"{self.index_path}/i{number}"
            try:
                with open(path, "rb") as file:
                    same = file.read() == whole
            except FileNotFoundError:
                same = False
            if not same:
                if self.may_write():
                    replace_file(path, whole, sync=False)
                self.report.append(f"i{number} set right from the data: {self._count - self.firsts[number]} slots on")

    def _recovered(self, numbers: list[int], marks: dict[int, SegmentMark]) -> Recovered:
        slots = Slots()
        keys = KeyTable()
        for number in numbers:
            slots.begin(number, self.firsts[number])
        for slot in range(self._count):
            record = self._slot_at(slot)
            key = id_bytes(slot)
            if record.flags & DELETED or record.key != key:
                continue
            offset = slots.place(key)[1]
            keys.put(
                key,
                (record.data_file, record.data_offset, record.payload_bytes, record.crc, record.timestamp, offset),
            )
        newest = numbers[-1]
        settled = {}
        for number, mark in marks.items():
            index = index_header(number, self.mode) + self._body(number, numbers)
            settled[number] = replace(mark, index_end=len(index), index_crc=checksum(index))
        ends = Ends(newest, settled[newest].data_end, self.data_last or 0, settled[newest].index_end, self.previous)
        return Recovered(keys, ends, self._count, self.report, settled, self.changed, slots)


def _no_value(number: int, key: bytes) -> IndexRecord:
    """A slot whose id was consumed and has nothing to show for it."""
    return IndexRecord(0, 0, 0, 0, DELETED, number, 0, 0, 0, 0, key)


def _slot(record: DataRecord, number: int, previous: int, parent: tuple[int, int]) -> IndexRecord:
    return IndexRecord(
        0, record.offset, record.payload_bytes, previous, 0, number, record.timestamp, record.crc, *parent, record.key
    )
