"""Objects of several tenants beside each other: what is shared, what is found, and by whom."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from fungistor.catalog.index import BlockIndex
from fungistor.dag.cid import CID
from fungistor.dag.source import fetch
from fungistor.errors import NotFoundError, NotPermittedError
from fungistor.ids import OWN_TENANT
from fungistor.keys.ring import NodeKeys
from fungistor.objects.access import Reader
from fungistor.objects.content import Content
from fungistor.objects.results import PublishFailure, PublishOptions
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write

PRIVATE = PublishOptions(private=True)


def stored_ids(network: MemoryNetwork, cid: str) -> set[bytes]:
    return {bytes(slot.stripe_id) for slot in network.slots(cid)}


def test_no_block_is_shared_between_tenants(network: MemoryNetwork, tree: Path) -> None:
    """Equal content is sealed and stored for each; the second publish of one tenant stores nothing, as ever."""
    path = str(write(tree, "same", noise(1, 3_000_000)))
    own = network.publish(path)
    own_stripes = stored_ids(network, own.cid)
    network.tenant = museum = network.add_tenant("museum")
    other = network.publish(path)
    assert (other.cid, other.new, other.stored) == (own.cid, own.new, own.stored)
    assert not stored_ids(network, own.cid) & own_stripes
    assert network.publish(path).new == 0
    assert network.record(own.cid).tenant == museum
    # What one takes back is all its own, though another has the same; and the other's stays.
    taken = network.unpublish(own.cid)
    assert taken.still_readable == 0
    assert taken.shredded > 1
    network.forget()
    assert b"".join(network.read(own.cid)) == noise(1, 3_000_000)
    assert network.catalog.tenants.usage(museum).objects == 0
    assert network.catalog.tenants.usage(OWN_TENANT).bytes == 3_000_000


def test_a_private_object_is_found_by_its_tenant_alone(network: MemoryNetwork, tree: Path) -> None:
    """As a root and by every block below; all others are told what they are told of what is not there."""
    folder = tree / "folder"
    folder.mkdir()
    write(folder, "file", noise(2, 2_500_000))
    network.tenant = museum = network.add_tenant("museum")
    published = network.publish(str(folder), PRIVATE)
    cids = [cid for cid, _, _ in network.content.manifest_of(network.record(published.cid)).held()]
    absent = CID.parse("bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaq")
    network.forget()
    with pytest.raises(NotFoundError) as nothing:
        network.content.open(absent)
    root = CID.parse(published.cid)
    assert [network.content.hides(root, reader) for reader in (None, Reader(OWN_TENANT), Reader(museum))] == [
        True,
        True,
        False,
    ]
    assert not network.content.hides(absent)
    for cid in cids:
        for reader in (None, Reader(), Reader(OWN_TENANT)):
            with pytest.raises(NotFoundError) as hidden:
                network.content.open(cid, reader)
            assert hidden.value.message == nothing.value.message.replace(str(absent), str(cid))
            assert hidden.value.hint == nothing.value.hint
            assert reader is None or not reader.met_private
        reader = Reader(museum)
        with network.content.open(cid, reader) as source:
            fetch(source, cid)
        assert reader.met_private


def test_a_public_object_is_found_behind_any_number_of_private_ones(network: MemoryNetwork, tree: Path) -> None:
    """A tenant that holds a block in many private objects hides it from nobody who may have it by a public one."""
    shared = noise(3, 20_000)
    public = network.publish(str(write(tree, "public", shared)))
    network.tenant = network.add_tenant("crowd")
    for number in range(70):
        folder = tree / f"folder {number}"
        folder.mkdir()
        write(folder, "shared", shared)
        write(folder, "own", b"%d" % number)
        network.publish(str(folder), PRIVATE)
    whole = tree / "whole"
    whole.mkdir()
    write(whole, "shared", shared)
    network.tenant = OWN_TENANT
    below = network.publish(str(whole))
    network.unpublish(public.cid)
    network.forget()
    block = CID.parse(public.cid)
    with network.content.open(block) as source:
        assert fetch(source, block) == shared
    network.unpublish(below.cid)
    network.forget()
    with pytest.raises(NotFoundError):
        network.content.open(block)


def test_a_quota_refuses_before_a_byte_is_stored(network: MemoryNetwork, tree: Path) -> None:
    """From files by their sizes, small ones together, too; from the standard input at the byte that is too many."""
    small = [str(write(tree, f"small {number}", noise(10 + number, 3_000))) for number in range(5)]
    large = str(write(tree, "large", noise(4, 90_000)))
    network.tenant = museum = network.add_tenant("museum", bytes_max=100_000, objects_max=5)
    network.publish(large)
    before = sum(len(member.values) for member in network.store.all.values())
    with pytest.raises(NotPermittedError, match="90000 of 100000 bytes, and this takes 12000 more"):
        network.publish(str(write(tree, "more", noise(5, 12_000))))
    network.stdin = io.BytesIO(noise(6, 60_000))
    with pytest.raises(NotPermittedError):
        network.publish("-")
    assert sum(len(member.values) for member in network.store.all.values()) == before
    results = network.publish_all(small)
    assert [isinstance(result, PublishFailure) for result in results] == [False] * 3 + [True] * 2
    assert network.catalog.tenants.usage(museum).bytes == 99_000
    assert network.publish(large, PublishOptions(name="again")).new == 0
    network.unpublish(network.publish(small[0]).cid)
    assert network.publish(small[4]).size == 3_000


def test_an_object_stays_private_until_it_is_said_to_be_public(network: MemoryNetwork, tree: Path) -> None:
    """Published again without a word, changed or mended, alone or beside others."""
    path = str(write(tree, "turned", noise(7, 50_000)))
    cid = network.publish(path, PRIVATE).cid
    beside = str(write(tree, "beside", b"x"))
    for paths, options in (([path], PublishOptions(name="other")), ([path, beside], PublishOptions())):
        network.publish_all(paths, options)
        assert network.record(cid).private
    network.publish(path, PublishOptions(private=False))
    assert not network.record(cid).private
    network.publish(path)
    assert not network.record(cid).private


def test_a_node_without_a_tenant_s_key_reads_nothing_of_it_and_goes_on(network: MemoryNetwork, tree: Path) -> None:
    """Its index passes over such objects; once it holds the key and looks again, it finds them as anybody's."""
    network.tenant = museum = network.add_tenant("museum")
    folder = tree / "folder"
    folder.mkdir()
    write(folder, "file", noise(8, 40_000))
    published = CID.parse(network.publish(str(folder)).cid)
    below = [cid for cid, _, _ in network.content.manifest_of(network.record(published)).held()][-1]
    held = {OWN_TENANT: network.tenant_keys[OWN_TENANT]}
    keys = NodeKeys(network.keys.network_key, held, network.keys.signing_key, network.keys.root_fingerprint)
    with contextlib.closing(BlockIndex(f"{network.folder}/other.sqlite")) as index:
        content = Content(network.catalog, index, keys, network.key_table, network.threads)
        assert content.catch_up_index()
        for cid in (published, below):
            with pytest.raises(NotFoundError):
                content.open(cid)
        held[museum] = network.tenant_keys[museum]
        index.begin_again()
        assert content.catch_up_index()
        for cid in (published, below):
            with content.open(cid) as source:
                fetch(source, cid)
