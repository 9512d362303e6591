"""What a pool of members must do, whoever the members are: the suite runs on fakes and on real daemons.

A test class derives from `ShardStoreContract` and gives a fixture `cluster`, a running `Cluster` of at least six
members that hold nothing but, if they like, identity values. A store that is no pool derives from `ShardPortContract`,
which asks for no more than the use cases do (`fungistor.objects.ports.ShardStore`).
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import pytest

from fungistor.coding.erasure import encode, recover
from fungistor.coding.manifest import Slot
from fungistor.coding.shard import content_root, payload_root, shard_tag
from fungistor.errors import NotEnoughShardsError, UnavailableError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, StripeId
from fungistor.objects import ports
from fungistor.placement import Member, PlacementTable, Policy, plan
from fungistor.placement.health import MemberState
from fungistor.pool import MemberSpec, Pool, Receipt, Soundness

LAYOUT = LayoutNumber(1)
WAIT_S = 10.0


class Members(Protocol):
    """Running members, by number, with the power to fail them."""

    def pause(self, number: MemberNumber) -> None:
        """From now on it accepts and never answers."""

    def resume(self, number: MemberNumber) -> None: ...

    def kill(self, number: MemberNumber) -> None:
        """It is gone at once; its address refuses."""

    def restart(self, number: MemberNumber) -> None:
        """It comes back at the same address, with its values, as another run."""

    def wipe(self, number: MemberNumber) -> None:
        """Its namespace is empty now, and it serves on."""


class Cluster(Members, Protocol):
    """Members that a pool can connect to."""

    def specs(self) -> list[MemberSpec]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """A coded stripe, ready to be stored."""

    slot: Slot
    shards: list[tuple[bytes, bytes]]

    @property
    def data(self) -> bytes:
        return b"".join(payload for payload, _ in self.shards[: self.slot.k])

    def data_from(self, fetched: ports.Fetched) -> bytes:
        """The stripe's bytes, decoded from whatever shards came."""
        lost = {index: bytearray(self.slot.shard_bytes) for index in range(self.slot.k) if index not in fetched.shards}
        recover(self.slot.k, fetched.shards, {index: memoryview(part) for index, part in lost.items()})
        return b"".join(lost.get(index) or bytes(fetched.shards[index]) for index in range(self.slot.k))


def sample(seed: int, *, k: int = 2, m: int = 4, shard_bytes: int = 4096) -> Sample:
    """A stripe of bytes that follow from the seed."""
    stripe_id = StripeId(hashlib.sha256(b"stripe %d" % seed).digest())
    data = [hashlib.shake_256(b"shard %d %d" % (seed, index)).digest(shard_bytes) for index in range(k)]
    parity = [bytearray(shard_bytes) for _ in range(m)]
    encode(k, m, data, [memoryview(part) for part in parity])
    payloads = [*data, *map(bytes, parity)]
    roots = [payload_root(payload) for payload in payloads]
    shards = [
        (payload, shard_tag(stripe_id, index, shard_bytes, root))
        for index, (payload, root) in enumerate(zip(payloads, roots, strict=True))
    ]
    return Sample(Slot(stripe_id, k, m, shard_bytes, content_root(roots[:k]), LAYOUT), shards)


def table_for(specs: list[MemberSpec]) -> PlacementTable:
    """The table of these members without domains."""
    return plan([Member(spec.number, spec.id) for spec in specs], None, Policy(n=min(20, len(specs))))


def open_pool(specs: list[MemberSpec]) -> Pool:
    """A pool with one layout of all these members."""
    return Pool(specs, {LAYOUT: table_for(specs)})


def spec(number: int, address: str, namespace: str = "default", password: str = "") -> MemberSpec:
    return MemberSpec(MemberNumber(number), MemberId(f"m{number:02}"), address, namespace, password)


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds. Raises: AssertionError after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    pause = iter(lambda: None, 0)
    while not condition():
        next(pause)
        assert time.monotonic() < deadline, "it did not come to hold in time"


def put(pool: Pool, stripe: Sample) -> frozenset[Receipt]:
    """Store a sample on all its members."""
    result = pool.put(stripe.slot.stripe_id, LAYOUT, stripe.slot.k, stripe.slot.m, stripe.shards)
    assert not result.owed
    return result.receipts


AnyMembers = TypeVar("AnyMembers", bound=Members)


class ShardPortContract(ABC, Generic[AnyMembers]):
    """Derive, give the fixture `cluster`, and say how to open a store of its six members with one layout, LAYOUT."""

    @abstractmethod
    def open_store(self, cluster: AnyMembers) -> AbstractContextManager[ports.ShardStore]:
        """A store that has heard of nothing that happened to the members before."""

    def test_every_shard_comes_back_as_it_was_put(self, cluster: AnyMembers) -> None:
        """Whichever two shards are left over, payloads and tags are those that were stored."""
        stripe = sample(101)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            for index in range(6):
                kept = {index, (index + 1) % 6}
                fetched = store.fetch(stripe.slot, None, fresh_payloads(stripe), exclude=set(range(6)) - kept)
                assert set(fetched.shards) == kept
                assert bytes(fetched.shards[index]) == stripe.shards[index][0]
                assert fetched.tags[index] == stripe.shards[index][1]

    def test_a_wanted_data_shard_comes_alone_into_its_place(self, cluster: AnyMembers) -> None:
        """A range inside one data shard brings that shard and no other, where the caller wants it."""
        stripe = sample(102)
        buffer = bytearray(6 * 4096)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            fetched = store.fetch(
                stripe.slot, [1], lambda index: memoryview(buffer)[index * 4096 : (index + 1) * 4096], exclude=()
            )
        assert set(fetched.shards) == {1}
        assert buffer == bytes(4096) + stripe.shards[1][0] + bytes(4 * 4096)

    def test_ranges_land_in_their_places_or_not_at_all(self, cluster: AnyMembers) -> None:
        """Bytes out of two data shards come into the caller's views; with one of their members dead, or for a stripe
        that is not there, the answer is no."""
        stripe = sample(112)
        buffer = bytearray(100)
        pieces = [(0, 4000, memoryview(buffer)[:60]), (1, 0, memoryview(buffer)[60:])]
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            assert store.fetch_ranges(stripe.slot, pieces)
            assert buffer == stripe.shards[0][0][4000:4060] + stripe.shards[1][0][:40]
            assert not store.fetch_ranges(sample(113).slot, pieces)
            cluster.kill(store.window(stripe.slot.stripe_id, LAYOUT, 6)[1])
            assert store.fetch_ranges(stripe.slot, pieces[:1])
            assert not store.fetch_ranges(stripe.slot, pieces)

    def test_a_wanted_shard_that_is_gone_is_replaced_by_any_k(self, cluster: AnyMembers) -> None:
        """Without the wanted shard k others come, from which it can be decoded."""
        stripe = sample(103)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            cluster.kill(store.window(stripe.slot.stripe_id, LAYOUT, 6)[1])
            fetched = store.fetch(stripe.slot, [1], fresh_payloads(stripe), exclude=())
            assert 1 not in fetched.shards
            assert len(fetched.shards) >= 2
            assert stripe.data_from(fetched) == stripe.data

    def test_shards_not_trusted_are_not_asked_for_again(self, cluster: AnyMembers) -> None:
        """What the reader excludes never comes, even where it was wanted."""
        stripe = sample(104)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            fetched = store.fetch(stripe.slot, [0], fresh_payloads(stripe), exclude={0, 3})
            assert not {0, 3} & set(fetched.shards)
            assert stripe.data_from(fetched) == stripe.data

    def test_with_k_minus_one_left_the_dead_are_named(self, cluster: AnyMembers) -> None:
        """A fetch that cannot succeed says how many shards it found, how many it takes, and whom it missed."""
        stripe = sample(105)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            dead = store.window(stripe.slot.stripe_id, LAYOUT, 6)[1:]
            for number in dead:
                cluster.kill(number)
            with pytest.raises(NotEnoughShardsError) as caught:
                store.fetch(stripe.slot, None, fresh_payloads(stripe), exclude=())
            assert (caught.value.found, caught.value.needed) == (1, 2)
            assert set(caught.value.by_member) >= {store.name(number) for number in dead}

    def test_members_whose_shards_are_not_trusted_are_named(self, cluster: AnyMembers) -> None:
        """Where the reader excludes so much that k shards are not left, the error names the excluded by member."""
        stripe = sample(111)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            window = store.window(stripe.slot.stripe_id, LAYOUT, 6)
            with pytest.raises(NotEnoughShardsError) as caught:
                store.fetch(stripe.slot, [0], fresh_payloads(stripe), exclude={0, 1, 2, 3, 5})
            assert (caught.value.found, caught.value.needed) == (1, 2)
            excluded = {store.name(window[index]) for index in (0, 1, 2, 3, 5)}
            assert set(caught.value.by_member) == excluded

    def test_a_put_settles_for_k_plus_two_and_says_who_owes(self, cluster: AnyMembers) -> None:
        """Two dead members cost a debt each; the dead are then believed down; with a third the put is refused."""
        stripe = sample(106)
        with self.open_store(cluster) as store:
            window = store.window(stripe.slot.stripe_id, LAYOUT, 6)
            cluster.kill(window[0])
            cluster.kill(window[3])
            outcome = store.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)
            assert outcome.stored == {1, 2, 4, 5}
            assert set(outcome.owed) == {0, 3}
            assert not store.barrier(outcome.receipts).failed
            assert set(store.members()) - set(store.up_members()) == {window[0], window[3]}
            cluster.kill(window[5])
            with pytest.raises(UnavailableError, match="only 3 of 6 members"):
                store.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)

    def test_a_restart_before_the_barrier_is_noticed(self, cluster: AnyMembers) -> None:
        """A daemon that restarted between shard and flush is named, and nobody else."""
        stripe = sample(107)
        with self.open_store(cluster) as store:
            outcome = store.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)
            victim = store.window(stripe.slot.stripe_id, LAYOUT, 6)[2]
            cluster.kill(victim)
            cluster.restart(victim)
            assert set(store.barrier(outcome.receipts).failed) == {victim}

    def test_presence_is_true_false_or_unknown(self, cluster: AnyMembers) -> None:
        """A shard is there, not there, or its member does not answer; three answers, never two."""
        stripe, other = sample(108), sample(109)
        with self.open_store(cluster) as store:
            window = store.window(stripe.slot.stripe_id, LAYOUT, 6)
            for index in (0, 1, 2, 3, 5):
                store.put_shard(stripe.slot, index, *stripe.shards[index])
            cluster.kill(window[3])
            assert store.exists(stripe.slot) == {0: True, 1: True, 2: True, 3: None, 4: False, 5: True}
            absent = store.exists(other.slot)
            gone = store.window(other.slot.stripe_id, LAYOUT, 6).index(window[3])
            assert absent == {index: None if index == gone else False for index in range(6)}

    def test_inspection_tells_good_from_corrupt_missing_and_unknown(self, cluster: AnyMembers) -> None:
        """Every shard is told by what was found where it should lie, and a shard put again is good again."""
        stripe = sample(110)
        with self.open_store(cluster) as store:
            window = store.window(stripe.slot.stripe_id, LAYOUT, 6)
            for index, held in {0: 0, 1: 0, 2: 2, 3: 3, 5: 5}.items():
                store.put_shard(stripe.slot, index, *stripe.shards[held])
            cluster.kill(window[5])
            found = store.inspect(stripe.slot)
            assert [str(found[index].soundness) for index in range(6)] == [
                "good", "corrupt", "good", "good", "missing", "unknown"
            ]  # fmt: skip
            assert [found[index].member for index in range(6)] == list(window)
            assert found[0].value == b"".join(stripe.shards[0])
            receipts = {store.put_shard(stripe.slot, index, *stripe.shards[index]) for index in (1, 4)}
            assert not store.barrier(receipts).failed
            assert [str(shard.soundness) for shard in store.inspect(stripe.slot).values()].count("good") == 5
            with pytest.raises(UnavailableError):
                store.put_shard(stripe.slot, 5, *stripe.shards[5])

    def test_members_compare_shards_with_their_checksums_where_they_lie(self, cluster: AnyMembers) -> None:
        """Good, or missing on a member that was wiped; copies at home alone are inspected; what a layout that stands
        wants is never stale."""
        stripe = sample(31)
        with self.open_store(cluster) as store:
            put_whole(store, stripe)
            window = store.window(stripe.slot.stripe_id, LAYOUT, 6)
            until(lambda: {str(said) for said in store.check_home([stripe.slot])[0].values()} == {"good"})
            cluster.wipe(window[1])
            until(lambda: str(store.check_home([stripe.slot])[0][1]) == "missing")
            [said] = store.check_home([stripe.slot])
            assert [str(said[index]) for index in range(3)] == ["good", "missing", "good"]
            found = store.inspect_home(stripe.slot, [0, 1])
            assert [str(found[index].soundness) for index in (0, 1)] == ["good", "missing"]
            assert not store.delete_stale([stripe.slot], [set(range(6))], [LAYOUT]).confirmed
            assert str(store.check_home([stripe.slot])[0][0]) == "good"


def put_whole(store: ports.ShardStore, stripe: Sample) -> None:
    """Store a sample on all its members, durably."""
    outcome = store.put(stripe.slot.stripe_id, LAYOUT, stripe.slot.k, stripe.slot.m, stripe.shards)
    assert not outcome.owed
    assert not store.barrier(outcome.receipts).failed


def fresh_payloads(stripe: Sample) -> Callable[[int], memoryview]:
    """A new buffer for each shard."""
    return lambda _: memoryview(bytearray(stripe.slot.shard_bytes))


class ShardStoreContract(ShardPortContract[Cluster]):
    """Derive, and give the fixture `cluster`."""

    def open_store(self, cluster: Cluster) -> AbstractContextManager[ports.ShardStore]:
        return open_pool(cluster.specs())

    def test_what_was_put_is_fetched_bit_for_bit(self, cluster: Cluster) -> None:
        """Every shard comes back as it was stored, from the member that the window names."""
        stripe = sample(1)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            window = pool.window(stripe.slot.stripe_id, LAYOUT, 6)
            for index in range(6):
                fetched = pool.fetch(stripe.slot, exclude=set(range(6)) - {index, (index + 1) % 6}, check=True)
                assert bytes(fetched.shards[index]) == stripe.shards[index][0]
                assert fetched.tags[index] == stripe.shards[index][1]
                assert fetched.served_by[index] == window[index]

    def test_putting_the_same_again_is_well(self, cluster: Cluster) -> None:
        """A repeated put of the same stripe stores all again without complaint."""
        stripe = sample(2)
        with open_pool(cluster.specs()) as pool:
            assert put(pool, stripe) == put(pool, stripe)

    def test_large_and_tiny_shards(self, cluster: Cluster) -> None:
        """One byte and 1 MiB go through the same path."""
        with open_pool(cluster.specs()) as pool:
            for seed, shard_bytes in ((3, 1), (4, 1 << 20)):
                stripe = sample(seed, shard_bytes=shard_bytes)
                put(pool, stripe)
                fetched = pool.fetch(stripe.slot, [0, 1], check=True)
                assert stripe.data_from(fetched) == stripe.data

    def test_payloads_land_in_the_callers_buffer(self, cluster: Cluster) -> None:
        """A shard is received where the caller wants it, without a copy in between."""
        stripe = sample(5)
        buffer = bytearray(6 * 4096)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            fetched = pool.fetch(stripe.slot, [1], lambda index: memoryview(buffer)[index * 4096 : (index + 1) * 4096])
        assert fetched.shards[1].obj is buffer
        assert buffer[4096 : 2 * 4096] == stripe.shards[1][0]

    def test_only_the_wanted_shard_is_asked_for(self, cluster: Cluster) -> None:
        """A range inside one data shard costs one request."""
        stripe = sample(6)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            fetched = pool.fetch(stripe.slot, [1])
        assert set(fetched.shards) == {1}
        assert fetched.asked == 1

    def test_four_dead_members_do_not_stop_a_read(self, cluster: Cluster) -> None:
        """With any m of the members killed, k shards still come."""
        stripe = sample(7)
        specs = cluster.specs()
        with open_pool(specs) as pool:
            put(pool, stripe)
            for number in pool.window(stripe.slot.stripe_id, LAYOUT, 6)[:4]:
                cluster.kill(number)
            fetched = pool.fetch(stripe.slot, check=True)
            assert set(fetched.shards) == {4, 5}
        with open_pool(specs) as fresh:
            assert set(fresh.fetch(stripe.slot, check=True).shards) == {4, 5}

    def test_too_many_dead_members_are_named(self, cluster: Cluster) -> None:
        """With k - 1 left a fetch fails, and says how many shards it found and which members failed it."""
        stripe = sample(8)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            dead = pool.window(stripe.slot.stripe_id, LAYOUT, 6)[:5]
            for number in dead:
                cluster.kill(number)
            with pytest.raises(NotEnoughShardsError) as caught:
                pool.fetch(stripe.slot)
            assert (caught.value.found, caught.value.needed) == (1, 2)
            assert set(caught.value.by_member) >= {pool.name(number) for number in dead}

    def test_a_paused_member_costs_one_wait_and_then_none(self, cluster: Cluster) -> None:
        """A member that accepts and never answers is read around at once, and demoted until a probe answers."""
        stripe = sample(9)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            victim = pool.window(stripe.slot.stripe_id, LAYOUT, 6)[0]
            cluster.pause(victim)
            fetched = pool.fetch(stripe.slot, [0], check=True)
            assert len(fetched.shards) == 2
            assert 0 not in fetched.shards
            assert pool.states()[victim].state is MemberState.PAUSED
            assert victim not in pool.up_members()
            assert pool.fetch(stripe.slot, [0]).asked == 2
            cluster.resume(victim)
            until(lambda: victim in pool.up_members())
            assert set(pool.fetch(stripe.slot, [0]).shards) == {0}

    def test_a_write_settles_without_those_that_are_away(self, cluster: Cluster) -> None:
        """With one member paused and one dead the stripe is stored on the others; who owes is said, with the reason."""
        stripe = sample(10)
        with open_pool(cluster.specs()) as pool:
            window = pool.window(stripe.slot.stripe_id, LAYOUT, 6)
            cluster.pause(window[1])
            cluster.kill(window[4])
            result = pool.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)
            assert result.stored == {0, 2, 3, 5}
            assert set(result.owed) == {1, 4}
            assert not pool.barrier(result.receipts).failed
            again = time.monotonic()
            assert set(pool.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards).owed) == {1, 4}
            assert time.monotonic() - again < 1.0, "the second stripe waited again"
            cluster.resume(window[1])

    def test_a_write_with_too_few_members_fails(self, cluster: Cluster) -> None:
        """Fewer than k + 2 members: nothing is claimed to be stored."""
        stripe = sample(11)
        with open_pool(cluster.specs()) as pool:
            for number in pool.window(stripe.slot.stripe_id, LAYOUT, 6)[:3]:
                cluster.kill(number)
            with pytest.raises(UnavailableError, match="only 3 of 6 members can take their shard, 4 are needed"):
                pool.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)

    def test_the_barrier_notices_a_restart(self, cluster: Cluster) -> None:
        """A daemon that restarted between shard and flush is named, the others are durable."""
        stripe = sample(12)
        with open_pool(cluster.specs()) as pool:
            receipts = put(pool, stripe)
            assert not pool.barrier(receipts).failed
            victim = pool.window(stripe.slot.stripe_id, LAYOUT, 6)[2]
            cluster.kill(victim)
            cluster.restart(victim)
            failed = pool.barrier(receipts).failed
            assert set(failed) == {victim}
            assert "restarted" in failed[victim]

    def test_a_restarted_member_serves_again_over_a_new_connection(self, cluster: Cluster) -> None:
        """Idle connections that died with a daemon cost a new connect, not a failure."""
        stripe = sample(13)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            victim = pool.window(stripe.slot.stripe_id, LAYOUT, 6)[0]
            cluster.kill(victim)
            cluster.restart(victim)
            fetched = pool.fetch(stripe.slot, [0])
            assert set(fetched.shards) == {0}

    def test_presence_is_told_shard_by_shard(self, cluster: Cluster) -> None:
        """EXISTS says True, False, or None where the member is dead."""
        stripe, other = sample(14), sample(15)
        with open_pool(cluster.specs()) as pool:
            put(pool, stripe)
            assert pool.exists_all([stripe.slot, other.slot]) == [
                dict.fromkeys(range(6), True),
                dict.fromkeys(range(6), False),
            ]
            victim = pool.window(stripe.slot.stripe_id, LAYOUT, 6)[3]
            cluster.kill(victim)
            assert pool.exists(stripe.slot) == {0: True, 1: True, 2: True, 3: None, 4: True, 5: True}

    def test_shards_are_inspected_and_mended_one_by_one(self, cluster: Cluster) -> None:
        """Missing and corrupt shards are told apart, and a single shard can be stored where it belongs."""
        stripe = sample(16)
        with open_pool(cluster.specs()) as pool:
            payload, tag = stripe.shards[0]
            assert pool.get_shard(stripe.slot, 0) is None
            pool.put_shard(stripe.slot, 0, payload, tag)
            pool.put_shard(stripe.slot, 1, payload, tag)
            found = pool.inspect(stripe.slot)
            assert [found[index].soundness for index in range(6)] == [
                Soundness.GOOD,
                Soundness.CORRUPT,
                *[Soundness.MISSING] * 4,
            ]
            assert pool.get_shard(stripe.slot, 0) == payload + tag
            assert not pool.barrier({pool.put_shard(stripe.slot, 1, *stripe.shards[1])}).failed
            assert pool.inspect(stripe.slot, [1])[1].soundness is Soundness.GOOD

    def test_identity_is_checked_before_a_member_is_trusted(self, cluster: Cluster) -> None:
        """A namespace without the identity is wiped, one with another swapped: both are down and not written to."""
        stripe = sample(17)
        specs = cluster.specs()
        with open_pool(specs) as pool:
            for number in pool.members():
                pool.write_identity(number, b"identity of %d" % number)
            assert pool.read_identity(MemberNumber(1)) == b"identity of 1"
            window = pool.window(stripe.slot.stripe_id, LAYOUT, 6)
            pool.write_identity(window[1], b"identity of somebody else")
            cluster.wipe(window[4])
        known = [_with_identity(spec, b"identity of %d" % spec.number) for spec in specs]
        with open_pool(known) as pool:
            result = pool.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)
            assert result.owed == {1: "swapped", 4: "wiped"}
            assert pool.states()[window[1]].reason == "swapped"
            assert pool.probe()[window[1]].state is MemberState.DOWN
        with open_pool(specs) as pool:
            present = pool.exists(stripe.slot)
            assert (present[1], present[4]) == (False, False)

    def test_probing_tells_up_paused_and_down(self, cluster: Cluster) -> None:
        """A probe asks every member at once and ends within about a second."""
        with open_pool(cluster.specs()) as pool:
            first, second, *_ = pool.members()
            cluster.kill(first)
            cluster.pause(second)
            states = pool.probe()
            cluster.resume(second)
            assert states[first].state is MemberState.DOWN
            assert states[second].state is MemberState.PAUSED
            assert {states[number].state for number in pool.members()[2:]} == {MemberState.UP}


def _with_identity(spec: MemberSpec, identity: bytes) -> MemberSpec:
    return MemberSpec(
        spec.number, spec.id, spec.address, spec.namespace, spec.password, spec.zone, spec.durable, identity=identity
    )
