"""Reuse of what is stored already, and publishing again."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.coding.manifest import ListSlot
from fungistor.coding.shard import shard_key
from fungistor.errors import UnavailableError
from fungistor.ids import MemberNumber
from fungistor.objects import known
from fungistor.objects.known import KnownBlocks, runs_of
from fungistor.objects.results import PublishFailure, PublishOptions
from fungistor.objects.spool import StoredBlock
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import contents, noise, write


def content_slots(network: MemoryNetwork, cid: str) -> list[ListSlot]:
    """An object's listed stripes that hold content: those of the block map come last and are small here."""
    return [slot for slot in network.stripe_list(network.record(cid)).list_slots() if slot.slot.k == 16]


@given(st.sets(st.integers(0, 200)))
@settings(deadline=None, derandomize=True)
def test_runs_say_the_same_as_the_numbers(numbers: set[int]) -> None:
    """Runs rise, lie apart, and hold exactly the numbers."""
    runs = runs_of(numbers)
    assert {n for first, count in runs for n in range(first, first + count)} == numbers
    assert all(one[0] + one[1] < two[0] for one, two in itertools.pairwise(runs))


def test_the_second_version_stores_what_changed(network: MemoryNetwork, tree: Path) -> None:
    """Of ten files one changes: the new version writes about that file, reads whole, and keeps the first's stripes."""
    for number in range(10):
        write(tree, f"f{number}", noise(number, 400_000))
    first = network.publish(str(tree))
    write(tree, "f3", noise(99, 400_000))
    second = network.publish(str(tree))
    assert second.new < 1.25 * 400_000 * 1.15
    assert second.stored > 1.2 * 4_000_000, "reused stripes count as stored"
    assert second.size == first.size
    reused = content_slots(network, first.cid)[0]
    again = [s for s in content_slots(network, second.cid) if s.slot.stripe_id == reused.slot.stripe_id]
    assert [slot.block_lengths for slot in again] == [reused.block_lengths]
    used = {n for first, count in again[0].runs for n in range(first, first + count)}
    assert used == set(range(10)) - {3}, "the run of the block that changed is not this object's"
    network.forget()
    for number in range(10):
        assert b"".join(network.read(second.cid, f"f{number}")) == noise(99 if number == 3 else number, 400_000)
    assert b"".join(network.read(first.cid, "f3")) == noise(3, 400_000)


@pytest.mark.parametrize(("lost", "reuses"), [(0, True), (2, True), (3, False), (5, False)])
def test_a_stripe_is_reused_only_with_k_plus_two_shards(
    network: MemoryNetwork, tree: Path, lost: int, reuses: bool
) -> None:
    """What is about to be lost is not leaned on; what is short of a shard or two is reused and its debts are told."""
    write(tree, "a", noise(1, 2_000_000))
    first = network.publish(str(tree))
    [slot] = [slot.slot for slot in content_slots(network, first.cid)]
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    for index in range(lost):
        del network.store[window[index]].values[shard_key(slot.stripe_id, index)]
    write(tree, "b", noise(2, 300_000))
    second = network.publish(str(tree))
    ids = {listed.slot.stripe_id for listed in network.stripe_list(network.record(second.cid)).list_slots()}
    assert (slot.stripe_id in ids) is reuses
    assert second.survives == (4 - lost if reuses else 4)
    assert dict(network.record(second.cid).owed) == ({window[i]: 1 for i in range(lost)} if reuses else {})
    network.forget()
    assert b"".join(network.read(second.cid, "a")) == noise(1, 2_000_000)


def test_a_holder_that_cannot_be_read_costs_nothing_but_space(network: MemoryNetwork, tree: Path) -> None:
    """The index names an object whose manifest is gone: the block is stored again and the publish succeeds."""
    write(tree, "a", noise(1, 2_000_000))
    first = network.publish(str(tree))
    for slot in network.slots(first.cid):
        for member in network.store.all.values():
            for index in range(8):
                member.values.pop(shard_key(slot.stripe_id, index), None)
    network.forget()
    write(tree, "b", b"new")
    second = network.publish(str(tree))
    assert second.new > 1.2 * 2_000_000
    assert b"".join(network.read(second.cid, "a")) == noise(1, 2_000_000)


def test_nothing_is_shared_before_it_is_indexed(network: MemoryNetwork, tree: Path) -> None:
    """Without the index a publish stores anew and is right: the index is never the truth."""
    write(tree, "a", noise(1, 2_000_000))
    network.publish(str(tree))
    network.index.drop(next(iter(network.index.indexed()))[0])
    write(tree, "b", b"new")
    second = network.publish(str(tree))
    assert b"".join(network.read(second.cid, "a")) == noise(1, 2_000_000)


# Publishing again


@pytest.mark.parametrize("size", [0, 100, 20_000, 5_000_000])
def test_publishing_again_writes_nothing_where_all_is_healthy(network: MemoryNetwork, tree: Path, size: int) -> None:
    """`new` is 0, sizes are as before, the shards are the same, and the name is the new one."""
    path = write(tree, "f", noise(1, size))
    first = network.publish(str(path))
    values = network.store.values()
    second = network.publish(str(path), PublishOptions(name="renamed"))
    assert (second.new, second.cid) == (0, first.cid)
    assert (second.size, second.sealed, second.stored, second.survives) == (
        first.size, first.sealed, first.stored, 4
    )  # fmt: skip
    assert network.store.values() == values
    assert second.revision is not None
    assert first.revision is not None
    assert second.revision > first.revision
    assert network.content.name_of(network.record(first.cid)).name == "renamed"


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_publishing_again_mends_what_is_missing(network: MemoryNetwork, tree: Path, size: int) -> None:
    """Two members wiped: `new` counts what was rebuilt, and every shard is good again."""
    path = write(tree, "f", noise(1, size))
    first = network.publish(str(path))
    before = network.store.values()
    slots = network.slots(first.cid)
    window = network.store.window(slots[0].stripe_id, slots[0].layout, slots[0].k + slots[0].m)
    gone = sum(len(value) for member in window[:2] for value in network.store[member].values.values())
    for member in window[:2]:
        network.store[member].values.clear()
    second = network.publish(str(path))
    assert second.new == gone > 0
    assert network.store.values() == before
    tally = network.verify(first.cid)
    assert tally.good == tally.shards


def test_publishing_again_stores_anew_what_cannot_be_mended(network: MemoryNetwork, tree: Path) -> None:
    """Most shards gone: the object gets a new manifest under the same root, and reads."""
    path = write(tree, "f", noise(1, 3_000_000))
    first = network.publish(str(path))
    before = network.record(first.cid).manifest_id
    for member in list(network.store.all.values())[:10]:
        member.values.clear()
    network.forget()
    second = network.publish(str(path))
    assert second.cid == first.cid
    assert network.record(first.cid).manifest_id != before
    assert second.new > 1.2 * 3_000_000
    assert b"".join(network.read(second.cid)) == noise(1, 3_000_000)
    assert network.verify(second.cid).survives == 4


def test_publishing_again_pays_what_was_owed(network: MemoryNetwork, tree: Path) -> None:
    """Published short of two members, published again when they are back: nothing is owed any more."""
    path = write(tree, "f", noise(1, 3_000_000))
    network.store.down([MemberNumber(5), MemberNumber(12)])
    first = network.publish(str(path))
    assert first.owed > 0
    network.store.heal()
    second = network.publish(str(path))
    assert (second.owed, second.survives) == (0, 4)
    assert network.record(first.cid).owed == ()


def test_publishing_with_too_few_members_commits_nothing(network: MemoryNetwork, tree: Path) -> None:
    """Eighteen members down: a failure for each path, none is tried after the first, nothing is left."""
    network.store.down(network.store.members()[:18])
    revision = network.catalog.revision
    paths = [str(write(tree, f"f{n}", noise(n, 100_000))) for n in range(3)]
    results = network.publish_all(paths)
    assert [result.path for result in results] == paths
    assert all(isinstance(result, PublishFailure) for result in results)
    assert len({id(result.error) for result in results if isinstance(result, PublishFailure)}) == 1
    assert isinstance(results[0], PublishFailure)
    assert isinstance(results[0].error, UnavailableError)
    assert network.catalog.revision == revision
    assert os.listdir(network.journal) == []


def test_members_that_die_before_the_flush_fail_the_publish(network: MemoryNetwork, tree: Path) -> None:
    """Three unflushed members leave fewer than k + 2: exit 3, the catalog has not moved, and what went out is noted."""
    for number in range(1, 4):
        network.store[MemberNumber(number)].faults.unflushed = True
    revision = network.catalog.revision
    [result] = network.publish_all([str(write(tree, "f", noise(1, 3_000_000)))])
    assert isinstance(result, PublishFailure)
    assert result.error.exit_code == 3
    assert network.catalog.revision == revision
    assert {os.path.basename(path) for path in contents(Path(network.journal))} - {"session.json", "stripes"} == {
        folder.name for folder in Path(network.journal).iterdir()
    }


def test_an_object_that_shares_much_has_its_map_read_once(
    network: MemoryNetwork, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past some hits all further blocks come from the map as a whole: nothing is stored twice."""
    monkeypatch.setattr(known, "ABSORB_HITS_MIN", 600)
    asked = 0
    first_of = KnownBlocks._first

    def counted(self: KnownBlocks, *words: Any) -> StoredBlock | None:
        nonlocal asked
        asked += 1
        return first_of(self, *words)

    monkeypatch.setattr(KnownBlocks, "_first", counted)
    for number in range(3000):
        write(tree, f"d{number % 3}/f{number}", noise(number, 40))
    write(tree, "large", noise(1, 300_000))
    network.publish(str(tree))
    assert asked == 0
    write(tree, "z", b"new")
    second = network.publish(str(tree))
    assert 600 <= asked < 2000
    assert second.new < 500_000
    network.forget()
    assert b"".join(network.read(second.cid, "d1", "f2998")) == noise(2998, 40)
    assert b"".join(network.read(second.cid, "large")) == noise(1, 300_000)
