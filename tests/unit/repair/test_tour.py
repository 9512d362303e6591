"""Members come, go and are wiped: what has to move moves, nothing else, and everything reads afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, shard_key
from fungistor.errors import ConflictError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, ObjectId, StripeId
from fungistor.objects.publish import Publisher
from fungistor.objects.results import PublishFailure, PublishOptions
from fungistor.placement import Member
from fungistor.testing.memory_network import MemoryNetwork, members
from tests.unit.objects.trees import noise, write

NEW = Member(MemberNumber(21), MemberId("m21"))


def all_slots(network: MemoryNetwork, cids: Mapping[str, bytes]) -> list[Slot]:
    return list({slot.stripe_id: slot for cid in cids for slot in network.slots(cid)}.values())


def homes(network: MemoryNetwork, slots: list[Slot]) -> dict[tuple[StripeId, int], MemberNumber]:
    newest = network.store.newest_layout()
    return {
        (slot.stripe_id, index): member
        for slot in slots
        for index, member in enumerate(network.store.window(slot.stripe_id, newest, slot.k + slot.m))
    }


def assert_whole(network: MemoryNetwork, published: Mapping[str, bytes]) -> None:
    network.forget()
    for cid, data in published.items():
        assert b"".join(network.read(cid)) == data
        tally = network.verify(cid)
        assert (tally.missing, tally.corrupt) == (0, 0)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param([*members(20), NEW], id="one added"),
        pytest.param([*members(19), Member(MemberNumber(20), MemberId("m20"), weight=0), NEW], id="one drained"),
        pytest.param([*members(7), *members(20)[8:], Member(NEW.number, MemberId("m08"))], id="one wiped"),
    ],
)
def test_what_has_to_move_moves_and_nothing_else(
    network: MemoryNetwork, published: dict[str, bytes], world: list[Member]
) -> None:
    """Every shard ends where the new layout wants it, each by one write; then only that layout is looked by."""
    slots = all_slots(network, published)
    before = homes(network, slots)
    gone = {member.number for member in members(20)} - {member.number for member in world}
    for number in gone:
        network.store[number].values.clear()
    network.set_layout(world)
    after = homes(network, slots)
    changed = [place for place in after if after[place] != before[place]]
    toured = network.tour()
    assert (toured.retired, toured.moved.is_settled, toured.objects) == (1, True, 4)
    assert changed
    assert toured.moved.copied + toured.moved.rebuilt == len(changed)
    assert toured.moved.rebuilt == sum(before[place] in gone for place in changed)
    lengths = {slot.stripe_id: slot.shard_bytes + SHARD_TAG_BYTES for slot in slots}
    assert toured.moved.moved_bytes == sum(lengths[stripe_id] for stripe_id, _ in changed)
    for stripe_id, index in after:
        assert shard_key(stripe_id, index) in network.store[after[stripe_id, index]].values
    assert list(network.store.layouts) == [LayoutNumber(2)]
    assert_whole(network, published)


def test_a_second_tour_moves_nothing(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """Where all is home there is nothing to do, and nothing to retire."""
    network.set_layout([*members(20), NEW])
    assert network.tour().retired == 1
    again = network.tour()
    assert (again.retired, again.moved.moved_bytes, again.moved.is_settled) == (0, 0, True)
    assert_whole(network, published)


def test_what_cannot_be_brought_home_keeps_the_older_layout(
    network: MemoryNetwork, published: dict[str, bytes]
) -> None:
    """While the new member is away all stays where it was, and readable; when it is back the next tour ends it."""
    network.set_layout([*members(20), NEW])
    network.store.down([NEW.number])
    toured = network.tour()
    assert (toured.retired, set(toured.moved.waiting)) == (0, {NEW.number})
    assert toured.left
    network.store.heal()
    assert network.tour().retired == 1
    assert_whole(network, published)


def test_a_damaged_shard_is_rebuilt_and_not_copied(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """What does not prove itself is not spread to the new member."""
    slots = all_slots(network, published)
    before = homes(network, slots)
    network.set_layout([*members(20), NEW])
    after = homes(network, slots)
    stripe_id, index = next(place for place in after if after[place] == NEW.number)
    key = shard_key(stripe_id, index)
    values = network.store[before[stripe_id, index]].values
    sound = values[key]
    values[key] = bytes([sound[0] ^ 1]) + sound[1:]
    toured = network.tour()
    assert (toured.moved.rebuilt, toured.retired) == (1, 1)
    assert network.store[NEW.number].values[key] == sound
    assert_whole(network, published)


def test_a_publisher_that_began_before_the_layout_is_refused_after_its_retirement(
    network: MemoryNetwork, tmp_path: Path
) -> None:
    """Its shards lie by a layout that nobody looks by any more: it is told to start again, and then succeeds."""
    write(tmp_path, "late", noise(3, 500_000))

    ports = network.ports()
    current = ports.current

    def change_first(identity: ObjectId) -> Record | None:
        if network.store.newest_layout() == LayoutNumber(1):
            network.set_layout([*members(20), NEW])
            assert network.tour().retired == 1
        return current(identity)

    [refused] = Publisher(replace(ports, current=change_first)).publish([str(tmp_path / "late")], PublishOptions())
    assert isinstance(refused, PublishFailure)
    assert isinstance(refused.error, ConflictError)
    assert "retired since this publish began" in refused.error.message
    again = network.publish(str(tmp_path / "late"))
    assert again.new < 100_000, "what went out with the first try is taken up, where it lies by the older layout"
    cid = again.cid
    assert network.tour().moved.is_settled
    assert_whole(network, {cid: noise(3, 500_000)})
