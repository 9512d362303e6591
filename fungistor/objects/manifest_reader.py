"""An object's manifest, opened: pages are fetched when something in them is asked for, and a few are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeVar

from fungistor.catalog.record import Record
from fungistor.coding.manifest import (
    Absent,
    Child,
    Directory,
    Entry,
    Inner,
    ListPage,
    ListSlot,
    MapNode,
    MapPage,
    PageRef,
    RootRef,
    Slot,
    Stored,
    find_node,
    find_slot,
)
from fungistor.coding.page_codec import decode_list_page, decode_map_page, decode_root
from fungistor.coding.pages import open_page
from fungistor.coding.seal import Purpose
from fungistor.dag.cid import CID
from fungistor.dag.links import links
from fungistor.errors import CorruptError
from fungistor.ids import StripeId
from fungistor.keys.ring import derive
from fungistor.objects.manifest_writer import LIST_ROOT_PURPOSE, MAP_ROOT_PURPOSE
from fungistor.objects.stripe_reader import StripeReader

PAGES_KEPT = 24
"""Decoded pages below the roots, a manifest and tree: some 10 MiB of Python objects when they are full of entries."""

Page = TypeVar("Page")


class PageCache:
    """Decoded pages by their first number and level."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int], object] = OrderedDict()

    def get(self, child: Child, load: Callable[[Child], Page]) -> Page:
        """The page, loaded unless it is kept."""
        key = (child.level, child.first)
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]  # type: ignore[return-value]  # one cache holds pages of one kind
        page = load(child)
        with self._lock:
            self._pages[key] = page
            while len(self._pages) > PAGES_KEPT:
                self._pages.popitem(last=False)
        return page


class StripeListReader:
    """An object's stripe list: it needs the record alone, no content key. Thread-safe."""

    def __init__(self, reader: StripeReader, record: Record) -> None:
        self.record = record
        self._reader = reader
        self.where = decode_root(record.manifest, record.salt)
        self._cache = PageCache()
        self._root = decode_list_page(self._open_root())

    def _open_root(self) -> bytes:
        where = self.where
        key = derive(self.record.list_key, LIST_ROOT_PURPOSE, where.salt)
        return _read_root(self._reader, where.slot, where.list_root, key, Purpose.LIST_ROOT_PAGE)

    def _load(self, child: Child) -> ListPage | Directory:
        return self._cache.get(child, lambda c: decode_list_page(_read(self._reader, c.page, Purpose.LIST_PAGE), c))

    def slot(self, number: int) -> ListSlot:
        """The stripe of slot `number`. Raises CorruptError where there is none."""
        return find_slot(self._root, number, self._load)

    def list_slots(self) -> Iterator[ListSlot]:
        """Every listed stripe, in order."""
        for page in _leaves(self._root, self._load):
            assert isinstance(page, ListPage)
            yield from page.slots

    def page_slots(self) -> Iterator[Slot]:
        """The stripes of the list's own pages but for the root page, each once."""
        seen: set[StripeId] = set()
        for child in _children(self._root, self._load):
            if child.page.slot.stripe_id not in seen:
                seen.add(child.page.slot.stripe_id)
                yield child.page.slot

    def all_slots(self) -> Iterator[Slot]:
        """Every stripe that the object needs: those listed, those of the list's own pages, and the root's."""
        for listed in self.list_slots():
            yield listed.slot
        yield from self.page_slots()
        yield self.where.slot


class ManifestReader(StripeListReader):
    """Both parts of an object's manifest. Thread-safe."""

    def __init__(self, reader: StripeReader, record: Record, root: CID, object_key: bytes) -> None:
        super().__init__(reader, record)
        self.root = root
        self._map_cache = PageCache()
        where = self.where
        key = derive(object_key, MAP_ROOT_PURPOSE, where.salt)
        page = decode_map_page(_read_root(reader, where.slot, where.map_root, key, Purpose.MAP_ROOT_PAGE))
        if page.root is None:
            raise CorruptError("a block map's root page does not say what the root is")
        self._map_root = page
        self.root_entry: Entry = page.root
        # Who asks for one entry of a folder mostly asks for the next one, and reading all links is what takes long.
        self._last_node: tuple[MapNode | None, list[CID]] = (None, [])

    def _load_map(self, child: Child) -> MapPage | Directory:
        return self._map_cache.get(child, lambda c: decode_map_page(_read(self._reader, c.page, Purpose.MAP_PAGE), c))

    def node(self, number: int) -> MapNode:
        """Inner node `number`. Raises CorruptError where there is none."""
        return find_node(self._map_root, number, self._load_map)

    def entries(self, node: MapNode, cid: CID) -> dict[bytes, Entry]:
        """The entries below a node whose CID is `cid`, by multihash."""
        children = self._links(node)
        if len(children) != len(node.entries):
            raise CorruptError(f"node {cid} has {len(children)} links, its block map {len(node.entries)}")
        return {child.multihash: entry for child, entry in zip(children, node.entries, strict=True)}

    def entry_at(self, number: int, position: int, multihash: bytes) -> Entry | None:
        """The entry that the block index points to, None if it is of another block: the index may be behind."""
        if not isinstance(self.root_entry, Inner):
            return self.root_entry if (number, position) == (0, 0) and multihash == self.root.multihash else None
        node, children = self._last_node
        if node is None or node.number != number:
            node = self.node(number)
            children = self._links(node)
            self._last_node = (node, children)
        if position >= len(children) or children[position].multihash != multihash:
            return None
        return node.entries[position]

    def walk(self) -> Iterator[tuple[int, list[CID]]]:
        """Every inner node's number with the CIDs it links to."""
        for node in self._nodes():
            yield node.number, self._links(node)

    def held(self) -> Iterator[tuple[CID, int, int]]:
        """Every block that the object has, with its place: CID, inner node's number, position among its links."""
        if not isinstance(self.root_entry, Inner | Absent):
            yield self.root, 0, 0
        for node in self._nodes():
            for position, (cid, entry) in enumerate(zip(self._links(node), node.entries, strict=False)):
                if type(entry) is not Absent:
                    yield cid, node.number, position

    def placed(self) -> Iterator[tuple[CID, Entry]]:
        """Every link to a block that the object has, with its entry; the root first."""
        if not isinstance(self.root_entry, Absent):
            yield self.root, self.root_entry
        for node in self._nodes():
            for cid, entry in zip(self._links(node), node.entries, strict=False):
                if not isinstance(entry, Absent):
                    yield cid, entry

    def stored(self) -> Iterator[tuple[bytes, Stored]]:
        """Multihash and entry of every link to a block that lies in a stripe."""
        if isinstance(self.root_entry, Stored):
            yield self.root.multihash, self.root_entry
        for node in self._nodes():
            for cid, entry in zip(self._links(node), node.entries, strict=False):
                if isinstance(entry, Stored):
                    yield cid.multihash, entry

    def _nodes(self) -> Iterator[MapNode]:
        if not isinstance(self.root_entry, Inner):
            return
        for page in _leaves(self._map_root, self._load_map):
            assert isinstance(page, MapPage)
            yield from page.nodes

    def search(self, multihash: bytes) -> Entry | None:
        """Look through the whole map: for a reader that asks for what it was not led to."""
        for number, children in self.walk():
            for position, child in enumerate(children):
                if child.multihash == multihash:
                    return self.node(number).entries[position]
        return None

    def _links(self, node: MapNode) -> list[CID]:
        return links(CID(1, node.codec, self.root.multihash), node.data)  # of the CID only the codec counts


def _read(reader: StripeReader, ref: PageRef, purpose: Purpose) -> bytes:
    return reader.read_span(
        ref.slot,
        ref.offset,
        ref.sealed_bytes,
        lambda sealed: open_page(ref.key, purpose, sealed, ref.compression, ref.plain_bytes),
    )


def _read_root(reader: StripeReader, slot: Slot, ref: RootRef, key: bytes, purpose: Purpose) -> bytes:
    return _read(reader, PageRef(slot, ref.offset, ref.sealed_bytes, ref.plain_bytes, ref.compression, key), purpose)


def _leaves(root: Page | Directory, load: Callable[[Child], Page | Directory]) -> Iterator[Page]:
    """The leaf pages of a tree, in order."""
    if not isinstance(root, Directory):
        yield root
        return
    for child in root.children:
        yield from _leaves(load(child), load)


def _children(root: Page | Directory, load: Callable[[Child], Page | Directory]) -> Iterator[Child]:
    """Every reference to a page below the root."""
    if isinstance(root, Directory):
        for child in root.children:
            yield child
            if child.level > 0:
                yield from _children(load(child), load)
