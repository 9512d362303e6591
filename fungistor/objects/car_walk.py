"""The DAG of a root over the blocks of CAR files: what is reached, what is missing, how many bytes of files it holds.

A walk holds one node and a bounded stack, however deep or wide the DAG is, and meets every block once: a link that
stands a million times costs a million looks at a table, never a second read. There are no cycles to meet, since a
block cannot hold its own hash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fungistor.dag.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB, RAW
from fungistor.dag.links import links
from fungistor.dag.reader import open_message
from fungistor.dag.unixfs import DataType
from fungistor.errors import CorruptError, InvalidError
from fungistor.objects.car_index import CarIndex, Place, Row
from fungistor.objects.pending import Pending

LINKING = frozenset((DAG_PB, DAG_CBOR, DAG_JSON))
"""Codecs that are read for links. Whatever a block of another codec says, nothing is known to lie below it."""

MISSING_NAMED_MAX = 10

_ENTER, _LEAVE = b"\0", b"\1"

Held = Callable[[CID], bytes | None]
"""Find elsewhere a block that the files have not."""


@dataclass(frozen=True, slots=True)
class Node:
    """A block with links, met for the first time."""

    cid: CID
    data: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """All below this node has been met."""

    cid: CID


@dataclass(frozen=True, slots=True)
class Leaf:
    """A block without links: `again` where it was met before."""

    place: Place
    again: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """A block that is linked to and not there."""

    cid: CID


Met = Node | Left | Leaf | Missing


def no_held(_: CID) -> None:
    """Nothing is held elsewhere."""


class Walker:
    """Walks one root after the other, each as a whole. `folder` is for what does not fit into memory."""

    def __init__(self, index: CarIndex, folder: str, held: Held = no_held) -> None:
        self._index = index
        self._folder = folder
        self._held = held
        self._walks = 0

    def walk(self, root: CID) -> Iterator[Met]:
        """Meet all blocks at and below a root, depth first, a node's leaves right behind it.

        Raises:
            InvalidError: a block is not what its codec says.
            FailedError: a file changed.
        """
        self._walks += 1
        as_leaf, as_node = 2 * self._walks, 2 * self._walks + 1
        with contextlib.closing(Pending(self._folder)) as pending:
            yield from self._meet([root], as_leaf, as_node, pending)
            while (item := pending.pop()) is not None:
                cid = CID.decode(item[1:])
                if item[:1] == _LEAVE:
                    yield Left(cid)
                    continue
                row = None if cid.is_identity else self._row(cid)
                if row is not None and row.mark == as_node:
                    continue
                data = cid.digest if row is None else self._index.read(_place(cid, row), cid)
                below = links_of(cid, data)
                if not below:
                    # The file gave it under another codec, so it was not known to have no links under this one.
                    if row is not None:
                        yield self._leaf(cid, row, as_leaf)
                    continue
                if row is not None:
                    self._index.mark(cid.multihash, as_node)
                yield Node(cid, data)
                pending.push([_LEAVE + cid.encode()])
                yield from self._meet(below, as_leaf, as_node, pending)

    def _meet(self, cids: list[CID], as_leaf: int, as_node: int, pending: Pending) -> Iterator[Met]:
        nodes: list[bytes] = []
        for cid in cids:
            if cid.is_identity:
                if cid.codec in LINKING:
                    nodes.append(_ENTER + cid.encode())
                continue
            row = self._row(cid)
            if row.absent:
                if row.mark < as_leaf:
                    self._index.mark(cid.multihash, as_leaf)
                    yield Missing(cid)
            elif cid.codec not in LINKING or row.linkless == cid.codec:
                yield self._leaf(cid, row, as_leaf)
            elif row.mark != as_node:
                nodes.append(_ENTER + cid.encode())
        nodes.reverse()
        pending.push(nodes)

    def _row(self, cid: CID) -> Row:
        row = self._index.row(cid.multihash)
        if row is not None:
            return row
        data = self._held(cid)
        return self._index.add_absent(cid.multihash) if data is None else self._index.add_held(cid.multihash, data)

    def _leaf(self, cid: CID, row: Row, as_leaf: int) -> Leaf:
        again = row.mark >= as_leaf
        if not again:
            self._index.mark(cid.multihash, as_leaf)
        return Leaf(_place(cid, row), again)


def _place(cid: CID, row: Row) -> Place:
    return Place(cid.multihash, row.file, row.start, row.length)


def links_of(cid: CID, data: bytes) -> list[CID]:
    """A block's links.

    Raises:
        InvalidError: it is not what its codec says.
    """
    try:
        return links(cid, data)
    except CorruptError as error:
        raise InvalidError(f"block {cid} is not what its codec 0x{cid.codec:x} says: {error}") from None


@dataclass(slots=True)
class Survey:
    """What a walk finds below one root. `spread_bytes` counts a leaf as often as it is linked to.

    `content`: bytes of files below a UnixFS root, None where the root is none.
    """

    root: CID
    blocks: int = 0
    bytes: int = 0
    spread_bytes: int = 0
    missing: int = 0
    root_missing: bool = False
    missing_named: list[CID] = field(default_factory=list)
    content: int | None = None

    @property
    def size(self) -> int:
        """The object's size: of its files if it is UnixFS, else of its blocks."""
        return self.bytes if self.content is None else self.content


def survey(index: CarIndex, walker: Walker, root: CID) -> Survey:
    """Walk a root and count. Raises as `Walker.walk`."""
    found = Survey(root)
    sizes = _Sizes(index)
    for met in walker.walk(root):
        match met:
            case Node(cid, data):
                if not cid.is_identity:
                    found.blocks += 1
                    found.bytes += len(data)
                sizes.enter(cid, data)
            case Left(cid):
                sizes.leave(cid)
            case Leaf(place, again):
                found.spread_bytes += place.length
                if not again:
                    found.blocks += 1
                    found.bytes += place.length
            case Missing(cid):
                found.missing += 1
                found.root_missing = found.root_missing or cid == root
                if len(found.missing_named) < MISSING_NAMED_MAX:
                    found.missing_named.append(cid)
    if not found.root_missing:
        found.content = sizes.of_root(root)
    return found


class _Sizes:
    """Bytes of files at and below UnixFS nodes. A file's node says its own; a folder's is the sum of its entries'."""

    def __init__(self, index: CarIndex) -> None:
        self._index = index

    def enter(self, cid: CID, data: bytes) -> None:
        """See a node before what is below it."""
        if cid.codec == DAG_PB and not cid.is_identity:
            said = _content_said(cid, data)
            if said is not None:
                self._index.set_content(cid.multihash, said)

    def leave(self, cid: CID) -> None:
        """See a node after what is below it."""
        if cid.codec != DAG_PB or cid.is_identity:
            return
        row = self._index.row(cid.multihash)
        if row is not None and row.content is None:
            data = self._index.read(_place(cid, row), cid)
            self._index.set_content(cid.multihash, sum(self._of(child) for child in links_of(cid, data)))

    def of_root(self, root: CID) -> int | None:
        """The root's size, None if it is no UnixFS."""
        if root.codec != RAW and (root.codec != DAG_PB or not self._is_unixfs(root)):
            return None
        return self._of(root)

    def _is_unixfs(self, root: CID) -> bool:
        row = None if root.is_identity else self._index.row(root.multihash)
        data = root.digest if row is None else self._index.read(_place(root, row), root)
        try:
            open_message(root, data)
        except CorruptError:
            return False
        return True

    def _of(self, cid: CID) -> int:
        if cid.is_identity:
            return len(cid.digest) if cid.codec == RAW else _content_said(cid, cid.digest) or 0
        row = self._index.row(cid.multihash)
        if row is None or row.absent:
            return 0
        if cid.codec != DAG_PB:
            return row.length
        if row.content is not None:
            return row.content
        said = _content_said(cid, self._index.read(_place(cid, row), cid))
        return self._index.set_content(cid.multihash, said or 0)


def _content_said(cid: CID, data: bytes) -> int | None:
    """What a dag-pb block says of its file's size, 0 if it is neither file nor folder, None if it is a folder."""
    try:
        message, _ = open_message(cid, data)
    except CorruptError:
        return 0
    if message.type in (DataType.DIRECTORY, DataType.HAMT_SHARD):
        return None
    if message.type in (DataType.FILE, DataType.RAW):
        return message.file_bytes if message.file_bytes is not None else len(message.data)
    return 0
