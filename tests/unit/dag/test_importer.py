"""Files, directories and symlinks on their way in: shapes, boundaries, refusals, bounded memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fungistor.dag import (
    CID,
    DAG_PB,
    PROFILES,
    RAW,
    Block,
    FileBuilder,
    Leaf,
    Link,
    Mtime,
    Profile,
    build_directory,
    build_symlink,
    dag_pb,
    describe,
    encode_leaf,
    entries,
    hamt,
    import_file,
    leaf_cid,
    lookup,
    profile_for,
    read_file,
    sha256_multihash,
)
from fungistor.dag.profiles import CHUNK_BYTES_MAX, DEFAULT_PROFILE
from fungistor.errors import InvalidError
from tests.unit.dag.blocks import SAME_EACH_RUN, TINY, TINY_V0, MemoryBlocks, cut

names = st.binary(min_size=1, max_size=24).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def _depth(blocks: MemoryBlocks, cid: CID) -> int:
    if cid.codec == RAW:
        return 0
    links = dag_pb.decode(blocks.blocks[cid.multihash]).links
    return 1 + max((_depth(blocks, link.cid) for link in links), default=-1)


@SAME_EACH_RUN
@given(
    st.sampled_from([TINY, TINY_V0]),
    st.binary(max_size=400),
    st.integers(0, 420),
    st.none() | st.integers(0, 420),
    st.none() | st.integers(0, 0o7777),
)
def test_what_goes_in_comes_out(
    profile: Profile, data: bytes, start: int, length: int | None, mode: int | None
) -> None:
    """Any file reads back whole and in any range, with its size, and Tsize counts every block of the tree."""
    blocks = MemoryBlocks()
    emitted: list[Block] = []

    def emit(block: Block) -> None:
        emitted.append(block)
        blocks.emit(block)

    root = import_file(profile, cut(data, profile.chunk_bytes), emit, mode=mode)
    stop = None if length is None else start + length
    assert b"".join(read_file(blocks, root.cid)) == data
    assert b"".join(read_file(blocks, root.cid, start, stop)) == data[start:stop]
    assert root.file_bytes == describe(blocks, root.cid).size == len(data)
    assert describe(blocks, root.cid).mode == (mode or None)
    assert root.tsize == sum(len(block.data) for block in emitted)
    assert emitted[-1].cid == root.cid


@pytest.mark.parametrize(
    ("chunks", "depth"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (9, 2), (10, 3), (27, 3), (28, 4)]
)
def test_tree_grows_a_level_at_each_power_of_its_width(chunks: int, depth: int) -> None:
    """With 3 links a node: up to 3 chunks one level, up to 9 two, and one chunk alone is its leaf."""
    blocks = MemoryBlocks()
    root = import_file(TINY, [bytes([number]) * 7 for number in range(chunks)], blocks.emit)
    assert _depth(blocks, root.cid) == depth


def test_last_branch_is_as_deep_as_the_first() -> None:
    """One chunk more than a full tree hangs under as many nodes as all others, even if each holds one link."""
    blocks = MemoryBlocks()
    root = import_file(TINY, [bytes([number]) * 7 for number in range(10)], blocks.emit)
    top = dag_pb.decode(blocks.blocks[root.cid.multihash]).links
    assert [_depth(blocks, link.cid) for link in top] == [2, 2]
    only = dag_pb.decode(blocks.blocks[top[1].cid.multihash]).links
    assert len(only) == 1
    assert len(dag_pb.decode(blocks.blocks[only[0].cid.multihash]).links) == 1


def test_raw_leaf_is_the_chunk_itself() -> None:
    """A raw leaf is handed back uncopied; its CID follows from the hash the caller computed."""
    chunk = memoryview(b"chunk")
    codec, data = encode_leaf(DEFAULT_PROFILE, chunk)
    assert (codec, data) == (RAW, chunk)
    assert data is chunk
    assert leaf_cid(DEFAULT_PROFILE, sha256_multihash(data)) == CID(1, RAW, sha256_multihash(b"chunk"))
    codec, data = encode_leaf(PROFILES["unixfs-v0-2015"], b"")
    assert (codec, bytes(data).hex()) == (DAG_PB, "0a0408021800")


@pytest.mark.parametrize("size", [0, 3, 7, 8, 30])
@pytest.mark.parametrize("stat", [(0o644, None), (None, Mtime(-5, 7)), (0o4755, Mtime(0)), (0, None)])
def test_mode_and_time_make_every_leaf_dag_pb(size: int, stat: tuple[int | None, Mtime | None]) -> None:
    """Mode or time stand in the root, which is dag-pb even of one chunk, and no leaf of that file is raw."""
    blocks, (mode, mtime) = MemoryBlocks(), stat
    data = bytes(range(size))
    root = import_file(TINY, cut(data, 7), blocks.emit, mode=mode, mtime=mtime)
    info = describe(blocks, root.cid)
    assert (info.mode, info.mtime, info.size) == (mode or None, mtime, size)
    assert b"".join(read_file(blocks, root.cid)) == data
    assert len(blocks.blocks) >= 1
    plain = MemoryBlocks()
    import_file(replace(TINY, raw_leaves=False), cut(data, 7), plain.emit)
    changed = blocks.blocks.keys() - plain.blocks.keys()
    assert len(changed) == (1 if mode or mtime else 0)  # the root alone differs


def test_builder_refuses_leaves_that_contradict_the_root() -> None:
    """Mode and time need a profile for them, and the only leaf must carry them, and only the only leaf may."""
    leaf = Leaf(CID(1, DAG_PB, sha256_multihash(b"")), 6, 0)
    used = profile_for(TINY, mode=0o600)
    assert not used.raw_leaves
    assert profile_for(TINY) is TINY
    assert profile_for(TINY_V0, mode=0o600) is TINY_V0
    with pytest.raises(InvalidError, match="without raw leaves"):
        FileBuilder(TINY, lambda block: None, mode=0o600)
    with pytest.raises(InvalidError, match="no room"):
        encode_leaf(TINY, b"", mtime=Mtime(1))
    with pytest.raises(InvalidError, match="without leaves"):
        FileBuilder(TINY, lambda block: None).finish()
    builder = FileBuilder(used, lambda block: None, mode=0o600)
    builder.add(leaf)
    with pytest.raises(InvalidError, match="must be encoded with its mode"):
        builder.finish()
    for first, second in ((leaf, replace(leaf, is_root=True)), (replace(leaf, is_root=True), leaf)):
        builder = FileBuilder(used, lambda block: None, mode=0o600)
        builder.add(first)
        with pytest.raises(InvalidError, match="only one"):
            builder.add(second)


def test_builder_memory_does_not_grow_with_the_file() -> None:
    """200 000 leaves (190 GiB at 1 MiB) pass through in memory for one unfinished node a level."""
    builder = FileBuilder(DEFAULT_PROFILE, lambda block: None)
    leaf = Leaf(CID(1, RAW, sha256_multihash(b"leaf")), 1 << 20, 1 << 20)
    for _ in range(2048):
        builder.add(leaf)
    tracemalloc.start()
    try:
        for _ in range(200_000 - 2048):
            builder.add(leaf)
        root = builder.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert root.file_bytes == 200_000 << 20
    assert peak < 2 << 20


@pytest.mark.parametrize(
    "change",
    [
        {"cid_version": 2},
        {"cid_version": 0},
        {"chunk_bytes": 0},
        {"chunk_bytes": CHUNK_BYTES_MAX + 1},
        {"file_width": 1},
        {"fanout": 2048},
        {"fanout": 4},
        {"fanout": 24},
    ],
)
def test_profiles_that_could_not_be_read_back_are_invalid(change: dict[str, int]) -> None:
    """A profile out of the format's bounds is refused when it is made."""
    with pytest.raises(InvalidError):
        replace(TINY, **change)  # type: ignore[arg-type]


@SAME_EACH_RUN
@given(st.sampled_from([TINY, TINY_V0, replace(TINY, fanout=256)]), st.sets(names, max_size=60))
def test_directories_round_trip(profile: Profile, chosen: set[bytes]) -> None:
    """A directory of any names, basic or sharded, lists them all, finds each, and finds no other."""
    blocks = MemoryBlocks()
    files = {name: import_file(profile, [name], blocks.emit) for name in chosen}
    links = [Link(name, root.cid, root.tsize) for name, root in files.items()]
    root = build_directory(profile, links, blocks.emit, mode=0o750, mtime=Mtime(9))
    assert build_directory(profile, reversed(links), blocks.emit, mode=0o750, mtime=Mtime(9)) == root
    listed = {entry.name: (entry.cid, entry.tsize) for entry in entries(blocks, root.cid)}
    assert listed == {name: (file.cid, file.tsize) for name, file in files.items()}
    info = describe(blocks, root.cid)
    assert (info.type, info.size, info.mode, info.mtime) == ("directory", 0, 0o750, Mtime(9))
    for name, file in files.items():
        assert lookup(blocks, root.cid, name) == file.cid
        assert (lookup(blocks, root.cid, name + b"~") is not None) == (name + b"~" in files)
    assert lookup(blocks, root.cid, b"") is None


@pytest.mark.parametrize("profile", [TINY, TINY_V0])
def test_directory_is_sharded_only_above_its_threshold(profile: Profile) -> None:
    """At exactly the threshold a directory is one block; one byte lower a threshold makes a tree of it."""
    blocks = MemoryBlocks()
    cid = leaf_cid(profile, sha256_multihash(b"x"))
    links = [Link(b"name-%d" % number, cid, 1) for number in range(3)]
    flat = build_directory(replace(profile, shard_above_bytes=1 << 18), links, blocks.emit)
    if profile is TINY:
        size = len(blocks.blocks[flat.cid.multihash])
    else:
        size = sum(len(link.name) + len(link.cid.encode()) for link in links)
    assert build_directory(replace(profile, shard_above_bytes=size), links, blocks.emit) == flat
    sharded = build_directory(replace(profile, shard_above_bytes=size - 1), links, blocks.emit)
    assert describe(blocks, sharded.cid).is_sharded


def test_tsize_counts_every_shard() -> None:
    """The size of a sharded directory is that of all its shards and all it links to."""
    made: list[Block] = []
    links = [Link(b"%d" % number, leaf_cid(TINY, sha256_multihash(b"%d" % number)), 100) for number in range(300)]
    root = build_directory(TINY, links, made.append)
    assert root.tsize == sum(len(block.data) for block in made) + 300 * 100


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_names_that_no_file_system_has_are_refused(name: bytes) -> None:
    """An empty name, dot, dot-dot, and names with a slash or a zero byte are invalid."""
    with pytest.raises(InvalidError, match="cannot be a name"):
        build_directory(TINY, [Link(name, leaf_cid(TINY, sha256_multihash(b"")), 0)], lambda block: None)


def test_name_that_stands_twice_is_refused() -> None:
    """Two entries of one name are invalid, never one silently lost."""
    link = Link(b"a", leaf_cid(TINY, sha256_multihash(b"")), 0)
    with pytest.raises(InvalidError, match="stands twice"):
        build_directory(TINY, [link, link], lambda block: None)


def test_names_of_one_hash_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that no level can tell apart end in an error, not in endless recursion."""
    monkeypatch.setattr(hamt, "hash_name", lambda name: 7)
    links = [Link(b"%d" % number, leaf_cid(TINY, sha256_multihash(b"")), 0) for number in range(20)]
    with pytest.raises(InvalidError, match="same hash"):
        build_directory(TINY, links, lambda block: None)


def test_symlink_keeps_its_time_and_no_mode() -> None:
    """A symlink's target may be any bytes; its mode is not part of the block."""
    blocks = MemoryBlocks()
    link = build_symlink(TINY, b"../\xff", blocks.emit, mode=0o777, mtime=Mtime(1, 2))
    info = describe(blocks, link.cid)
    assert (info.type, info.target, info.size, info.mode, info.mtime) == ("symlink", b"../\xff", 4, None, Mtime(1, 2))
    assert link == build_symlink(TINY, b"../\xff", blocks.emit, mtime=Mtime(1, 2))
    assert link.tsize == len(blocks.blocks[link.cid.multihash])
