"""Small reads by GETRANGE from members that know it; those that do not, lie, hang or are gone are read around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fungistor.errors import CorruptError
from fungistor.objects.stripe_reader import StripeReader
from fungistor.pool import MemberSpec, MemberState, Pool
from fungistor.pool.ranges import ASK_AGAIN_S
from fungistor.testing.contracts.shard_store import LAYOUT, Sample, open_pool, put, sample, spec, table_for
from fungistor.testing.fake_member import FakeMember
from fungistor.testing.faults import FaultPlan, Lie
from tests.unit.zdb_daemon.original import needs_original, original

SHARD = 65536


@pytest.fixture
def members() -> Iterator[list[FakeMember]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeMember()) for _ in range(8)]


class World:
    """Eight members, a stripe of 4 + 4 on them, a pool and a reader whose opener knows the right bytes."""

    def __init__(self, members: list[FakeMember], pool: Pool) -> None:
        self.stripe: Sample = sample(1, k=4, m=4, shard_bytes=SHARD)
        put(pool, self.stripe)
        self.window = [members[number - 1] for number in pool.window(self.stripe.slot.stripe_id, LAYOUT, 8)]
        self.named: list[int] = []
        self.reader = StripeReader(pool, lambda _, index: self.named.append(index))

    def read(self, offset: int, length: int = 2000) -> None:
        """Read bytes of the stripe as a block is read; they must be the right ones."""
        expected = self.stripe.data[offset : offset + length]

        def opener(sealed: bytes | bytearray | memoryview) -> bytes:
            if sealed != expected:
                raise CorruptError("these are other bytes")
            return bytes(sealed)

        assert self.reader.read_span(self.stripe.slot, offset, length, opener) == expected
        self.reader.forget()

    def asked(self, word: str) -> int:
        return sum(member.commands.count(word) for member in self.window)


def specs_of(members: list[FakeMember]) -> list[MemberSpec]:
    return [spec(number, member.address) for number, member in enumerate(members, 1)]


def test_a_small_read_is_one_range(members: list[FakeMember]) -> None:
    """Members that know GETRANGE are asked for the bytes alone; over the edge of two shards, each for its part."""
    with open_pool(specs_of(members)) as pool:
        world = World(members, pool)
        world.read(1000)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (1, 0)
        world.read(SHARD - 500)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (3, 0)
        world.read(0, SHARD)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (3, 1)


def test_an_old_member_is_asked_for_a_range_once(members: list[FakeMember]) -> None:
    """Where the word is not known whole shards are read, silently; it is tried again when the member may be new."""
    now = [1000.0]
    specs = specs_of(members)
    with Pool(specs, {LAYOUT: table_for(specs)}, clock=lambda: now[0]) as pool:
        world = World(members, pool)
        world.window[0].knows_getrange = False
        for offset in (0, 100, 30_000):
            world.read(offset)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (1, 3)
        assert len(pool.up_members()) == 8
        world.read(SHARD + 5)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (2, 3)
        now[0] += ASK_AGAIN_S + 1
        world.window[0].knows_getrange = True
        world.read(0)
        assert (world.asked("GETRANGE"), world.asked("GET")) == (3, 3)


@pytest.mark.parametrize(
    "fault",
    [
        FaultPlan(refuse=True),
        FaultPlan(hang=True),
        FaultPlan(hang_on=frozenset({"GETRANGE"})),
        FaultPlan(half_then_close=True),
        FaultPlan(die_after=0),
        FaultPlan(error="Internal Error"),
        FaultPlan(lie=Lie.TRUNCATE),
        FaultPlan(lie=Lie.SWAP),
        FaultPlan(lie=Lie.FLIP),
    ],
    ids=str,
)
def test_four_members_at_fault_are_read_around(members: list[FakeMember], fault: FaultPlan) -> None:
    """Whatever the members of all four data shards do to a range, the right bytes come; liars are named."""
    with open_pool(specs_of(members)) as pool:
        world = World(members, pool)
        for member in world.window[:4]:
            member.faults = fault
        for offset in (0, SHARD - 1000, 3 * SHARD):
            world.read(offset)
        if fault.lie is Lie.FLIP:
            assert set(world.named) >= {0, 3}
        elif fault.lie is None:
            assert not world.named
        for member in members:
            member.resume()


def test_a_silent_member_is_found_out_by_a_range(members: list[FakeMember]) -> None:
    """Whoever says nothing to a range is demoted like any other, and the next small read does not ask it."""
    with open_pool(specs_of(members)) as pool:
        world = World(members, pool)
        world.window[0].faults = FaultPlan(hang=True)
        world.read(0)
        asked = world.asked("GETRANGE")
        states = [standing.state for standing in pool.states().values()]
        assert states.count(MemberState.PAUSED) == 1
        world.read(0)
        assert world.asked("GETRANGE") == asked
        world.window[0].resume()


@needs_original
def test_an_original_among_the_members_gives_whole_shards(members: list[FakeMember], tmp_path: Path) -> None:
    """A pool that mixes the original with ours reads small things from both, from the original by whole shards."""
    with original(tmp_path) as old:
        specs = [*specs_of(members[:7]), spec(8, old.address)]
        with open_pool(specs) as pool:
            world = World(members, pool)
            for _ in range(2):
                for shard in range(4):
                    world.read(shard * SHARD + 77)
            assert len(pool.up_members()) == 8
        assert not world.named
