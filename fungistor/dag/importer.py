"""Files, directories and symlinks into blocks, with the CIDs that Kubo gives them.

The caller cuts, hashes and stores leaves, in whatever threads it likes; what is made here are the few blocks above
them. A file needs memory for one unfinished node a level, a directory for its list of entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fungistor.dag import dag_pb, hamt, unixfs, varint
from fungistor.dag.block import Block
from fungistor.dag.cid import CID, DAG_PB, RAW, sha256_multihash
from fungistor.dag.profiles import DirectorySize, Profile, profile_for
from fungistor.dag.unixfs import MODE_MASK, DataType, Mtime, UnixFS
from fungistor.errors import InvalidError

Emit = Callable[[Block], None]
"""Takes each block as it is made, children before parents."""


@dataclass(frozen=True, slots=True)
class Link:
    """A directory entry. `tsize`: bytes of all blocks below it, its own included."""

    name: bytes
    cid: CID
    tsize: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A chunk's block: its length, and how many bytes of the file it holds."""

    cid: CID
    block_bytes: int
    file_bytes: int
    is_root: bool = False
    """True if mode and time were encoded into it, because it is the file's only chunk."""


@dataclass(frozen=True, slots=True)
class FileRoot:
    """A finished file. `tsize`: bytes of all its blocks; `file_bytes`: its length."""

    cid: CID
    tsize: int
    file_bytes: int


def encode_leaf(
    profile: Profile, chunk: bytes | memoryview, *, mode: int | None = None, mtime: Mtime | None = None
) -> tuple[int, bytes | memoryview]:
    """Return a chunk's codec and block: the chunk itself, uncopied, if leaves are raw.

    Mode and time are given only for a file's one and only chunk, whose leaf is then the root (`Leaf.is_root`).

    Raises:
        InvalidError: mode or time for a raw leaf; take the profile from `profile_for`.
    """
    if not profile.raw_leaves:
        return DAG_PB, unixfs.encode_file(chunk, _stored_mode(mode), mtime)
    if mode is not None or mtime is not None:
        raise InvalidError("a raw leaf has no room for mode and modification time")
    return RAW, chunk


def leaf_cid(profile: Profile, multihash: bytes) -> CID:
    """Return the CID of a leaf from the multihash of its block."""
    return CID(profile.cid_version, RAW if profile.raw_leaves else DAG_PB, multihash)


def _stored_mode(mode: int | None) -> int | None:
    return None if mode is None else mode & MODE_MASK


def _emit(profile: Profile, data: bytes, emit: Emit) -> CID:
    cid = CID(profile.cid_version, DAG_PB, sha256_multihash(data))
    emit(Block(cid, data))
    return cid


@dataclass(slots=True)
class _Level:
    """One unfinished node: links already encoded, and what lies below them."""

    links: list[bytes] = field(default_factory=list)
    sizes: list[bytes] = field(default_factory=list)
    tsize: int = 0
    file_bytes: int = 0


class FileBuilder:
    """Builds the balanced tree above a file's leaves. A node is closed only when one more child arrives, since the
    last node of the top level may turn out to be the root, which alone carries mode and time."""

    def __init__(self, profile: Profile, emit: Emit, *, mode: int | None = None, mtime: Mtime | None = None) -> None:
        """Start a file; the profile must come from `profile_for` if mode or time are given."""
        if (mode is not None or mtime is not None) and profile.raw_leaves:
            raise InvalidError("mode and modification time need a profile without raw leaves", hint="see profile_for")
        self._profile = profile
        self._emit = emit
        self._mode = _stored_mode(mode)
        self._mtime = mtime
        self._levels = [_Level()]
        self._first: Leaf | None = None
        self._leaves = 0

    def add(self, leaf: Leaf) -> None:
        """Take the next leaf, in the order of the file.

        Raises:
            InvalidError: a second leaf beside one that is the root.
        """
        if self._first is None:
            self._first = leaf
        elif self._first.is_root or leaf.is_root:
            raise InvalidError("a leaf that carries mode or time must be the file's only one")
        self._leaves += 1
        self._append(0, leaf.cid, leaf.block_bytes, leaf.file_bytes)

    def finish(self) -> FileRoot:
        """Close the tree and return its root. An empty file has one empty leaf.

        Raises:
            InvalidError: no leaf was added, or the only one lacks the mode and time it should carry.
        """
        first = self._first
        if first is None:
            raise InvalidError("a file without leaves; an empty one has one empty leaf")
        if self._leaves == 1:
            if (self._mode is not None or self._mtime is not None) != first.is_root:
                raise InvalidError("the only leaf of a file is its root, and must be encoded with its mode and time")
            return FileRoot(first.cid, first.block_bytes, first.file_bytes)
        level = 0
        while level < len(self._levels) - 1:
            cid, tsize, file_bytes = self._close(level)
            self._append(level + 1, cid, tsize, file_bytes)
            level += 1
        return FileRoot(*self._close(level, unixfs.encode_stat(self._mode, self._mtime)))

    def _append(self, level: int, cid: CID, tsize: int, file_bytes: int) -> None:
        if level == len(self._levels):
            self._levels.append(_Level())
        node = self._levels[level]
        if len(node.links) == self._profile.file_width:
            self._append(level + 1, *self._close(level))
            node = self._levels[level]
        node.links.append(dag_pb.encode_link(cid.encode(), b"", tsize))
        node.sizes.append(b"\x20" + varint.encode(file_bytes))
        node.tsize += tsize
        node.file_bytes += file_bytes

    def _close(self, level: int, stat: bytes = b"") -> tuple[CID, int, int]:
        node = self._levels[level]
        self._levels[level] = _Level()
        message = b"".join((b"\x08\x02\x18", varint.encode(node.file_bytes), *node.sizes, stat))
        block = dag_pb.encode_node(node.links, message)
        return _emit(self._profile, block, self._emit), len(block) + node.tsize, node.file_bytes


def import_file(
    profile: Profile,
    chunks: Iterable[bytes | memoryview],
    emit: Emit,
    *,
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> FileRoot:
    """Import a file whole in the calling thread; the leaves are emitted, too. Looks one chunk ahead.

    `chunks` are of `profile.chunk_bytes` each, the last one shorter; none at all is an empty file.
    """
    used = profile_for(profile, mode=mode, mtime=mtime)
    builder = FileBuilder(used, emit, mode=mode, mtime=mtime)
    with_stat = mode is not None or mtime is not None

    def add(chunk: bytes | memoryview, is_root: bool) -> None:
        stat = (mode, mtime) if is_root else (None, None)
        _, data = encode_leaf(used, chunk, mode=stat[0], mtime=stat[1])
        cid = leaf_cid(used, sha256_multihash(data))
        emit(Block(cid, bytes(data)))
        builder.add(Leaf(cid, len(data), len(chunk), is_root))

    waiting: bytes | memoryview | None = None
    several = False
    for chunk in chunks:
        if waiting is not None:
            several = True
            add(waiting, is_root=False)
        waiting = chunk
    add(b"" if waiting is None else waiting, is_root=with_stat and not several)
    return builder.finish()


def build_symlink(
    profile: Profile, target: bytes, emit: Emit, *, mode: int | None = None, mtime: Mtime | None = None
) -> Link:
    """Make a symlink's block. The mode is taken for symmetry and never written: no system keeps one, nor does Kubo."""
    del mode
    message = unixfs.encode(UnixFS(DataType.SYMLINK, data=target, mtime=mtime))
    block = dag_pb.encode_node((), message)
    return Link(b"", _emit(profile, block, emit), len(block))


def build_directory(
    profile: Profile,
    entries: Iterable[Link],
    emit: Emit,
    *,
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Link:
    """Make a directory's blocks, one or, above the profile's threshold, a sharded tree. Entries come in any order.

    Raises:
        InvalidError: an empty name, one with a slash or a zero byte, or one that stands twice.
    """
    ordered = sorted(entries, key=lambda entry: entry.name)
    _check_names(ordered)
    message = UnixFS(DataType.DIRECTORY, mode=_stored_mode(mode), mtime=mtime)
    data = unixfs.encode(message)
    if _is_sharded(profile, ordered, data):
        return _ShardBuilder(profile, emit, unixfs.encode_stat(message.mode, mtime)).build(ordered)
    links = [dag_pb.encode_link(entry.cid.encode(), entry.name, entry.tsize) for entry in ordered]
    block = dag_pb.encode_node(links, data)
    return Link(b"", _emit(profile, block, emit), len(block) + sum(entry.tsize for entry in ordered))


def _check_names(ordered: list[Link]) -> None:
    last: bytes | None = None
    for entry in ordered:
        name = entry.name
        if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
            raise InvalidError(f"{name!r} cannot be a name in a directory")
        if name == last:
            raise InvalidError(f"{name!r} stands twice in a directory")
        last = name


def _is_sharded(profile: Profile, entries: list[Link], data: bytes) -> bool:
    sizes: Iterator[int]
    if profile.directory_size is DirectorySize.LINKS:
        total = 0
        sizes = (len(entry.name) + len(entry.cid.encode()) for entry in entries)
    else:
        total = 1 + varint.encoded_bytes(len(data)) + len(data)
        sizes = (dag_pb.link_bytes(len(entry.cid.encode()), len(entry.name), entry.tsize) for entry in entries)
    return total + sum(sizes) > profile.shard_above_bytes


class _ShardBuilder:
    """Builds a sharded directory from the bottom up. Sorted by hash, every shard is a run of the sorted list."""

    def __init__(self, profile: Profile, emit: Emit, stat: bytes) -> None:
        self._profile = profile
        self._emit = emit
        self._stat = stat

    def build(self, entries: list[Link]) -> Link:
        """Make the shards; the list is put in another order."""
        entries.sort(key=lambda entry: hamt.hash_name(entry.name))
        # Eight bytes an entry; a tuple of hash and entry takes a hundred, in the folder where it matters.
        hashes = array("Q", (hamt.hash_name(entry.name) for entry in entries))
        return self._shard(hashes, entries, 0, len(entries), 0)

    def _shard(self, hashes: array[int], entries: list[Link], start: int, stop: int, level: int) -> Link:
        fanout = self._profile.fanout
        if level == hamt.depth_max(fanout):
            raise InvalidError(f"the names of {stop - start} directory entries have the same hash")
        links, buckets, tsize = [], [], 0
        while start < stop:
            bucket = hamt.bucket_at(hashes[start], level, fanout)
            end = start + 1
            while end < stop and hamt.bucket_at(hashes[end], level, fanout) == bucket:
                end += 1
            child = entries[start] if end == start + 1 else self._shard(hashes, entries, start, end, level + 1)
            name = hamt.bucket_prefix(bucket, fanout) + child.name
            links.append(dag_pb.encode_link(child.cid.encode(), name, child.tsize))
            buckets.append(bucket)
            tsize += child.tsize
            start = end
        shape = UnixFS(DataType.HAMT_SHARD, hamt.encode_bitfield(buckets), hash_type=hamt.MURMUR3_X64_64, fanout=fanout)
        data = unixfs.encode(shape) + (b"" if level else self._stat)
        block = dag_pb.encode_node(links, data)
        return Link(b"", _emit(self._profile, block, self._emit), len(block) + tsize)
