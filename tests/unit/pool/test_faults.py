"""Twenty members, some of which hang, refuse, lie, break off or die: what the pool does, and what it then believes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fungistor.coding.shard import shard_key
from fungistor.errors import NotEnoughShardsError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber
from fungistor.placement import Member, Policy, plan
from fungistor.pool import MemberSpec, MemberState, Pool
from fungistor.testing.contracts.shard_store import LAYOUT, Sample, open_pool, put, sample, spec, table_for, until
from fungistor.testing.fake_member import FakeMember
from fungistor.testing.faults import FaultPlan, Lie
from fungistor.zdb.client import Client, Login, MemberError

NOT_WAITED_S = 4.0
"""What hangs never answers and what is slow takes longer than this: a read that ends sooner waited for neither.

How much sooner is for the benchmarks; on a loaded machine a tight bound would fail for no fault of the pool.
"""


class World:
    """Twenty fakes and a stored stripe of 16 + 4."""

    def __init__(self, stack: ExitStack, seed: int) -> None:
        self.members = {MemberNumber(number): stack.enter_context(FakeMember()) for number in range(1, 21)}
        self.specs = [spec(number, member.address) for number, member in self.members.items()]
        self.stripe: Sample = sample(seed, k=16, m=4, shard_bytes=65536)
        with open_pool(self.specs) as pool:
            put(pool, self.stripe)
            self.window = pool.window(self.stripe.slot.stripe_id, LAYOUT, 20)

    def fail(self, faults: FaultPlan, *indices: int) -> None:
        """Give the members of these shards a fault."""
        for index in indices:
            self.members[self.window[index]].faults = faults

    def heal(self) -> None:
        for member in self.members.values():
            member.resume()


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        world = World(stack, 1)
        yield world
        world.heal()


@contextmanager
def not_waiting() -> Iterator[None]:
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took <= NOT_WAITED_S, f"it took {took:.3f} s"


FAULTS = {
    "hang": FaultPlan(hang=True),
    "refuse": FaultPlan(refuse=True),
    "slow": FaultPlan(delay_s=5.0),
    "half": FaultPlan(half_then_close=True),
    "dies": FaultPlan(die_after=0),
    "truncates": FaultPlan(lie=Lie.TRUNCATE),
    "flips": FaultPlan(lie=Lie.FLIP),
    "swaps": FaultPlan(lie=Lie.SWAP),
    "errors": FaultPlan(error="Internal Error"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "warm"])
def test_four_members_at_fault_do_not_delay_a_read(world: World, fault: str, fresh: bool) -> None:
    """Whatever four of twenty do, a whole stripe is read without waiting for them, and is right."""
    with open_pool(world.specs) as pool:
        if not fresh:
            for _ in range(3):
                pool.fetch(world.stripe.slot, check=True)
        world.fail(FAULTS[fault], 0, 5, 10, 15)
        with not_waiting():
            fetched = pool.fetch(world.stripe.slot, check=True)
        assert world.stripe.data_from(fetched) == world.stripe.data
        with not_waiting():
            assert world.stripe.data_from(pool.fetch(world.stripe.slot, check=True)) == world.stripe.data


def test_a_paused_member_is_paid_for_once_in_a_process(world: World) -> None:
    """Four paused: each is met in vain once at most by the one-shard reads of a fresh pool, and never again."""
    world.fail(FaultPlan(hang=True), 0, 5, 10, 15)
    met_in_vain = 0
    with open_pool(world.specs) as pool, not_waiting():
        for index in [*range(16), *range(16)]:
            fetched = pool.fetch(world.stripe.slot, [index], check=True)
            assert index in fetched.shards or len(fetched.shards) == 16
            met_in_vain += len(fetched.failures)
    assert met_in_vain <= 4


def test_hints_spare_a_fresh_process_the_wait(world: World) -> None:
    """Told that four are paused, a fresh pool asks none of them, and takes them back when a probe answers."""
    world.fail(FaultPlan(hang=True), 0, 5, 10, 15)
    away = {world.window[index]: MemberState.PAUSED for index in (0, 5, 10, 15)}
    with open_pool(world.specs) as pool:
        pool.hint_states(away, "paused as the last process left it")
        assert set(pool.up_members()) == set(pool.members()) - set(away)
        with not_waiting():
            assert pool.fetch(world.stripe.slot, check=True).asked == 16
        world.heal()
        until(lambda: len(pool.up_members()) == 20)


def test_five_paused_members_are_named(world: World) -> None:
    """Sixteen of fifteen cannot be had: the error comes when probes have found them silent, too, with every reason."""
    world.fail(FaultPlan(hang=True), 0, 1, 2, 3, 4)
    with open_pool(world.specs) as pool:
        with not_waiting(), pytest.raises(NotEnoughShardsError) as caught:
            pool.fetch(world.stripe.slot)
        assert (caught.value.found, caught.value.needed) == (15, 16)
        assert set(caught.value.by_member) == {pool.name(world.window[index]) for index in range(5)}
        with not_waiting(), pytest.raises(NotEnoughShardsError):
            pool.fetch(world.stripe.slot)


def test_a_liar_is_named_and_read_around_with_exclude(world: World) -> None:
    """Without check the lie is delivered; the caller who finds it excludes the shard and gets sixteen others."""
    world.fail(FaultPlan(lie=Lie.FLIP), 3)
    with open_pool(world.specs) as pool:
        fetched = pool.fetch(world.stripe.slot, [3])
        assert bytes(fetched.shards[3]) != world.stripe.shards[3][0]
        assert fetched.served_by[3] == world.window[3]
        around = pool.fetch(world.stripe.slot, [3], exclude=[3])
        assert 3 not in around.shards
        assert world.stripe.data_from(around) == world.stripe.data
        checked = pool.fetch(world.stripe.slot, [3], check=True)
        assert "tag does not match" in checked.failures[3]


def test_an_abandoned_connection_is_never_used_again(world: World) -> None:
    """A late answer to an old question is not taken for the answer to a new one."""
    other = sample(2, k=16, m=4, shard_bytes=65536)
    with open_pool(world.specs) as pool:
        put(pool, other)
        world.fail(FaultPlan(hang_on=frozenset({"GET"})), 0)
        pool.fetch(world.stripe.slot, [0])
        before = world.members[world.window[0]].connections
        world.heal()
        until(lambda: world.window[0] in pool.up_members())
        index = pool.window(other.slot.stripe_id, LAYOUT, 20).index(world.window[0])
        fetched = pool.fetch(other.slot, exclude=set(range(20)) - {index, *range(16)} - {index}, check=True)
        assert not fetched.failures
        assert world.members[world.window[0]].connections > before


def test_a_late_answer_in_a_reused_buffer_cannot_appear(world: World) -> None:
    """Once fetch has returned nothing writes into the caller's buffers any more, whoever answers later."""
    buffer = bytearray(20 * 65536)

    def into(index: int) -> memoryview:
        return memoryview(buffer)[index * 65536 : (index + 1) * 65536]

    world.fail(FaultPlan(hang_on=frozenset({"GET"})), 2)
    with open_pool(world.specs) as pool:
        fetched = pool.fetch(world.stripe.slot, None, into)
        assert 2 not in fetched.shards
        buffer[:] = bytes(len(buffer))
        world.heal()
        until(lambda: world.window[2] in pool.up_members())
        assert not any(buffer)


def test_two_dead_and_two_lying_members_at_publish(world: World) -> None:
    """A write is acknowledged by those who acknowledge; who refuses owes, with the daemon's own words."""
    stripe = sample(3, k=16, m=4, shard_bytes=1024)
    with open_pool(world.specs) as pool:
        window = pool.window(stripe.slot.stripe_id, LAYOUT, 20)
        world.members[window[7]].faults = FaultPlan(error="No space left on this namespace")
        world.members[window[9]].stop()
        result = pool.put(stripe.slot.stripe_id, LAYOUT, 16, 4, stripe.shards)
        assert result.owed[7] == "answered: No space left on this namespace"
        assert "cannot connect" in result.owed[9] or "broke off" in result.owed[9]
        assert len(result.stored) == 18
        assert {receipt.member for receipt in result.receipts} == {window[index] for index in result.stored}


def test_a_member_that_dies_between_shard_and_barrier_is_named(world: World) -> None:
    """Its shards cannot be counted on; the others' can."""
    stripe = sample(4, k=16, m=4, shard_bytes=1024)
    with open_pool(world.specs) as pool:
        receipts = put(pool, stripe)
        world.members[MemberNumber(3)].stop()
        world.members[MemberNumber(5)].restart(forget=1)
        world.members[MemberNumber(8)].faults = FaultPlan(hang_on=frozenset({"WAITAOF"}))
        with not_waiting():
            failed = pool.barrier(receipts).failed
        assert set(failed) == {3, 5, 8}
        assert "restarted" in failed[MemberNumber(5)]


def test_an_original_daemon_counts_as_durable_only_where_it_is_said(world: World) -> None:
    """A daemon without WAITAOF passes the barrier if its member is marked durable, and only then."""
    stripe = sample(5, k=16, m=4, shard_bytes=1024)
    for number in (1, 2):
        world.members[MemberNumber(number)].knows_waitaof = False
    specs = [MemberSpec(s.number, s.id, s.address, durable=True) if s.number == 1 else s for s in world.specs]
    with open_pool(specs) as pool:
        failed = pool.barrier(put(pool, stripe)).failed
    assert failed == {2: "cannot flush on demand and is not marked durable"}


def test_shards_are_found_under_an_older_layout(world: World) -> None:
    """While a layout drains, a stripe written under it is read although the newest layout names other members."""
    old = world.specs[:10]
    stripe = sample(6, k=6, m=4, shard_bytes=4096)
    with open_pool(old) as pool:
        put(pool, stripe)
    members = [Member(s.number, s.id) for s in world.specs]
    newest = plan(members, None, Policy())
    with Pool(world.specs, {LayoutNumber(2): newest, LAYOUT: table_for(old)}) as pool:
        assert stripe.data_from(pool.fetch(stripe.slot, check=True)) == stripe.data
        assert all(pool.exists(stripe.slot).values())
        assert pool.window(stripe.slot.stripe_id, LayoutNumber(2), 10)
        with pytest.raises(UnavailableError, match="layout 3 is not known"):
            pool.window(stripe.slot.stripe_id, LayoutNumber(3), 10)


def test_a_replaced_member_is_forgotten_and_a_new_address_is_used(world: World) -> None:
    """After the catalog moved on, requests go where the members are now."""
    with open_pool(world.specs) as pool, FakeMember() as successor:
        victim = world.window[0]
        successor.values.update(world.members[victim].values)
        pool.fetch(world.stripe.slot, [0])
        world.members[victim].stop()
        moved = [spec(s.number, successor.address) if s.number == victim else s for s in world.specs]
        pool.replace(moved, {LAYOUT: table_for(moved)})
        assert set(pool.fetch(world.stripe.slot, [0]).shards) == {0}
        assert "GET" in successor.commands


def test_a_wrong_password_is_down_with_the_reason() -> None:
    """A refused greeting demotes the member, and the request behind it was never obeyed elsewhere."""
    with FakeMember(namespace="shards", password="right") as member:
        wrong = spec(1, member.address, "shards", "wrong")
        with (
            pytest.raises(MemberError, match="refused namespace shards: Access denied"),
            Client(wrong.address, wrong.login()) as client,
        ):
            client.call("GET", "x")
        with Pool([wrong], {LAYOUT: table_for([spec(n, member.address) for n in range(1, 6)])}) as pool:
            states = pool.probe()
            assert states[MemberNumber(1)].state is MemberState.DOWN
            assert "Access denied" in states[MemberNumber(1)].reason


def test_a_value_is_not_sent_before_the_greeting_is_answered() -> None:
    """A SET to a namespace that refuses us never leaves: it would land in another one."""
    stripe = sample(7)
    with ExitStack() as stack:
        members = [stack.enter_context(FakeMember(namespace="shards", password="right")) for _ in range(6)]
        specs = [spec(number, member.address, "shards", "wrong") for number, member in enumerate(members, 1)]
        with open_pool(specs) as pool, pytest.raises(UnavailableError, match="refused namespace shards: Access denied"):
            pool.put(stripe.slot.stripe_id, LAYOUT, 2, 4, stripe.shards)
        assert not any("SET" in member.commands for member in members)


def test_a_client_waits_no_longer_than_it_was_told() -> None:
    """A member that hangs costs a client its timeout and the connection."""
    with FakeMember(FaultPlan(hang=True)) as member, not_waiting():
        with (
            pytest.raises(MemberError, match="did not answer in time"),
            Client(member.address, Login(), timeout_s=0.2) as client,
        ):
            client.call("PING")
        member.resume()


def test_closing_a_pool_ends_its_thread_and_connections(world: World) -> None:
    """After close nothing of the pool runs, and the members see their connections end."""
    world.fail(FaultPlan(hang=True), 0)
    pool = open_pool(world.specs)
    pool.fetch(world.stripe.slot, [0])
    pool.close()
    pool.close()
    world.heal()
    until(lambda: _idle(world, lambda member: not member.open_sessions()))


def _idle(world: World, holds: Callable[[FakeMember], bool]) -> bool:
    return all(holds(member) for member in world.members.values())


def test_keys_on_members_are_those_of_the_format(world: World) -> None:
    """What lies on a member is payload and tag under the shard's key, and nothing else."""
    slot = world.stripe.slot
    for index, number in enumerate(world.window):
        payload, tag = world.stripe.shards[index]
        assert world.members[number].values == {shard_key(slot.stripe_id, index): payload + tag}


def test_an_address_that_swallows_connects_is_down_and_not_paused(world: World) -> None:
    """A full backlog answers no SYN, as a machine without power does: down, and read around like all else."""
    with ExitStack() as stack:
        blackhole = stack.enter_context(socket.socket())
        blackhole.bind(("127.0.0.1", 0))
        blackhole.listen(0)
        address = f"127.0.0.1:{blackhole.getsockname()[1]}"
        for _ in range(3):  # fill the backlog
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(blackhole.getsockname())
        victim = world.window[0]
        specs = [spec(s.number, address) if s.number == victim else s for s in world.specs]
        with open_pool(specs) as pool:
            with not_waiting():
                assert len(pool.fetch(world.stripe.slot, [0], check=True).shards) == 16
            standing = pool.states()[victim]
            assert standing.state is MemberState.DOWN
            assert "no connection" in standing.reason
            assert pool.probe([victim])[victim].reason == "no connection in 1 s"


def test_a_member_behind_a_unix_socket(tmp_path: Path) -> None:
    """A path is an address like any other: gone, it is down; served, it answers."""
    path = f"{tmp_path}/zdb.sock"
    with Pool([spec(1, path)], {}) as pool:
        assert pool.probe()[MemberNumber(1)].reason == "cannot connect: No such file or directory"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(MemberError, match="did not answer in time"), Client(path, timeout_s=0.1) as client:
            client.call("PING")


def test_a_wiped_member_is_noticed_by_readers_too(world: World) -> None:
    """With an identity expected, a namespace that lost it serves nothing, whatever else it holds."""
    specs = [
        MemberSpec(s.number, s.id, s.address, identity=b"sealed") if s.number == world.window[0] else s
        for s in world.specs
    ]
    with open_pool(specs) as pool:
        fetched = pool.fetch(world.stripe.slot, [0], check=True)
        assert fetched.failures[0] == "wiped"
        assert pool.states()[world.window[0]].reason == "wiped"
        pool.write_identity(world.window[0], b"sealed")
        until(lambda: world.window[0] in pool.up_members())
        assert set(pool.fetch(world.stripe.slot, [0]).shards) == {0}
