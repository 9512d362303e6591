"""Walking a namespace in the order of its index: SCAN, RSCAN, KSCAN, and a key's older versions."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from struct import Struct
from typing import Final

from fungistor.zdb.daemon.format import (
    CURSOR,
    DATA_HEADER,
    DATA_RECORD,
    DELETED,
    INDEX_HEADER,
    INDEX_RECORD,
    DataRecord,
    IndexRecord,
    checksum,
    parse_data_record,
    parse_index_record,
)
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.wire import ReplyError

ENTRIES_MAX: Final = 1000
_READ_BYTES: Final = 64 << 10
_VERSION: Final = Struct("<II")
NO_VERSION: Final = bytes(_VERSION.size)

Found = list[tuple[bytes, int, int]]


def cursor_of(namespace: Namespace, key: bytes, entry: tuple[int, ...]) -> bytes:
    """Return the 17 bytes by which a scan goes on after this key."""
    file_id, offset = namespace.place(key, entry)
    return CURSOR.pack(len(key), file_id, entry[2], offset, entry[3])


def scan(namespace: Namespace, cursor: bytes | None) -> tuple[bytes, Found]:
    """Return the next entries in index order as (key, length, time), and the cursor after them.

    Raises:
        ReplyError: the cursor is none of ours, or nothing is left.
    """
    if cursor is None:
        return _collect(namespace, records(namespace, 0, INDEX_HEADER.size))
    file_id, record = _at_cursor(namespace, cursor)
    if record is None:
        return _collect(namespace, records(namespace, file_id + 1, INDEX_HEADER.size))
    return _collect(namespace, records(namespace, file_id, record.end))


def rscan(namespace: Namespace, cursor: bytes | None) -> tuple[bytes, Found]:
    """Return the entries before the cursor, the nearest first.

    Raises:
        ReplyError: the cursor is none of ours, or nothing is left.
    """
    if cursor is None:
        return _collect(namespace, _backwards(namespace, namespace.segments.ends.file_id, None))
    file_id, record = _at_cursor(namespace, cursor)
    if record is None:
        return _collect(namespace, _backwards(namespace, file_id - 1, None))
    return _collect(namespace, _backwards(namespace, file_id, record.offset))


def _collect(namespace: Namespace, walk: Iterator[tuple[int, IndexRecord]]) -> tuple[bytes, Found]:
    found: Found = []
    last = b""
    for file_id, record in walk:
        if record.flags & DELETED:
            continue
        entry = namespace.entry(record.key)
        if entry is not None and namespace.place(record.key, entry) == (file_id, record.offset):
            found.append((record.key, entry[2], entry[4]))
            last = cursor_of(namespace, record.key, entry)
            if len(found) == ENTRIES_MAX:
                break
    if not found:
        raise ReplyError("No more data")
    return last, found


def records(namespace: Namespace, file_id: int, offset: int) -> Iterator[tuple[int, IndexRecord]]:
    """Yield index records with their files, from there to the end.

    Raises:
        ReplyError: the disk refused.
    """
    while file_id <= namespace.segments.ends.file_id:
        block, at = _block(namespace, file_id, offset), 0
        while (record := parse_index_record(block, at, offset + at)) is not None:
            at += record.end - record.offset
            yield file_id, record
        offset += at
        if at == 0:
            file_id, offset = file_id + 1, INDEX_HEADER.size


def _backwards(namespace: Namespace, file_id: int, before: int | None) -> Iterator[tuple[int, IndexRecord]]:
    """Yield index records in reverse, from the one before that offset of that file.

    The chain on disk is not followed: it breaks where a file is empty or was rebuilt. A file's offsets are found once.
    """
    while file_id >= 0:
        offsets = _offsets(namespace, file_id)
        at = len(offsets)
        if before is not None:
            while at and offsets[at - 1] >= before:
                at -= 1
        before = None
        while at:
            start = max(at - ENTRIES_MAX, 0)
            first = offsets[start]
            end = offsets[at] if at < len(offsets) else offsets[at - 1] + INDEX_RECORD.size + 255
            block = _pread(namespace, file_id, end - first, first)
            for offset in reversed(offsets[start:at]):
                record = parse_index_record(block, offset - first, offset)
                if record is not None:
                    yield file_id, record
            at = start
        file_id -= 1


def _offsets(namespace: Namespace, file_id: int) -> array[int]:
    """Return where the records of an index file begin; remembered for the file asked for last."""
    try:
        size = os.fstat(namespace.segments.index_fd(file_id)).st_size
    except FileNotFoundError:
        return array("L")
    known = namespace.offsets
    if known is not None and known[:2] == (file_id, size):
        return known[2]
    whole = _pread(namespace, file_id, size, 0)
    found, at = array("L"), INDEX_HEADER.size
    while at + INDEX_RECORD.size <= len(whole):
        found.append(at)
        at += INDEX_RECORD.size + whole[at]
    namespace.offsets = (file_id, size, found)
    return found


def _block(namespace: Namespace, file_id: int, offset: int) -> bytes:
    block = _pread(namespace, file_id, _READ_BYTES, offset)
    namespace.io.index_read_bytes += len(block)
    return block


def _pread(namespace: Namespace, file_id: int, count: int, offset: int) -> bytes:
    try:
        return os.pread(namespace.segments.index_fd(file_id), count, offset)
    except FileNotFoundError:
        return b""
    except OSError as error:
        namespace.index_read_failed(error)
        raise ReplyError("Internal Error") from error


def _at_cursor(namespace: Namespace, cursor: bytes) -> tuple[int, IndexRecord | None]:
    """Return the file and record that a cursor names; None for one that compaction dropped since."""
    if len(cursor) != CURSOR.size:
        raise ReplyError("Invalid key format")
    key_bytes, file_id, length, offset, crc = CURSOR.unpack(cursor)
    if not key_bytes or file_id > namespace.segments.ends.file_id or offset < INDEX_HEADER.size:
        raise ReplyError("Invalid key format")
    record = parse_index_record(_pread(namespace, file_id, INDEX_RECORD.size + key_bytes, offset), 0, offset)
    if record is None and namespace.slots is None and _dropped(namespace, file_id, offset):
        return file_id, None
    # An id's slot is rewritten in place by an update: the place still holds, what it names is newer.
    same = namespace.slots is not None or (record is not None and (record.payload_bytes, record.crc) == (length, crc))
    if record is None or len(record.key) != key_bytes or not same:
        raise ReplyError("Invalid key format")
    return file_id, record


def keys_with(namespace: Namespace, prefix: bytes) -> list[bytes]:
    """Return the live keys that begin so.

    Raises:
        ReplyError: there is none, or keys are ids.
    """
    if namespace.slots is not None:
        raise ReplyError("Index running mode doesn't support this feature")
    found = [key for key in namespace.live.keys if key.startswith(prefix)]
    if not found:
        raise ReplyError("No keys match")
    return found


def version(namespace: Namespace, key: bytes, at: bytes | None) -> tuple[bytes | None, int, bytes]:
    """Return one version of a key: how to ask for the one before it (None at the end), its time, its value.

    Args:
        at: what the version after it said; None for the current one.

    Raises:
        ReplyError: there is no such version.
        DamagedError: its value cannot be had.
    """
    file_id, offset = _VERSION.unpack(at) if at is not None else _current(namespace, key)
    if at is not None and offset == 0 and file_id == 0:
        raise ReplyError("No more history")
    if at is not None and _dropped(namespace, file_id, offset):
        raise ReplyError("No more history")
    record = None
    if offset >= INDEX_HEADER.size and file_id <= namespace.segments.ends.file_id:
        record = parse_index_record(_pread(namespace, file_id, INDEX_RECORD.size + len(key), offset), 0, offset)
    if record is None:
        raise ReplyError("Invalid arguments (index query)")
    if record.key != key:
        raise ReplyError("Invalid arguments (invalid key)")
    # In user mode the original writes 0 for the data file of a first insert, whatever the file.
    data_file = file_id if namespace.slots is None else record.data_file
    entry = (data_file, record.data_offset, record.payload_bytes, record.crc, record.timestamp, offset)
    value = namespace.read(key, entry)
    before = (record.parent_file, record.parent_offset)
    older = None if before == (0, 0) or _dropped(namespace, *before) else _VERSION.pack(*before)
    return older, record.timestamp, value


def _current(namespace: Namespace, key: bytes) -> tuple[int, int]:
    entry = namespace.entry(key)
    if entry is None:
        raise ReplyError("Key not found")
    return namespace.place(key, entry)


def _dropped(namespace: Namespace, file_id: int, offset: int) -> bool:
    """Whether compaction dropped what that place of the index speaks of."""
    segments = namespace.segments
    if file_id >= segments.ends.file_id:
        return False
    if namespace.slots is None:
        beyond = len(_pread(namespace, file_id, 1, INDEX_HEADER.size)) == 0
        return beyond and not os.path.exists(f"{segments.data_path}/d{file_id}")
    record = parse_index_record(_pread(namespace, file_id, INDEX_RECORD.size + 8, offset), 0, offset)
    return record is not None and not os.path.exists(f"{segments.data_path}/d{record.data_file}")


def raw(namespace: Namespace, file_id: int, offset: int) -> tuple[DataRecord, bytes]:
    """Return one record of a data file as it stands, deletions and empty values too.

    Raises:
        ReplyError: there is none at that place.
    """
    if not 0 <= file_id <= namespace.segments.ends.file_id or offset < 0:
        raise ReplyError("Invalid Request")
    try:
        fd = namespace.require(file_id)
        size = namespace.segments.ends.data_end if file_id == namespace.segments.ends.file_id else os.fstat(fd).st_size
        if offset >= size:
            raise ReplyError("EOF")
        record = parse_data_record(os.pread(fd, DATA_RECORD.size + 255, offset), 0, offset)
        if record is None or offset < DATA_HEADER.size or not record.key or record.end > size:
            raise ReplyError("Unexpected Internal Error")
        payload = os.pread(fd, record.payload_bytes, record.payload_at)
    except OSError as error:
        raise ReplyError("Invalid Request") from error
    _check_raw(record, payload)
    return record, payload


def _check_raw(record: DataRecord, payload: bytes) -> None:
    """An offset into the middle of a record reads as nonsense: the checksum tells."""
    if len(payload) != record.payload_bytes or (not record.flags & DELETED and checksum(payload) != record.crc):
        raise ReplyError("Unexpected Internal Error")
