"""What is acknowledged is in the pool, and what is dropped is no longer there; members fail meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fungistor.catalog.commands import encode_command
from fungistor.catalog.log import entry_number
from fungistor.errors import ConflictError, CorruptError, UnavailableError
from fungistor.ids import MemberNumber
from fungistor.node.copies.formats import Segment
from fungistor.node.copies.reading import CopyReader
from fungistor.node.doctor.copies import look_at_copies
from fungistor.pool.keeping import COPIES, copies_needed, losses_survived
from fungistor.pool.pool import Pool
from fungistor.testing.faults import FaultPlan, Lie
from tests.unit.catalog.samples import command, publish
from tests.unit.copies.copying import Node, World, copied_world, key_id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with copied_world(tmp_path) as made:
        yield made


def read(world: World, node: Node) -> list[Segment]:
    return list(CopyReader(node.pool, world.formats).segments(node.log.identity(), 0, b""))


def payloads(node: Node) -> list[bytes]:
    return [entry.payload for entry in node.log.read(node.log.trimmed())]


@pytest.mark.parametrize(("members", "needed", "losses"), [(20, 6, 4), (8, 6, 4), (7, 5, 3), (5, 3, 1), (1, 1, 0)])
def test_how_many_copies_survive_what(members: int, needed: int, losses: int) -> None:
    """With eight members and more any four may be gone and a fifth be out of date; fewer members bear less."""
    assert (copies_needed(members), losses_survived(members)) == (needed, losses)


def test_every_acknowledged_entry_and_its_key_are_on_members_before_it_is(world: World) -> None:
    """Each commit finds all entries up to its own, and the key of its object, on six members of nine."""
    node = world.filled(3)
    identity = node.log.identity()
    for number in range(1, entry_number(node.log.last()) + 1):
        assert len(world.holders(world.formats.segment_name(identity, number))) == COPIES
    for number in range(3):
        assert len(world.holders(world.formats.key_name(key_id(number)))) == COPIES
    assert [segment.payload for segment in read(world, node)] == payloads(node)


def test_publishers_at_once_share_rounds_and_leave_none_out(world: World) -> None:
    """Eight threads of one home commit at once: every entry is there, in its order."""
    node = world.filled(1)
    threads = [threading.Thread(target=node.publish, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [segment.payload for segment in read(world, node)] == payloads(node)


def test_too_few_members_are_met_before_anything_is_appended(world: World) -> None:
    """With five of nine up nothing can be published and nothing is in the log; with six it goes on."""
    node = world.filled(1)
    last = node.log.last()
    for member in world.members[:4]:
        member.stop()
    with pytest.raises(UnavailableError, match="5 of 9 members"):
        node.publish(1)
    assert node.log.last() == last
    world.members[0].restart()
    node.publish(1)
    assert [segment.payload for segment in read(world, node)] == payloads(node)


def test_members_that_fail_meanwhile_are_replaced_by_others(world: World) -> None:
    """One dies, one refuses, one hangs as the copy comes: it is on six others all the same, and the next is, too."""
    node = world.filled(1)
    world.members[1].stop()
    world.members[3].faults = FaultPlan(error="disk full")
    world.members[5].faults = FaultPlan(hang_on=frozenset({"SET"}))
    node.publish(1)
    node.publish(2)
    name = world.formats.segment_name(node.log.identity(), entry_number(node.log.last()))
    assert len(world.holders(name)) >= COPIES
    world.members[5].resume()


def test_what_was_left_uncopied_comes_with_the_next_commit(world: World) -> None:
    """An entry that reached the log and not the pool, as of a publisher that was killed between: the next one brings it
    with its key."""
    node = world.filled(1)
    body = publish(7)
    node.table.put(body.record.key_id, body.record.tenant, bytes(40))
    node.log.append(node.log.epoch(), [command_bytes(7)])
    node.publish(8)
    assert [segment.payload for segment in read(world, node)] == payloads(node)
    assert world.holders(world.formats.key_name(body.record.key_id))


def command_bytes(number: int) -> bytes:
    return encode_command(command(publish(number)))


def test_a_lost_mark_only_brings_everything_again(world: World) -> None:
    """Without its note of how far it came the home brings all entries and keys once more, and changes none of them."""
    node = world.filled(4)
    anchor = world.formats.anchor_name()
    before = [{name: value for name, value in member.values.items() if name != anchor} for member in world.members]
    (world.folder / "home" / "catalog" / "copies.json").unlink()
    node.publish(9)
    for member, values in zip(world.members, before, strict=True):
        assert values.items() <= member.values.items()
    assert [segment.payload for segment in read(world, node)] == payloads(node)


def test_a_dropped_key_goes_from_every_member(world: World) -> None:
    """Also from one that is away: it is named, and asked again when it is back, by another process, too."""
    node = world.filled(2)
    name = world.formats.key_name(key_id(0))
    away = world.holders(name)[0]
    away.stop()
    assert node.keys.delete([key_id(0)]) == 1
    assert world.holders(name) == [away]
    number = world.members.index(away) + 1
    assert node.copier.erase() == (f"m{number:02}",)
    away.restart()
    second = world.node()
    second.pool.probe()
    assert second.copier.erase() == ()
    assert world.holders(name) == []
    assert world.holders(world.formats.key_name(key_id(1)))


def test_a_key_that_was_dropped_as_it_was_copied_does_not_come_back(world: World) -> None:
    """A drop that ended half-way, noted and not carried out in the pool, is finished by the next look."""
    node = world.filled(1)
    node.copier.want_erased([key_id(0)])
    node.table.delete([key_id(0)])
    assert world.holders(world.formats.key_name(key_id(0)))
    node.copier.tend()
    assert not world.holders(world.formats.key_name(key_id(0)))


def test_a_segment_left_out_is_seen(world: World) -> None:
    """Of a pool that lacks an entry before the last the reader says which; where the last is missing the home knows."""
    node = world.filled(4)
    identity, last = node.log.identity(), entry_number(node.log.last())
    for member in world.members:
        member.values.pop(world.formats.segment_name(identity, last - 1), None)
    with pytest.raises(CorruptError, match=f"entry {last - 1} of the catalog is on no member"):
        read(world, node)
    assert node.copier.copies_of_newest()[0] == COPIES
    for member in world.members:
        member.values.pop(world.formats.segment_name(identity, last), None)
    assert node.copier.copies_of_newest() == (0, COPIES)


def test_members_that_lie_are_read_around(world: World) -> None:
    """Five flip bits, cut, or swap what they have: every entry is read from another; if all lie none is believed."""
    node = world.filled(5)
    for member, lie in zip(world.members[:5], [Lie.FLIP, Lie.TRUNCATE, Lie.SWAP, Lie.FLIP, Lie.SWAP], strict=True):
        member.faults = FaultPlan(lie=lie)
    assert [segment.payload for segment in read(world, node)] == payloads(node)
    for member in world.members:
        member.faults = FaultPlan(lie=Lie.FLIP)
    assert read(world, node) == []


def test_an_older_copy_of_the_log_is_refused(world: World) -> None:
    """A home whose log was put back to an earlier day does not write over what the pool has since."""
    node = world.filled(2)
    node.close()
    world.nodes.clear()
    shutil.copytree(world.folder / "home", world.folder / "aside")
    node = world.node()
    node.publish(5)
    older = world.node("aside")
    with pytest.raises(ConflictError, match="later ones lie in the pool"):
        older.copier.tend()


def test_two_entries_of_one_number_do_not_pass_for_a_log(world: World) -> None:
    """Where the log was written to from an older copy all the same, the reader follows what fits together, and says so
    where nothing does."""
    node = world.filled(3)
    identity, last = node.log.identity(), entry_number(node.log.last())
    name = world.formats.segment_name(identity, last)
    other = world.formats.seal_segment(identity, Segment(last, bytes(16), b"of another history"))
    holders = world.holders(name)
    for member in holders[:-1]:
        member.values[name] = other
    assert [segment.payload for segment in read(world, node)] == payloads(node)
    holders[-1].values[name] = other
    with pytest.raises(CorruptError, match="does not follow"):
        read(world, node)


def test_members_that_come_and_go_are_made_up_for(world: World) -> None:
    """A member less, and another in its place: all entries and keys are on six members again."""
    node = world.filled(3)
    while node.copier.tend():
        pass
    gone = world.members[2]
    gone.stop()
    gone.values.clear()
    gone.restart()
    node.pool.replace([spec for spec in world.specs() if spec.number != 3], {})
    second = world.node()
    second.pool.replace([spec for spec in world.specs() if spec.number != 3], {})
    second.copier.tend()
    while second.copier.tend():
        pass
    for number in range(1, entry_number(node.log.last()) + 1):
        assert len(world.holders(world.formats.segment_name(node.log.identity(), number))) >= COPIES
    for number in range(3):
        assert len(world.holders(world.formats.key_name(key_id(number)))) >= COPIES


def test_a_planted_bug_that_skips_segments_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copier that says it brought an entry and did not: a rebuild refuses what has a hole, and where the newest is
    missing `doctor` names it."""
    honest = Pool.keep

    def skipping(
        self: Pool, values: Sequence[tuple[bytes, bytes]], seed: bytes, *, everywhere: bool = False, ours: bool = False
    ) -> frozenset[MemberNumber]:
        left = [value for value in values if value[0] not in skipped]
        return honest(self, left, seed, everywhere=everywhere, ours=ours) if left else frozenset()

    node = world.filled(2)
    skipped = {world.formats.segment_name(node.log.identity(), 4)}
    monkeypatch.setattr(Pool, "keep", skipping)
    node.publish(2)
    assert [found.seen for found in look_at_copies(node.copier) if found.is_good is False]
    node.publish(3)
    with pytest.raises(CorruptError, match="entry 4 of the catalog is on no member"):
        read(world, node)


def test_doctor_says_how_the_pool_stands(world: World) -> None:
    """All there, entries that wait for members, and a pool that was never filled."""
    node = world.filled(2)
    assert [found.is_good for found in look_at_copies(node.copier)] == [True]
    node.log.append(node.log.epoch(), [command_bytes(7)])
    assert any("lacks the newest 1 entries" in found.seen for found in look_at_copies(node.copier))
