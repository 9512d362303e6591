"""Manifest pages: what is written is read, whatever the bytes nothing but CorruptError is raised."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import libipld
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.compress import Compression
from fungistor.coding.manifest import (
    Absent,
    Child,
    Directory,
    Entry,
    Identity,
    Inline,
    Inner,
    ListPage,
    ListSlot,
    ManifestRoot,
    MapNode,
    MapPage,
    PageRef,
    RootRef,
    Slot,
    Stored,
    locate_node,
    locate_slot,
)
from fungistor.coding.page_codec import (
    CHILD_BYTES_MAX,
    NUMBER_MAX,
    decode_list_page,
    decode_map_page,
    decode_root,
    encode_child,
    encode_list_page,
    encode_map_page,
    encode_root,
)
from fungistor.coding.pages import open_page, seal_page
from fungistor.coding.seal import Purpose
from fungistor.errors import CorruptError
from fungistor.ids import LayoutNumber, StripeId
from fungistor.limits import MANIFEST_PAGE_BYTES_MAX
from tests.unit.coding.format_pages import flat, quoted, stored
from tests.vectors.make_manifest import (
    KEY,
    LIST_DIRECTORY,
    LIST_LEAF,
    MAP_BELOW,
    MAP_DIRECTORY,
    MAP_LEAF,
    REF,
    ROOT,
    SALT,
    SLOT,
    vectors,
)

b32 = st.binary(min_size=32, max_size=32)
n32 = st.integers(0, NUMBER_MAX)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    """Any slot within bounds."""
    k = draw(st.integers(1, 255))
    return Slot(
        StripeId(draw(b32)),
        k,
        draw(st.integers(0, 255 - k)),
        draw(st.integers(1, 1 << 20)),
        draw(b32),
        LayoutNumber(draw(n32)),
    )


@st.composite
def list_slots(draw: st.DrawFn) -> ListSlot:
    """A slot of small blocks and any runs over them."""
    lengths = tuple(draw(st.lists(st.integers(16, 500), max_size=12)))
    slot = Slot(StripeId(draw(b32)), 16, 4, 4096, draw(b32), LayoutNumber(draw(n32)))
    used = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    runs = tuple((place, 1) for place, use in enumerate(used) if use)
    return ListSlot(slot, lengths, runs)


entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Stored, n32, n32, st.integers(0, 1 << 21), st.sampled_from([0, 1]), b32),
    st.builds(Inline, st.binary(max_size=40)),
    st.builds(Inner, n32),
    st.just(Absent()),
    st.just(Identity()),
)


@st.composite
def map_pages(draw: st.DrawFn) -> MapPage:
    """A map root page with any entries."""
    bodies = draw(st.lists(st.tuples(n32, st.binary(max_size=30), st.lists(entries, max_size=6)), max_size=6))
    nodes = tuple(MapNode(place, codec, data, tuple(body)) for place, (codec, data, body) in enumerate(bodies))
    return MapPage(0, nodes, draw(entries))


@settings(deadline=None, max_examples=200)
@given(page=map_pages())
def test_map_pages_come_back(page: MapPage) -> None:
    """Every map page within bounds survives the round trip."""
    assert decode_map_page(encode_map_page(page)) == page


@settings(deadline=None, max_examples=200)
@given(items=st.lists(list_slots(), max_size=6))
def test_list_pages_come_back(items: list[ListSlot]) -> None:
    """Every list page within bounds survives the round trip, offsets are the running sum."""
    page = decode_list_page(encode_list_page(ListPage(0, tuple(items))))
    assert page == ListPage(0, tuple(items))
    assert isinstance(page, ListPage)
    for item in page.slots:
        for number, length in enumerate(item.block_lengths):
            assert item.extent(number) == (sum(item.block_lengths[:number]), length)


@settings(deadline=None, max_examples=100)
@given(slot=slots(), compression=st.sampled_from(Compression), plain=st.integers(0, 1 << 20), salt=b32)
def test_roots_come_back_and_are_short(slot: Slot, compression: Compression, plain: int, salt: bytes) -> None:
    """A manifest's root survives the round trip and leaves most of the record's 400 bytes to others."""
    end = slot.k * slot.shard_bytes
    if end < 32:
        return
    root = ManifestRoot(slot, RootRef(0, 16, plain, compression), RootRef(end - 16, 16, plain, compression), salt)
    encoded = encode_root(root)
    assert decode_root(encoded, salt) == root
    assert len(encoded) <= 130


def test_pages_below_a_root_are_those_promised() -> None:
    """A page opens only as the child of its level and first number, and a root page only as a root page."""
    below = encode_map_page(MAP_BELOW)
    assert decode_map_page(below, Child(1000, 0, REF)) == MAP_BELOW
    for child in (Child(1001, 0, REF), Child(1000, 1, REF), None):
        with pytest.raises(CorruptError):
            decode_map_page(below, child)
    with pytest.raises(CorruptError, match="root's entry"):
        decode_map_page(encode_map_page(MAP_LEAF), Child(0, 0, REF))
    with pytest.raises(CorruptError, match="is empty"):
        decode_list_page(encode_list_page(ListPage(0, ())), Child(0, 0, REF))
    assert decode_list_page(encode_list_page(ListPage(0, ()))) == ListPage(0, ())
    assert decode_list_page(encode_list_page(LIST_DIRECTORY)) == LIST_DIRECTORY
    assert decode_map_page(encode_map_page(MAP_DIRECTORY)) == MAP_DIRECTORY


def test_one_tree_is_not_the_other() -> None:
    """A list page is no map page and the other way round, before any seal says so."""
    with pytest.raises(CorruptError, match="page kind"):
        decode_map_page(encode_list_page(LIST_LEAF))
    with pytest.raises(CorruptError, match="page kind"):
        decode_list_page(encode_map_page(MAP_LEAF))


def test_a_newer_version_is_named() -> None:
    """A page of version 1 is refused with both versions, not misread."""
    with pytest.raises(CorruptError, match="of version 1, this program reads version 0"):
        decode_list_page(libipld.encode_dag_cbor([1, "anything"]))
    with pytest.raises(CorruptError, match="of version 9"):
        decode_root(libipld.encode_dag_cbor([9]), SALT)


SLOT_FIELDS = [bytes(32), 16, 4, 1024, bytes(32), 1]


@pytest.mark.parametrize(
    "item",
    [
        [[*SLOT_FIELDS[:5]], [], []],
        [[bytes(31), *SLOT_FIELDS[1:]], [], []],
        [[bytes(32), 0, 4, 1024, bytes(32), 1], [], []],
        [[bytes(32), 16, 240, 1024, bytes(32), 1], [], []],
        [[bytes(32), True, 4, 1024, bytes(32), 1], [], []],
        [[bytes(32), 16, 4, 0, bytes(32), 1], [], []],
        [[bytes(32), 16, 4, 8 << 20, bytes(32), 1], [], []],
        [[bytes(32), 16, 4, 1024, bytes(32), 1 << 32], [], []],
        [SLOT_FIELDS, [15], []],
        [SLOT_FIELDS, [16 * 1024, 16], []],
        [SLOT_FIELDS, [16], [0]],
        [SLOT_FIELDS, [16], [0, 2]],
        [SLOT_FIELDS, [16], [1, 1]],
        [SLOT_FIELDS, [16], [0, 0]],
        [SLOT_FIELDS, [16, 16], [1, 1, 0, 1]],
        [SLOT_FIELDS, [16, 16], [0, 2, 1, 1]],
        [SLOT_FIELDS, {"a": 1}, []],
        [SLOT_FIELDS, ["16"], []],
        [SLOT_FIELDS, [], [], []],
        5,
    ],
)
def test_list_slots_out_of_bounds_are_refused(item: object) -> None:
    """Each bound of a list slot is checked by itself."""
    good = libipld.encode_dag_cbor([0, 0, 0, 0, [[SLOT_FIELDS, [16, 16], [0, 1, 1, 1]]]])
    assert isinstance(decode_list_page(good), ListPage)
    with pytest.raises(CorruptError):
        decode_list_page(libipld.encode_dag_cbor([0, 0, 0, 0, [item]]))


@pytest.mark.parametrize(
    "entry",
    [
        [],
        [5],
        ["0"],
        [True],
        [0, 0, 0, 0, 0, bytes(31)],
        [0, 0, 0, 0, 2, bytes(32)],
        [0, 0, 0, (2 << 20) + 1, 0, bytes(32)],
        [0, -1, 0, 0, 0, bytes(32)],
        [0, 0, 1 << 32, 0, 0, bytes(32)],
        [0, 0, 0, 0, 0, bytes(32), 0],
        [1],
        [1, "text"],
        [1, bytes((2 << 20) + 1)],
        [2, 1 << 32],
        [2],
        [3, 0],
        [4, 0],
        None,
        [0.5],
    ],
)
def test_entries_out_of_bounds_are_refused(entry: object) -> None:
    """Each bound of an entry is checked by itself, in a node and as the root's."""
    with pytest.raises(CorruptError):
        decode_map_page(libipld.encode_dag_cbor([0, 1, 0, 0, [[b"", [entry]]], [3]]))
    with pytest.raises(CorruptError):
        decode_map_page(libipld.encode_dag_cbor([0, 1, 0, 0, [], entry]))


@pytest.mark.parametrize(
    "children",
    [
        [],
        [[1, SLOT_FIELDS, 0, 16, 0, 0, bytes(32)]],
        [[0, SLOT_FIELDS, 0, 16, 0, 0, bytes(32)], [0, SLOT_FIELDS, 0, 16, 0, 0, bytes(32)]],
        [[0, SLOT_FIELDS, 0, 15, 0, 0, bytes(32)]],
        [[0, SLOT_FIELDS, 16 * 1024 - 15, 16, 0, 0, bytes(32)]],
        [[0, SLOT_FIELDS, 0, 16, MANIFEST_PAGE_BYTES_MAX + 1, 0, bytes(32)]],
        [[0, SLOT_FIELDS, 0, 16, 0, 2, bytes(32)]],
        [[0, SLOT_FIELDS, 0, 16, 0, 0, bytes(33)]],
        [[0, SLOT_FIELDS, 0, 16, 0, 0]],
    ],
)
def test_directories_out_of_bounds_are_refused(children: list[object]) -> None:
    """Children must rise, start where the page does, and lie within their stripe."""
    with pytest.raises(CorruptError):
        decode_list_page(libipld.encode_dag_cbor([0, 0, 1, 0, children]))


def test_a_level_beyond_the_bound_is_refused() -> None:
    """No tree is deeper than eight directories, so a walk ends."""
    child = [0, SLOT_FIELDS, 0, 16, 0, 0, bytes(32)]
    decode_list_page(libipld.encode_dag_cbor([0, 0, 8, 0, [child]]))
    with pytest.raises(CorruptError, match="level"):
        decode_list_page(libipld.encode_dag_cbor([0, 0, 9, 0, [child]]))


def test_navigation_names_what_is_not_there() -> None:
    """A number that a page cannot lead to is a CorruptError, as only a broken map points there."""
    with pytest.raises(CorruptError, match="node 2 is not in a page of 2 from 0"):
        locate_node(MAP_LEAF, 2)
    with pytest.raises(CorruptError, match="slot 2 is not in a page of 2 from 0"):
        locate_slot(LIST_LEAF, 2)
    with pytest.raises(CorruptError, match="before the first"):
        locate_slot(Directory(1, (Child(5, 0, REF),)), 4)
    with pytest.raises(CorruptError, match="has no block 3"):
        LIST_LEAF.slots[0].extent(3)
    assert locate_slot(LIST_DIRECTORY, 799) == LIST_DIRECTORY.children[0]
    assert locate_slot(LIST_DIRECTORY, 800) == LIST_DIRECTORY.children[1]


decoders: list[Callable[[bytes], object]] = [
    decode_map_page,
    decode_list_page,
    lambda data: decode_map_page(data, Child(0, 1, REF)),
    lambda data: decode_list_page(data, Child(0, 0, REF)),
    lambda data: decode_root(data, SALT),
    lambda data: open_page(KEY, Purpose.MAP_PAGE, data, 1, 100),
]

cbor = st.recursive(
    st.one_of(st.integers(-3, 300), st.binary(max_size=40), b32, st.text(max_size=5), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=7), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=25,
)


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200))
def test_no_bytes_crash_a_decoder(data: bytes) -> None:
    """Arbitrary bytes raise CorruptError or decode, in every decoder."""
    for decode in decoders:
        with contextlib.suppress(CorruptError):
            decode(data)


@settings(deadline=None, max_examples=300)
@given(rest=st.lists(cbor, max_size=5), kind=st.sampled_from([0, 1]), level=st.sampled_from([0, 0, 1]))
def test_no_structure_crashes_a_decoder(rest: list[object], kind: int, level: int) -> None:
    """Arbitrary well-formed structures under a right header raise CorruptError or decode."""
    for fields in ([0, kind, level, 0, *rest], [0, kind, level, 0, [rest]], [0, *rest], rest):
        for decode in decoders:
            with contextlib.suppress(CorruptError):
                decode(libipld.encode_dag_cbor(fields))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_mutation_of_a_true_page_crashes_a_decoder(data: st.DataObject) -> None:
    """A true page with bytes changed, cut or inserted raises CorruptError or decodes."""
    source = data.draw(st.sampled_from(sorted(value for value in vectors().values() if isinstance(value, str))))
    page = bytearray.fromhex(source)
    start = data.draw(st.integers(0, len(page)))
    page[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    for decode in decoders:
        with contextlib.suppress(CorruptError):
            decode(bytes(page))


def test_deep_nesting_and_long_pages_end_as_corrupt() -> None:
    """Thousands of nested arrays, and more bytes than a page may have, are refused."""
    for data in (b"\x81" * 100_000 + b"\x80", bytes(MANIFEST_PAGE_BYTES_MAX + 1), b"\x9b" + b"\xff" * 8):
        for decode in decoders[:5]:
            with pytest.raises(CorruptError):
                decode(data)


def test_a_sealed_page_opens_only_as_itself() -> None:
    """Another key, purpose, length or compression, or a changed byte, is a CorruptError."""
    plain = encode_list_page(ListPage(0, (LIST_LEAF.slots[0],) * 30))
    page = seal_page(KEY, Purpose.LIST_PAGE, plain)
    assert page.compression is Compression.ZSTD
    assert open_page(KEY, Purpose.LIST_PAGE, page.sealed, page.compression, page.plain_bytes) == plain
    flipped = bytes([page.sealed[0] ^ 1]) + page.sealed[1:]
    for key, purpose, sealed, compression, length in (
        (SALT, Purpose.LIST_PAGE, page.sealed, 1, page.plain_bytes),
        (KEY, Purpose.MAP_PAGE, page.sealed, 1, page.plain_bytes),
        (KEY, Purpose.LIST_PAGE, flipped, 1, page.plain_bytes),
        (KEY, Purpose.LIST_PAGE, page.sealed, 0, page.plain_bytes),
        (KEY, Purpose.LIST_PAGE, page.sealed, 256, page.plain_bytes),
        (KEY, Purpose.LIST_PAGE, page.sealed, 1, page.plain_bytes + 1),
        (KEY, Purpose.LIST_PAGE, page.sealed, 1, MANIFEST_PAGE_BYTES_MAX + 1),
    ):
        with pytest.raises(CorruptError):
            open_page(key, purpose, sealed, compression, length)


def test_reprs_hold_no_secret() -> None:
    """Keys, stripe ids and content do not show where such a value is printed."""
    secrets = (KEY, SLOT.stripe_id, b"spore", b"root node")
    shown = repr((LIST_LEAF, MAP_LEAF, LIST_DIRECTORY, ROOT, REF, seal_page(KEY, Purpose.MAP_PAGE, b"x")))
    assert not any(repr(secret)[2:-1] in shown for secret in secrets)
    assert "Stored(slot=1" in shown


def test_a_childs_bytes_are_bounded() -> None:
    """The longest directory entry is within what the writer reckons with."""
    slot = Slot(StripeId(bytes(32)), 1, 254, (8 << 20) - 16, bytes(32), LayoutNumber(NUMBER_MAX))
    page = PageRef(slot, (8 << 20) - 32, (6 << 20) + 16, 6 << 20, 1, bytes(32))
    assert len(encode_child(NUMBER_MAX, page)) <= CHILD_BYTES_MAX


def test_frozen_vectors_hold() -> None:
    """Code, tests/vectors/manifest.json and docs/formats/manifest.md agree, and the vectors decode."""
    assert vectors() == stored("manifest")
    rows = quoted("manifest")
    assert rows
    assert rows.items() <= flat(stored("manifest")).items()
    assert decode_root(bytes.fromhex(vectors()["manifest_root"]), SALT) == ROOT
    assert decode_map_page(bytes.fromhex(vectors()["map_root_page"])) == MAP_LEAF
