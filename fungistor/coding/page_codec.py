"""Manifest pages as bytes: DAG-CBOR arrays, the version first. The byte tables are in docs/formats/manifest.md.

Decoders check every bound before a value is used, and raise CorruptError alone, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import pairwise
from typing import Final

import libipld

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
)
from fungistor.coding.seal import KEY_BYTES, SEAL_TAG_BYTES
from fungistor.coding.shard import DIGEST_BYTES, SHARD_TAG_BYTES
from fungistor.coding.stripe import STRIPE_ID_BYTES
from fungistor.errors import CorruptError
from fungistor.ids import LayoutNumber, StripeId
from fungistor.limits import BLOCK_BYTES_MAX, MANIFEST_PAGE_BYTES_MAX, SHARD_INDEX_MAX, ZDB_VALUE_BYTES_MAX

PAGE_VERSION: Final = 0
SALT_BYTES: Final = 32

LEVELS_MAX: Final = 8
"""Directories above leaves: with 800 children a page, far more than can be stored, and a bound for hostile trees."""

NUMBER_MAX: Final = 2**32 - 1
"""Nodes, slots and layouts are counted in 32 bits; a node's codec has as many."""

CHILD_BYTES_MAX: Final = 192
"""A directory's entry at its longest, with room to spare; the writer reckons with it before the page is placed."""

HEADER_BYTES_MAX: Final = 32


class PageKind(IntEnum):
    """Which tree a page is of."""

    LIST = 0
    MAP = 1


class _EntryKind(IntEnum):
    STORED = 0
    INLINE = 1
    INNER = 2
    ABSENT = 3
    IDENTITY = 4


_SHARD_BYTES_MAX = ZDB_VALUE_BYTES_MAX - SHARD_TAG_BYTES
_PADDED_BYTES_MAX = (SHARD_INDEX_MAX + 1) * _SHARD_BYTES_MAX


def encode_page(kind: PageKind, level: int, first: int, items: Iterable[bytes], root: Entry | None = None) -> bytes:
    """Put encoded items behind a page's header; `root` stands in the map's root page alone."""
    items = list(items)
    header = _head(0x80, 5 if root is None else 6) + b"".join(
        _head(0, field) for field in (PAGE_VERSION, kind, level, first)
    )
    tail = b"" if root is None else _encode(_entry_fields(root))
    return b"".join((header, _head(0x80, len(items)), *items, tail))


def encode_node(node: MapNode) -> bytes:
    """A map page's item; the number is not in it."""
    return _encode([node.codec, bytes(node.data), [_entry_fields(entry) for entry in node.entries]])


def encode_list_slot(item: ListSlot) -> bytes:
    """A list page's item."""
    return _encode([_slot_fields(item.slot), list(item.block_lengths), [number for run in item.runs for number in run]])


def encode_child(first: int, page: PageRef) -> bytes:
    """A directory page's item."""
    fields = [first, _slot_fields(page.slot), page.offset, page.sealed_bytes, page.plain_bytes]
    return _encode([*fields, int(page.compression), page.key])


def encode_map_page(page: MapPage | Directory) -> bytes:
    """A page of the block map."""
    if isinstance(page, Directory):
        return _encode_directory(PageKind.MAP, page)
    return encode_page(PageKind.MAP, 0, page.first, map(encode_node, page.nodes), page.root)


def encode_list_page(page: ListPage | Directory) -> bytes:
    """A page of the stripe list."""
    if isinstance(page, Directory):
        return _encode_directory(PageKind.LIST, page)
    return encode_page(PageKind.LIST, 0, page.first, map(encode_list_slot, page.slots))


def decode_map_page(plain: bytes, child: Child | None = None) -> MapPage | Directory:
    """A page of the block map: the root page, or the page that `child` of a directory promises.

    Raises: CorruptError.
    """
    level, first, items, rest = _open(plain, PageKind.MAP, child)
    if len(rest) != (1 if child is None else 0):
        raise CorruptError("a map page has the root's entry exactly when it is the root page")
    root = _entry(rest[0]) if rest else None
    if level:
        return Directory(level, _children(level, first, items), root)
    nodes = tuple(_node(first + place, item) for place, item in enumerate(items))
    return MapPage(first, nodes, root)


def decode_list_page(plain: bytes, child: Child | None = None) -> ListPage | Directory:
    """A page of the stripe list: the root page, or the page that `child` of a directory promises.

    Raises: CorruptError.
    """
    level, first, items, rest = _open(plain, PageKind.LIST, child)
    if rest:
        raise CorruptError(f"a list page has 5 fields, not {5 + len(rest)}")
    if level:
        return Directory(level, _children(level, first, items))
    return ListPage(first, tuple(_list_slot(item) for item in items))


def encode_root(root: ManifestRoot) -> bytes:
    """A manifest's root for the catalog's record, about 110 bytes. The salt is not in it: the record has it."""
    refs = [
        [ref.offset, ref.sealed_bytes, ref.plain_bytes, int(ref.compression)] for ref in (root.list_root, root.map_root)
    ]
    return _encode([PAGE_VERSION, _slot_fields(root.slot), *refs])


def decode_root(data: bytes, salt: bytes) -> ManifestRoot:
    """The manifest's root from the catalog's record.

    Raises: CorruptError.
    """
    fields = _array(_decode(data, "manifest root"), "manifest root")
    _version(fields, "manifest root")
    _, slot_fields, list_root, map_root = _exactly(fields, 4, "manifest root")
    slot = _slot(slot_fields)
    if len(salt) != SALT_BYTES:
        raise CorruptError(f"a manifest's salt has {SALT_BYTES} bytes, not {len(salt)}")
    return ManifestRoot(slot, _root_ref(slot, list_root), _root_ref(slot, map_root), bytes(salt))


def _encode_directory(kind: PageKind, page: Directory) -> bytes:
    items = [encode_child(child.first, child.page) for child in page.children]
    return encode_page(kind, page.level, page.children[0].first, items, page.root)


def _encode(fields: list[object]) -> bytes:
    encoded: bytes = libipld.encode_dag_cbor(fields)
    return encoded


def _head(major: int, value: int) -> bytes:
    """A CBOR head, in the shortest form as DAG-CBOR demands."""
    if value < 24:
        return bytes((major | value,))
    for info, width in ((24, 1), (25, 2), (26, 4)):
        if value < 1 << 8 * width:
            return bytes((major | info,)) + value.to_bytes(width, "big")
    raise ValueError(f"{value} is not a count of 32 bits")


def _slot_fields(slot: Slot) -> list[object]:
    return [slot.stripe_id, slot.k, slot.m, slot.shard_bytes, slot.content_root, slot.layout]


def _entry_fields(entry: Entry) -> list[object]:
    # Asked once a link, a million times for a large object: the commonest first, and by exact type.
    kind = type(entry)
    if kind is Stored:
        return [0, entry.slot, entry.number, entry.plain_bytes, int(entry.compression), entry.key]  # type: ignore[union-attr]
    if isinstance(entry, Inner):
        return [int(_EntryKind.INNER), entry.node]
    if isinstance(entry, Inline):
        return [int(_EntryKind.INLINE), bytes(entry.data)]
    return [int(_EntryKind.ABSENT if isinstance(entry, Absent) else _EntryKind.IDENTITY)]


def _decode(data: bytes, what: str) -> object:
    if len(data) > MANIFEST_PAGE_BYTES_MAX:
        raise CorruptError(f"{what} of {len(data)} bytes is longer than {MANIFEST_PAGE_BYTES_MAX}")
    try:
        fields: object = libipld.decode_dag_cbor(bytes(data))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{what} is no DAG-CBOR: {error}") from error
    return fields


def _open(plain: bytes, kind: PageKind, child: Child | None) -> tuple[int, int, list[object], list[object]]:
    """Level, first number, items and what follows them."""
    what = f"{kind.name.lower()} page"
    fields = _array(_decode(plain, what), what)
    _version(fields, what)
    if len(fields) < 5:
        raise CorruptError(f"{what} has {len(fields)} fields")
    _uint(fields[1], kind, "page kind", least=kind)
    level = _uint(fields[2], LEVELS_MAX, "level")
    first = _uint(fields[3], NUMBER_MAX, "first number")
    items = _array(fields[4], "items")
    if child is None and first != 0:
        raise CorruptError(f"{what} is a root page, yet starts at {first}")
    if child is not None and (level, first) != (child.level, child.first):
        raise CorruptError(f"{what} is of level {level} from {first}, not level {child.level} from {child.first}")
    if not items and (level or child is not None):
        raise CorruptError(f"{what} of level {level} is empty")
    if first + len(items) > NUMBER_MAX + 1:
        raise CorruptError(f"{what} counts beyond {NUMBER_MAX}")
    return level, first, items, fields[5:]


def _children(level: int, first: int, items: list[object]) -> tuple[Child, ...]:
    children = tuple(_child(level - 1, item) for item in items)
    rising = all(left.first < right.first for left, right in pairwise(children))
    if children[0].first != first or not rising:
        raise CorruptError("a directory page's children do not rise from its first number")
    return children


def _child(level: int, item: object) -> Child:
    first, slot_fields, offset, sealed_bytes, plain_bytes, compression, key = _exactly(item, 7, "directory entry")
    slot = _slot(slot_fields)
    extent = _extent(slot, offset, sealed_bytes, plain_bytes, compression)
    page = PageRef(slot, *extent, _bytes(key, KEY_BYTES, "page key"))
    return Child(_uint(first, NUMBER_MAX, "first number"), level, page)


def _root_ref(slot: Slot, item: object) -> RootRef:
    offset, sealed_bytes, plain_bytes, compression = _exactly(item, 4, "root reference")
    return RootRef(*_extent(slot, offset, sealed_bytes, plain_bytes, compression))


def _extent(
    slot: Slot, offset: object, sealed_bytes: object, plain_bytes: object, compression: object
) -> tuple[int, int, int, int]:
    end = slot.k * slot.shard_bytes
    start = _uint(offset, end, "page offset")
    sealed = _uint(sealed_bytes, MANIFEST_PAGE_BYTES_MAX + SEAL_TAG_BYTES, "sealed page length", least=SEAL_TAG_BYTES)
    if start + sealed > end:
        raise CorruptError(f"page bytes {start}..{start + sealed} lie outside a stripe of {end}")
    plain = _uint(plain_bytes, MANIFEST_PAGE_BYTES_MAX, "page length")
    return start, sealed, plain, _uint(compression, max(Compression), "compression")


def _slot(item: object) -> Slot:
    stripe_id, k, m, shard_bytes, content_root, layout = _exactly(item, 6, "slot")
    data = _uint(k, SHARD_INDEX_MAX + 1, "k", least=1)
    return Slot(
        StripeId(_bytes(stripe_id, STRIPE_ID_BYTES, "stripe id")),
        data,
        _uint(m, SHARD_INDEX_MAX + 1 - data, "m"),
        _uint(shard_bytes, _SHARD_BYTES_MAX, "shard length", least=1),
        _bytes(content_root, DIGEST_BYTES, "content root"),
        LayoutNumber(_uint(layout, NUMBER_MAX, "layout")),
    )


def _list_slot(item: object) -> ListSlot:
    slot_fields, lengths, runs = _exactly(item, 3, "list slot")
    slot = _slot(slot_fields)
    blocks = tuple(
        # 0: a block that a collection left out, since nobody uses it.
        _uint(length, _PADDED_BYTES_MAX, "block length", least=SEAL_TAG_BYTES if length else 0)
        for length in _array(lengths, "lengths")
    )
    if sum(blocks) > slot.k * slot.shard_bytes:
        raise CorruptError(f"blocks of {sum(blocks)} bytes in a stripe of {slot.k * slot.shard_bytes}")
    flat = [_uint(number, len(blocks), "run") for number in _array(runs, "runs")]
    if len(flat) % 2:
        raise CorruptError(f"runs are pairs, not {len(flat)} numbers")
    pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
    end = 0
    for first, count in pairs:
        if first < end or count == 0 or first + count > len(blocks):
            raise CorruptError(f"run {first}+{count} does not rise within {len(blocks)} blocks")
        end = first + count
    return ListSlot(slot, blocks, pairs)


def _node(number: int, item: object) -> MapNode:
    codec, data, entries = _exactly(item, 3, "map node")
    if type(data) is not bytes or len(data) > BLOCK_BYTES_MAX:
        raise CorruptError(f"an inner node is at most {BLOCK_BYTES_MAX} bytes")
    read_as = _uint(codec, NUMBER_MAX, "codec")
    return MapNode(number, read_as, data, tuple([_entry(entry) for entry in _array(entries, "entries")]))


def _entry(item: object) -> Entry:
    fields = _array(item, "entry")
    kind = fields[0] if fields else None
    if type(kind) is not int:
        raise CorruptError("an entry has no kind")
    if kind == _EntryKind.STORED:
        return _stored(fields)
    if kind == _EntryKind.INNER:
        return Inner(_uint(_exactly(fields, 2, "inner entry")[1], NUMBER_MAX, "node"))
    if kind == _EntryKind.INLINE:
        data = _exactly(fields, 2, "inline entry")[1]
        if type(data) is not bytes or len(data) > BLOCK_BYTES_MAX:
            raise CorruptError(f"an inline block is at most {BLOCK_BYTES_MAX} bytes")
        return Inline(data)
    _exactly(fields, 1, "entry")
    if kind == _EntryKind.ABSENT:
        return Absent()
    if kind == _EntryKind.IDENTITY:
        return Identity()
    raise CorruptError(f"unknown entry kind {kind}")


def _stored(fields: list[object]) -> Stored:
    _, slot, number, plain_bytes, compression, key = _exactly(fields, 6, "stored entry")
    return Stored(
        _uint(slot, NUMBER_MAX, "slot"),
        _uint(number, NUMBER_MAX, "block number"),
        _uint(plain_bytes, BLOCK_BYTES_MAX, "block length"),
        _uint(compression, 1, "compression"),
        _bytes(key, KEY_BYTES, "block key"),
    )


def _version(fields: list[object], what: str) -> None:
    if not fields or type(fields[0]) is not int:
        raise CorruptError(f"{what} has no version")
    if fields[0] != PAGE_VERSION:
        raise CorruptError(f"{what} is of version {fields[0]}, this program reads version {PAGE_VERSION}")


def _array(item: object, what: str) -> list[object]:
    if type(item) is not list:
        raise CorruptError(f"{what}: an array was expected")
    return item


def _exactly(item: object, count: int, what: str) -> list[object]:
    if type(item) is not list or len(item) != count:
        raise CorruptError(f"{what}: an array of {count} fields was expected")
    return item


def _uint(item: object, most: int, what: str, *, least: int = 0) -> int:
    if type(item) is not int or not least <= item <= most:
        raise CorruptError(f"{what} is not a number within {least}..{most}")
    return item


def _bytes(item: object, length: int, what: str) -> bytes:
    if type(item) is not bytes or len(item) != length:
        raise CorruptError(f"{what} is not {length} bytes")
    return item
