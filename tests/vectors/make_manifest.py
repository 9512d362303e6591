"""Writes tests/vectors/manifest.json: pages and roots of format version 0.

Run `python -m tests.vectors.make_manifest` only when the format's version changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.coding.compress import Compression
from fungistor.coding.manifest import (
    Absent,
    Child,
    Directory,
    Identity,
    Inline,
    Inner,
    ListPage,
    ListSlot,
    ManifestRoot,
    MapNode,
    MapPage,
    PageRef,
    RootRef,
    Slot,
    Stored,
)
from fungistor.coding.page_codec import encode_list_page, encode_map_page, encode_root
from fungistor.coding.seal import Purpose, open_sealed, page_aad, seal
from fungistor.ids import LayoutNumber, StripeId

SLOT = Slot(StripeId(bytes(range(32))), 16, 4, 262_208, bytes(range(32, 64)), LayoutNumber(7))
KEY = bytes(range(64, 96))
SALT = bytes(range(96, 128))
REF = PageRef(SLOT, 131_072, 70_016, 131_000, Compression.ZSTD, KEY)

LIST_LEAF = ListPage(
    0, (ListSlot(SLOT, (1_048_592, 1_048_592, 300), ((0, 1), (2, 1))), ListSlot(SLOT, (16,), ((0, 1),)))
)
ENTRIES = (Stored(1, 2, 1_048_576, Compression.STORED, KEY), Inline(b"spore"), Inner(1), Absent(), Identity())
MAP_LEAF = MapPage(0, (MapNode(0, 0x70, b"root node", ENTRIES), MapNode(1, 0x0129, b"leafless", ())), Inner(0))
MAP_BELOW = MapPage(1000, (MapNode(1000, 0x71, b"x", (Inner(3),)),))
LIST_DIRECTORY = Directory(1, (Child(0, 0, REF), Child(800, 0, REF)))
MAP_DIRECTORY = Directory(2, (Child(0, 1, REF),), Stored(0, 0, 5, Compression.STORED, KEY))
ROOT = ManifestRoot(SLOT, RootRef(0, 500, 900, Compression.ZSTD), RootRef(500, 216, 200, Compression.STORED), SALT)


def vectors() -> dict[str, Any]:
    """What the code gives today."""
    page = encode_map_page(MapPage(0, (), Inline(b"spore")))
    aad = page_aad(Purpose.MAP_ROOT_PAGE, Compression.STORED, len(page))
    sealed = seal(KEY, page, aad)
    assert open_sealed(KEY, sealed, aad) == page
    return {
        "version": 0,
        "list_page": encode_list_page(LIST_LEAF).hex(),
        "list_directory_root": encode_list_page(LIST_DIRECTORY).hex(),
        "map_root_page": encode_map_page(MAP_LEAF).hex(),
        "map_page_below": encode_map_page(MAP_BELOW).hex(),
        "map_directory_root": encode_map_page(MAP_DIRECTORY).hex(),
        "map_root_page_of_one_inline_block": page.hex(),
        "the_same_sealed": sealed.hex(),
        "manifest_root": encode_root(ROOT).hex(),
    }


if __name__ == "__main__":
    (Path(__file__).parent / "manifest.json").write_text(json.dumps(vectors(), indent=1) + "\n")
