"""The live keys of one namespace and their values on disk, none of which is believed before it was checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final, NoReturn

from fungistor.zdb.daemon.format import DATA_RECORD, DELETED, checksum, checksum_of
from fungistor.zdb.daemon.keytable import Entry, KeyTable
from fungistor.zdb.daemon.segments import Segments

_ONE_READ_BYTES_MAX: Final = 16 << 10
"""Up to this head, key and payload are read together and cut; above, a second call is cheaper than the copy."""


class DamagedError(Exception):
    """The bytes of a record cannot be had, or are not what was stored."""


class MissingFileError(Exception):
    """A data file is not there, and a hook that might bring it was not asked yet."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(slots=True)
class IoStats:
    """Counters of one daemon over all its namespaces."""

    data_read_bytes: int = 0
    data_write_bytes: int = 0
    data_read_failed: int = 0
    data_write_failed: int = 0
    index_read_bytes: int = 0
    index_write_bytes: int = 0
    index_read_failed: int = 0
    index_write_failed: int = 0


@dataclass(slots=True)
class Faults:
    """Disk errors of one namespace, for NSINFO."""

    index_errors: int = 0
    index_error_last: int = 0
    data_errors: int = 0
    data_error_last: int = 0


@dataclass(slots=True)
class Live:
    """The live keys and the sums over them."""

    keys: KeyTable = field(default_factory=KeyTable)
    payload_bytes: int = 0
    key_bytes: int = 0


class Values:
    """What a namespace is to who reads from it."""

    def __init__(self, segments: Segments, live: Live, io: IoStats) -> None:
        self.segments = segments
        self.live = live
        self.io = io
        self.faults = Faults()
        self.asked: set[str] | None = None
        """Data files that a hook was asked for in vain on behalf of this command; None where there is no hook."""

    def entry(self, key: bytes) -> Entry | None:
        """Return (file, data offset, length, checksum, time, index offset) of a live key."""
        return self.live.keys.get(key)

    def require(self, file_id: int) -> int:
        """Return a descriptor of that data file.

        Raises:
            MissingFileError: it is elsewhere, and a hook may bring it.
            OSError: it cannot be opened.
        """
        try:
            return self.segments.data_fd(file_id)
        except FileNotFoundError:
            path = f"{self.segments.data_path}/d{file_id}"
            if self.asked is None or path in self.asked:
                raise
            raise MissingFileError(path) from None

    def read(self, key: bytes, entry: Entry) -> bytes:
        """Return the value, its checksum verified.

        Raises:
            DamagedError: it cannot be read, or is not what was stored.
        """
        file_id, offset, length, crc, _, _ = entry
        start = DATA_RECORD.size + len(key)
        try:
            fd = self.require(file_id)
            if length <= _ONE_READ_BYTES_MAX:
                record = os.pread(fd, start + length, offset)
                head, value = record[:start], record[start:]
            else:
                head = os.pread(fd, start, offset)
                value = os.pread(fd, length, offset + start)
        except OSError as error:
            self._data_fault(error)
            raise DamagedError(str(error)) from error
        self.io.data_read_bytes += start + length
        self._check_head(head, key, entry)
        if len(value) != length or checksum(value) != crc:
            self._failed_checksum(entry)
        return value

    def read_into(self, key: bytes, entry: Entry, buffer: memoryview) -> memoryview:
        """Read the value into a buffer that is reused, and return the part that is the value, its checksum verified.

        Raises:
            DamagedError: it cannot be read, or is not what was stored.
        """
        head = bytearray(DATA_RECORD.size + len(key))
        value = buffer[: entry[2]]
        try:
            count = os.preadv(self.require(entry[0]), [head, value], entry[1])
        except OSError as error:
            self._data_fault(error)
            raise DamagedError(str(error)) from error
        self.io.data_read_bytes += count
        self._check_head(bytes(head[:count]), key, entry)
        if count != len(head) + len(value) or checksum_of(value) != entry[3]:
            self._failed_checksum(entry)
        return value

    def _failed_checksum(self, entry: Entry) -> NoReturn:
        self._data_fault(None)
        raise DamagedError(f"d{entry[0]} at {entry[1]}: value fails its checksum")

    def read_range(self, key: bytes, entry: Entry, first: int, count: int) -> bytes:
        """Return part of the value. Its head is checked, its bytes cannot be: the checksum covers the whole value.

        Raises:
            DamagedError: it cannot be read.
        """
        file_id, offset = entry[:2]
        start = DATA_RECORD.size + len(key)
        try:
            fd = self.require(file_id)
            head = os.pread(fd, start, offset)
            part = os.pread(fd, count, offset + start + first)
        except OSError as error:
            self._data_fault(error)
            raise DamagedError(str(error)) from error
        self.io.data_read_bytes += len(head) + len(part)
        self._check_head(head, key, entry)
        if len(part) != count:
            self._data_fault(None)
            raise DamagedError(f"d{file_id} at {offset}: value is cut short")
        return part

    def check(self, key: bytes, entry: Entry) -> int:
        """Return 1 if the stored value is whole, 0 if it is damaged, -1 if it cannot be read."""
        try:
            os.fstat(self.require(entry[0]))
            self.read(key, entry)
        except OSError:
            return -1
        except DamagedError as error:
            return -1 if isinstance(error.__cause__, OSError) else 0
        return 1

    def _check_head(self, head: bytes, key: bytes, entry: Entry) -> None:
        """Compare the record's head on disk with the index: an index that points elsewhere must not be believed."""
        if len(head) == DATA_RECORD.size + len(key):
            key_bytes, length, _, crc, flags, _ = DATA_RECORD.unpack_from(head)
            same = key_bytes == len(key) and length == entry[2] and crc == entry[3] and not flags & DELETED
            if same and head[DATA_RECORD.size :] == key:
                return
        self._data_fault(None)
        raise DamagedError(f"d{entry[0]} at {entry[1]}: record is not the one indexed")

    def _data_fault(self, error: OSError | None) -> None:
        self.io.data_read_failed += 1
        self.faults.data_errors += 1
        self.faults.data_error_last = 0 if error is None else error.errno or 0
