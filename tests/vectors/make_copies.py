"""Writes tests/vectors/copies.json: segments, key copies and anchor of format version 0.

Run `python -m tests.vectors.make_copies` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.catalog.log import Position
from fungistor.catalog.snapshots import Snapshot
from fungistor.ids import ObjectId, TenantNumber
from fungistor.node.copies.formats import Anchor, CopyFormats, Segment, link_to

NETWORK_KEY = bytes(range(32))
LOG = bytes(range(0x20, 0x30))
PAYLOAD = b"an entry of the log, opaque to who copies it"
SEGMENT = Segment(7, link_to(b"the entry before"), PAYLOAD)
PLACE = bytes(range(0x90, 0xA0))
KEY_ROW = (ObjectId(bytes(range(0x40, 0x60))), TenantNumber(3), bytes(range(0x60, 0x88)))
SNAPSHOT = Snapshot(bytes(range(0x80, 0xA0)), Position((5).to_bytes(8, "big")), 4, bytes(range(32)), 1, 5, 10, 999)
ANCHOR = Anchor(2, LOG, 5, (SNAPSHOT,), ((TenantNumber(0), bytes(range(40))),), ("m01", "m02"), 1_790_000_000)
FORMATS = CopyFormats(NETWORK_KEY)


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    return {
        "version": 0,
        "network_key": NETWORK_KEY.hex(),
        "log": LOG.hex(),
        "link": SEGMENT.link.hex(),
        "segment_name": FORMATS.segment_name(LOG, SEGMENT.number).hex(),
        "segment": FORMATS.seal_segment(LOG, SEGMENT).hex(),
        "place": PLACE.hex(),
        "entry_name": FORMATS.entry_name(LOG, PLACE).hex(),
        "entry": FORMATS.seal_entry(LOG, PAYLOAD).hex(),
        "key_name": FORMATS.key_name(KEY_ROW[0]).hex(),
        "key": FORMATS.seal_key(KEY_ROW).hex(),
        "anchor_name": FORMATS.anchor_name().hex(),
        "anchor": FORMATS.seal_anchor(ANCHOR).hex(),
    }


if __name__ == "__main__":
    (Path(__file__).parent / "copies.json").write_text(json.dumps(vectors(), indent=1) + "\n")
