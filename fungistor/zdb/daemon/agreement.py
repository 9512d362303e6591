"""Following a data file and its index side by side as far as they say the same, with nothing kept in memory.

After most crashes that is all of both files but the last few records; only what comes behind is worth the careful walk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from fungistor.limits import ZDB_VALUE_BYTES_MAX
from fungistor.zdb.daemon.datawalk import ends_in_zeros
from fungistor.zdb.daemon.format import DATA_RECORD, DELETED, INDEX_RECORD, KEY_BYTES_MAX, DataRecord, checksum

_WINDOW_BYTES: Final = 256 << 10
_HEAD_BYTES_MAX: Final = DATA_RECORD.size + KEY_BYTES_MAX

Agreed = tuple[bytes, int, int, int, int, int, int, int]
"""Key, data offset, end of the record, payload length, checksum, time, offset of the index record (0: a deletion), its
flags."""


def agreed(
    data_fd: int, offset: int, previous: int | None, index: bytes, index_at: int, *, verify: bool
) -> Iterator[Agreed]:
    """Yield records from `offset` on for as long as the index has the very same, in order, and the chain holds.

    Args:
        previous: offset of the record before; None when it is not known.
        index_at: where in the index file its next record begins.
        verify: also read the payloads, and end at one that fails its checksum.
    """
    size = os.fstat(data_fd).st_size
    window, base = b"", offset
    unpack_data, unpack_index = DATA_RECORD.unpack_from, INDEX_RECORD.unpack_from
    head_bytes, witness_bytes = DATA_RECORD.size, INDEX_RECORD.size
    while offset < size:
        at = offset - base
        if at + _HEAD_BYTES_MAX > len(window):
            window, base, at = os.pread(data_fd, _WINDOW_BYTES, offset), offset, 0
        if len(window) - at < head_bytes:
            return
        key_bytes, length, before, crc, flags, timestamp = unpack_data(window, at)
        payload_at = at + head_bytes + key_bytes
        key = window[at + head_bytes : payload_at]
        end = offset + head_bytes + key_bytes + length
        if not key_bytes or end > size or length > ZDB_VALUE_BYTES_MAX or previous not in (None, before):
            return
        if flags == DELETED:
            if length or crc or ends_in_zeros(DataRecord(offset, 0, before, 0, flags, timestamp, key)):
                return
            yield key, offset, end, 0, 0, timestamp, 0, 0
        elif flags or len(index) < index_at + witness_bytes + key_bytes:
            return
        else:
            known = unpack_index(index, index_at)
            key_at = index_at + witness_bytes
            if known[:3] != (key_bytes, offset, length) or known[7] != crc or index[key_at : key_at + key_bytes] != key:
                return
            if verify:
                payload = window[payload_at : payload_at + length]
                if len(payload) < length:
                    payload = os.pread(data_fd, length, end - length)
                if checksum(payload) != crc:
                    return
            yield key, offset, end, length, crc, timestamp, index_at, known[4]
            index_at = key_at + key_bytes
        previous, offset = offset, end
