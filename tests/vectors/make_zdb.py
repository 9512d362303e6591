"""Generator of `zdb.json`: the member's file formats, as hexadecimal text."""

from __future__ import annotations

import json
from pathlib import Path

from fungistor.zdb.daemon import format as disk


def vectors() -> dict[str, str]:
    """Return name and bytes of each example."""
    payload, key, time = b"world", b"hello", 1_700_000_000
    crc = disk.checksum(payload)
    data = disk.DATA_RECORD.pack(len(key), len(payload), 0, crc, 0, time) + key + payload
    tombstone = disk.DATA_RECORD.pack(len(key), 0, 28, 0, disk.DELETED, time) + key
    index = disk.INDEX_RECORD.pack(len(key), 28, len(payload), 0, 0, 0, time, crc, 0, 0) + key
    mark = disk.SegmentMark(0, 28 + len(data), 28, 29 + len(index), 29, disk.checksum(disk.index_header(0) + index))
    descriptor = disk.encode_descriptor(disk.Descriptor(b"default"))
    examples = {
        "data_header": disk.data_header(0),
        "data_record": data,
        "data_tombstone": tombstone,
        "index_header": disk.index_header(0),
        "index_record": index,
        "cursor": disk.CURSOR.pack(len(key), 0, len(payload), 29, crc),
        "descriptor": descriptor,
        "descriptor_full": disk.encode_descriptor(
            disk.Descriptor(b"ns", b"secret", maxsize=1 << 30, public=False, worm=True)
        ),
        "checkpoint": disk.encode_checkpoint(disk.Checkpoint((mark,), descriptor)),
    }
    return {name: example.hex() for name, example in examples.items()}


if __name__ == "__main__":
    Path(__file__).with_name("zdb.json").write_text(json.dumps(vectors(), indent=2) + "\n")
