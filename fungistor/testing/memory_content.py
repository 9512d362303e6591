"""Content in memory: what a gateway serves in tests, with faults on demand.

`MemoryContent` fits the gateway's `Content` port by its shape. Blocks come from the importer, so their CIDs are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fungistor.dag.block import Block
from fungistor.dag.cid import CID
from fungistor.dag.importer import Link, build_directory, build_symlink, import_file
from fungistor.dag.profiles import DEFAULT_PROFILE, Profile
from fungistor.dag.unixfs import Mtime
from fungistor.errors import FungiStorError, NotFoundError
from fungistor.ids import TenantNumber
from fungistor.objects.access import Reader

Tree = Mapping[str, "bytes | Symlink | Tree"]


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link in a tree."""

    target: bytes


class MemoryContent:
    """All blocks of what was published, opened by any of their CIDs.

    `fault` decides for each block asked for whether it fails, and may wait: it runs in the asking thread.
    `opened` and `closed` count sources; `asked` lists the blocks asked for.
    """

    def __init__(self, fault: Callable[[CID], FungiStorError | None] = lambda _: None) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.fault = fault
        self.open_fault: Callable[[CID], FungiStorError | None] = lambda _: None
        self.opened = 0
        self.closed = 0
        self.asked: list[CID] = []
        self.private: dict[bytes, TenantNumber] = {}
        """Roots that are there for one tenant alone, by multihash."""

    def emit(self, block: Block) -> None:
        """Take a block from an importer."""
        self.blocks[block.cid.multihash] = bytes(block.data)

    def add_file(self, data: bytes, profile: Profile = DEFAULT_PROFILE, *, mtime: Mtime | None = None) -> Link:
        """Publish a file; the link has no name."""
        step = profile.chunk_bytes
        chunks = [data[start : start + step] for start in range(0, len(data), step)]
        root = import_file(profile, chunks, self.emit, mtime=mtime)
        return Link(b"", root.cid, root.tsize)

    def add_tree(self, tree: Tree, profile: Profile = DEFAULT_PROFILE) -> Link:
        """Publish a folder; names are encoded as UTF-8."""
        links = []
        for name, entry in tree.items():
            if isinstance(entry, bytes):
                link = self.add_file(entry, profile)
            elif isinstance(entry, Symlink):
                link = build_symlink(profile, entry.target, self.emit)
            else:
                link = self.add_tree(entry, profile)
            links.append(Link(name.encode(), link.cid, link.tsize))
        return build_directory(profile, links, self.emit)

    @contextmanager
    def open(self, root: CID, reader: Reader | None = None) -> Iterator[MemorySource]:
        """Open the source of one request.

        Raises:
            NotFoundError: no such block was published.
        """
        error = self.open_fault(root)
        if error is not None:
            raise error
        tenant = self.private.get(root.multihash)
        is_hidden = tenant is not None and (reader is None or tenant not in reader.tenants)
        if is_hidden or (root.multihash not in self.blocks and not root.is_identity):
            raise NotFoundError(f"{root} is not held here", hint="publish it, or ask a gateway that has it")
        if reader is not None:
            reader.met_private |= tenant is not None
        self.opened += 1
        try:
            yield MemorySource(self)
        finally:
            self.closed += 1

    def hides(self, root: CID, reader: Reader | None = None) -> bool:
        """Tell whether a root is there for another tenant alone."""
        tenant = self.private.get(root.multihash)
        return tenant is not None and (reader is None or tenant not in reader.tenants)


@dataclass(slots=True)
class MemorySource:
    """Blocks for one request; `hints` are what was announced."""

    content: MemoryContent
    hints: list[CID] = field(default_factory=list)

    def get(self, cid: CID) -> bytes:
        """Return a block.

        Raises:
            NotFoundError: it was not published, or was taken out.
        """
        self.content.asked.append(cid)
        error = self.content.fault(cid)
        if error is not None:
            raise error
        block = self.content.blocks.get(cid.multihash)
        if block is None:
            raise NotFoundError(f"block {cid} is not held here")
        return block

    def hint(self, cids: Sequence[CID]) -> None:
        """Note what will be asked for."""
        self.hints.extend(cids)
