"""Keyless rebuilding, the payment of debts, and counting what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fungistor.coding.manifest import Slot
from fungistor.coding.page_codec import decode_root
from fungistor.coding.shard import payload_root, shard_key, shard_tag
from fungistor.errors import UnavailableError
from fungistor.ids import MemberNumber
from fungistor.objects.manifest_health import survives, survives_at_least
from fungistor.objects.mend import Mender
from fungistor.objects.results import PublishOutcome, VerifyReport
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write


@pytest.fixture
def published(network: MemoryNetwork, tree: Path) -> Iterator[PublishOutcome]:
    """A folder of three stripes."""
    write(tree, "large", noise(1, 6 << 20))
    write(tree, "small", noise(2, 20_000))
    yield network.publish(str(tree))


def held(network: MemoryNetwork, slot: Slot) -> list[bytes | None]:
    """Every shard's value where it should lie."""
    window = network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
    return [network.store[member].values.get(shard_key(slot.stripe_id, index)) for index, member in enumerate(window)]


def lose(network: MemoryNetwork, slot: Slot, indices: list[int]) -> None:
    window = network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
    for index in indices:
        del network.store[window[index]].values[shard_key(slot.stripe_id, index)]


@pytest.mark.parametrize("indices", [[0], [19], [0, 1, 2, 3], [16, 17, 18, 19], [0, 7, 16, 19]])
def test_lost_shards_are_rebuilt_bit_for_bit_without_a_key(
    network: MemoryNetwork, published: PublishOutcome, indices: list[int]
) -> None:
    """From the stripe list alone any four shards come back as they were, tags as well."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    before = held(network, slot)
    lose(network, slot, indices)
    mended = network.mender().mend([slot])
    assert held(network, slot) == before
    assert mended.new_bytes == len(indices) * (slot.shard_bytes + 16)
    assert (mended.unreadable, mended.settlement.survives, mended.settlement.owed) == (0, 4, {})


def test_a_lying_member_is_not_spread(network: MemoryNetwork, published: PublishOutcome) -> None:
    """A shard that does not prove itself is left out of the rebuilding, and named."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    before = held(network, slot)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    network.store[window[4]].faults.flip_payload = True
    lose(network, slot, [0, 1])
    assert not network.mender().mend([slot]).unreadable
    assert held(network, slot) == before
    assert [index for _, index in network.liars] == [4]


def test_forged_shards_are_refused_by_the_content_root(network: MemoryNetwork, published: PublishOutcome) -> None:
    """A shard forged with the stripe's own id passes its tag; the content root stops it from being coded on."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    forged = noise(9, slot.shard_bytes)
    tag = shard_tag(slot.stripe_id, 2, slot.shard_bytes, payload_root(forged))
    network.store[window[2]].values[shard_key(slot.stripe_id, 2)] = forged + tag
    lose(network, slot, [0])
    mended = network.mender().mend([slot])
    assert mended.unreadable == 1
    assert held(network, slot)[0] is None
    assert mended.settlement.owed == {window[0]: 1}


def test_a_wrong_content_root_mends_nothing(network: MemoryNetwork, published: PublishOutcome) -> None:
    """A slot that does not belong to its shards is never written by."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    lose(network, slot, [5])
    puts = network.store.puts
    assert network.mender().mend([replace(slot, content_root=bytes(32))]).unreadable == 1
    assert network.store.puts == puts


def test_too_few_shards_leave_the_stripe_as_it_is(network: MemoryNetwork, published: PublishOutcome) -> None:
    """With five gone nothing can be rebuilt; it is counted, and survival falls below zero."""
    slots = network.slots(published.cid)
    slot = max(slots, key=lambda slot: slot.k)
    lose(network, slot, [0, 1, 2, 3, 4])
    mended = network.mender().mend(slots)
    assert (mended.unreadable, mended.settlement.survives, mended.new_bytes) == (1, -1, 0)


def test_only_the_members_named_are_paid(network: MemoryNetwork, published: PublishOutcome) -> None:
    """With `only`, other members' missing shards stay owed; a member that is down stays owed as well."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    lose(network, slot, [0, 1, 2])
    network.store.down([window[2]])
    mended = network.mender().mend([slot], {window[0], window[2]})
    assert mended.settlement.owed == {window[1]: 1, window[2]: 1}
    assert held(network, slot)[0] is not None


def test_a_member_that_dies_while_it_is_paid_keeps_its_debt(network: MemoryNetwork, published: PublishOutcome) -> None:
    """One debtor refuses when its shard comes: the other is paid all the same."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    lose(network, slot, [0, 1])
    network.store[window[0]].faults.owes = True
    mended = network.mender().mend([slot])
    assert mended.settlement.owed == {window[0]: 1}
    assert held(network, slot)[1] is not None


def test_an_unflushed_payment_is_no_payment(network: MemoryNetwork, published: PublishOutcome) -> None:
    """Shards that were not made durable are not told as paid."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    lose(network, slot, [0])
    network.store[window[0]].faults.unflushed = True
    with pytest.raises(UnavailableError, match="died while their debts were paid"):
        network.mender().mend([slot])


# Paying what a publish left owed


@pytest.fixture
def indebted(network: MemoryNetwork, tree: Path) -> Iterator[PublishOutcome]:
    """A folder published while two members were down."""
    write(tree, "large", noise(1, 6 << 20))
    network.store.down([MemberNumber(3), MemberNumber(4)])
    yield network.publish(str(tree))


def test_debts_are_paid_when_members_are_back(network: MemoryNetwork, indebted: PublishOutcome) -> None:
    """What is owed stands in the record; members that come back get it, and the record says so."""
    owed = dict(network.record(indebted.cid).owed)
    assert set(owed) == {MemberNumber(3), MemberNumber(4)}
    assert indebted.owed == sum(owed.values())
    assert indebted.survives == 2
    assert network.payer.pay(10) == 0, "nobody is paid while away"
    network.store.restart(MemberNumber(3))
    assert network.payer.pay(10) == owed[MemberNumber(3)]
    assert dict(network.record(indebted.cid).owed) == {MemberNumber(4): owed[MemberNumber(4)]}
    network.store.heal()
    assert network.payer.pay(10) == owed[MemberNumber(4)]
    assert network.payer.pay(10) == 0
    assert network.catalog.owed() == []
    tally = network.verify(indebted.cid)
    assert (tally.good, tally.survives) == (tally.shards, 4)


def test_two_payers_pay_once(network: MemoryNetwork, indebted: PublishOutcome) -> None:
    """The second payer of the same debts finds them paid: the record is right, and nothing is counted twice."""
    network.store.heal()
    record = network.record(indebted.cid)
    first, second = (network.mender().mend(network.slots(indebted.cid)) for _ in range(2))
    members = {member for member, _ in record.owed}
    assert network.payer._tell(record, first, members) == indebted.owed
    network.payer._tell(record, second, members)
    assert network.record(indebted.cid).owed == ()


def test_an_object_that_cannot_be_read_does_not_stop_the_others(
    network: MemoryNetwork, indebted: PublishOutcome, tmp_path: Path
) -> None:
    """One object's stripes are gone: its debt stays, another object's is paid."""
    other = network.publish(str(write(tmp_path, "other", noise(5, 3 << 20))))
    network.store.heal()
    for slot in network.slots(indebted.cid):
        lose(network, slot, [index for index, value in enumerate(held(network, slot)) if value is not None][:8])
    network.forget()
    network.payer.pay(10)
    assert network.record(other.cid).owed == ()
    assert network.record(indebted.cid).owed


def test_objects_are_paid_a_few_at_a_time(network: MemoryNetwork, tmp_path: Path) -> None:
    """The bound on objects a round holds."""
    network.store.down([MemberNumber(3), MemberNumber(9)])
    cids = [network.publish(str(write(tmp_path, f"f{n}", noise(n, 100_000)))).cid for n in range(3)]
    network.store.heal()
    for left in (2, 1, 0):
        network.payer.pay(1)
        assert sum(bool(network.record(cid).owed) for cid in cids) == left


# Counting


def test_verify_counts_every_shard_by_what_it_is(network: MemoryNetwork, published: PublishOutcome) -> None:
    """Good, missing, corrupt and not answered for: each is counted, the members are named, and the sums are right."""
    slots = network.slots(published.cid)
    slot = max(slots, key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    assert network.verify(published.cid).good == sum(slot.k + slot.m for slot in slots)
    lose(network, slot, [0])
    network.store[window[1]].faults.flip_payload = True
    tally = network.verify(published.cid)
    assert tally.good + tally.missing + tally.corrupt == tally.shards
    assert tally.missing == 1
    assert tally.corrupt == sum(window[1] in network.store.window(s.stripe_id, s.layout, s.k + s.m) for s in slots)
    assert tally.survives == 2
    described = tally.describe()
    assert described[network.store.name(window[0])] == "1 missing"
    assert described[network.store.name(window[1])] == f"{tally.corrupt} corrupt"
    network.store.down([window[2]])
    assert "not answered for" in network.verify(published.cid).describe()[network.store.name(window[2])]


def test_verify_sees_through_forged_shards(network: MemoryNetwork, published: PublishOutcome) -> None:
    """Data shards that all pass their tags and do not give the content root are none of them good."""
    slot = max(network.slots(published.cid), key=lambda slot: slot.k)
    window = network.store.window(slot.stripe_id, slot.layout, 20)
    forged = noise(9, slot.shard_bytes)
    tag = shard_tag(slot.stripe_id, 2, slot.shard_bytes, payload_root(forged))
    network.store[window[2]].values[shard_key(slot.stripe_id, 2)] = forged + tag
    tally = network.verify(published.cid)
    assert tally.corrupt == 20
    assert tally.survives < 0


@pytest.mark.parametrize(("readable", "good", "code"), [(True, 5, 0), (True, 4, 1), (False, 0, 3)])
def test_the_exit_code_follows_from_the_counts(readable: bool, good: int, code: int) -> None:
    """0 all good, 1 something missing but readable, 3 unreadable."""
    assert VerifyReport("cid", 5, good, 5 - good, 0, readable).exit_code == code


def test_survival_is_told_without_asking_members(network: MemoryNetwork, published: PublishOutcome) -> None:
    """From states and debts alone: exact with the stripe list, and never better than that without it."""
    record = network.record(published.cid)
    slots = network.slots(published.cid)
    root = decode_root(record.manifest, record.salt).slot
    full = survives(network.store, slots, [], record).members
    assert full == survives_at_least(network.store, root, [], record) == 4
    for count in range(1, 7):
        down = [MemberNumber(number) for number in range(1, count + 1)]
        exact = survives(network.store, slots, down, record).members
        assert exact == min(
            s.m - len(set(network.store.window(s.stripe_id, s.layout, s.k + s.m)) & set(down)) for s in slots
        )
        assert survives_at_least(network.store, root, down, record) <= exact
    owing = replace(record, owed=((MemberNumber(1), 1),))
    assert survives_at_least(network.store, root, [MemberNumber(1)], owing) == 3, "down and owing is one loss"


def test_survival_of_an_object_of_one_stripe_is_exact(network: MemoryNetwork, tree: Path) -> None:
    """A tiny object counts only the members that hold it."""
    record = network.record(network.publish(str(write(tree, "f", b"tiny"))).cid)
    root = decode_root(record.manifest, record.salt).slot
    window = set(network.store.window(root.stripe_id, root.layout, root.k + root.m))
    others = set(network.store.members()) - window
    assert survives_at_least(network.store, root, others, record) == 4
    assert survives_at_least(network.store, root, window, record) == root.m - len(window) < 0


def test_a_mender_needs_nothing_but_the_store(network: MemoryNetwork, published: PublishOutcome) -> None:
    """Mending healthy stripes asks for presence alone and writes nothing."""
    asked, puts = len(network.store.asked), network.store.puts
    mended = Mender(network.store, lambda *_: None).mend(network.slots(published.cid))
    assert mended.settlement.survives == 4
    assert network.store.puts == puts
    assert len(network.store.asked) - asked <= 16 * 2, "only the stripe list's own root was read"
