"""The bytes on disk: data file v3, index file v4, namespace descriptor v1, and our checkpoint beside them.

The first three are the original 0-db's, byte for byte, so that it opens our folders and we open its own. Pure:
nothing here touches a file. `docs/formats/zdb.md` has the tables.
"""

from __future__ import annotations

import struct
from ctypes import c_char
from dataclasses import dataclass
from struct import Struct
from typing import Final

from google_crc32c._crc32c import extend as _crc32c_extend

from fungistor.errors import CorruptError

DATA_MAGIC: Final = b"DAT0"
DATA_VERSION: Final = 3
DATA_HEADER: Final = Struct("<4sIQQI")
DATA_RECORD: Final = Struct("<BIIIBI")
"""Key length, payload length, offset of the record before, payload checksum, flags, unix time."""

INDEX_MAGIC: Final = b"IDX0"
INDEX_VERSION: Final = 4
INDEX_HEADER: Final = Struct("<4sIQQIB")
INDEX_RECORD: Final = Struct("<BIIIBIIIII")
"""Key length, data offset, payload length, previous, flags, data file, unix time, checksum, parent file and offset."""
INDEX_FLAGS_AT: Final = 13

MODE_USER: Final = 0
MODE_SEQUENTIAL: Final = 1

DELETED: Final = 1
TRUNCATED: Final = 2
KEY_BYTES_MAX: Final = 255
OFFSET_MAX: Final = (1 << 32) - 1

SLOT_BYTES: Final = INDEX_RECORD.size + 8
"""One index record in sequential mode, where every key is an id of 8 bytes."""

CURSOR: Final = Struct("<BIIII")
"""Key length, index file, payload length, offset of the index record, payload checksum."""

ENTRY: Final = Struct("<6I")
"""A live key in memory: file, data offset, payload length, checksum, unix time, offset of the index record."""

_DESCRIPTOR: Final = Struct("<IBBQB")
_CHECKPOINT_HEAD: Final = Struct("<4sIIII")
_CHECKPOINT_SEGMENT: Final = Struct("<6I")
_CHECKPOINT_MAGIC: Final = b"FZC0"
_U32: Final = Struct("<I")


def checksum(payload: bytes) -> int:
    """Return the original's CRC-32C: initial value 0, no final inversion."""
    return int(_crc32c_extend(0xFFFFFFFF, payload)) ^ 0xFFFFFFFF


def checksum_of(payload: bytes | memoryview) -> int:
    """Return `checksum` of bytes that may lie in a reused, writable buffer.

    The library takes no buffer that has to be released after use, as a memoryview has; a ctypes array over the same
    bytes has not, and so nothing is copied.
    """
    if isinstance(payload, bytes):
        return checksum(payload)
    if payload.readonly or not payload.nbytes:
        return checksum(bytes(payload))
    return int(_crc32c_extend(0xFFFFFFFF, (c_char * payload.nbytes).from_buffer(payload))) ^ 0xFFFFFFFF


def data_header(file_id: int) -> bytes:
    """Return the 28 bytes that begin a data file."""
    return DATA_HEADER.pack(DATA_MAGIC, DATA_VERSION, 0, 0, file_id)


def index_header(file_id: int, mode: int = MODE_USER) -> bytes:
    """Return the 29 bytes that begin an index file."""
    return INDEX_HEADER.pack(INDEX_MAGIC, INDEX_VERSION, 0, 0, file_id, mode)


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The head of one data record and its key; the payload follows it on disk."""

    offset: int
    payload_bytes: int
    previous: int
    crc: int
    flags: int
    timestamp: int
    key: bytes

    @property
    def payload_at(self) -> int:
        return self.offset + DATA_RECORD.size + len(self.key)

    @property
    def end(self) -> int:
        return self.payload_at + self.payload_bytes


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """One index record, whole."""

    offset: int
    data_offset: int
    payload_bytes: int
    previous: int
    flags: int
    data_file: int
    timestamp: int
    crc: int
    parent_file: int
    parent_offset: int
    key: bytes

    @property
    def end(self) -> int:
        return self.offset + INDEX_RECORD.size + len(self.key)


def parse_data_record(buffer: bytes, at: int, offset: int) -> DataRecord | None:
    """Return the record that begins at `buffer[at]`, or None if the buffer ends before its key does."""
    if len(buffer) - at < DATA_RECORD.size:
        return None
    key_bytes, payload_bytes, previous, crc, flags, timestamp = DATA_RECORD.unpack_from(buffer, at)
    start = at + DATA_RECORD.size
    if len(buffer) - start < key_bytes:
        return None
    return DataRecord(offset, payload_bytes, previous, crc, flags, timestamp, buffer[start : start + key_bytes])


def parse_index_record(buffer: bytes, at: int, offset: int) -> IndexRecord | None:
    """Return the record that begins at `buffer[at]`, or None if the buffer ends before it does."""
    if len(buffer) - at < INDEX_RECORD.size:
        return None
    key_bytes, data_offset, payload_bytes, previous, flags, data_file, timestamp, crc, parent, parent_at = (
        INDEX_RECORD.unpack_from(buffer, at)
    )
    start = at + INDEX_RECORD.size
    if len(buffer) - start < key_bytes:
        return None
    key = buffer[start : start + key_bytes]
    return IndexRecord(
        offset, data_offset, payload_bytes, previous, flags, data_file, timestamp, crc, parent, parent_at, key
    )


def pack_index_record(record: IndexRecord) -> bytes:
    """Return the record's bytes."""
    return INDEX_RECORD.pack(
        len(record.key), record.data_offset, record.payload_bytes, record.previous, record.flags, record.data_file,
        record.timestamp, record.crc, record.parent_file, record.parent_offset,
    ) + record.key  # fmt: skip


@dataclass(slots=True)
class Descriptor:
    """What `zdb-namespace` says of a namespace."""

    name: bytes
    password: bytes = b""
    maxsize: int = 0
    public: bool = True
    worm: bool = False
    history: bool = False
    """Ours: old versions are wanted, so that compaction leaves them alone."""


_FLAG_PUBLIC: Final = 1
_FLAG_WORM: Final = 2
_FLAG_EXTENDED: Final = 4
_FLAG_HISTORY: Final = 8
"""The original ignores it, and forgets it when it writes the descriptor."""


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """Return the descriptor's bytes. The original keeps the password in clear, so the file does."""
    flags = _FLAG_EXTENDED | (_FLAG_PUBLIC if descriptor.public else 0) | (_FLAG_WORM if descriptor.worm else 0)
    flags |= _FLAG_HISTORY if descriptor.history else 0
    fixed = _DESCRIPTOR.pack(1, len(descriptor.name), len(descriptor.password), descriptor.maxsize, flags)
    return fixed + descriptor.name + descriptor.password


def decode_descriptor(data: bytes) -> Descriptor:
    """Return the descriptor; bytes after it are the original's leftovers of a longer password and are ignored.

    Raises:
        CorruptError: it ends before its name and password do, or is of another version.
    """
    try:
        version, name_bytes, password_bytes, maxsize, flags = _DESCRIPTOR.unpack_from(data)
    except struct.error:
        raise CorruptError(f"descriptor has {len(data)} bytes, its fixed part {_DESCRIPTOR.size}") from None
    end = _DESCRIPTOR.size + name_bytes + password_bytes
    if version != 1 or len(data) < end:
        raise CorruptError(f"descriptor of version {version} has {len(data)} of {end} bytes")
    name = data[_DESCRIPTOR.size : _DESCRIPTOR.size + name_bytes]
    password = data[_DESCRIPTOR.size + name_bytes : end]
    return Descriptor(
        name, password, maxsize, bool(flags & _FLAG_PUBLIC), bool(flags & _FLAG_WORM), bool(flags & _FLAG_HISTORY)
    )


@dataclass(frozen=True, slots=True)
class SegmentMark:
    """Up to where one pair of files was known to agree: their ends, last records, and the index's checksum."""

    file_id: int
    data_end: int
    data_last: int
    index_end: int
    index_last: int
    index_crc: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What lets a start trust the index without walking the data: a mark a segment, and the descriptor's copy."""

    segments: tuple[SegmentMark, ...]
    descriptor: bytes
    durable: int = 0
    """Data files below this number were flushed when they were whole."""


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the checkpoint's bytes, their checksum last."""
    body = bytearray(
        _CHECKPOINT_HEAD.pack(
            _CHECKPOINT_MAGIC, 0, len(checkpoint.segments), len(checkpoint.descriptor), checkpoint.durable
        )
    )
    for mark in checkpoint.segments:
        body += _CHECKPOINT_SEGMENT.pack(
            mark.file_id, mark.data_end, mark.data_last, mark.index_end, mark.index_last, mark.index_crc
        )
    body += checkpoint.descriptor
    return bytes(body) + _U32.pack(checksum(bytes(body)))


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Return the checkpoint.

    Raises:
        CorruptError: any byte of it is wrong, or it is of another version.
    """
    if len(data) < _CHECKPOINT_HEAD.size + _U32.size or checksum(data[:-4]) != _U32.unpack(data[-4:])[0]:
        raise CorruptError(f"checkpoint of {len(data)} bytes fails its checksum")
    magic, version, count, descriptor_bytes, durable = _CHECKPOINT_HEAD.unpack_from(data)
    segments_end = _CHECKPOINT_HEAD.size + count * _CHECKPOINT_SEGMENT.size
    if magic != _CHECKPOINT_MAGIC or version != 0 or len(data) != segments_end + descriptor_bytes + _U32.size:
        raise CorruptError(f"checkpoint of version {version} with {count} segments has {len(data)} bytes")
    marks = _CHECKPOINT_SEGMENT.iter_unpack(data[_CHECKPOINT_HEAD.size : segments_end])
    return Checkpoint(tuple(SegmentMark(*mark) for mark in marks), data[segments_end:-4], durable)
