"""What shards leave behind when they move: deleted after a grace, by every member that may have some."""

from __future__ import annotations

from fungistor.catalog.commands import Command
from fungistor.catalog.policies import ClearLayouts
from fungistor.coding.shard import shard_key
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, SessionId
from fungistor.placement import Member
from fungistor.repair.mover import Look
from fungistor.testing.memory_network import MemoryNetwork, members
from tests.unit.repair.test_tour import all_slots, assert_whole, homes

NEW = Member(MemberNumber(21), MemberId("m21"))


def held(network: MemoryNetwork) -> int:
    return sum(len(network.store[member.number].values) for member in [*members(20), NEW])


def wanted(network: MemoryNetwork, published: dict[str, bytes]) -> int:
    return sum(slot.k + slot.m for slot in all_slots(network, published))


def moved(network: MemoryNetwork) -> None:
    """A member joined, and all is where the layout with it wants it."""
    network.set_layout([*members(20), NEW])
    assert network.tour().retired == 1


def test_old_copies_stay_for_a_grace_and_then_go(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """Readers that did not hear yet of the retirement find them; then each shard lies once, and all reads."""
    moved(network)
    assert held(network) > wanted(network, published)
    network.now = 1000.0
    assert network.clear(grace_s=2000).later_s == 1000
    assert held(network) > wanted(network, published)
    cleared = network.clear(grace_s=600)
    assert (cleared.layouts, cleared.pending, cleared.unsettled) == (1, {}, 0)
    assert held(network) == wanted(network, published)
    assert network.catalog.left_layouts() == []
    assert network.clear().layouts == 0
    assert_whole(network, published)


def test_a_member_that_is_away_deletes_when_it_is_back(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """Until then the layout is not done with; the others have deleted theirs."""
    moved(network)
    network.store.down([MemberNumber(3)])
    before = held(network)
    away = network.clear()
    assert (away.layouts, bool(away.pending) or away.unsettled > 0) == (0, True)
    assert held(network) < before
    assert network.catalog.left_layouts() != []
    network.store.heal()
    assert network.clear().layouts == 1
    assert held(network) == wanted(network, published)
    assert_whole(network, published)


def test_nothing_goes_while_a_shard_is_not_at_home(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """A stripe that lost a shard since keeps its old copies, and a layout that is being repaired does, too."""
    moved(network)
    slots = all_slots(network, published)
    (stripe_id, index), member = next(iter(homes(network, slots).items()))
    value = network.store[member].values.pop(shard_key(stripe_id, index))
    assert network.clear().unsettled == 1
    network.store[member].values[shard_key(stripe_id, index)] = value
    network.set_layout([*members(19), NEW])
    assert network.clear().layouts == 0
    assert network.tour().retired == 1
    assert network.clear().layouts == 2
    assert_whole(network, published)


def test_dropped_objects_leave_nothing_behind_either(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """What waits to be collected is cleared with the rest, and a collection deletes old copies, too."""
    moved(network)
    first, *others = published
    network.unpublish(first)
    assert network.collector().collect(grace_s=0).deleted > 0
    assert network.clear().layouts == 1
    assert held(network) == wanted(network, {cid: published[cid] for cid in others})


def test_a_damaged_shard_at_home_is_replaced(network: MemoryNetwork, published: dict[str, bytes]) -> None:
    """By what its member's checksum says, and by what a reader noted where the checksum is as wrong as the value."""
    slots = all_slots(network, published)
    (stripe_id, index), member = next(iter(homes(network, slots).items()))
    values, key = network.store[member].values, shard_key(stripe_id, index)
    sound = values[key]
    values[key] = bytes([sound[0] ^ 1]) + sound[1:]
    assert network.tour(look=Look.THERE).moved.damaged == 0
    toured = network.tour(lambda slot: [index] if slot.stripe_id == stripe_id else [], Look.THERE)
    assert (toured.moved.damaged, toured.moved.rebuilt, values[key]) == (1, 1, sound)
    values[key] = sound[:-1] + bytes([sound[-1] ^ 1])
    toured = network.tour()
    assert (toured.moved.damaged, toured.moved.rebuilt, values[key]) == (1, 1, sound)
    assert network.tour().moved.moved_bytes == 0
    assert_whole(network, published)


def test_a_layout_that_came_meanwhile_is_no_one_s_to_clear(network: MemoryNetwork) -> None:
    """Who worked by an older newest layout is refused; what is not left is no change."""
    moved(network)
    session = SessionId(bytes(16))
    [outcome] = network.catalog.commit_all([Command(session, 0, ClearLayouts(LayoutNumber(1), (LayoutNumber(1),)))])
    assert "not the newest" in outcome.reason
    assert network.clear().layouts == 1
    [again] = network.catalog.commit_all([Command(session, 1, ClearLayouts(LayoutNumber(2), (LayoutNumber(1),)))])
    assert again.verdict.name == "UNCHANGED"
