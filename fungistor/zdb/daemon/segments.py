"""The data and index files of one namespace: appends to the newest pair, reads from all of them.

An append is all or nothing: when the disk refuses any part of it, both files are cut back to where they were.
Data goes first, the index second, and only then is the index record before it marked: a crash in between
leaves one live version too many, never one too few.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fungistor.zdb.daemon.files import (
    Buffer,
    OpenFiles,
    create_file,
    open_file,
    sync_directory,
    sync_file,
    write_all,
)
from fungistor.zdb.daemon.format import (
    DATA_RECORD,
    DELETED,
    INDEX_FLAGS_AT,
    INDEX_RECORD,
    MODE_USER,
    OFFSET_MAX,
    IndexRecord,
    data_header,
    index_header,
    pack_index_record,
)

_JOIN_BYTES_MAX: Final = 16 << 10
"""Payloads up to this are joined into one buffer; above, the copy costs more than a longer vector."""
_VECTOR_MAX: Final = 512


class WriteError(Exception):
    """The disk refused. `where` is `data` or `index`; nothing of the append is left."""

    def __init__(self, where: str, cause: OSError) -> None:
        super().__init__(f"{where}: {cause}")
        self.where = where
        self.cause = cause


@dataclass(slots=True)
class Write:
    """One record to append; the offsets are filled in by the append."""

    key: bytes
    payload: bytes | memoryview
    crc: int
    timestamp: int
    flags: int = 0
    parent_file: int = 0
    parent_offset: int = 0
    data_offset: int = 0
    index_offset: int = 0


@dataclass(slots=True)
class Ends:
    """Where the newest pair of files ends, and where the last record of each began."""

    file_id: int
    data_end: int
    data_last: int
    index_end: int
    index_last: int


@dataclass(frozen=True, slots=True)
class Unsynced:
    """What a barrier must make durable.

    By path: an open file that was closed meanwhile has lost nothing, because the kernel tells a failed flush to the
    first who asks, also to who opened the file later.
    """

    files: tuple[str, ...]
    directories: tuple[str, ...]
    newest: int = 0
    """The data file that is appended to; those before it are whole."""
    end: int = 0
    """Where it ended."""
    source: Segments | None = None
    """Whose files they are: a FLUSH or RELOAD of the namespace puts others in their place."""

    def sync(self) -> None:
        """Make all of it durable, one descriptor at a time.

        Raises:
            OSError: the disk refused.
        """
        for path in self.files:
            # What is gone was removed by a command that came after all that this covers.
            with contextlib.suppress(FileNotFoundError):
                sync_file(path)
        for directory in self.directories:
            with contextlib.suppress(FileNotFoundError):
                sync_directory(directory)


class Segments:
    """The files of a namespace, opened when they are needed."""

    def __init__(
        self, index_path: str, data_path: str, ends: Ends, open_files: OpenFiles, mode: int = MODE_USER
    ) -> None:
        self.index_path = index_path
        self.data_path = data_path
        self.ends = ends
        self.mode = mode
        self.patched: set[int] = set()
        """Index files that were changed in place, for `INDEX DIRTY`."""
        self._open_files = open_files
        self._dirty = False
        self._retired: set[int] = set()
        """Older data files with bytes that no barrier took yet."""
        self._directories: set[str] = set()
        self._torn = False
        self._index_fd = self._data_fd = -1
        self._closed = False
        self.recent = True

    # reading

    def data_fd(self, file_id: int) -> int:
        """Return a descriptor of that data file.

        Raises:
            OSError: it is gone.
        """
        if file_id == self.ends.file_id:
            self.recent = True
            if self._data_fd < 0:
                self._open_newest()
            return self._data_fd
        return self._open_files.get(f"{self.data_path}/d{file_id}", writable=False)

    def index_fd(self, file_id: int) -> int:
        """Return a descriptor of that index file.

        Raises:
            OSError: it is gone.
        """
        if file_id == self.ends.file_id:
            self.recent = True
            if self._index_fd < 0:
                self._open_newest()
            return self._index_fd
        return self._open_files.get(f"{self.index_path}/i{file_id}", writable=True)

    def _open_newest(self) -> None:
        if self._closed:
            # A reply still being made must not read what lies under these names next.
            raise OSError(errno.EBADF, "namespace is closed")
        index_fd = open_file(f"{self.index_path}/i{self.ends.file_id}")
        try:
            self._data_fd = open_file(f"{self.data_path}/d{self.ends.file_id}")
        except OSError:
            os.close(index_fd)
            raise
        self._index_fd = index_fd
        self._open_files.admit(self)

    def let_go(self) -> None:
        """Close the newest pair until it is used again."""
        for fd in (self._data_fd, self._index_fd):
            if fd >= 0:
                self._open_files.shut(fd)
        self._data_fd = self._index_fd = -1

    # writing

    def has_room(self, payload_bytes: int, index_bytes: int, data_bytes_max: int) -> bool:
        """Whether a record of these sizes still belongs into the newest pair."""
        ends = self.ends
        return ends.data_end + payload_bytes <= data_bytes_max and ends.index_end + index_bytes <= OFFSET_MAX

    def append(self, writes: Sequence[Write]) -> None:
        """Append records to data and index.

        Raises:
            WriteError: the disk refused; nothing of them is left.
        """
        ends = self.ends
        parts, data_last = self._data_parts(writes)
        index = bytearray()
        index_last = ends.index_last
        for write in writes:
            write.index_offset = ends.index_end + len(index)
            index += INDEX_RECORD.pack(
                len(write.key), write.data_offset, len(write.payload), index_last, write.flags, ends.file_id,
                write.timestamp, write.crc, write.parent_file, write.parent_offset,
            ) + write.key  # fmt: skip
            index_last = write.index_offset
        self.append_packed(parts, data_last, index, index_last)

    def append_packed(self, data: Sequence[Buffer], data_last: int, index: Buffer, index_last: int) -> None:
        """Append records that are made already, for where the files end now.

        Args:
            data_last: where the last record of the data file then begins; `index_last` likewise.

        Raises:
            WriteError: the disk refused; nothing of them is left.
        """
        if self._torn:
            self._cut_back()
        ends = self.ends
        self._dirty = True
        try:
            offset = ends.data_end
            for start in range(0, len(data), _VECTOR_MAX):
                chunk = data[start : start + _VECTOR_MAX]
                write_all(self.data_fd(ends.file_id), chunk, offset)
                offset += sum(map(len, chunk))
        except OSError as error:
            self._undo()
            raise WriteError("data", error) from error
        try:
            write_all(self.index_fd(ends.file_id), [index], ends.index_end)
        except OSError as error:
            self._undo()
            raise WriteError("index", error) from error
        self.ends = Ends(ends.file_id, offset, data_last, ends.index_end + len(index), index_last)

    def append_tombstone(self, key: bytes, timestamp: int, index_file: int, index_offset: int) -> None:
        """Append a deletion to the data file and mark the key's index record.

        Raises:
            WriteError: the disk refused; the key is as it was.
        """
        ends = self.ends
        length = self._write_tombstone(key, timestamp)
        try:
            self.mark_deleted(index_file, index_offset)
        except OSError as error:
            self._undo()
            raise WriteError("index", error) from error
        self.ends = Ends(ends.file_id, ends.data_end + length, ends.data_end, ends.index_end, ends.index_last)

    def append_bare_tombstone(self, key: bytes, timestamp: int) -> None:
        """Append a deletion that the index knows already.

        Raises:
            WriteError: the disk refused; nothing of it is left.
        """
        ends = self.ends
        length = self._write_tombstone(key, timestamp)
        self.ends = replace(ends, data_end=ends.data_end + length, data_last=ends.data_end)

    def _write_tombstone(self, key: bytes, timestamp: int) -> int:
        """Write a deletion behind the data file's end, which does not move yet; give its length."""
        if self._torn:
            self._cut_back()
        self._dirty = True
        record = DATA_RECORD.pack(len(key), 0, self.ends.data_last, 0, DELETED, timestamp) + key
        try:
            write_all(self.data_fd(self.ends.file_id), [record], self.ends.data_end)
        except OSError as error:
            self._undo()
            raise WriteError("data", error) from error
        return len(record)

    def forget(self, file_id: int) -> None:
        """Close an older pair that goes away."""
        self._open_files.drop(f"{self.index_path}/i{file_id}")
        self._open_files.drop(f"{self.data_path}/d{file_id}")
        self.patched.discard(file_id)

    def mark_deleted(self, index_file: int, index_offset: int) -> None:
        """Set the flag of an index record in place.

        Raises:
            OSError: the index file cannot be written.
        """
        os.pwrite(self.index_fd(index_file), bytes([DELETED]), index_offset + INDEX_FLAGS_AT)
        self.patched.add(index_file)

    def append_update(self, write: Write, copy: IndexRecord, slot: tuple[int, int]) -> None:
        """Append a new version of an id, keep the old one as a copy in a slot of its own, rewrite the id's slot.

        Args:
            copy: the slot as it was.
            slot: index file and offset of the id's slot.

        Raises:
            WriteError: the disk refused; the id is as it was.
        """
        if self._torn:
            self._cut_back()
        ends = self.ends
        parts, data_last = self._data_parts([write])
        self._dirty = True
        try:
            write_all(self.data_fd(ends.file_id), parts, ends.data_end)
            data_end = ends.data_end + sum(map(len, parts))
        except OSError as error:
            self._undo()
            raise WriteError("data", error) from error
        kept = replace(copy, previous=ends.index_last, flags=copy.flags | DELETED)
        now = replace(
            copy, data_offset=write.data_offset, payload_bytes=len(write.payload), data_file=ends.file_id,
            timestamp=write.timestamp, crc=write.crc, parent_file=ends.file_id, parent_offset=ends.index_end,
        )  # fmt: skip
        kept_bytes = pack_index_record(kept)
        try:
            write_all(self.index_fd(ends.file_id), [kept_bytes], ends.index_end)
            os.pwrite(self.index_fd(slot[0]), pack_index_record(now), slot[1])
        except OSError as error:
            self._undo()
            raise WriteError("index", error) from error
        self.patched.add(slot[0])
        self.ends = Ends(ends.file_id, data_end, data_last, ends.index_end + len(kept_bytes), ends.index_end)

    def set_mode(self, mode: int) -> None:
        """Change the mode of a pair that holds nothing yet.

        Raises:
            OSError: the disk refused.
        """
        write_all(self.index_fd(self.ends.file_id), [index_header(self.ends.file_id, mode)], 0)
        self.mode = mode

    def rotate(self) -> None:
        """Begin a new pair of files; the old ones stay for reading.

        Raises:
            WriteError: the disk refused; the old pair stays the newest.
        """
        if self._torn:
            self._cut_back()
        ends = self.ends
        new = ends.file_id + 1
        index_path, data_path = f"{self.index_path}/i{new}", f"{self.data_path}/d{new}"
        try:
            data_fd = create_file(data_path, data_header(new))
        except OSError as error:
            raise WriteError("data", error) from error
        try:
            index_fd = create_file(index_path, index_header(new, self.mode))
        except OSError as error:
            os.close(data_fd)
            with contextlib.suppress(OSError):
                os.unlink(data_path)
            raise WriteError("index", error) from error
        if self._dirty:
            self._retired.add(ends.file_id)
        if self._data_fd < 0:
            self._open_files.admit(self)
        self.let_go()
        self._data_fd, self._index_fd = data_fd, index_fd
        self._dirty = True
        self._directories.update((self.index_path, self.data_path))
        self.ends = Ends(new, len(data_header(new)), ends.data_last, len(index_header(new)), ends.index_last)

    def take_unsynced(self) -> Unsynced:
        """Hand over what was written since this was last called."""
        newest = self.ends.file_id
        numbers = (*sorted(self._retired), newest) if self._dirty else sorted(self._retired)
        files = tuple(f"{self.data_path}/d{number}" for number in numbers)
        directories = tuple(self._directories)
        self._retired.clear()
        self._directories.clear()
        self._dirty = False
        return Unsynced(files, directories, newest, self.ends.data_end, self)

    def touch_directory(self, path: str) -> None:
        """Have the next barrier make this directory durable."""
        self._directories.add(path)

    def touch_data(self, file_id: int) -> None:
        """Have the next barrier make this data file durable."""
        if file_id == self.ends.file_id:
            self._dirty = True
        else:
            self._retired.add(file_id)

    def sync_index(self) -> None:
        """Make the newest index file durable; a start does not need it, the original does.

        Raises:
            OSError: the disk refused.
        """
        sync_file(f"{self.index_path}/i{self.ends.file_id}")

    def close(self) -> None:
        """Close all files; nothing is flushed."""
        self._open_files.forget(self.index_path + "/")
        self._open_files.forget(self.data_path + "/")
        self._open_files.leave(self)
        self.let_go()
        self._retired.clear()
        self._closed = True

    def _data_parts(self, writes: Sequence[Write]) -> tuple[list[Buffer], int]:
        """Return the bytes to append to the data file, and where its last record then begins."""
        parts: list[Buffer] = []
        small = bytearray()
        end, last = self.ends.data_end, self.ends.data_last
        for write in writes:
            size = len(write.payload)
            write.data_offset = end
            small += DATA_RECORD.pack(len(write.key), size, last, write.crc, write.flags, write.timestamp)
            small += write.key
            if size <= _JOIN_BYTES_MAX:
                small += write.payload
            else:
                parts += (small, write.payload)
                small = bytearray()
            last = end
            end += DATA_RECORD.size + len(write.key) + size
        if small:
            parts.append(small)
        return parts, last

    def _undo(self) -> None:
        """Cut both files back to where they ended; if even that fails, before the next write."""
        try:
            os.ftruncate(self.data_fd(self.ends.file_id), self.ends.data_end)
            os.ftruncate(self.index_fd(self.ends.file_id), self.ends.index_end)
        except OSError:
            self._torn = True
        else:
            self._torn = False

    def _cut_back(self) -> None:
        self._undo()
        if self._torn:
            raise WriteError("data", OSError("a torn record could not be cut off"))
