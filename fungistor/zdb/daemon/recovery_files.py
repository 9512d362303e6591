"""What every recovery does with a namespace's files before it knows what is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from fungistor.errors import FailedError
from fungistor.zdb.daemon.datawalk import Walk
from fungistor.zdb.daemon.files import create_file, open_file, read_file, write_all
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DATA_MAGIC,
    DATA_RECORD,
    DATA_VERSION,
    DELETED,
    INDEX_HEADER,
    INDEX_MAGIC,
    INDEX_VERSION,
    MODE_USER,
    OFFSET_MAX,
    Checkpoint,
    DataRecord,
    SegmentMark,
    checksum,
    data_header,
    index_header,
    parse_data_record,
)
from fungistor.zdb.daemon.keytable import KeyTable
from fungistor.zdb.daemon.segments import Ends
from fungistor.zdb.daemon.sequential import ID_BYTES, Slots

_COMPARED_BYTES: Final = 4096
_LOST_PAIRS_MAX: Final = 1024
"""More are no accident: a file of some wild number lies there."""
_MEND_ROOM_BYTES: Final = 64 << 10
_NUMBERED: Final = re.compile(r"[di](0|[1-9][0-9]{0,9})")


@dataclass(slots=True)
class Recovered:
    """A namespace's live keys, where its newest files end, and what had to be done to get there."""

    keys: KeyTable
    ends: Ends
    index_records: int
    report: list[str]
    marks: dict[int, SegmentMark]
    changed: bool
    slots: Slots | None = None
    """In sequential mode: where the ids lie."""


@dataclass(slots=True)
class PairFiles:
    """The pairs of files of one namespace while they are being opened."""

    index_path: str
    data_path: str
    mode: int = MODE_USER
    report: list[str] = field(default_factory=list)
    changed: bool = False
    durable: int = 0
    """Data files below this were flushed when they were whole, so no power cut can have holes in them."""
    recent: int = 0
    """From here on payloads are checked."""
    flushed: tuple[int, int, int] | None = None
    """The data file, and the end in it, up to which a barrier covered all, and the next id then; None where nobody
    noted that."""
    readonly: bool = False
    """Whether the files cannot be changed."""
    holed: set[int] = field(default_factory=set)
    """Data files with places that a walk gets past only by what it knows besides."""
    unsafe_deletions: dict[bytes, int] = field(default_factory=dict)
    """Keys whose last deletion lies behind such a place, with its time."""

    def may_write(self) -> bool:
        """Whether a mend may be written; on a disk that is read-only it is made in memory alone."""
        self.changed = True
        return not self.readonly

    def index_bytes(self, file_id: int) -> bytes | None:
        """Return the index file whole, or None when it is missing or no index file at all.

        Raises:
            FailedError: it is of a version that is not supported, or of another mode than the rest; it is left alone.
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
        if mode != self.mode:
            raise FailedError(
                f"{self.index_path}/i{file_id} is of mode {mode}, the namespace of mode {self.mode}",
                hint="one of its index files belongs to another namespace: move it aside and it is rebuilt",
            )
        return data

    def open_data(self, file_id: int) -> int | None:
        """Open the data file; None when it is gone, and then the index alone speaks for it.

        Raises:
            FailedError: it is of a version that is not supported.
        """
        path = f"{self.data_path}/d{file_id}"
        try:
            fd = open_file(path)
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
        if (magic, version) == (DATA_MAGIC, DATA_VERSION) and number != file_id and self._begins_as(fd, number):
            os.close(fd)
            raise FailedError(
                f"{path} is a copy of d{number}: what it holds would count as newer than it is",
                hint=f"put the right d{file_id} back, or remove this one: then the values that were in it are missing",
            )
        if (magic, version, number) != (DATA_MAGIC, DATA_VERSION, file_id):
            self.report.append(f"d{file_id} has a damaged header ({len(head)} bytes of it): written anew")
            if self.may_write():
                write_all(fd, [data_header(file_id)], 0)
        return fd

    def _begins_as(self, fd: int, number: int) -> bool:
        """Whether another data file, which the header names, has the same first records."""
        try:
            with open(f"{self.data_path}/d{number}", "rb") as other:
                other.seek(DATA_HEADER.size)
                first = other.read(_COMPARED_BYTES)
        except FileNotFoundError:
            return False
        return bool(first) and os.pread(fd, len(first), DATA_HEADER.size) == first

    def trusted(self, mark: SegmentMark, index: bytes, data_bytes: int) -> bool:
        """Whether the checkpoint speaks of these very bytes."""
        if len(index) < mark.index_end or data_bytes < mark.data_end:
            return False
        return checksum(index[: mark.index_end]) == mark.index_crc

    def cut_data(self, file_id: int, data_fd: int, walk: Walk, lost: int) -> None:
        size = os.fstat(data_fd).st_size
        if size > walk.end:
            if self.may_write():
                os.ftruncate(data_fd, walk.end)
            self.report.append(f"d{file_id}: {size - walk.end} bytes behind the last whole record dropped")
        if lost:
            self.report.append(f"i{file_id}: {lost} records dropped whose values are not in d{file_id}")

    def begin_anew(self, newest: int) -> bool:
        """Begin a new pair where the newest data file has a hole; return whether that was done.

        Nothing that is promised from now on lies behind a place that a walk without an index may not get past.
        """
        if newest not in self.holed or not self.may_write():
            return False
        try:
            create_pair(self.index_path, self.data_path, newest + 1, self.mode)
        except OSError as error:
            # A full disk is no reason not to serve.
            self.report.append(f"d{newest} has a hole, and no new file could be begun behind it: {error.strerror}")
            return False
        self.report.append(f"d{newest} has a hole: d{newest + 1} begun")
        self.changed = True
        return True

    def note_deletion(self, record: DataRecord, walk: Walk) -> None:
        """Remember a deletion that the next walk may not find: no index record and no payload leads to it."""
        if any(hole < record.offset for hole in (*walk.damaged, *walk.torn)):
            self.unsafe_deletions[record.key] = record.timestamp
        else:
            self.unsafe_deletions.pop(record.key, None)

    def repeat_deletions(self, gone: Callable[[bytes], bool], mark: SegmentMark) -> SegmentMark:
        """Write deletions that lie behind a hole once more at the end of the newest data file, and give its mark.

        Whatever else a start finds there is led to by an index record, which it flushes, or by its own payload.
        """
        keys = [key for key in self.unsafe_deletions if gone(key)]
        if not keys or not self.may_write():
            return mark
        body, end, last = bytearray(), mark.data_end, mark.data_last
        for key in keys:
            body += DATA_RECORD.pack(len(key), 0, last, 0, DELETED, self.unsafe_deletions[key]) + key
            last, end = end, mark.data_end + len(body)
        try:
            fd = os.open(f"{self.data_path}/d{mark.file_id}", os.O_RDWR | os.O_CLOEXEC)
            try:
                write_all(fd, [body], mark.data_end)
            except OSError:
                os.ftruncate(fd, mark.data_end)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            # A full disk is no reason not to serve.
            self.report.append(f"{len(keys)} deletions behind a hole could not be written again: {error.strerror}")
            return mark
        self.report.append(f"{len(keys)} deletions behind a hole written again in d{mark.file_id}")
        return replace(mark, data_end=end, data_last=last)

    def promised(self, file_id: int) -> int:
        """Return the offset in a data file up to which a barrier may have covered what is there."""
        if self.flushed is None or file_id < self.flushed[0] or file_id < self.durable:
            return OFFSET_MAX
        return self.flushed[1] if file_id == self.flushed[0] else 0

    def report_damage(self, file_id: int, walk: Walk) -> None:
        if walk.damaged or any(offset < walk.end for offset in walk.torn):
            self.holed.add(file_id)
        for offset in walk.damaged:
            self.report.append(f"d{file_id}: damaged record at {offset}; its value is not served")
        for offset in walk.torn:
            if offset < walk.end:
                self.report.append(f"d{file_id}: record at {offset} was never wholly written; it does not count")


def file_numbers(index_path: str, data_path: str) -> set[int]:
    """Return the numbers of the files that are there."""
    return {
        int(match[1])
        for path in (index_path, data_path)
        for name in os.listdir(path)
        if (match := _NUMBERED.fullmatch(name))
    }


def lost_numbers(numbers: set[int], checkpoint: Checkpoint | None, flushed: tuple[int, int, int] | None) -> set[int]:
    """Return the numbers of pairs that were there and of which no file is: gaps, and what the notes speak of."""
    known = {mark.file_id for mark in checkpoint.segments} if checkpoint is not None else set()
    newest = max({*numbers, *known, *(flushed or ())[:1]}, default=-1)
    missing = newest + 1 - len(numbers)
    return set(range(newest + 1)) - numbers if 0 < missing <= _LOST_PAIRS_MAX else set()


def check_room_to_mend(index_path: str) -> None:
    """Look for room to write a namespace's index files anew, before reading all of its data in vain.

    Raises:
        OSError: there is none.
    """
    disk = os.statvfs(index_path)
    largest = max((entry.stat().st_size for entry in os.scandir(index_path)), default=0)
    if disk.f_bavail * disk.f_frsize < largest + _MEND_ROOM_BYTES or (disk.f_files and not disk.f_favail):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), index_path)


def stored_mode(index_path: str, numbers: set[int]) -> int | None:
    """Return the mode that the first whole index header names, or None when there is none."""
    for number in sorted(numbers):
        with contextlib.suppress(FileNotFoundError), open(f"{index_path}/i{number}", "rb") as file:
            head = file.read(INDEX_HEADER.size)
            if len(head) == INDEX_HEADER.size:
                magic, version, _, _, stored, mode = INDEX_HEADER.unpack(head)
                if (magic, version, stored) == (INDEX_MAGIC, INDEX_VERSION, number) and mode in (0, 1):
                    return int(mode)
    return None


def begins_with_id(data_path: str, numbers: set[int]) -> bool:
    """Whether the first record of the first data file has a key that only sequential mode gives."""
    for number in sorted(numbers):
        with contextlib.suppress(FileNotFoundError), open(f"{data_path}/d{number}", "rb") as file:
            record = parse_data_record(file.read(DATA_HEADER.size + DATA_RECORD.size + 255), DATA_HEADER.size, 0)
            if record is not None and record.key:
                return len(record.key) == ID_BYTES and record.key.endswith(bytes(4))
    return False


def drop_stillborn(
    index_path: str, data_path: str, numbers: set[int], report: list[str], *, readonly: bool = False
) -> None:
    """Remove a newest pair that a crash or a full disk left half made and empty: completing it would need space."""
    if not numbers:
        return
    newest = max(numbers)
    paths = (f"{data_path}/d{newest}", f"{index_path}/i{newest}")
    sizes = [os.path.getsize(path) if os.path.exists(path) else 0 for path in paths]
    if sizes[0] > DATA_HEADER.size or sizes[1] > INDEX_HEADER.size or sizes == [DATA_HEADER.size, INDEX_HEADER.size]:
        return
    for path in paths if not readonly else ():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    numbers.discard(newest)
    report.append(f"d{newest} and i{newest} were begun and empty: removed")


def vouched_marks(data_path: str, checkpoint: Checkpoint | None) -> dict[int, SegmentMark]:
    """Return the marks by file; none if a data file is shorter than its mark says.

    What such a file lost may have superseded records in any other, so no index can be taken at its word then.
    """
    marks = {} if checkpoint is None else {mark.file_id: mark for mark in checkpoint.segments}
    for mark in marks.values():
        path = f"{data_path}/d{mark.file_id}"
        if os.path.exists(path) and os.path.getsize(path) < mark.data_end:
            return {}
    return marks


def create_pair(index_path: str, data_path: str, number: int, mode: int) -> None:
    """Create a pair of files that holds nothing yet.

    Raises:
        OSError: the disk refused; nothing is left.
    """
    os.close(create_file(f"{data_path}/d{number}", data_header(number)))
    try:
        os.close(create_file(f"{index_path}/i{number}", index_header(number, mode)))
    except OSError:
        os.unlink(f"{data_path}/d{number}")
        raise
