"""A folder of many entries as a CAR, so that no contender has to read that many files first."""

from __future__ import annotations

from pathlib import Path

from fungistor.dag.block import Block
from fungistor.dag.car import encode_header, section_head
from fungistor.dag.cid import CID, RAW, sha256_multihash
from fungistor.dag.importer import Link, build_directory
from fungistor.dag.profiles import PROFILES

ENTRIES = 100_000
_CONTENT = b"one of many\n"


def write_wide_folder(path: Path, entries: int) -> str:
    """Write a folder whose entries are all the same small file, sharded as Kubo shards it; give its CID."""
    leaf = CID(1, RAW, sha256_multihash(_CONTENT))
    blocks = {leaf: _CONTENT}

    def emit(block: Block) -> None:
        blocks[block.cid] = bytes(block.data)

    links = (Link(b"file-%06d.txt" % number, leaf, len(_CONTENT)) for number in range(entries))
    root = build_directory(PROFILES["kubo-cidv1"], links, emit)
    with path.open("wb") as file:
        file.write(encode_header([root.cid]))
        for cid, data in blocks.items():
            file.write(section_head(cid, len(data)))
            file.write(data)
    return str(root.cid)
