"""Unpublish and collect on members in memory: what goes, what stays, and what an end in between leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from pathlib import Path

import pytest

from fungistor.catalog.record import Record
from fungistor.catalog.removal import Keep
from fungistor.dag.cid import CID
from fungistor.errors import ConflictError, DeniedError, NotFoundError, UnavailableError
from fungistor.ids import MemberNumber, ObjectId
from fungistor.keys.ring import object_id
from fungistor.objects.lease import LEASE_S, Lease
from fungistor.objects.publish import Publisher
from fungistor.objects.results import PublishFailure, PublishOptions, Unpublished
from fungistor.testing.memory_network import TENANT, MemoryNetwork
from tests.unit.objects.trees import noise, write


def identity(network: MemoryNetwork, cid: str) -> tuple[CID, ObjectId]:
    root = CID.parse(cid)
    return root, object_id(network.keys.network_key, TENANT, root.codec, root.multihash)


def held_bytes(network: MemoryNetwork) -> int:
    """Bytes of all values on members."""
    return sum(len(value) for member in network.store.all.values() for value in member.values.values())


def read(network: MemoryNetwork, cid: str, *names: str) -> bytes:
    network.forget()
    return b"".join(network.read(cid, *names))


def test_unpublish_and_collect_bring_every_byte_back(network: MemoryNetwork, tree: Path) -> None:
    """Members hold what they held before, the key is gone, and readers are told that nothing is there."""
    stays = network.publish(str(write(tree, "stays", noise(1, 300_000))))
    before = held_bytes(network)
    goes = network.publish(str(write(tree, "goes", noise(2, 9_000_000))))
    record = network.record(goes.cid)
    outcome = network.unpublish(goes.cid)
    assert (outcome.shredded, outcome.still_readable, outcome.pending) == (goes.size // (1 << 20) + 2, 0, ())
    assert network.key_table.get(record.key_id) is None
    assert network.dropped_spans
    with pytest.raises(NotFoundError):
        read(network, goes.cid)
    assert held_bytes(network) > before
    collected = network.collector().collect(grace_s=0)
    assert (collected.kept, collected.repacked, collected.waiting) == (0, 0, 0)
    assert collected.deleted == record.sizes.stripes
    assert held_bytes(network) == before
    assert read(network, stays.cid) == noise(1, 300_000)


def test_a_collection_waits_for_its_grace_and_a_trial_changes_nothing(network: MemoryNetwork, tree: Path) -> None:
    """Nothing goes before the grace is over; --dry-run tells the same stripes that the real run then deletes."""
    goes = network.publish(str(write(tree, "goes", noise(2, 400_000))))
    network.unpublish(goes.cid)
    full = held_bytes(network)
    assert network.collector().collect(grace_s=3600).waiting == 1
    network.now += 3601
    told = network.collector().collect(grace_s=3600, dry_run=True)
    assert held_bytes(network) == full
    assert told.dry_run and told.freed == full
    assert network.collector().collect(grace_s=3600).deleted == told.deleted
    assert held_bytes(network) == 0


def test_the_first_publisher_of_shared_blocks_may_go(network: MemoryNetwork, tree: Path) -> None:
    """What a later object shares stays readable; the rest of those stripes is packed away."""
    for number in range(40):
        write(tree, f"all/f{number}", noise(number, 100_000))
    first = network.publish(str(tree / "all"))
    for number in range(0, 40, 8):
        write(tree, f"some/f{number}", noise(number, 100_000))
    second = network.publish(str(tree / "some"))
    assert second.new < 100_000
    outcome = network.unpublish(first.cid)
    assert outcome.still_readable == 5
    collected = network.collector().collect(grace_s=0)
    assert collected.repacked and collected.waiting == 0
    assert held_bytes(network) < 1.05 * (5 * 100_000 * 1.25) + 60_000
    for number in range(0, 40, 8):
        assert read(network, second.cid, f"f{number}") == noise(number, 100_000)
    assert network.verify(second.cid).missing == 0
    # What was packed anew is reused, dropped and collected as everything else.
    third = network.publish(str(write(tree, "f8", noise(8, 100_000))))
    assert third.new < 20_000
    network.content.catch_up_index()
    network.unpublish(second.cid)
    network.collector().collect(grace_s=0)
    assert read(network, third.cid) == noise(8, 100_000)
    network.unpublish(third.cid)
    network.collector().collect(grace_s=0)
    assert held_bytes(network) == 0


def test_every_second_of_many_small_objects(network: MemoryNetwork, tree: Path) -> None:
    """The survivors read, and the members hold about half."""
    paths = [str(write(tree, f"s{number}", noise(number, 3_000 + number))) for number in range(60)]
    outcomes = network.publish_all(paths)
    full = held_bytes(network)
    for outcome in outcomes[::2]:
        assert not isinstance(outcome, PublishFailure)
        network.unpublish(outcome.cid)
    network.collector().collect(grace_s=0)
    assert held_bytes(network) < 0.55 * full
    for number in range(1, 60, 2):
        outcome = outcomes[number]
        assert not isinstance(outcome, PublishFailure)
        assert read(network, outcome.cid) == noise(number, 3_000 + number)


def test_an_undelete_window(network: MemoryNetwork, tree: Path) -> None:
    """While it is open the object is absent and can be brought back whole; when it is over the key goes."""
    outcome = network.publish(str(write(tree, "f", noise(1, 200_000))))
    root, name = identity(network, outcome.cid)
    key_id = network.record(outcome.cid).key_id
    remover = network.remover()
    assert network.unpublish(outcome.cid, grace_s=100).until == int(network.now) + 100
    with pytest.raises(NotFoundError):
        read(network, outcome.cid)
    network.collector().collect(grace_s=0)
    assert remover.shred_leftovers() == 0
    remover.keep(root, name, Keep.UNDO)
    assert read(network, outcome.cid) == noise(1, 200_000)
    network.unpublish(outcome.cid, grace_s=100)
    network.now += 101
    with pytest.raises(ConflictError, match="nothing to bring back"):
        remover.keep(root, name, Keep.UNDO)
    assert remover.expire()
    assert network.key_table.get(key_id) is None
    network.collector().collect(grace_s=0)
    assert held_bytes(network) == 0


def test_several_go_by_one_commit_each_judged_on_its_own(network: MemoryNetwork, tree: Path) -> None:
    """Of five one is pinned, one is named twice and one was never there: these are told in their places, the others go,
    as if one after the other: what two of them share is shredded with the second, what the pinned one holds is not."""
    shared, kept = noise(1, 1 << 20), noise(2, 1 << 20)
    paths = [
        write(tree, name, content)
        for name, content in (("a", shared + kept), ("b", shared), ("c", noise(3, 20_000)), ("pinned", kept))
    ]
    cids = [network.publish(str(path)).cid for path in paths]
    remover = network.remover()
    remover.keep(*identity(network, cids[3]), Keep.PIN)
    absent = str(CID.parse(network.publish(str(write(tree, "d", noise(4, 20_000)))).cid))
    network.unpublish(absent)
    asked = [identity(network, cid) for cid in (*cids, cids[2], absent)]
    revision = network.catalog.revision
    told = remover.unpublish_all(asked)
    assert len({logged.number for logged in list(network.catalog.logged(0))[-4:]}) == 1, "one entry of the log for all"
    assert network.catalog.revision == revision + 3
    assert [type(outcome) for outcome in told[3:]] == [ConflictError, NotFoundError, NotFoundError]
    a, b, c = (outcome for outcome in told[:3] if isinstance(outcome, Unpublished))
    assert (a.cid, a.still_readable) == (cids[0], 2), "one block of b, one of the pinned"
    assert (b.shredded, b.still_readable, c.shredded) == (1, 0, 1)
    for cid in cids[:3]:
        with pytest.raises(NotFoundError):
            read(network, cid)
    assert read(network, cids[3]) == kept
    assert len(network.key_table.objects()) == 1


def test_pins_locks_and_expiry(network: MemoryNetwork, tree: Path) -> None:
    """A pinned object is not unpublished and does not expire; a lock holds until its time and is never shortened."""
    outcome = network.publish(str(write(tree, "f", noise(1, 20_000))), PublishOptions(expires_s=50))
    root, name = identity(network, outcome.cid)
    remover = network.remover()
    remover.keep(root, name, Keep.LOCK, int(network.now) + 100)
    with pytest.raises(DeniedError, match="locked"):
        network.unpublish(outcome.cid)
    with pytest.raises(DeniedError, match="already"):
        remover.keep(root, name, Keep.LOCK, int(network.now) + 99)
    network.now += 60
    assert not remover.expire(), "locked beyond its expiry"
    remover.keep(root, name, Keep.PIN)
    network.now += 60
    assert not remover.expire(), "pinned"
    with pytest.raises(ConflictError, match="pinned"):
        network.unpublish(outcome.cid)
    remover.keep(root, name, Keep.UNPIN)
    assert remover.expire()
    with pytest.raises(NotFoundError):
        read(network, outcome.cid)


def test_a_publisher_that_reuses_what_is_condemned_stores_again(network: MemoryNetwork, tree: Path) -> None:
    """Between its look and its commit the blocks are dropped and collected: it is refused, and then publishes whole."""
    first = network.publish(str(write(tree, "a/f", noise(1, 300_000))))
    write(tree, "b/f", noise(1, 300_000))
    write(tree, "b/g", noise(2, 300_000))
    ports = network.ports()
    dropped: list[str] = []

    def current(asked: ObjectId) -> Record | None:
        if not dropped:  # asked right before the commit, after all blocks were looked up
            dropped.append(first.cid)
            network.unpublish(first.cid)
            network.collector().collect(grace_s=0)
        return network.record_of_id(asked)

    [result] = Publisher(dataclasses.replace(ports, current=current)).publish([str(tree / "b")], PublishOptions())
    assert not isinstance(result, PublishFailure), result.error
    network.content.catch_up_index()
    assert result.new > 300_000, "what was condemned is stored again; what went out with the first try is taken up"
    assert read(network, result.cid, "f") == noise(1, 300_000)
    assert network.verify(result.cid).missing == 0
    network.now += 60
    network.collector().collect(grace_s=0)
    assert network.verify(result.cid).missing == 0
    assert held_bytes(network) < 1.4 * 600_000


def test_a_condemnation_of_other_blocks_costs_a_publisher_nothing(network: MemoryNetwork, tree: Path) -> None:
    """What it reuses still stands, so that one more look is all it takes."""
    network.publish(str(write(tree, "a/f", noise(1, 300_000))))
    other = network.publish(str(write(tree, "other", noise(3, 300_000))))
    write(tree, "b/f", noise(1, 300_000))
    ports = network.ports()
    dropped: list[str] = []

    def current(asked: ObjectId) -> Record | None:
        if not dropped:
            dropped.append(other.cid)
            network.unpublish(other.cid)
            network.collector().collect(grace_s=0)
        return network.record_of_id(asked)

    [result] = Publisher(dataclasses.replace(ports, current=current)).publish([str(tree / "b")], PublishOptions())
    assert not isinstance(result, PublishFailure), result.error
    assert result.new < 30_000
    assert read(network, result.cid, "f") == noise(1, 300_000)


def test_what_a_dead_publisher_stored_is_collected(network: MemoryNetwork, tree: Path) -> None:
    """Its ids follow from its session; while the session is open nothing of it goes, and afterwards all of it. It ran
    on another machine: here is no journal that says it is dead."""
    stays = network.publish(str(write(tree, "stays", noise(1, 100_000))))
    before = held_bytes(network)
    ports = network.ports()

    class DiedError(Exception):
        """The process ends here."""

    def current(_: ObjectId) -> Record | None:
        raise DiedError

    publisher = Publisher(dataclasses.replace(ports, current=current))
    lease_exit, Lease.__exit__ = Lease.__exit__, lambda *_: None  # type: ignore[method-assign]
    try:
        with pytest.raises(DiedError):
            list(publisher.publish([str(write(tree, "f", noise(2, 500_000)))], PublishOptions()))
    finally:
        Lease.__exit__ = lease_exit  # type: ignore[method-assign]
    assert held_bytes(network) > before + 500_000
    shutil.rmtree(network.journal)
    network.collector().collect(grace_s=0)
    assert held_bytes(network) > before + 500_000, "its session is open"
    network.now += LEASE_S + 1
    network.remover().expire()
    assert network.collector().collect(grace_s=0).waiting == 0
    assert held_bytes(network) == before
    assert read(network, stays.cid) == noise(1, 100_000)


def test_an_absent_member_is_waited_for(network: MemoryNetwork, tree: Path) -> None:
    """It keeps its shards until it is back; what names them stays until then, and all goes in the end."""
    goes = network.publish(str(write(tree, "goes", noise(2, 400_000))))
    network.unpublish(goes.cid)
    away = MemberNumber(3)
    network.store.down([away])
    collected = network.collector().collect(grace_s=0)
    assert collected.pending == (network.store.name(away),)
    assert collected.waiting == 1
    network.store.heal()
    assert network.collector().collect(grace_s=0).waiting == 0
    assert held_bytes(network) == 0


def test_what_cannot_be_read_stops_a_collection(network: MemoryNetwork, tree: Path) -> None:
    """With an object's stripe list out of reach nothing can be told to be unneeded, so nothing goes."""
    stays = network.publish(str(write(tree, "stays", noise(1, 300_000))))
    goes = network.publish(str(write(tree, "goes", noise(2, 300_000))))
    network.unpublish(goes.cid)
    where = network.slots(stays.cid)[-1]
    window = network.store.window(where.stripe_id, where.layout, where.k + where.m)
    network.store.down(window[:5])
    full = held_bytes(network)
    network.forget()
    with pytest.raises(UnavailableError, match="nothing was deleted"):
        network.collector().collect(grace_s=0)
    assert held_bytes(network) == full


@pytest.mark.parametrize("seed", range(12))
def test_ended_anywhere_nothing_that_stands_is_lost(network: MemoryNetwork, tree: Path, seed: int) -> None:
    """Killed at a point drawn by the seed, a collection loses nothing; the next one brings all the space back."""
    chance = random.Random(seed)
    contents = {number: noise(number, 60_000) for number in range(12)}
    for number, content in contents.items():
        write(tree, f"all/f{number}", content)
    first = network.publish(str(tree / "all"))
    for number in (0, 5, 7):
        write(tree, f"some/f{number}", contents[number])
    second = network.publish(str(tree / "some"))
    network.unpublish(first.cid)
    left = chance.randrange(60)

    class Killed(BaseException):
        """The process is gone."""

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    store, catalog = network.store, network.catalog
    originals = (store.delete, store.put, catalog.commit_all, store.compact)

    def dying(original: object) -> object:
        def call(*words: object, **named: object) -> object:
            tick()
            result = original(*words, **named)  # type: ignore[operator]
            tick()
            return result

        return call

    for name, original in zip(("delete", "put", "compact"), (originals[0], originals[1], originals[3]), strict=True):
        setattr(store, name, dying(original))
    catalog.commit_all = dying(originals[2])  # type: ignore[method-assign,assignment]
    with contextlib.suppress(Killed):
        network.collector().collect(grace_s=0)
    for name in ("delete", "put", "compact"):
        delattr(store, name)
    del catalog.commit_all
    for number in (0, 5, 7):
        assert read(network, second.cid, f"f{number}") == contents[number]
    network.now += LEASE_S + 1
    network.remover().expire()
    assert network.collector().collect(grace_s=0).waiting == 0
    network.collector().collect(grace_s=0)
    assert network.verify(second.cid).missing == 0
    for number in (0, 5, 7):
        assert read(network, second.cid, f"f{number}") == contents[number]
    assert held_bytes(network) < 1.05 * (3 * 60_000 * 1.25) + 60_000
