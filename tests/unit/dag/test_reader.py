"""Files on their way out: only the blocks needed, in the order announced, and no lie believed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import (
    CBOR,
    CID,
    DAG_CBOR,
    DAG_PB,
    PROFILES,
    RAW,
    Block,
    dag_pb,
    describe,
    encode_leaf,
    import_file,
    read_file,
    sha256_multihash,
    unixfs,
)
from fungistor.dag.dag_pb import PBLink, PBNode
from fungistor.dag.reader import DEPTH_MAX
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.errors import CorruptError, FungiStorError, InvalidError, NotFoundError
from tests.unit.dag.blocks import SAME_EACH_RUN, TINY, TINY_V0, MemoryBlocks, cut, stream_chunks

DATA = bytes(range(200))


def _node(blocks: MemoryBlocks, message: UnixFS, children: list[CID], name: bytes = b"") -> CID:
    links = [PBLink(child, name, 0) for child in children]
    block = dag_pb.encode(PBNode(tuple(links), unixfs.encode(message)))
    return blocks.add(CID(1, DAG_PB, sha256_multihash(block)), block)


def _file(blocks: MemoryBlocks, children: list[CID], sizes: list[int], data: bytes = b"", total: int = -1) -> CID:
    size = len(data) + sum(sizes) if total < 0 else total
    return _node(blocks, UnixFS(DataType.FILE, data, size, tuple(sizes)), children)


def _raw(blocks: MemoryBlocks, data: bytes) -> CID:
    return blocks.add(CID(1, RAW, sha256_multihash(data)), data)


def _read(blocks: MemoryBlocks, cid: CID, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(read_file(blocks, cid, start, stop))


def test_range_asks_only_for_the_blocks_that_hold_it() -> None:
    """Bytes 70..77 of 200 need one leaf and the nodes above it; each was announced before it was asked for."""
    blocks = MemoryBlocks()
    root = import_file(TINY, cut(DATA, 7), blocks.emit)
    assert _read(blocks, root.cid, 70, 77) == DATA[70:77]
    assert len(blocks.asked) == 5  # four levels of nodes above 29 chunks, and one leaf
    assert set(blocks.asked[1:]) == set(blocks.hinted)


def test_missing_neighbours_do_not_matter() -> None:
    """A file whose middle leaf is lost still serves the ranges beside it, and names the leaf when it is needed."""
    blocks = MemoryBlocks()
    root = import_file(TINY, cut(DATA[:21], 7), blocks.emit)
    lost = CID(1, RAW, sha256_multihash(DATA[7:14]))
    del blocks.blocks[lost.multihash]
    assert _read(blocks, root.cid, 3, 7) == DATA[3:7]
    assert _read(blocks, root.cid, 14, 16) == DATA[14:16]
    with pytest.raises(NotFoundError, match=str(lost)):
        _read(blocks, root.cid, 6, 8)


def test_reading_is_lazy_and_announces_in_order() -> None:
    """The first bytes come after one path of blocks, and leaves are asked for in the order of the hints."""
    blocks = MemoryBlocks()
    root = import_file(TINY, cut(DATA, 7), blocks.emit)
    reader = read_file(blocks, root.cid)
    assert blocks.asked == []
    assert next(reader) == DATA[:7]
    assert len(blocks.asked) == 5
    assert b"".join(reader) == DATA[7:]
    leaves = [cid for cid in blocks.asked if cid.codec == RAW]
    assert leaves == [cid for cid in blocks.hinted if cid.codec == RAW]
    assert len(leaves) == 29


def test_ranges_at_and_beyond_the_end() -> None:
    """A range that begins at or past the end is empty, one that ends past it is cut, a reversed one is invalid."""
    blocks = MemoryBlocks()
    root = import_file(TINY, cut(DATA, 7), blocks.emit)
    assert _read(blocks, root.cid, 200) == b""
    assert _read(blocks, root.cid, 900, 1000) == b""
    assert _read(blocks, root.cid, 50, 50) == b""
    assert _read(blocks, root.cid, 195, 1 << 70) == DATA[195:]
    for start, stop in ((-1, None), (5, 4)):
        with pytest.raises(InvalidError, match="do not exist"):
            _read(blocks, root.cid, start, stop)


def test_whole_leaves_are_passed_on_uncopied() -> None:
    """A raw leaf that lies whole in the range is the very object that the source gave."""
    blocks = MemoryBlocks()
    root = import_file(TINY, cut(DATA, 7), blocks.emit)
    parts = list(read_file(blocks, root.cid, 7, 30))
    assert parts[0] is blocks.blocks[sha256_multihash(DATA[7:14])]
    assert parts[-1] == DATA[28:30]


def test_identity_leaves_are_never_asked_for() -> None:
    """A leaf that stands in its CID is read from there, and neither announced nor asked for."""
    blocks = MemoryBlocks()
    inline = CID(1, RAW, b"\x00\x05hello")
    root = _file(blocks, [inline, _raw(blocks, b" world")], [5, 6])
    assert _read(blocks, root) == b"hello world"
    assert _read(blocks, inline) == b"hello"
    assert describe(blocks, inline).size == 5
    assert inline not in blocks.asked + blocks.hinted


def test_node_with_own_bytes_and_links_is_read_in_order() -> None:
    """Bytes in a node come before those of its links, in ranges, too; old leaves of type Raw are files."""
    blocks = MemoryBlocks()
    old = _node(blocks, UnixFS(DataType.RAW, b"cd", 2), [])
    root = _file(blocks, [old, _raw(blocks, b"ef")], [2, 2], data=b"ab")
    assert _read(blocks, root) == b"abcdef"
    for start in range(7):
        for stop in range(start, 7):
            assert _read(blocks, root, start, stop) == b"abcdef"[start:stop]


def _trickle(chunks: Iterator[bytes], blocks: MemoryBlocks, width: int, depth: int) -> tuple[CID, int, int]:
    """Build one trickle (sub-)tree as Kubo's --trickle does: `width` leaves, then 4 subtrees of each depth below."""
    links: list[bytes] = []
    sizes: list[int] = []
    total = 0

    def add(cid: CID, tsize: int, size: int) -> None:
        nonlocal total
        links.append(dag_pb.encode_link(cid.encode(), b"", tsize))
        sizes.append(size)
        total += tsize

    for chunk in islice(chunks, width):
        leaf = dag_pb.encode_node((), unixfs.encode(UnixFS(DataType.RAW, chunk, len(chunk))))
        cid = blocks.add(CID(0, DAG_PB, sha256_multihash(leaf)), leaf)
        add(cid, len(leaf), len(chunk))
    for below in range(1, depth):
        for _ in range(4):
            cid, tsize, size = _trickle(chunks, blocks, width, below)
            if size:
                add(cid, tsize, size)
    block = dag_pb.encode_node(links, unixfs.encode(UnixFS(DataType.FILE, b"", sum(sizes), tuple(sizes))))
    blocks.add(CID(0, DAG_PB, sha256_multihash(block)), block)
    return CID(0, DAG_PB, sha256_multihash(block)), len(block) + total, sum(sizes)


def test_trickle_layout_reads() -> None:
    """45 MiB in Kubo's trickle layout have the CID of IPIP-499, and read back whole and in part."""
    chunk_bytes, size = 256 << 10, 45 << 20
    blocks = MemoryBlocks()
    root, _, _ = _trickle(stream_chunks("trickle-test", size, chunk_bytes), blocks, 174, 3)
    assert str(root) == "QmbqR6g7YCpndLcCZZXkGyj13uMcSrwDYUvZ47vJqBVjUH"
    data = b"".join(stream_chunks("trickle-test", size, chunk_bytes))
    assert _read(blocks, root) == data
    assert (
        _read(blocks, root, 174 * chunk_bytes - 5, 175 * chunk_bytes + 5)
        == (data[174 * chunk_bytes - 5 : 175 * chunk_bytes + 5])
    )


def test_other_codecs_and_types_are_not_files() -> None:
    """A directory, a symlink, or a block of another codec is refused as invalid when it is asked for as a file."""
    blocks = MemoryBlocks()
    directory = _node(blocks, UnixFS(DataType.DIRECTORY), [])
    with pytest.raises(InvalidError, match="is a directory, not a file"):
        _read(blocks, directory)
    with pytest.raises(InvalidError, match="is a symlink, not a file"):
        _read(blocks, _node(blocks, UnixFS(DataType.SYMLINK, b"x"), []))
    with pytest.raises(InvalidError, match="is a metadata, not a file"):
        describe(blocks, _node(blocks, UnixFS(DataType.METADATA), []))
    for codec in (CBOR, DAG_CBOR):
        cid = blocks.add(CID(1, codec, sha256_multihash(b"\xa0")), b"\xa0")
        with pytest.raises(InvalidError, match="holds no UnixFS"):
            describe(blocks, cid)
        with pytest.raises(CorruptError, match="part of a file is none"):
            _read(blocks, _file(blocks, [cid], [1]))
    with pytest.raises(CorruptError, match="part of a file is none"):
        _read(blocks, _file(blocks, [directory], [1]))


def test_sizes_that_lie_are_corrupt() -> None:
    """Counts and sizes that contradict each other, above or below, are refused before a wrong byte is served."""
    blocks = MemoryBlocks()
    leaf = _raw(blocks, b"abc")
    for bad, why in (
        (_file(blocks, [leaf, leaf], [3]), "2 links and 1 block sizes"),
        (_file(blocks, [leaf], [3, 3]), "1 links and 2 block sizes"),
        (_file(blocks, [leaf], [3], total=4), "says it has 4 bytes, its parts 3"),
        (_file(blocks, [], [], data=b"abc", total=0), "says it has 0 bytes, its parts 3"),
        (_file(blocks, [leaf], [2]), "has 3 bytes where 2 were announced"),
        (_file(blocks, [leaf], [4]), "has 3 bytes where 4 were announced"),
        (_file(blocks, [_file(blocks, [leaf], [3])], [5]), "has 3 bytes where 5 were announced"),
        (_node(blocks, UnixFS(DataType.FILE, b"", 3, (3,)), [leaf], name=b"n"), "named link"),
        (_node(blocks, UnixFS(DataType.SYMLINK, b"t"), [leaf]), "symlink .* has 1 links"),
    ):
        with pytest.raises(CorruptError, match=why):
            describe(blocks, bad)
            _read(blocks, bad)


def test_good_prefix_is_served_before_a_lie_is_met() -> None:
    """A lying leaf fails where it is met: what came before it was right, and nothing comes after."""
    blocks = MemoryBlocks()
    root = _file(blocks, [_raw(blocks, b"abc"), _raw(blocks, b"de")], [3, 3])
    reader = read_file(blocks, root)
    assert next(reader) == b"abc"
    with pytest.raises(CorruptError):
        next(reader)
    assert list(reader) == []


def test_depth_is_bounded() -> None:
    """A file of 64 levels of nodes reads, one of 65 is corrupt, and its size is told all the same."""
    blocks = MemoryBlocks()
    cid = _raw(blocks, b"x")
    for _ in range(DEPTH_MAX):
        cid = _file(blocks, [cid], [1])
    assert _read(blocks, cid) == b"x"
    deeper = _file(blocks, [cid], [1])
    assert describe(blocks, deeper).size == 1
    with pytest.raises(CorruptError, match="more than 64 levels"):
        _read(blocks, deeper)


def test_links_that_announce_nothing_are_never_followed() -> None:
    """A bomb of empty nodes, ten to the tenth of them, costs one block."""
    blocks = MemoryBlocks()
    cid = _file(blocks, [], [])
    for _ in range(10):
        cid = _file(blocks, [cid] * 10, [0] * 10)
    assert _read(blocks, cid) == b""
    assert blocks.asked == [cid]


def test_exponential_file_is_read_lazily() -> None:
    """A file that claims 2**60 bytes through shared nodes serves any range in one path of blocks."""
    blocks = MemoryBlocks()
    cid, size = _raw(blocks, b"x" * 16), 16
    while size < 1 << 60:
        cid, size = _file(blocks, [cid] * 4, [size] * 4), size * 4
    blocks.asked.clear()
    assert _read(blocks, cid, size - 5) == b"xxxxx"
    assert len(blocks.asked) == 29


@SAME_EACH_RUN
@given(st.binary(max_size=150), st.sampled_from([RAW, DAG_PB, DAG_CBOR]))
def test_reading_any_block_never_crashes(data: bytes, codec: int) -> None:
    """Any bytes under any codec are described and read, or fail in our own families."""
    blocks = MemoryBlocks()
    cid = blocks.add(CID(1, codec, sha256_multihash(data)), data)
    try:
        describe(blocks, cid)
        for _ in islice(read_file(blocks, cid), 10):
            pass
    except FungiStorError:
        return


@SAME_EACH_RUN
@given(st.data())
def test_damaged_files_never_serve_wrong_bytes_silently(data: st.DataObject) -> None:
    """With one byte of a node changed, a read fails or yields as many bytes as the root says, never crashes."""
    blocks = MemoryBlocks()
    made: list[Block] = []
    root = import_file(TINY_V0, cut(DATA[:60], 5), made.append)
    for block in made:
        blocks.emit(block)
    victim = data.draw(st.sampled_from([block for block in made if len(block.data) > 40]))
    damaged = bytearray(victim.data)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    blocks.blocks[victim.cid.multihash] = bytes(damaged)
    try:
        assert len(_read(blocks, root.cid)) == describe(blocks, root.cid).size
    except FungiStorError:
        return


def test_reading_a_v0_leaf_copies_nothing() -> None:
    """The bytes of a dag-pb leaf are a view of its block, not a copy of a quarter MiB."""
    profile = PROFILES["unixfs-v0-2015"]
    blocks = MemoryBlocks()
    chunk = bytes(profile.chunk_bytes)
    _, leaf = encode_leaf(profile, chunk)
    cid = blocks.add(CID(0, DAG_PB, sha256_multihash(leaf)), bytes(leaf))
    (part,) = read_file(blocks, cid)
    assert isinstance(part, memoryview)
    assert part.obj is blocks.blocks[cid.multihash]
    assert part == chunk
