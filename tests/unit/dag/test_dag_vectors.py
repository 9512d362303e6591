"""Known answers: what Kubo and the UnixFS specification publish, reproduced bit for bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fungistor.dag import (
    CID,
    DAG_PB,
    PROFILES,
    Link,
    build_directory,
    describe,
    entries,
    import_file,
    lookup,
    read_file,
    sha256_multihash,
    verify,
)
from fungistor.errors import CorruptError
from tests.unit.dag.blocks import MemoryBlocks, stream_bytes, stream_chunks
from tests.unit.dag.trees import Tree, import_tree
from tests.vectors import make_unixfs

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(make_unixfs.STORED.read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[3] / "docs" / "formats" / "unixfs.md"
_NAME_LETTERS = b"abcdefghijklmnopqrstuvwxyz01234567890-_"


def _streams(large: bool) -> list[dict[str, Any]]:
    return [case for case in VECTORS["streams"] if (case["bytes"] > 1 << 28) is large]


def _stream_id(case: dict[str, Any]) -> str:
    return f"{case['profile']}-{case['bytes']}"


def test_stored_vectors_are_what_the_generator_makes() -> None:
    """The checked-in file equals the generator's output byte for byte, so neither can change alone."""
    assert make_unixfs.STORED.read_text(encoding="utf-8") == make_unixfs.text()


def test_page_lists_published_cids_only() -> None:
    """Every CID on the format's page stands in the vectors, so the page cannot promise another."""
    cases = [case for kind in ("streams", "directories", "trees") for case in VECTORS[kind]]
    known = {case["cid"] for case in cases if case.get("published", True)}
    listed = set(re.findall(r"`(Qm\w{44}|ba\w{57,})`", PAGE.read_text(encoding="utf-8")))
    assert len(listed) >= 10
    assert listed <= known


@pytest.mark.parametrize("case", _streams(large=False), ids=_stream_id)
def test_stream_gets_published_cid(case: dict[str, Any]) -> None:
    """A file at and one byte over a chunk, and over a full node, has the CID that Kubo gives it."""
    _check_stream(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", _streams(large=True), ids=_stream_id)
def test_large_stream_gets_published_cid(case: dict[str, Any]) -> None:
    """A file of 1 GiB, and one byte more, has the CID that Kubo gives it."""
    _check_stream(case)


def _check_stream(case: dict[str, Any]) -> None:
    profile = PROFILES[case["profile"]]
    root = import_file(profile, stream_chunks(case["seed"], case["bytes"], profile.chunk_bytes), lambda block: None)
    assert str(root.cid) == case["cid"]
    assert root.file_bytes == case["bytes"]


@pytest.mark.slow
def test_wide_v0_file_gets_published_cid() -> None:
    """256 MiB in CIDv0 with 1024 links a node has the CID of Kubo's own test of that setting."""
    profile = replace(PROFILES["unixfs-v0-2015"], file_width=1024)
    root = import_file(profile, stream_chunks("hello world", 1 << 28, profile.chunk_bytes), lambda block: None)
    assert str(root.cid) == "QmbBftNHWmjSWKLC49dMVrfnY8pjrJYntiAXirFJ7oJrNk"


def test_leaves_without_raw_codec_get_published_cid() -> None:
    """CIDv1 with raw leaves off gives the dag-pb CID of `hello world`."""
    profile = replace(PROFILES["unixfs-v1-2025"], raw_leaves=False)
    root = import_file(profile, [b"hello world"], lambda block: None)
    assert str(root.cid) == "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa"


def _names(case: dict[str, Any]) -> Iterator[bytes]:
    lengths = [length for count, length in case["names"] for _ in range(count)]
    letters = stream_bytes(case["seed"], sum(lengths))
    start = 0
    for length in lengths:
        yield bytes(_NAME_LETTERS[byte % len(_NAME_LETTERS)] for byte in letters[start : start + length])
        start += length


@pytest.mark.parametrize("case", VECTORS["directories"], ids=lambda case: f"{case['profile']}-{case['sharded']}")
def test_directory_at_threshold_gets_published_cid(case: dict[str, Any]) -> None:
    """A directory at the threshold stays one block, one byte more is sharded, and both read back whole."""
    profile, blocks = PROFILES[case["profile"]], MemoryBlocks()
    file = import_file(profile, [b"x"], blocks.emit)
    names = list(_names(case))
    root = build_directory(profile, [Link(name, file.cid, file.tsize) for name in names], blocks.emit)
    assert str(root.cid) == case["cid"]
    assert describe(blocks, root.cid).is_sharded is case["sharded"]
    assert sorted(entry.name for entry in entries(blocks, root.cid)) == sorted(names)
    assert all(lookup(blocks, root.cid, name) == file.cid for name in names[::500])
    assert lookup(blocks, root.cid, b"absent") is None


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda case: f"{case['name']}-{case['profile']}")
def test_tree_gets_published_cid_and_reads_back(case: dict[str, Any]) -> None:
    """A small tree has the CID that Kubo gives it, the stored root block, and reads back as it was."""
    blocks = MemoryBlocks()
    root = import_tree(PROFILES[case["profile"]], case["tree"], blocks.emit)
    assert str(root.cid) == case["cid"]
    assert blocks.blocks[root.cid.multihash].hex() == case["root_block"]
    assert _export(blocks, root.cid) == _expected(case["tree"])


def _expected(tree: Tree) -> Tree:
    out = dict(tree)
    if "symlink" in tree:
        out.pop("mode", None)
    if "entries" in tree:
        out["entries"] = {name: _expected(child) for name, child in tree["entries"].items()}
    return out


def _export(blocks: MemoryBlocks, cid: CID) -> Tree:
    info = describe(blocks, cid)
    out: Tree = {}
    if info.mode is not None:
        out["mode"] = info.mode
    if info.mtime is not None:
        out["mtime"] = [info.mtime.seconds, info.mtime.nanos]
    if info.type == "file":
        return out | {"text": b"".join(read_file(blocks, cid)).decode()}
    if info.type == "symlink":
        return out | {"symlink": info.target.decode()}
    return out | {"entries": {entry.name.decode(): _export(blocks, entry.cid) for entry in entries(blocks, cid)}}


@pytest.mark.parametrize("case", VECTORS["readable"], ids=lambda case: str(case["name"]))
def test_both_field_orders_are_readable(case: dict[str, Any]) -> None:
    """Directories with data before links (IPIP-550) and after them lead to the same file."""
    blocks = MemoryBlocks()
    cid = CID.parse(case["cid"])
    verify(cid, bytes.fromhex(case["block"]))
    blocks.add(cid, bytes.fromhex(case["block"]))
    leaf = CID.parse("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am")
    assert lookup(blocks, cid, b"hello.txt") == leaf
    assert [(entry.name, entry.cid) for entry in entries(blocks, cid)] == [(b"hello.txt", leaf)]


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: str(case["name"]))
def test_specification_invalid_blocks_are_refused(case: dict[str, Any]) -> None:
    """Each block that the UnixFS specification calls invalid is refused as corrupt by every reader."""
    blocks = MemoryBlocks()
    data = bytes.fromhex(case["block"])
    cid = blocks.add(CID(1, DAG_PB, sha256_multihash(data)), data)
    with pytest.raises(CorruptError):
        describe(blocks, cid)
    with pytest.raises(CorruptError):
        list(read_file(blocks, cid))
    with pytest.raises(CorruptError):
        list(entries(blocks, cid))
    with pytest.raises(CorruptError):
        lookup(blocks, cid, b"a")
