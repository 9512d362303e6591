"""Directories and paths: hostile tries refused cheaply, old directories read, paths through IPLD data."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import (
    CID,
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    RAW,
    InsideBlockError,
    Link,
    build_directory,
    build_symlink,
    dag_pb,
    describe,
    entries,
    hamt,
    import_file,
    lookup,
    resolve,
    sha256_multihash,
    unixfs,
)
from fungistor.dag.dag_pb import PBLink, PBNode
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.errors import CorruptError, FungiStorError, InvalidError, NotFoundError
from tests.unit.dag.blocks import SAME_EACH_RUN, TINY, MemoryBlocks

LEAF = CID(1, RAW, sha256_multihash(b"leaf"))
OTHER = CID(1, RAW, sha256_multihash(b"other"))


def _add(blocks: MemoryBlocks, message: UnixFS, links: list[PBLink]) -> CID:
    block = dag_pb.encode(PBNode(tuple(links), unixfs.encode(message)))
    return blocks.add(CID(1, DAG_PB, sha256_multihash(block)), block)


def _directory(blocks: MemoryBlocks, *links: tuple[bytes | None, CID]) -> CID:
    return _add(blocks, UnixFS(DataType.DIRECTORY), [PBLink(cid, name, None) for name, cid in links])


def _shard(
    blocks: MemoryBlocks,
    links: list[tuple[bytes, CID]],
    buckets: list[int],
    fanout: int | None = 256,
    hash_type: int | None = 0x22,
) -> CID:
    message = UnixFS(DataType.HAMT_SHARD, hamt.encode_bitfield(buckets), hash_type=hash_type, fanout=fanout)
    return _add(blocks, message, [PBLink(cid, name, 0) for name, cid in links])


def _named(name: bytes, level: int = 0, fanout: int = 256) -> tuple[bytes, int]:
    bucket = hamt.bucket_at(hamt.hash_name(name), level, fanout)
    return hamt.bucket_prefix(bucket, fanout) + name, bucket


def test_unsorted_directories_and_equal_names_are_tolerated() -> None:
    """Entries come in their stored order, the first of equal names counts, and it is listed once."""
    blocks = MemoryBlocks()
    cid = _directory(blocks, (b"b", LEAF), (b"a", LEAF), (b"b", OTHER), (None, OTHER))
    assert [(entry.name, entry.cid, entry.tsize) for entry in entries(blocks, cid)] == [
        (b"b", LEAF, 0),
        (b"a", LEAF, 0),
        (b"", OTHER, 0),
    ]
    assert lookup(blocks, cid, b"b") == LEAF
    assert lookup(blocks, cid, b"") == OTHER


def test_name_inside_another_name_or_hash_is_not_found() -> None:
    """A lookup compares whole names, though it skips links by searching their bytes."""
    blocks = MemoryBlocks()
    cid = _directory(blocks, (b"photo.jpg", LEAF), (b"photo", OTHER))
    assert lookup(blocks, cid, b"photo") == OTHER
    assert lookup(blocks, cid, b"phot") is None
    assert lookup(blocks, cid, LEAF.digest) is None


def test_listing_asks_for_shards_only() -> None:
    """A sharded directory is listed by its shards alone, announced first; entries are never asked for."""
    blocks = MemoryBlocks()
    root = build_directory(TINY, [Link(b"%d" % number, LEAF, 4) for number in range(200)], blocks.emit)
    assert len(list(entries(blocks, root.cid))) == 200
    assert len(blocks.asked) == len(blocks.blocks)
    assert sorted(map(str, blocks.asked[1:])) == sorted(map(str, blocks.hinted))
    blocks.asked.clear()
    assert lookup(blocks, root.cid, b"77") == LEAF
    assert len(blocks.asked) <= 4
    blocks.asked.clear()
    assert [entry.tsize for entry in islice(entries(blocks, root.cid), 3)] == [4, 4, 4]
    assert len(blocks.asked) <= 4


@pytest.mark.parametrize("fanout", [8, 16, 64, 128, 256, 512, 1024])
def test_every_legal_fanout_reads_back(fanout: int) -> None:
    """Directories of each power of two from 8 to 1024 list and find all they hold."""
    blocks = MemoryBlocks()
    profile = TINY.__class__("test", 1, True, 7, 3, TINY.directory_size, shard_above_bytes=1, fanout=fanout)
    names = [b"%d" % number for number in range(400)]
    root = build_directory(profile, [Link(name, LEAF, 4) for name in names], blocks.emit)
    assert sorted(entry.name for entry in entries(blocks, root.cid)) == sorted(names)
    assert all(lookup(blocks, root.cid, name) == LEAF for name in names)


@pytest.mark.parametrize("fanout", [None, 0, 1, 4, 12, 24, 255, 2048, 1 << 20, 1 << 63])
def test_fanouts_out_of_bounds_are_refused(fanout: int | None) -> None:
    """A fanout above 1024 (CVE-2023-23625), below 8, or no power of two is corrupt before any table is made."""
    blocks = MemoryBlocks()
    label, bucket = _named(b"a")
    cid = _shard(blocks, [(label, LEAF)], [bucket], fanout=fanout)
    _refused(blocks, cid, "fanout")


def _refused(blocks: MemoryBlocks, cid: CID, why: str) -> None:
    with pytest.raises(CorruptError, match=why):
        list(entries(blocks, cid))
    with pytest.raises(CorruptError, match=why):
        lookup(blocks, cid, b"a")


def test_shards_that_contradict_themselves_are_refused() -> None:
    """Another hash, a bitfield that disagrees with the links, links out of order, names without a bucket."""
    label, bucket = _named(b"a")
    other = (bucket + 1) % 256
    low, high = sorted((bucket, other))
    for links, buckets, extra, why in (
        ([(label, LEAF)], [bucket], {"hash_type": 0x23}, "murmur3"),
        ([(label, LEAF)], [bucket], {"hash_type": None}, "murmur3"),
        ([(label, LEAF)], [], {}, "1 links with 0 buckets"),
        ([(label, LEAF)], [low, high], {}, "1 links with 2 buckets"),
        ([(label, LEAF)], [other], {}, "not in its bitfield"),
        ([(b"%02Xx" % high, LEAF), (b"%02Xy" % low, LEAF)], [low, high], {}, "out of order"),
        ([(b"%02Xx" % low, LEAF), (b"%02Xy" % low, LEAF)], [low, high], {}, "out of order"),
        ([(b"a", LEAF)], [bucket], {}, "without its bucket"),
        ([(b"0fa", LEAF)], [15], {}, "without its bucket"),
        ([(b"", LEAF)], [bucket], {}, "without its bucket"),
        ([(b"F", LEAF)], [7], {"fanout": 8}, "bucket 15"),
        ([(label, LEAF)], [256], {}, "1 links with 1 buckets"),
    ):
        blocks = MemoryBlocks()
        options: dict[str, Any] = dict(extra)
        _refused(blocks, _shard(blocks, links, buckets, **options), why)


def test_name_in_the_wrong_bucket_is_refused() -> None:
    """An entry whose hash does not lead to its bucket would be listed and never found: it is corrupt."""
    blocks = MemoryBlocks()
    _, bucket = _named(b"a")
    wrong = (bucket + 1) % 256
    cid = _shard(blocks, [(b"%02Xa" % wrong, LEAF)], [wrong])
    with pytest.raises(CorruptError, match="hash does not lead"):
        list(entries(blocks, cid))
    assert lookup(blocks, cid, b"a") is None


def test_shard_bomb_is_refused_at_once() -> None:
    """Eight blocks that claim 256**8 entries, each shard linked from every bucket of the one above, cost one path."""
    blocks = MemoryBlocks()
    everywhere = list(range(256))
    cid = _shard(blocks, [(b"%02Xname" % bucket, LEAF) for bucket in everywhere], everywhere)
    for _ in range(7):
        cid = _shard(blocks, [(b"%02X" % bucket, cid) for bucket in everywhere], everywhere)
    with pytest.raises(CorruptError, match="hash does not lead"):
        list(entries(blocks, cid))
    assert len(blocks.asked) == 8


def test_shards_deeper_than_the_hash_are_refused() -> None:
    """A ninth level of a trie with 8 bits a level is corrupt, in listing and in lookup."""
    blocks = MemoryBlocks()
    hashed = hamt.hash_name(b"a")
    label, bucket = _named(b"a", 7)
    cid = _shard(blocks, [(label, LEAF)], [bucket])
    for level in range(6, -1, -1):
        bucket = hamt.bucket_at(hashed, level, 256)
        cid = _shard(blocks, [(b"%02X" % bucket, cid)], [bucket])
    assert lookup(blocks, cid, b"a") == LEAF
    assert [entry.name for entry in entries(blocks, cid)] == [b"a"]
    cid = _shard(blocks, [(b"00a", LEAF)], [0])
    for level in range(7, -1, -1):
        bucket = hamt.bucket_at(hashed, level, 256)
        cid = _shard(blocks, [(b"%02X" % bucket, cid)], [bucket])
    _refused(blocks, cid, "deeper than its hash")


def test_sub_shards_must_fit_their_parent() -> None:
    """A sub-shard that is empty, of another fanout, a plain directory, or of another codec is corrupt."""
    hashed = hamt.hash_name(b"a")
    top = hamt.bucket_at(hashed, 0, 256)
    for make, why in (
        (lambda blocks: _shard(blocks, [], []), "holds nothing"),
        (lambda blocks: _shard(blocks, [(b"0a", LEAF)], [0], fanout=16), "fanout of 16 below|fanout 16 below"),
        (lambda blocks: _directory(blocks, (b"a", LEAF)), "where a directory shard should be"),
        (lambda blocks: blocks.add(LEAF, b"leaf"), "part of a sharded directory is none"),
    ):
        blocks = MemoryBlocks()
        cid = _shard(blocks, [(b"%02X" % top, make(blocks))], [top])
        _refused(blocks, cid, why)
    blocks = MemoryBlocks()
    assert list(entries(blocks, _shard(blocks, [], []))) == []  # a root may be empty


def test_files_are_not_directories() -> None:
    """Listing or looking into a file, a symlink or a raw block is invalid."""
    blocks = MemoryBlocks()
    file = _add(blocks, UnixFS(DataType.FILE, file_bytes=0), [])
    raw = blocks.add(LEAF, b"leaf")
    for cid in (file, raw):
        with pytest.raises(InvalidError):
            list(entries(blocks, cid))
        with pytest.raises(InvalidError):
            lookup(blocks, cid, b"a")


def _tree(blocks: MemoryBlocks) -> tuple[CID, CID, CID, CID]:
    file = import_file(TINY, [b"hello"], blocks.emit)
    inner = build_directory(TINY, [Link(b"%d.txt" % number, file.cid, file.tsize) for number in range(50)], blocks.emit)
    link = build_symlink(TINY, b"docs", blocks.emit)
    root = build_directory(
        TINY,
        [Link("ą%20+".encode(), inner.cid, inner.tsize), Link(b"link", link.cid, link.tsize)],
        blocks.emit,
    )
    return root.cid, inner.cid, file.cid, link.cid


def test_paths_resolve_and_name_every_root() -> None:
    """A path gives the last CID and one root a segment; the last block is not asked for."""
    blocks = MemoryBlocks()
    root, inner, file, link = _tree(blocks)
    assert describe(blocks, inner).is_sharded
    found = resolve(blocks, root, ["ą%20+", b"7.txt"])
    assert (found.cid, found.roots) == (file, (root, inner, file))
    assert file not in blocks.asked
    assert resolve(blocks, root, []).roots == (root,)
    assert resolve(blocks, root, ["link"]).cid == link


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        (["nowhere"], "'nowhere'"),
        (["ą%20+", "50.txt"], "'50.txt'"),
        (["ą%20+", "7.txt", "deeper"], "'deeper'"),
        (["link", "7.txt"], "'7.txt'"),
        ([".."], "'..'"),
        ([""], "''"),
        ([b"\xff\xfe"], "xff"),
    ],
)
def test_missing_segments_are_named(path: list[str | bytes], missing: str) -> None:
    """What is not there, lies below a file or behind a symlink is not found, and the message names the segment."""
    blocks = MemoryBlocks()
    root, *_ = _tree(blocks)
    with pytest.raises(NotFoundError) as caught:
        resolve(blocks, root, path)
    assert missing in str(caught.value)


def _cbor_link(cid: CID) -> bytes:
    body = b"\0" + cid.encode()
    return b"\xd8\x2a\x58" + bytes((len(body),)) + body


def test_paths_cross_ipld_data() -> None:
    """A path goes through maps, lists and links of dag-cbor and dag-json into a directory, one root a link."""
    blocks = MemoryBlocks()
    directory, *_ = _tree(blocks)
    cbor = b"\xa2\x61a\xa1\x61b\x82\x00" + _cbor_link(directory) + b"\x61n\x01"
    middle = blocks.add(CID(1, DAG_CBOR, sha256_multihash(cbor)), cbor)
    text = json.dumps({"foo": {"link": {"/": str(middle)}, "value": 1}}).encode()
    root = blocks.add(CID(1, DAG_JSON, sha256_multihash(text)), text)
    found = resolve(blocks, root, ["foo", "link", "a", "b", "1", "link"])
    assert found.roots == (root, middle, directory, found.cid)
    assert resolve(blocks, root, ["foo", "link"]).cid == middle
    with pytest.raises(InsideBlockError, match="'foo/value' ends inside"):
        resolve(blocks, root, ["foo", "value"])
    with pytest.raises(InsideBlockError):
        resolve(blocks, root, ["foo"])
    for path in (["bar"], ["foo", "value", "x"], ["foo", "link", "a", "b", "2"], ["foo", "link", "a", "b", "01"]):
        with pytest.raises(NotFoundError, match="no link named"):
            resolve(blocks, root, path)
    for index in ("-1", "²", "9" * 5000, b"\xff"):
        with pytest.raises(NotFoundError):
            resolve(blocks, middle, ["a", "b", index])


def test_block_that_is_a_link_alone_is_followed() -> None:
    """A dag-cbor block that is nothing but a link counts as no segment of its own."""
    blocks = MemoryBlocks()
    directory, *_ = _tree(blocks)
    data = _cbor_link(directory)
    assert libipld.decode_dag_cbor(data) == directory.encode()
    root = blocks.add(CID(1, DAG_CBOR, sha256_multihash(data)), data)
    found = resolve(blocks, root, ["link"])
    assert found.roots == (root, directory, found.cid)


def test_unavailable_blocks_on_a_path_are_passed_on() -> None:
    """That a block of the path is missing is told as the source tells it, not as a missing name."""
    blocks = MemoryBlocks()
    root, inner, *_ = _tree(blocks)
    del blocks.blocks[inner.multihash]
    with pytest.raises(NotFoundError, match=f"block {inner}"):
        resolve(blocks, root, ["ą%20+", "7.txt"])


@SAME_EACH_RUN
@given(st.binary(max_size=150), st.binary(max_size=6), st.sampled_from([DAG_PB, DAG_CBOR, DAG_JSON]))
def test_walking_any_block_never_crashes(data: bytes, name: bytes, codec: int) -> None:
    """Any bytes under any codec are listed and resolved through, or fail in our own families."""
    blocks = MemoryBlocks()
    cid = blocks.add(CID(1, codec, sha256_multihash(data)), data)
    for walk in (lambda: list(entries(blocks, cid)), lambda: resolve(blocks, cid, [name])):
        try:
            walk()
        except FungiStorError:
            continue


@SAME_EACH_RUN
@given(st.data())
def test_damaged_shards_never_crash(data: st.DataObject) -> None:
    """A sharded directory with changed bytes lists what it lists, or fails in our own families."""
    blocks = MemoryBlocks()
    root = build_directory(TINY, [Link(b"%d" % number, LEAF, 4) for number in range(40)], blocks.emit)
    key = data.draw(st.sampled_from(sorted(blocks.blocks)))
    damaged = bytearray(blocks.blocks[key])
    for _ in range(2):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    blocks.blocks[key] = bytes(damaged)
    for walk in (lambda: list(entries(blocks, root.cid)), lambda: lookup(blocks, root.cid, b"7")):
        try:
            walk()
        except FungiStorError:
            continue
