"""Files by offset: only the blocks that hold the wanted bytes are asked for, and no size is believed unchecked.

A file node says how many bytes lie below each link. That gives the way to any offset, and it is checked on the way
down: a node must be as long as its parent said, so every block yields what was announced or the read fails. Links
that announce no bytes are never followed, which leaves a hostile DAG nothing to spend our time with.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from fungistor.dag import dag_pb, unixfs
from fungistor.dag.cid import CID, DAG_PB, RAW
from fungistor.dag.source import BlockSource, announce, fetch
from fungistor.dag.unixfs import MODE_MASK, DataType, Mtime, UnixFS
from fungistor.errors import CorruptError, InvalidError

DEPTH_MAX = 64
"""Levels of a file. The narrowest tree anyone makes holds 2**64 chunks in as many."""

NodeType = Literal["file", "directory", "symlink"]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a root is. `size`: bytes of a file, of a symlink's target, 0 of a directory. `mode`: permission bits."""

    cid: CID
    type: NodeType
    size: int
    mode: int | None = None
    mtime: Mtime | None = None
    target: bytes = b""
    is_sharded: bool = False


@dataclass(frozen=True, slots=True)
class _FileNode:
    """A file's block taken apart. Child i covers ends[i-1]..ends[i] of the node's bytes, the payload those before."""

    cid: CID
    block: bytes
    payload: bytes | memoryview
    links: list[dag_pb.Span]
    ends: list[int]

    @property
    def size(self) -> int:
        return self.ends[-1] if self.ends else len(self.payload)

    def child(self, index: int) -> CID:
        link = dag_pb.decode_link(self.block, self.links[index])
        if link.name:
            raise CorruptError(f"file {self.cid} has a named link, which only a directory may have")
        return link.cid


def open_message(cid: CID, block: bytes) -> tuple[UnixFS, list[dag_pb.Span]]:
    """Take a dag-pb block apart into its UnixFS message and where its links lie.

    Raises:
        InvalidError: a CID of another codec.
        CorruptError: not UnixFS.
    """
    if cid.codec != DAG_PB:
        raise InvalidError(f"{cid} has codec 0x{cid.codec:x}, which holds no UnixFS")
    try:
        links, data = dag_pb.scan(block)
        if data is None:
            raise CorruptError("a dag-pb block without data")
        return unixfs.decode(memoryview(block)[data[0] : data[1]]), links
    except CorruptError as error:
        raise CorruptError(f"{cid} is not UnixFS: {error}") from None


def _file_node(cid: CID, block: bytes, message: UnixFS, links: list[dag_pb.Span]) -> _FileNode:
    if message.type not in (DataType.FILE, DataType.RAW):
        raise InvalidError(f"{cid} is a {_type_name(message)}, not a file")
    if len(links) != len(message.block_sizes):
        raise CorruptError(f"file {cid} has {len(links)} links and {len(message.block_sizes)} block sizes")
    ends = list(accumulate(message.block_sizes, initial=len(message.data)))[1:]
    node = _FileNode(cid, block, message.data, links, ends)
    if node.size != (message.file_bytes or 0):
        raise CorruptError(f"file {cid} says it has {message.file_bytes or 0} bytes, its parts {node.size}")
    return node


def _type_name(message: UnixFS) -> str:
    return "directory" if message.type is DataType.HAMT_SHARD else message.type.name.lower()


def _open_file(source: BlockSource, cid: CID) -> _FileNode:
    block = fetch(source, cid)
    if cid.codec == RAW:
        return _FileNode(cid, block, block, [], [])
    return _file_node(cid, block, *open_message(cid, block))


def describe(source: BlockSource, cid: CID) -> NodeInfo:
    """Say what a root is; asks for its block alone.

    Raises:
        InvalidError: a codec or type that is no file, directory or symlink.
        CorruptError: not UnixFS, or sizes that contradict each other.
        NotFoundError, UnavailableError: from the source.
    """
    block = fetch(source, cid)
    if cid.codec == RAW:
        return NodeInfo(cid, "file", len(block))
    message, links = open_message(cid, block)
    mode = None if message.mode is None else message.mode & MODE_MASK
    if message.type in (DataType.DIRECTORY, DataType.HAMT_SHARD):
        sharded = message.type is DataType.HAMT_SHARD
        return NodeInfo(cid, "directory", 0, mode, message.mtime, is_sharded=sharded)
    if message.type is DataType.SYMLINK:
        if links:
            raise CorruptError(f"symlink {cid} has {len(links)} links")
        return NodeInfo(cid, "symlink", len(message.data), mode, message.mtime, target=bytes(message.data))
    return NodeInfo(cid, "file", _file_node(cid, block, message, links).size, mode, message.mtime)


def read_file(source: BlockSource, cid: CID, start: int = 0, stop: int | None = None) -> Iterator[bytes | memoryview]:
    """Yield a file's bytes from `start` up to `stop` (the end, if None or beyond it), a block's worth at a time.

    Before it descends, the source is told of all children of a node that lie in the range. Memory: one path of nodes.

    Raises:
        InvalidError: not a file, or a negative offset.
        CorruptError: malformed nodes, sizes that lie, or more than DEPTH_MAX levels.
        NotFoundError, UnavailableError: from the source.
    """
    if start < 0 or (stop is not None and stop < start):
        raise InvalidError(f"bytes {start} to {stop} of a file do not exist")
    root = _open_file(source, cid)
    end = root.size if stop is None else min(stop, root.size)
    pending: list[Iterator[tuple[CID, int, int, int]]] = []
    node, first, last = root, start, end
    while True:
        if first < min(last, len(node.payload)):
            yield _cut(node.payload, first, last)
        if node.links and len(node.payload) < last:
            if len(pending) == DEPTH_MAX:
                raise CorruptError(f"file {cid} is more than {DEPTH_MAX} levels deep")
            pending.append(_children(source, node, first, last))
        step = _next(pending)
        if step is None:
            return
        child, size, first, last = step
        node = _open_part(source, child)
        if node.size != size:
            raise CorruptError(f"part {child} of file {cid} has {node.size} bytes where {size} were announced")


def _next(pending: list[Iterator[tuple[CID, int, int, int]]]) -> tuple[CID, int, int, int] | None:
    while pending:
        step = next(pending[-1], None)
        if step is not None:
            return step
        pending.pop()
    return None


def _open_part(source: BlockSource, cid: CID) -> _FileNode:
    try:
        return _open_file(source, cid)
    except InvalidError as error:  # a file that links to a directory is damaged, the request was right
        raise CorruptError(f"part of a file is none: {error}") from None


def _children(source: BlockSource, node: _FileNode, first: int, last: int) -> Iterator[tuple[CID, int, int, int]]:
    """Yield CID, size, and range of each child in a node's range, after a hint at all of them."""
    ends = node.ends
    low = bisect_right(ends, first)
    high = min(bisect_left(ends, last) + 1, len(ends))
    steps = []
    for index in range(low, high):
        begin = ends[index - 1] if index else len(node.payload)
        size = ends[index] - begin
        if size:
            steps.append((node.child(index), size, max(first - begin, 0), min(last - begin, size)))
    announce(source, [step[0] for step in steps])
    return iter(steps)


def _cut(payload: bytes | memoryview, first: int, last: int) -> bytes | memoryview:
    if first == 0 and last >= len(payload):
        return payload
    return memoryview(payload)[first : min(last, len(payload))]
