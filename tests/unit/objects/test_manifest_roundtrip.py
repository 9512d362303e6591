"""Manifests: what the writer puts down of a DAG, the reader gives back, whatever the DAG's shape."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.catalog.record import Record, Sizes
from fungistor.coding import page_writer
from fungistor.coding.manifest import Directory, Identity, Inline, Inner, Stored
from fungistor.dag import CID, DAG_PB, RAW, Block, Link, build_directory, sha256_multihash
from fungistor.dag.links import links
from fungistor.dag.profiles import UNIXFS_V1_2025
from fungistor.errors import CorruptError, DeniedError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.objects.manifest_reader import ManifestReader, StripeListReader
from fungistor.objects.manifest_writer import WrittenManifest, pack_slot, whole_slot, write_manifest
from fungistor.objects.session import Session, WrittenStripe
from fungistor.objects.spool import Spool
from fungistor.objects.stripe_reader import StripeReader, Wanted
from fungistor.objects.stripe_writer import StripeWriter
from fungistor.testing.memory_store import MemoryStore
from tests.unit.objects.stores import store_of

KEY = bytes(range(32))
FOUND = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Written:
    """A random DAG as a publish leaves it in its spool, and what stands where."""

    def __init__(self, spool: Spool, store: MemoryStore, session: Session, chance: random.Random) -> None:
        self.chance = chance
        self.spool = spool
        self.store = store
        self.session = session
        self.slots = itertools.count()
        self.nodes: dict[bytes, bytes] = {}
        self.blocks: dict[bytes, bytes] = {}
        self.stripes: dict[int, bytes] = {}
        self.writer = StripeWriter(store, session, self.slots, self._stripe)

    def _stripe(self, slot: int, stripe: WrittenStripe) -> None:
        self.spool.add_slot(slot, pack_slot(whole_slot(stripe)))

    def leaf(self) -> Link:
        """A stored block, a small one, or one that stands in its CID."""
        data = self.chance.randbytes(self.chance.randrange(1, 200))
        if self.chance.random() < 0.1:
            return Link(b"", CID(1, RAW, b"\x00" + bytes([len(data[:100])]) + data[:100]), len(data))
        multihash = sha256_multihash(data)
        if self.chance.random() < 0.5:
            self.spool.store([(multihash, self.writer.append(multihash, data))])
            if self.chance.random() < 0.1:
                self.writer.close_stripe()
        else:
            self.spool.add_small(multihash, data)
        self.blocks[multihash] = data
        return Link(b"", CID(1, RAW, multihash), len(data))

    def folder(self, below: list[Link]) -> Link:
        """A directory node over these."""
        named = [Link(b"%d" % number, link.cid, link.tsize) for number, link in enumerate(below)]

        def emit(block: Block) -> None:
            self.spool.add_node(block.cid.multihash, block.cid.codec, block.data)
            self.nodes[block.cid.multihash] = block.data

        return build_directory(UNIXFS_V1_2025, named, emit)

    def grow(self, nodes: int) -> Link:
        """A DAG in which subtrees and leaves are shared again and again."""
        made = [self.leaf() for _ in range(3)]
        for _ in range(nodes):
            below = [self.chance.choice(made) for _ in range(self.chance.randrange(1, 5))]
            below += [self.leaf() for _ in range(self.chance.randrange(3))]
            made.append(self.folder(below))
        return self.folder(made)

    def write(self, root: CID) -> WrittenManifest:
        self.writer.close_stripe()
        return write_manifest(self.spool, root, self.store, self.session, self.slots, KEY)


@contextmanager
def bench(folder: Path, seed: int) -> Iterator[Written]:
    """A spool, a store and a session."""
    store = store_of(20)
    spool = Spool(str(folder / f"spool-{os.urandom(4).hex()}"))
    try:
        yield Written(spool, store, Session(str(folder), store), random.Random(seed))
    finally:
        spool.close()


def record_of(manifest: WrittenManifest) -> Record:
    return Record(
        ObjectId(bytes(32)), TenantNumber(0), "default", False, 0, Sizes(0, 0, 0, 0, 0), manifest.root, manifest.salt,
        manifest.list_key, b"name", 0,
    )  # fmt: skip


def reader_of(store: MemoryStore, manifest: WrittenManifest, root: CID, key: bytes = KEY) -> ManifestReader:
    return ManifestReader(StripeReader(store, lambda *_: None), record_of(manifest), root, key)


def preorder(made: Written, root: CID) -> list[bytes]:
    """Multihashes of inner nodes depth first, by first occurrence: the numbering as its page words it."""
    order: list[bytes] = []

    def visit(cid: CID) -> None:
        if cid.multihash in made.nodes and cid.multihash not in order:
            order.append(cid.multihash)
            for child in links(cid, made.nodes[cid.multihash]):
                visit(child)

    visit(root)
    return order


@contextmanager
def tiny_pages(target: int, root: int) -> Iterator[None]:
    """Pages of a few hundred bytes, so that small DAGs need deep trees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_writer, "PAGE_BYTES_TARGET", target)
        patch.setattr(page_writer, "ROOT_PAGE_BYTES_MAX", root)
        yield


@FOUND
@given(seed=st.integers(0, 2**32), pages=st.sampled_from([(128 * 1024, 256 * 1024), (2000, 3000), (700, 1000)]))
def test_every_node_and_entry_comes_back(tmp_path: Path, seed: int, pages: tuple[int, int]) -> None:
    """With one page or with trees of pages: nodes in pre-order by first occurrence, an entry a link, each block
    openable from its entry alone."""
    with tiny_pages(*pages), bench(tmp_path, seed) as made:
        root = made.grow(1 + seed % 40).cid
        manifest = made.write(root)
        reader = reader_of(made.store, manifest, root)
        order = preorder(made, root)
        assert reader.root_entry == Inner(0)
        assert [number for number, _ in reader.walk()] == list(range(len(order)))
        for number, multihash in enumerate(order):
            node = reader.node(number)
            assert node.data == made.nodes[multihash]
            cid = CID(1, DAG_PB, multihash)
            children = links(cid, node.data)
            assert len(children) == len(node.entries)
            for position, (child, entry) in enumerate(zip(children, node.entries, strict=True)):
                assert reader.entry_at(number, position, child.multihash) == entry
                check_entry(made, reader, order, child, entry)
        assert manifest.blocks == made.spool.blocks_count()


def check_entry(made: Written, reader: ManifestReader, order: list[bytes], child: CID, entry: object) -> None:
    """The entry leads to the block that its link names."""
    match entry:
        case Identity():
            assert child.is_identity
        case Inner(node):
            assert order[node] == child.multihash
        case Inline(data):
            assert made.blocks[child.multihash] == data
        case Stored():
            stripes = StripeReader(made.store, lambda *_: None)
            [data] = stripes.read_blocks(reader.slot(entry.slot), [Wanted(child.multihash, entry)])
            assert data == made.blocks[child.multihash]
        case _:
            raise AssertionError(f"{child} has {entry}")


def test_deep_trees_of_pages_are_walked_whole(tmp_path: Path) -> None:
    """Hundreds of nodes in pages of a few hundred bytes give directories of directories, and every stripe is told."""
    with tiny_pages(700, 1000), bench(tmp_path, 5) as made:
        root = made.grow(300).cid
        manifest = made.write(root)
        reader = reader_of(made.store, manifest, root)
        assert isinstance(reader._map_root, Directory)
        assert reader._map_root.level >= 2
        assert len(list(reader.walk())) == len(preorder(made, root)) == len(made.nodes) > 250
        slots = list(reader.all_slots())
        assert len({slot.stripe_id for slot in slots}) == len(slots) == manifest.stripes
        keys = {key for member in made.store.all.values() for key in member.values}
        assert len(keys) == sum(slot.k + slot.m for slot in slots), "every shard on members is named by the manifest"


def test_the_stripe_list_needs_no_content_key(tmp_path: Path) -> None:
    """Record and list key give all stripes, whoever holds them; the map stays shut under another object key."""
    with bench(tmp_path, 6) as made:
        root = made.grow(30).cid
        manifest = made.write(root)
        keyless = StripeListReader(StripeReader(made.store, lambda *_: None), record_of(manifest))
        assert [s.stripe_id for s in keyless.all_slots()] == [
            s.stripe_id for s in reader_of(made.store, manifest, root).all_slots()
        ]
        with pytest.raises((CorruptError, DeniedError)):
            reader_of(made.store, manifest, root, bytes(32))


@pytest.mark.parametrize("kind", ["stored", "inline", "identity"])
def test_a_root_without_links_is_its_own_entry(tmp_path: Path, kind: str) -> None:
    """An object of one block has no node; its root entry says where it is."""
    with bench(tmp_path, 7) as made:
        data = b"all there is"
        cid = CID(1, RAW, sha256_multihash(data))
        if kind == "stored":
            made.spool.store([(cid.multihash, made.writer.append(cid.multihash, data))])
        elif kind == "inline":
            made.spool.add_small(cid.multihash, data)
        else:
            cid = CID(1, RAW, b"\x00\x04data")
        reader = reader_of(made.store, made.write(cid), cid)
        assert isinstance(reader.root_entry, {"stored": Stored, "inline": Inline, "identity": Identity}[kind])
        assert reader.entry_at(0, 0, cid.multihash) == reader.root_entry
        assert reader.entry_at(0, 1, cid.multihash) is None
        assert reader.entry_at(0, 0, sha256_multihash(b"another")) is None
        assert list(reader.walk()) == []
        assert reader.search(cid.multihash) is None


def test_an_index_that_is_behind_is_not_believed(tmp_path: Path) -> None:
    """A place that holds another block, or none, is no entry."""
    with bench(tmp_path, 8) as made:
        root = made.grow(5).cid
        reader = reader_of(made.store, made.write(root), root)
        [first, *_] = links(root, reader.node(0).data)
        assert reader.entry_at(0, 0, first.multihash) is not None
        assert reader.entry_at(0, 0, sha256_multihash(b"another")) is None
        assert reader.entry_at(0, 1000, first.multihash) is None
        with pytest.raises(CorruptError, match="node 99"):
            reader.entry_at(99, 0, first.multihash)


def test_a_link_to_what_was_never_made_is_refused(tmp_path: Path) -> None:
    """A manifest is not written for a DAG with a hole in it."""
    with bench(tmp_path, 9) as made:
        root = made.folder([Link(b"", CID(1, RAW, sha256_multihash(b"never stored")), 1)]).cid
        with pytest.raises(CorruptError, match="was linked to and never made"):
            made.write(root)
