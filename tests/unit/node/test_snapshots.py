"""Snapshots of the catalog in the pool: written, committed, trimmed behind, read back by nodes that were away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.state import State
from fungistor.errors import CorruptError, NotEnoughShardsError, UnavailableError
from fungistor.ids import MemberId, MemberNumber
from fungistor.node.home import Home
from fungistor.node.snapshots import Snapshots
from fungistor.pool.archive import shape_for
from fungistor.pool.members import IDENTITY_KEY, MemberSpec
from fungistor.testing.fake_member import FakeMember
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.unit.catalog.samples import command, drawn, layout, publish, record

MEMBERS = 8
NETWORK_KEY = drawn("network key")


@dataclass
class World:
    """Fake members on real sockets, one log, and nodes with homes of their own."""

    folder: Path
    members: list[FakeMember]
    store: MemoryLogStore = field(default_factory=MemoryLogStore)
    opened: list[Catalog] = field(default_factory=list)

    def specs(self) -> list[MemberSpec]:
        return [
            MemberSpec(MemberNumber(0), MemberId(f"m{number}"), member.address)
            for number, member in enumerate(self.members)
        ]

    def snapshots(self, name: str, key: bytes = NETWORK_KEY) -> Snapshots:
        home = Home(str(self.folder / name))
        os.makedirs(home.catalog, exist_ok=True)
        return Snapshots(home, key, self.specs)

    def node(self, name: str, snapshots: Snapshots | None = None) -> Catalog:
        snapshots = snapshots or self.snapshots(name)
        state = State(Home(str(self.folder / name)).catalog_state)
        self.opened.append(Catalog(MemoryLog(self.store), state, bridge=snapshots.chunks))
        return self.opened[-1]

    def values(self) -> int:
        return sum(key != IDENTITY_KEY for member in self.members for key in member.values)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        made = World(tmp_path, [stack.enter_context(FakeMember()) for _ in range(MEMBERS)])
        yield made
        for catalog in made.opened:
            catalog.close()


def filled(world: World, name: str = "one", count: int = 30) -> Catalog:
    catalog = world.node(name)
    catalog.commit(command(layout(1)))
    for start in range(0, count, 1000):
        catalog.commit_all([command(publish(number)) for number in range(start, min(start + 1000, count))])
    return catalog


def test_a_new_node_crosses_the_trimmed_log_by_the_snapshot(world: World) -> None:
    """After snapshot and trim a node with nothing has the same rows as one that applied all, and both go on."""
    one = filled(world)
    taken = world.snapshots("one").take(one)
    assert taken is not None
    assert (taken.applied, taken.members, taken.trimmed) == (31, MEMBERS, 1)
    one.commit(command(publish(100)))
    two = world.node("two")
    assert two.catch_up()
    assert two._state.fingerprint() == one._state.fingerprint()
    assert two._state.is_sound()
    assert two.record(record(7).object_id) == record(7)
    two.commit(command(publish(101)))
    one.catch_up()
    assert one.status().objects == two.status().objects == 32


def test_nothing_new_takes_no_snapshot_and_at_most_two_are_kept(world: World) -> None:
    """Only the last two stay, in the catalog and on the members; what the others took there is free again."""
    one, snapshots = filled(world), world.snapshots("one")
    sizes = []
    for number in range(5):
        assert snapshots.take(one) is not None
        assert snapshots.take(one) is None
        one.commit(command(publish(200 + number)))
        sizes.append(world.values())
    assert len(one.snapshots()) == 2
    assert sizes == [MEMBERS, *[2 * MEMBERS] * 4]


@pytest.mark.parametrize("gone", [5, 6])
def test_half_of_the_members_may_be_gone(world: World, gone: int) -> None:
    """With half of eight members gone the snapshot reads; with one more it says how many were found, and heals."""
    one = filled(world)
    world.snapshots("one").take(one)
    for member in world.members[:gone]:
        member.stop()
    two = world.node("two")
    if gone == 5:
        assert two.catch_up()
        assert two._state.fingerprint() == one._state.fingerprint()
        return
    with pytest.raises(NotEnoughShardsError) as caught:
        two.catch_up()
    assert (caught.value.found, caught.value.needed) == (2, 3)
    for member in world.members[:gone]:
        member.restart()
    assert two.catch_up()


def test_a_lying_member_is_read_around_and_a_moved_shard_is_found(world: World) -> None:
    """Flipped values fail their tags; shards that lie on other members than their rank's are found there."""
    one = filled(world)
    world.snapshots("one").take(one)
    for member in world.members[:2]:
        for key, value in list(member.values.items()):
            member.values[key] = bytes([value[0] ^ 1]) + value[1:]
    moved, target = world.members[2], world.members[3]
    target.values.update(moved.values)
    moved.values.clear()
    world.members[4].stop()
    world.members[5].stop()
    two = world.node("two")
    assert two.catch_up()
    assert two._state.fingerprint() == one._state.fingerprint()


def test_the_home_that_wrote_it_needs_no_member(world: World) -> None:
    """Its own file brings a deleted state back with all members gone; a damaged file is passed over for the pool."""
    one = filled(world)
    world.snapshots("one").take(one)
    before = one._state.fingerprint()
    for member in world.members:
        member.stop()
    path = Home(str(world.folder / "one")).snapshot
    again = world.node("again", world.snapshots("one"))
    assert again.catch_up()
    assert again._state.digest() != b""
    assert again.record(record(3).object_id) == record(3)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:-9])
    broken = world.node("broken", world.snapshots("one"))
    with pytest.raises(UnavailableError):
        broken.catch_up()
    for member in world.members:
        member.restart()
    assert broken.catch_up()
    assert before != b"" and broken.status().objects == 30


def test_too_few_members_take_no_snapshot_and_the_log_stays(world: World) -> None:
    """With three of eight it is refused, nothing is committed or trimmed; later it works, and leaves no orphans."""
    one, snapshots = filled(world), world.snapshots("one")
    for member in world.members[3:]:
        member.stop()
    with pytest.raises(UnavailableError, match="3 of 8 members take"):
        snapshots.take(one)
    assert (one.snapshots(), one.first_entry()) == ([], 1)
    for member in world.members[3:]:
        member.restart()
    assert snapshots.take(one) is not None
    assert world.values() == MEMBERS


@pytest.mark.parametrize("step", ["put", "flush", "commit", "trim"])
def test_a_crash_at_any_step_loses_nothing(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done before it, the log or a committed snapshot has everything, and the next one clears up."""
    one, snapshots = filled(world, count=3000), world.snapshots("one")

    class PowerCutError(Exception):
        """The process ends here."""

    def cut(*_: object, **__: object) -> None:
        raise PowerCutError

    target = "fungistor.catalog.catalog.Catalog" if step in ("commit", "trim") else "fungistor.pool.archive.Archive"
    with monkeypatch.context() as broken:
        broken.setattr(f"{target}.{step}", cut)
        with pytest.raises(PowerCutError):
            snapshots.take(one)
    fresh = world.node("fresh")
    assert fresh.catch_up()
    assert fresh.status().objects == 3000
    one.commit(command(publish(5000)))
    assert world.snapshots("one").take(one) is not None
    kept = sum(snapshot.chunks for snapshot in one.snapshots())
    assert world.values() == MEMBERS * kept
    late = world.node("late")
    assert late.catch_up()
    assert late._state.fingerprint() == one._state.fingerprint()


def test_another_network_s_key_opens_nothing(world: World) -> None:
    """What lies on the members is found by no other key, and changes nothing in the state that wanted it."""
    one = filled(world)
    world.snapshots("one").take(one)
    two = world.node("two", world.snapshots("two", drawn("another key")))
    with pytest.raises((NotEnoughShardsError, CorruptError)):
        two.catch_up()
    assert two.status().applied == 0
    held = b"".join(value for member in world.members for value in member.values.values())
    assert held.find(record(3).object_id) == held.find(record(3).salt) == -1


def test_half_may_go_and_five_where_there_are_so_many() -> None:
    """The shapes for pools of every size: enough survive, and never more than half is needed."""
    shapes = {members: shape_for(members) for members in (5, 6, 8, 12, 20, 32, 100)}
    assert {members: (shape.k, shape.shards) for members, shape in shapes.items()} == {
        5: (1, 5), 6: (1, 6), 8: (3, 8), 12: (6, 12), 20: (10, 20), 32: (16, 32), 100: (16, 32),
    }  # fmt: skip
