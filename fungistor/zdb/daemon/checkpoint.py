"""The note beside the index that spares a start the walk over the data. A hint: every word of it is verified."""

from __future__ import annotations

import os
import re
from typing import Final

from fungistor.errors import CorruptError
from fungistor.zdb.daemon.files import read_file, replace_file
from fungistor.zdb.daemon.format import Checkpoint, SegmentMark, checksum, decode_checkpoint, encode_checkpoint
from fungistor.zdb.daemon.segments import Segments

CHECKPOINT_NAME: Final = "fungistor-checkpoint"
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
