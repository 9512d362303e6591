"""Notes beside the index: one spares a start the walk over the data, one says what barriers covered.

Both are hints. Every word of the checkpoint is verified; without the flush note, a start that meets a damaged record
cannot tell rot from a write that nobody was promised, and answers an error for it.
"""

from __future__ import annotations

import contextlib
import os
import re
from struct import Struct
from typing import Final

from fungistor.errors import CorruptError
from fungistor.zdb.daemon.files import read_file, replace_file
from fungistor.zdb.daemon.format import Checkpoint, SegmentMark, checksum, decode_checkpoint, encode_checkpoint
from fungistor.zdb.daemon.segments import Segments

CHECKPOINT_NAME: Final = "fungistor-checkpoint"
FLUSHED_NAME: Final = "fungistor-flushed"
_FLUSHED: Final = Struct("<4sIIQI")
_FLUSHED_MAGIC: Final = b"FZB1"
_INDEX_FILE: Final = re.compile(r"i(0|[1-9][0-9]{0,9})")


def load_checkpoint(index_path: str, report: list[str]) -> Checkpoint | None:
    """Return the namespace's checkpoint, or None when there is none that can be believed."""
    data = read_file(f"{index_path}/{CHECKPOINT_NAME}")
    if data is None:
        return None
    try:
        return decode_checkpoint(data)
    except CorruptError as error:
        report.append(f"{error}: the data files are walked instead")
        return None


def load_flushed(index_path: str) -> tuple[int, int, int] | None:
    """Return the data file, the end in it up to which the last barrier that is known covered all, and what the next
    id was not below then; else None."""
    data = read_file(f"{index_path}/{FLUSHED_NAME}")
    if data is None or len(data) != _FLUSHED.size:
        return None
    magic, file_id, end, next_id, crc = _FLUSHED.unpack(data)
    return (file_id, end, next_id) if magic == _FLUSHED_MAGIC and crc == checksum(data[:-4]) else None


def note_flushed(index_path: str, file_id: int, end: int, next_id: int = 0) -> None:
    """Write down what a barrier covered, after it did; in place and not flushed, an older note only says less."""
    body = _FLUSHED.pack(_FLUSHED_MAGIC, file_id, end, next_id, 0)[:-4]
    with contextlib.suppress(OSError):
        fd = os.open(f"{index_path}/{FLUSHED_NAME}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, body + checksum(body).to_bytes(4, "little"), 0)
        finally:
            os.close(fd)


def save_checkpoint(segments: Segments, descriptor: bytes, *, durable: int, sync: bool) -> Checkpoint:
    """Write down up to where every pair of files agrees, and return it.

    Raises:
        OSError: the disk refused; the old checkpoint stands and is as good as before.
    """
    ends, index_path, data_path = segments.ends, segments.index_path, segments.data_path
    marks = []
    for name in os.listdir(index_path):
        match = _INDEX_FILE.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        index = read_file(f"{index_path}/{name}") or b""
        if number == ends.file_id:
            mark = SegmentMark(number, ends.data_end, ends.data_last, ends.index_end, ends.index_last, 0)
        else:
            try:
                data_end = os.stat(f"{data_path}/d{number}").st_size
            except FileNotFoundError:
                continue
            mark = SegmentMark(number, data_end, 0, len(index), 0, 0)
        crc = checksum(index[: mark.index_end])
        marks.append(SegmentMark(number, mark.data_end, mark.data_last, mark.index_end, mark.index_last, crc))
    marks.sort(key=lambda mark: mark.file_id)
    checkpoint = Checkpoint(tuple(marks), descriptor, durable)
    write_checkpoint(index_path, checkpoint, sync=sync)
    return checkpoint


def write_checkpoint(index_path: str, checkpoint: Checkpoint, *, sync: bool) -> None:
    """Replace the namespace's checkpoint.

    Raises:
        OSError: the disk refused; the old one stands and is as good as before.
    """
    replace_file(f"{index_path}/{CHECKPOINT_NAME}", encode_checkpoint(checkpoint), sync=sync)
