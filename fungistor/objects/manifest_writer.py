"""Write an object's manifest from what the spool knows: block map, then stripe list, then both root pages together."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import libipld

from fungistor.coding.compress import Compression
from fungistor.coding.manifest import (
    Absent,
    Entry,
    Identity,
    Inline,
    Inner,
    ListSlot,
    ManifestRoot,
    MapNode,
    PageRef,
    RootRef,
    Slot,
    Stored,
)
from fungistor.coding.page_codec import encode_root
from fungistor.coding.page_writer import ListWriter, MapWriter
from fungistor.coding.pages import SealedPage, seal_page
from fungistor.coding.seal import KEY_BYTES, Purpose
from fungistor.dag.cid import CID, RAW
from fungistor.dag.links import links
from fungistor.errors import CorruptError
from fungistor.ids import LayoutNumber, StripeId
from fungistor.keys.ring import derive
from fungistor.objects.pending import Pending
from fungistor.objects.ports import ShardStore
from fungistor.objects.session import Session, WrittenStripe
from fungistor.objects.spool import Spool
from fungistor.objects.stripe_writer import StripeWriter

LIST_ROOT_PURPOSE = "list root page"
MAP_ROOT_PURPOSE = "map root page"
SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class WrittenManifest:
    """What the record keeps of a manifest. `sealed_bytes`: the sealed pages of the block map."""

    root: bytes
    salt: bytes
    list_key: bytes = field(repr=False)
    sealed_bytes: int
    blocks: int
    stripes: int


def pack_slot(slot: ListSlot) -> bytes:
    """A stripe list entry for the spool."""
    s = slot.slot
    packed: bytes = libipld.encode_dag_cbor(
        [s.stripe_id, s.k, s.m, s.shard_bytes, s.content_root, s.layout, list(slot.block_lengths),
         [list(run) for run in slot.runs]]
    )  # fmt: skip
    return packed


def _unpack_slot(packed: bytes) -> ListSlot:
    stripe_id, k, m, shard_bytes, root, layout, lengths, runs = libipld.decode_dag_cbor(packed)
    slot = Slot(StripeId(stripe_id), k, m, shard_bytes, root, LayoutNumber(layout))
    return ListSlot(slot, tuple(lengths), tuple((first, count) for first, count in runs))


class _PageStripes:
    """Packs sealed pages into stripes. A page's place is asked when its directory closes, which closes its stripe."""

    def __init__(self, store: ShardStore, session: Session, slots: itertools.count[int], spool: Spool | None) -> None:
        self._spool = spool
        self._writer = StripeWriter(store, session, slots, self._written)
        self._stripes: dict[int, WrittenStripe] = {}
        self.sealed_bytes = 0

    def add(self, page: SealedPage) -> tuple[int, int]:
        """Append a sealed page; return its slot number and offset."""
        place = self._writer.append_sealed(page.sealed)
        self.sealed_bytes += len(page.sealed)
        self._writer.close_if_full()
        return place

    def emit(self, purpose: Purpose, plain: bytes) -> _PagePlace:
        """Seal a page under a key of its own."""
        key = os.urandom(KEY_BYTES)
        page = seal_page(key, purpose, plain)
        return _PagePlace(self, *self.add(page), len(page.sealed), page.plain_bytes, int(page.compression), key)

    def stripe(self, slot: int) -> WrittenStripe:
        """The stripe of a slot, closed now if it was open."""
        if slot not in self._stripes:
            self.close()
        return self._stripes[slot]

    def close(self) -> None:
        """Send the open stripe."""
        self._writer.close_stripe()

    def _written(self, slot: int, stripe: WrittenStripe) -> None:
        self._stripes[slot] = stripe
        if self._spool is not None:
            self._spool.add_slot(slot, pack_slot(whole_slot(stripe)))


@dataclass(frozen=True, slots=True)
class _PagePlace:
    """A page without its bytes: a thousand of them wait for their directory page."""

    stripes: _PageStripes
    slot: int
    offset: int
    sealed_bytes: int
    plain_bytes: int
    compression: int
    key: bytes

    def ref(self) -> PageRef:
        slot = self.stripes.stripe(self.slot).slot
        return PageRef(slot, self.offset, self.sealed_bytes, self.plain_bytes, self.compression, self.key)


def whole_slot(stripe: WrittenStripe) -> ListSlot:
    """The stripe list's entry of a stripe whose blocks are all this object's."""
    return ListSlot(stripe.slot, stripe.block_lengths, ((0, len(stripe.block_lengths)),))


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest but for the place of its two root pages."""

    list_page: SealedPage
    map_page: SealedPage
    salt: bytes
    list_key: bytes = field(repr=False)
    sealed_bytes: int
    """Of the block map."""
    blocks: int


def write_manifest(
    spool: Spool,
    root: CID,
    store: ShardStore,
    session: Session,
    slots: itertools.count[int],
    object_key: bytes,
    *,
    salt: bytes | None = None,
    list_key: bytes | None = None,
    partial: bool = False,
) -> WrittenManifest:
    """Write the pages to members; nothing names them until the record is committed.

    `salt`, and `list_key` with it, are drawn for this manifest and no other. With `partial` a block that the spool has
    not is absent from the object, else its lack is a bug.

    Raises:
        UnavailableError: too few members took a stripe.
    """
    salt = salt or os.urandom(SALT_BYTES)
    list_key = list_key or os.urandom(KEY_BYTES)
    sealed = seal_manifest(
        spool, root, store, session, slots, object_key, salt=salt, list_key=list_key, partial=partial
    )
    where = _write_root(sealed.list_page, sealed.map_page, salt, store, session)
    return WrittenManifest(
        root=encode_root(where),
        salt=salt,
        list_key=sealed.list_key,
        sealed_bytes=sealed.sealed_bytes,
        blocks=sealed.blocks,
        stripes=session.stripes,
    )


def seal_manifest(
    spool: Spool,
    root: CID,
    store: ShardStore,
    session: Session,
    slots: itertools.count[int],
    object_key: bytes,
    *,
    salt: bytes,
    list_key: bytes,
    partial: bool = False,
) -> SealedManifest:
    """As `write_manifest`, but for the root pages, which are sealed and still to be stored."""
    map_stripes = _PageStripes(store, session, slots, spool)
    map_root = _write_map(spool, root, map_stripes, session.folder, partial=partial)
    map_stripes.close()
    listed = _write_list((_unpack_slot(packed) for _, packed in spool.slots_in_order()), store, session)
    map_page = seal_page(derive(object_key, MAP_ROOT_PURPOSE, salt), Purpose.MAP_ROOT_PAGE, map_root)
    return SealedManifest(
        list_page=_seal_list(listed, list_key, salt),
        map_page=map_page,
        salt=salt,
        list_key=list_key,
        sealed_bytes=map_stripes.sealed_bytes + len(map_page.sealed),
        blocks=spool.blocks_count(),
    )


def _write_list(slots: Iterable[ListSlot], store: ShardStore, session: Session) -> bytes:
    """Write the pages of a stripe list but for its root page; return that one's plain bytes."""
    # The stripes of the list's own pages are not in the list: its directory pages name them.
    stripes = _PageStripes(store, session, itertools.count(), None)
    writer = ListWriter(lambda plain: stripes.emit(Purpose.LIST_PAGE, plain))
    for listed in slots:
        writer.add(listed)
    root = writer.finish()
    stripes.close()
    return root


def _seal_list(list_root: bytes, list_key: bytes, salt: bytes) -> SealedPage:
    return seal_page(derive(list_key, LIST_ROOT_PURPOSE, salt), Purpose.LIST_ROOT_PAGE, list_root)


def _write_root(
    list_page: SealedPage, map_page: SealedPage, salt: bytes, store: ShardStore, session: Session
) -> ManifestRoot:
    stripe = _PageStripes(store, session, itertools.count(), None)
    slot, list_offset = stripe.add(list_page)
    _, map_offset = stripe.add(map_page)
    return ManifestRoot(
        stripe.stripe(slot).slot, root_ref(list_offset, list_page), root_ref(map_offset, map_page), salt
    )


def rewrite_list(
    where: ManifestRoot, map_root: bytes, slots: Iterable[ListSlot], store: ShardStore, session: Session
) -> tuple[ManifestRoot, bytes]:
    """Write a manifest that differs in its stripe list alone; return its root and its list key.

    No content key is needed: `map_root`, the sealed root page of the block map, is copied as it is, and what its
    entries name by slot and number stands in the new list under the same.

    Raises:
        UnavailableError: too few members took a stripe.
    """
    list_key = os.urandom(KEY_BYTES)
    ref = where.map_root
    page = SealedPage(map_root, ref.plain_bytes, Compression(ref.compression))
    listed = _seal_list(_write_list(slots, store, session), list_key, where.salt)
    return _write_root(listed, page, where.salt, store, session), list_key


def root_ref(offset: int, page: SealedPage) -> RootRef:
    """Where a root page lies in its stripe."""
    return RootRef(offset, len(page.sealed), page.plain_bytes, int(page.compression))


def _write_map(spool: Spool, root: CID, stripes: _PageStripes, folder: str, *, partial: bool) -> bytes:
    writer = MapWriter(lambda plain: stripes.emit(Purpose.MAP_PAGE, plain))
    if spool.node(root.multihash) is None:
        return writer.finish(_entry(spool, root, partial=partial))
    with contextlib.closing(Pending(folder)) as pending:
        _number_nodes(spool, root, pending)
    for number, codec, data in spool.nodes_in_order():
        entries = _entries(spool, _links(codec, root, data), partial=partial)
        writer.add(MapNode(number, codec, data, tuple(entries)))
    return writer.finish(Inner(0))


def _links(codec: int, any_cid: CID, data: bytes) -> list[CID]:
    return links(CID(1, codec, any_cid.multihash), data)  # of the CID only the codec counts


def _number_nodes(spool: Spool, root: CID, pending: Pending) -> None:
    """Number inner nodes depth first, parents before children, by their first occurrence."""
    fresh = itertools.count()
    pending.push([root.multihash])
    while (multihash := pending.pop()) is not None:
        node = spool.node(multihash)
        if node is not None and node[2] is None:
            spool.number_node(multihash, next(fresh))
            below = _links(node[0], root, node[1])
            pending.push(child.multihash for child in reversed(below) if child.codec != RAW)


def _entries(spool: Spool, children: list[CID], *, partial: bool) -> Iterator[Entry]:
    """As `_entry`, with the look-ups of a node's many children together."""
    stored = spool.blocks([cid.multihash for cid in children])
    numbers = spool.node_numbers([cid.multihash for cid in children if cid.codec != RAW])
    for cid in children:
        multihash = cid.multihash
        if cid.codec != RAW and (number := numbers.get(multihash)) is not None:
            yield Inner(number)
        elif (block := stored.get(multihash)) is not None:
            yield Stored(block.slot, block.number, block.plain_bytes, block.compression, block.key)
        else:
            yield _entry(spool, cid, partial=partial)


def _entry(spool: Spool, cid: CID, *, partial: bool) -> Entry:
    # A block may be linked to as raw, too, and be stored for that; by its own codec it leads on to what is below.
    if cid.codec != RAW and (number := spool.node_number(cid.multihash)) is not None:
        return Inner(number)
    if (block := spool.block(cid.multihash)) is not None:
        return Stored(block.slot, block.number, block.plain_bytes, block.compression, block.key)
    if (data := spool.small(cid.multihash)) is not None:
        return Inline(data)
    if (number := spool.node_number(cid.multihash)) is not None:
        return Inner(number)
    if cid.is_identity:
        return Identity()
    if partial:
        return Absent()
    raise CorruptError(f"block {cid} was linked to and never made")
