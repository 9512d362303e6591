"""From a CID to its object: found, not there, or not known yet."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.state import State
from fungistor.coding.shard import shard_key
from fungistor.dag import CID, DAG_PB, RAW, read_file, resolve, sha256_multihash
from fungistor.errors import (
    CorruptError,
    DeniedError,
    InvalidError,
    NotEnoughShardsError,
    NotFoundError,
    UnavailableError,
)
from fungistor.ids import StripeId
from fungistor.objects import content as contents_module
from fungistor.objects.content import Content
from fungistor.objects.naming import ObjectName, open_name, seal_first_name, seal_name
from fungistor.objects.paths import SEGMENTS_MAX, parse_cid_path
from fungistor.objects.publish import Publisher
from fungistor.objects.results import PublishOptions, PublishOutcome
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write


def leaf(data: bytes) -> CID:
    return CID(1, RAW, sha256_multihash(data))


def everything(network: MemoryNetwork, cid: CID) -> bytes:
    with network.content.open(cid) as source:
        return b"".join(read_file(source, cid))


def test_a_root_needs_no_index(network: MemoryNetwork, tree: Path) -> None:
    """A root is found by its record alone, before anything is indexed."""
    path = write(tree, "f", noise(1, 50_000))
    [outcome] = Publisher(network.ports()).publish([str(path)], PublishOptions())
    assert isinstance(outcome, PublishOutcome)
    assert not list(network.index.indexed())
    assert everything(network, CID.parse(outcome.cid)) == noise(1, 50_000)
    assert not list(network.index.indexed())


def test_what_lies_below_is_found_through_the_index(network: MemoryNetwork, tree: Path) -> None:
    """A leaf, a file and a folder inside an object are served by their own CIDs; the index is built when asked."""
    write(tree, "sub/large", noise(1, 3_000_000))
    write(tree, "sub/small", noise(2, 100))
    outcome = network.publish(str(tree))
    network.forget()
    root = CID.parse(outcome.cid)
    with network.content.open(root) as source:
        sub = resolve(source, root, ["sub"]).cid
        large = resolve(source, root, ["sub", "large"]).cid
    assert everything(network, large) == noise(1, 3_000_000)
    assert everything(network, leaf(noise(1, 3_000_000)[: 1 << 20])) == noise(1, 3_000_000)[: 1 << 20]
    assert everything(network, leaf(noise(2, 100))) == noise(2, 100)
    with network.content.open(sub) as source:
        assert resolve(source, sub, ["small"]).cid == leaf(noise(2, 100))


def test_both_spellings_of_a_root_are_one_object(network: MemoryNetwork, tree: Path) -> None:
    """Version 0 and version 1 of a dag-pb CID lead to the same bytes."""
    outcome = network.publish(str(write(tree, "f", noise(1, 30_000))), PublishOptions(profile="unixfs-v0-2015"))
    root = CID.parse(outcome.cid)
    assert root.version == 0
    assert everything(network, root) == everything(network, CID(1, DAG_PB, root.multihash)) == noise(1, 30_000)


def test_the_unknown_is_not_found_once_all_is_seen(network: MemoryNetwork, tree: Path) -> None:
    """A node that has caught up answers that there is nothing."""
    network.publish(str(write(tree, "f", noise(1, 30_000))))
    with pytest.raises(NotFoundError, match="not stored in this network"):
        network.content.open(leaf(b"nobody has this"))


def test_a_node_that_is_behind_catches_up_before_it_says_no(network: MemoryNetwork, tree: Path, home: Path) -> None:
    """Another node's publish is found by a reader that had not heard of it, root and leaf."""
    other = Catalog(network.log, State(str(home / "other.sqlite")))
    content = Content(other, network.index, network.keys, network.key_table, network.threads)
    data = noise(1, 300_000)
    outcome = network.publish(str(write(tree, "f", data)), PublishOptions(profile="kubo-cidv1"))
    assert other.behind()
    content.open(CID.parse(outcome.cid)).close()  # type: ignore[union-attr]  # an object's source
    content.locate(leaf(data[:262144]))
    other._state.close()


def test_while_the_index_cannot_be_built_it_is_too_early_to_say_no(network: MemoryNetwork, tree: Path) -> None:
    """An object that cannot be read now might hold the block: unavailable with a time to come again, never a no."""
    [outcome] = Publisher(network.ports()).publish([str(write(tree, "f", noise(1, 300_000)))], PublishOptions())
    assert isinstance(outcome, PublishOutcome)
    network.forget()
    network.store.down(network.store.members())
    with pytest.raises(UnavailableError, match="still catching up") as caught:
        network.content.open(leaf(b"anything"))
    assert caught.value.retry_after_s == 2
    network.store.heal()
    with pytest.raises(NotFoundError):
        network.content.open(leaf(b"anything"))


def test_a_holder_that_cannot_be_read_gives_way_to_one_that_can(network: MemoryNetwork, tmp_path: Path) -> None:
    """A block in two objects is served while either can be read; with neither it is unavailable."""
    shared = noise(1, 50_000)
    first = network.publish(str(write(tmp_path, "one/a", shared).parent))
    write(tmp_path, "two/a", shared)
    second = network.publish(str(write(tmp_path, "two/b", noise(2, 50_000)).parent))
    cid = leaf(shared)
    roots = [network.slots(outcome.cid)[-1] for outcome in (first, second)]
    for lost in (1, 0):
        network.forget()
        slot = roots[lost]
        window = network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
        kept = {member: dict(network.store[member].values) for member in window}
        wipe(network, slot.stripe_id, slot.k + slot.m)
        assert everything(network, cid) == shared
        for member, values in kept.items():
            network.store[member].values.update(values)
    for slot in roots:
        wipe(network, slot.stripe_id, slot.k + slot.m)
    network.forget()
    with pytest.raises(NotEnoughShardsError):
        everything(network, cid)


def wipe(network: MemoryNetwork, stripe_id: StripeId, shards: int) -> None:
    """Lose every shard of one stripe."""
    for member in network.store.all.values():
        for index in range(shards):
            member.values.pop(shard_key(stripe_id, index), None)


def test_an_identity_cid_is_its_own_answer(network: MemoryNetwork) -> None:
    """Bytes that stand in the CID are served with every member dead, and nothing else is by that source."""
    network.store.down(network.store.members())
    cid = CID(1, RAW, b"\x00\x05hello")
    assert everything(network, cid) == b"hello"
    with network.content.open(cid) as source:
        source.hint([cid])
        with pytest.raises(NotFoundError):
            source.get(leaf(b"x"))


def test_opened_manifests_are_kept_and_follow_the_record(
    network: MemoryNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest is read once and kept while its record stands; only a bounded number is kept."""
    monkeypatch.setattr(contents_module, "MANIFESTS_KEPT", 2)
    cids = [network.publish(str(write(tmp_path, f"f{n}", noise(n, 20_000)))).cid for n in range(4)]
    network.forget()
    first = network.content.manifest_of(network.record(cids[0]))
    assert network.content.manifest_of(network.record(cids[0])) is first
    for cid in cids[1:]:
        network.content.manifest_of(network.record(cid))
    assert network.content.manifest_of(network.record(cids[0])) is not first


def test_a_record_without_its_key_says_so(network: MemoryNetwork, tree: Path) -> None:
    """A key table that lost a key is told as such, with what to restore, and not as a missing object."""
    outcome = network.publish(str(write(tree, "f", noise(1, 20_000))))
    network.forget()
    root = CID.parse(outcome.cid)
    network.key_table.delete([network.record(root).key_id])
    with pytest.raises(CorruptError, match="no key in the key table"):
        network.content.open(root)


def test_many_threads_read_at_once(network: MemoryNetwork, tree: Path) -> None:
    """Eight readers of two objects each get the right bytes, from one content and two reading threads."""
    datas = [noise(n, 3_000_000) for n in range(2)]
    roots = [CID.parse(network.publish(str(write(tree, f"f{n}", data))).cid) for n, data in enumerate(datas)]
    wrong: list[int] = []

    def work(number: int) -> None:
        if everything(network, roots[number % 2]) != datas[number % 2]:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Names and paths


@pytest.mark.parametrize("name", ["", "plain", "日本語 / with\nlines", "x" * 255])
def test_names_come_back_under_the_right_key_only(name: str) -> None:
    """A sealed name opens under its object key, differs each time, and is corrupt under any other key or flip; so does
    the first one, which is 32 bytes shorter, under its salt only."""
    key, cid, salt = bytes(range(32)), leaf(b"x"), bytes(range(32, 64))
    later, first = seal_name(key, ObjectName(cid, name)), seal_first_name(key, ObjectName(cid, name), salt)
    assert seal_name(key, ObjectName(cid, name)) != later
    assert len(first) == len(later) - 32
    with pytest.raises((CorruptError, DeniedError)):
        open_name(key, first, bytes(32))
    for sealed in (first, later):
        assert open_name(key, sealed, salt) == ObjectName(cid, name)
        assert cid.multihash not in sealed
        with pytest.raises((CorruptError, DeniedError)):
            open_name(bytes(32), sealed, salt)
        for at in range(0, len(sealed), 7):
            with pytest.raises(CorruptError):
                open_name(key, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], salt)


@pytest.mark.parametrize("form", ["{}", "/ipfs/{}", "ipfs://{}", "/ipfs/{}/", "{}//"])
def test_paths_are_taken_in_every_usual_form(form: str) -> None:
    """The CID alone or behind the usual prefixes, and names as they are."""
    cid = leaf(b"x")
    assert parse_cid_path(form.format(cid)).cid == cid
    assert parse_cid_path(form.format(cid)).segments == ()
    assert parse_cid_path(f"{form.format(cid)}/a%20b/ä//c").segments == ("a%20b", "ä", "c")


@pytest.mark.parametrize("text", ["", "/", "/ipfs/", "hello", "/ipns/x", "\0"])
def test_what_is_no_cid_is_invalid(text: str) -> None:
    """Anything else is refused as input, never looked up."""
    with pytest.raises(InvalidError):
        parse_cid_path(text)


def test_paths_are_bounded() -> None:
    """As many names as allowed are taken, one more is refused."""
    assert len(parse_cid_path(f"{leaf(b'x')}" + "/a" * SEGMENTS_MAX).segments) == SEGMENTS_MAX
    with pytest.raises(InvalidError, match="longer than"):
        parse_cid_path(f"{leaf(b'x')}" + "/a" * (SEGMENTS_MAX + 1))
