"""Trees of any size are written in bounded memory and every number in them is found again."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.manifest import (
    Child,
    Directory,
    Inline,
    Inner,
    ListPage,
    ListSlot,
    MapNode,
    MapPage,
    PageRef,
    Slot,
    Stored,
    find_node,
    find_slot,
)
from fungistor.coding.page_codec import decode_list_page, decode_map_page
from fungistor.coding.page_writer import ListWriter, MapWriter
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import LayoutNumber, StripeId
from fungistor.limits import KIB, MANIFEST_PAGE_BYTES_MAX, MIB, PAGE_BYTES_TARGET, ROOT_PAGE_BYTES_MAX

SLOT = Slot(StripeId(bytes(32)), 16, 4, 262_144, bytes(32), LayoutNumber(1))


@dataclass
class Store:
    """Keeps emitted pages and says where they are at once."""

    pages: list[bytes] = field(default_factory=list)
    loads: int = 0

    def emit(self, plain: bytes) -> PageRef:
        """Take a page; its offset is its place in the list."""
        self.pages.append(plain)
        return PageRef(SLOT, len(self.pages) - 1, len(plain) + 16, len(plain), 0, bytes(32))

    def load_map(self, child: Child) -> MapPage | Directory:
        """What a reader does, without the seal."""
        self.loads += 1
        return decode_map_page(self.pages[child.page.offset], child)

    def load_list(self, child: Child) -> ListPage | Directory:
        """What a worker does, without the seal."""
        return decode_list_page(self.pages[child.page.offset], child)


def node(number: int, data_bytes: int) -> MapNode:
    """A node that tells its number."""
    return MapNode(number, 0x70, number.to_bytes(4, "big").ljust(data_bytes, b"."), (Inner(number),))


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.sampled_from([10, 50_000, 120_000, 131_072, 200_000, 300_000]), max_size=14))
def test_every_node_is_found_again(sizes: list[int]) -> None:
    """Whatever the nodes' sizes, all are found, pages keep to the target unless one node is longer."""
    store = Store()
    writer = MapWriter(store.emit)
    for number, size in enumerate(sizes):
        writer.add(node(number, size))
    plain = writer.finish(Inner(0))
    assert len(plain) <= ROOT_PAGE_BYTES_MAX
    root = decode_map_page(plain)
    assert root.root == Inner(0)
    for number, size in enumerate(sizes):
        assert find_node(root, number, store.load_map) == node(number, size)
    with pytest.raises(CorruptError):
        find_node(root, len(sizes), store.load_map)
    for page in store.pages:
        assert len(page) <= max([PAGE_BYTES_TARGET, *sizes]) + 64


def test_what_fits_one_page_has_no_other() -> None:
    """Up to 256 KiB all nodes lie in the root page; one node more and there are pages below."""
    store = Store()
    writer = MapWriter(store.emit)
    for number in range(5):
        writer.add(node(number, 50 * KIB))
    root = decode_map_page(writer.finish(Inner(0)))
    assert isinstance(root, MapPage)
    assert len(root.nodes) == 5
    assert store.pages == []

    writer = MapWriter(store.emit)
    for number in range(6):
        writer.add(node(number, 50 * KIB))
    root = decode_map_page(writer.finish(Inner(0)))
    assert isinstance(root, Directory)
    assert [child.first for child in root.children] == [0, 2, 4]


def test_a_root_entry_that_does_not_fit_moves_the_nodes_below() -> None:
    """An inline root block counts towards the root page's bound."""
    store = Store()
    writer = MapWriter(store.emit)
    for number in range(2):
        writer.add(node(number, 127 * KIB))
    plain = writer.finish(Inline(bytes(16 * KIB)))
    assert len(plain) <= ROOT_PAGE_BYTES_MAX
    assert isinstance(decode_map_page(plain), Directory)
    assert len(store.pages) == 2


def test_an_object_of_one_block_has_an_empty_map() -> None:
    """A root without links is an entry in the root page, and nothing else."""
    for entry in (Inline(b"spore"), Stored(0, 0, 70_000, 0, bytes(32))):
        assert decode_map_page(MapWriter(Store().emit).finish(entry)) == MapPage(0, (), entry)
    assert decode_list_page(ListWriter(Store().emit).finish()) == ListPage(0, ())


def test_directories_of_directories() -> None:
    """2,000 pages need a second level, and a node is then three loads away at most."""
    store = Store()
    writer = MapWriter(store.emit)
    body = bytes(PAGE_BYTES_TARGET - 100)
    for number in range(2000):
        writer.add(MapNode(number, 0x70, body, ()))
    plain = writer.finish(Inner(0))
    root = decode_map_page(plain)
    assert isinstance(root, Directory)
    assert root.level == 2
    assert len(plain) <= ROOT_PAGE_BYTES_MAX
    for number in (0, 1, 681, 682, 683, 1364, 1999):
        store.loads = 0
        assert find_node(root, number, store.load_map).number == number
        assert store.loads == 2


def test_slots_are_numbered_and_found() -> None:
    """A list of 20,000 stripes gives every slot back by its number."""
    store = Store()
    writer = ListWriter(store.emit)
    for number in range(20_000):
        assert writer.add(ListSlot(SLOT, (16 + number,), ((0, 1),))) == number
    root = decode_list_page(writer.finish())
    assert isinstance(root, Directory)
    for number in range(0, 20_000, 617):
        assert find_slot(root, number, store.load_list).block_lengths == (16 + number,)


def test_places_are_asked_only_when_their_directory_closes() -> None:
    """Pages may wait in an open stripe: nothing is resolved before the root page is made, then in order."""

    @dataclass
    class Waiting:
        number: int

        def ref(self) -> PageRef:
            asked.append(self.number)
            return PageRef(SLOT, self.number, 16, 0, 0, bytes(32))

    asked: list[int] = []
    emitted: list[bytes] = []

    def emit(plain: bytes) -> Waiting:
        emitted.append(plain)
        return Waiting(len(emitted) - 1)

    writer = MapWriter(emit)
    for number in range(40):
        writer.add(node(number, 60 * KIB))
    assert len(emitted) > 10
    assert asked == []
    writer.finish(Inner(0))
    assert asked == list(range(len(emitted)))


def test_what_no_page_holds_is_refused() -> None:
    """A node that would need a longer page than readers accept is an InvalidError; wrong order a ValueError."""
    writer = MapWriter(Store().emit)
    with pytest.raises(InvalidError, match="a manifest page holds"):
        writer.add(MapNode(0, 0x70, bytes(MANIFEST_PAGE_BYTES_MAX), ()))
    with pytest.raises(ValueError, match="node 1 came where 0 was due"):
        writer.add(node(1, 4))
    assert writer.nodes == 0


def test_a_million_entries_are_written_quickly_and_in_little_memory() -> None:
    """100,000 nodes of ten entries: well over 200,000 entries a second, a megabyte of memory, any node in two loads."""
    entries = tuple(Stored(7, place, 262_144, 0, bytes([place]) * 32) for place in range(10))
    data = bytes(400)

    def write(store: Store, nodes: int) -> bytes:
        writer = MapWriter(store.emit)
        for number in range(nodes):
            writer.add(MapNode(number, 0x70, data, entries))
        return writer.finish(Inner(0))

    store = Store()
    start = time.process_time()
    plain = write(store, 100_000)
    seconds = time.process_time() - start
    assert 1_000_000 / seconds > 200_000
    root = decode_map_page(plain)
    assert [find_node(root, number, store.load_map).number for number in (0, 54_321, 99_999)] == [0, 54_321, 99_999]

    class Forgetful(Store):
        def emit(self, plain: bytes) -> PageRef:
            return PageRef(SLOT, 0, 16, len(plain), 0, bytes(32))

    tracemalloc.start()
    try:
        write(Forgetful(), 20_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()
