"""Objects under named policies: where their shards lie, what they survive, and what is never mixed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.catalog.commands import Command
from fungistor.catalog.removal import Collect
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import MemberId, MemberNumber, PolicyNumber, SessionId
from fungistor.objects.placed_policy import placed_policy
from fungistor.objects.publish import Publisher
from fungistor.objects.results import PublishOptions
from fungistor.placement import Member, StoragePolicy, policy_of
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write

SITES = StoragePolicy("sites", k=6, m=4, zone_depth=2, zones=2, regions=(("de",), ("nl",)))
BY_SITES = PublishOptions(policy="sites")


def world() -> list[Member]:
    """Thirty members: sites a to f in de and nl with four each, and six in us."""
    named = [("de" if site in "abc" else "nl", site) for site in "abcdef" for _ in range(4)] + [("us", "g")] * 6
    return [Member(MemberNumber(n), MemberId(f"m{n:02}"), zone) for n, zone in enumerate(named, 1)]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[MemoryNetwork]:
    """Thirty members on seven sites, and the policy `sites`."""
    with MemoryNetwork(str(tmp_path), world()) as made:
        made.add_policy(SITES)
        yield made


def holders(network: MemoryNetwork, cid: str) -> set[MemberNumber]:
    return {
        member
        for slot in network.slots(cid)
        for member in network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
    }


@pytest.mark.parametrize("size", [100, 50_000, 9 << 20])
def test_any_two_sites_may_die_and_no_shard_lies_abroad(network: MemoryNetwork, tmp_path: Path, size: int) -> None:
    """An object of any size reads with two whole sites dead; publish says so; members in us hold nothing."""
    data = noise(size, size)
    write(tmp_path, "f", data)
    outcome = network.publish(str(tmp_path / "f"), BY_SITES)
    assert (outcome.policy, outcome.survives, outcome.zone_level) == ("sites", 4, "site")
    assert (outcome.survives_zones or 0) >= 2
    zones = {member.number: member.zone for member in world()}
    assert all(zones[member][0] != "us" for member in holders(network, outcome.cid))
    sites = sorted({zone for zone in zones.values() if zone[0] != "us"})
    for first in range(len(sites)):
        dead = {sites[first], sites[(first + 1) % len(sites)]}
        network.store.down([number for number, zone in zones.items() if zone in dead])
        network.forget()
        assert b"".join(network.read(outcome.cid)) == data
        network.store.heal()


def test_blocks_are_never_shared_between_policies(network: MemoryNetwork, tmp_path: Path) -> None:
    """What lies by the default is stored again by `sites`, and not twice; the object goes by its last publish."""
    write(tmp_path, "f", noise(1, 2 << 20))
    path = str(tmp_path / "f")
    first = network.publish(path)
    assert first.policy == "default"
    second = network.publish(path, BY_SITES)
    assert second.cid == first.cid
    assert second.new == second.stored > 2 << 20
    assert network.record(first.cid).policy == "sites"
    assert {policy_of(slot.layout) for slot in network.slots(first.cid)} == {1}
    assert network.publish(path, BY_SITES).new == 0
    write(tmp_path, "g", noise(1, 2 << 20) + b"more")
    assert network.publish(str(tmp_path / "g"), BY_SITES).new < 500_000
    assert network.publish(path).new == first.stored, "back to the default: what lies by `sites` is not reused"
    assert {policy_of(slot.layout) for slot in network.slots(first.cid)} == {0}


def test_a_tiny_object_changes_its_policy_too(network: MemoryNetwork, tmp_path: Path) -> None:
    """It has no stripe but its manifest's, which is written anew by the other policy."""
    write(tmp_path, "f", b"tiny")
    first = network.publish(str(tmp_path / "f"))
    assert network.publish(str(tmp_path / "f"), BY_SITES).new > 0
    assert {policy_of(slot.layout) for slot in network.slots(first.cid)} == {1}


def test_a_policy_in_use_stays_until_nothing_is_stored_by_it(network: MemoryNetwork, tmp_path: Path) -> None:
    """Neither while an object is there, nor while what was dropped waits to be collected; then it goes, and its name
    is no policy any more."""
    write(tmp_path, "f", noise(2, 100_000))
    cid = network.publish(str(tmp_path / "f"), BY_SITES).cid
    with pytest.raises(ConflictError, match="objects are stored by it"):
        network.remove_policy(PolicyNumber(1))
    network.unpublish(cid)
    with pytest.raises(ConflictError, match="gc"):
        network.remove_policy(PolicyNumber(1))
    assert network.collector().collect(grace_s=0).deleted > 0
    assert not network.store.values()
    network.remove_policy(PolicyNumber(1))
    with pytest.raises(InvalidError, match="no policy named sites"):
        network.publish(str(tmp_path / "f"), BY_SITES)
    assert network.add_policy(SITES) == 2


def test_a_publish_whose_policy_is_removed_meanwhile_is_refused(network: MemoryNetwork, tmp_path: Path) -> None:
    """No layout to come would have a table for it. What it stored is collected with its session."""
    write(tmp_path, "f", noise(3, 100_000))
    ports = network.ports()
    publisher = Publisher(ports)
    results = publisher.publish([str(tmp_path / "f")], BY_SITES)
    policy = placed_policy(network.catalog, "sites")
    real = network.store.barrier

    def remove_first(receipts: object) -> object:
        network.store.barrier = real  # type: ignore[method-assign]
        network.remove_policy(policy.number)
        return real(receipts)  # type: ignore[arg-type]

    network.store.barrier = remove_first  # type: ignore[method-assign,assignment]
    [failed] = results
    assert "no policy sites any more" in str(getattr(failed, "error", ""))
    network.now += 10 * 86400
    network.catalog.commit(Command(SessionId(bytes(16)), 1, Collect(int(network.now), ())))
    network.collector().collect(grace_s=0)
    assert not network.store.values()


def test_a_member_that_joins_and_one_that_leaves(network: MemoryNetwork, tmp_path: Path) -> None:
    """Layouts have a table for every policy: all moves home by both, reads on, and lies where it is allowed."""
    kept = {}
    for number, options in enumerate((PublishOptions(), BY_SITES)):
        data = noise(number, 300_000)
        write(tmp_path, f"f{number}", data)
        kept[network.publish(str(tmp_path / f"f{number}"), options).cid] = data
    changed = [member for member in world() if member.number != 5]
    changed.append(Member(MemberNumber(31), MemberId("m31"), ("de", "b")))
    network.store.down([MemberNumber(5)])
    network.set_layout(changed)
    toured = network.tour()
    assert (toured.retired, toured.moved.is_settled) == (1, True)
    for cid, data in kept.items():
        network.forget()
        assert b"".join(network.read(cid)) == data
        tally = network.verify(cid)
        assert (tally.missing, tally.corrupt) == (0, 0)
    zones = {member.number: member.zone for member in changed}
    assert all(zones[member][0] != "us" for member in holders(network, list(kept)[1]))
