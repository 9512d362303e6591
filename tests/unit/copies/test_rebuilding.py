"""An empty machine with the root key gathers the catalog from members, or says exactly why it cannot."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.catalog.removal import Unpublish
from fungistor.catalog.state import State
from fungistor.errors import DeniedError, NotFoundError, UnavailableError
from fungistor.keys.ring import network_key_of, rotated_root, unwrap, wrap
from fungistor.keys.table import KeyTable
from fungistor.node.copies.findings import Rebuilt
from fungistor.node.home import Home
from fungistor.node.snapshots import Snapshots
from tests.unit.catalog.samples import command, drawn, record
from tests.unit.copies.copying import ROOT, TENANT_KEY, Node, World, copied_world, key_id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with copied_world(tmp_path) as made:
        yield made


def gather(world: World, folder: str = "new", root: bytes = ROOT, *, incomplete: bool = False) -> Rebuilt:
    with world.gathering(folder, root, incomplete=incomplete) as gathering:
        return gathering.read()


def same_rows(world: World, node: Node, folder: str = "new") -> bool:
    """Whether what was gathered is what the home has, to the last row."""
    with contextlib.closing(State(str(world.folder / folder / "state.sqlite"))) as state:
        return state.digest() == node.state.digest() and state.is_sound()


def test_four_gone_and_one_a_day_old_lose_nothing(world: World) -> None:
    """Whichever members these are: the rows are the same, and every key opens."""
    node = world.filled(3)
    stale = [dict(member.values) for member in world.members]
    for number in range(3, 8):
        node.publish(number)
    for turn in range(3):
        gone, old = [(turn + place) % 9 for place in (0, 2, 4, 6)], (turn + 1) % 9
        kept = world.members[old].values
        world.members[old].values = dict(stale[old])
        for number in gone:
            world.members[number].stop()
        found = gather(world, f"new{turn}")
        assert (found.objects, found.is_proven, found.keys, found.keys_missing) == (8, True, 8, 0)
        assert len(found.missing) == 4
        assert same_rows(world, node, f"new{turn}")
        with contextlib.closing(KeyTable(str(world.folder / f"new{turn}" / "keys.sqlite"))) as table:
            for number in range(8):
                wrapped = table.get(key_id(number))
                assert wrapped is not None and unwrap(TENANT_KEY, wrapped) == drawn(f"key {number}")
        world.members[old].values = kept
        for number in gone:
            world.members[number].restart()


def test_what_was_unpublished_does_not_come_back_nor_does_its_key(world: World) -> None:
    """The attacker with all members and the root key has no more of it than the home has."""
    node = world.filled(3)
    gone = record(1)
    node.catalog.commit(command(Unpublish(gone.object_id, gone.manifest_id, 1_800_000_000, None)))
    node.keys.delete([key_id(1)])
    found = gather(world)
    assert (found.objects, found.keys) == (2, 2)
    assert not any(world.formats.key_name(key_id(1)) in member.values for member in world.members)


def test_a_fifth_member_gone_is_told_and_goes_on_when_it_is_back(world: World) -> None:
    """It names who is missing, how far it came and what would do; then it goes on. Or it takes what there is."""
    node = world.filled(4)
    for member in world.members[:5]:
        member.stop()
    with pytest.raises(UnavailableError, match=r"5 of 9 members are missing .*no more than 4 are.*entry 5") as caught:
        gather(world)
    assert "--incomplete" in caught.value.hint
    partly = gather(world, "other", incomplete=True)
    assert (partly.is_proven, partly.objects, len(partly.missing)) == (False, 4, 5)
    world.members[0].restart()
    asked = sum(member.commands.count("GET") for member in world.members)
    assert gather(world).is_proven
    assert sum(member.commands.count("GET") for member in world.members) - asked < 9 * 600
    assert same_rows(world, node)


def test_members_that_came_back_empty_count_as_missing(world: World) -> None:
    """Five wiped members answer, and hold nothing: that is not all that there was."""
    world.filled(2)
    for member in world.members[:5]:
        member.values.clear()
    with pytest.raises(UnavailableError, match="5 of 9 members are missing"):
        gather(world)


def test_the_wrong_root_key_and_nobody_there_are_told_apart(world: World) -> None:
    """Another root key, an empty pool and a silent one each have their own cause, and nothing is made."""
    world.filled(1)
    with pytest.raises(DeniedError, match="fingerprint"):
        gather(world, root=drawn("another root key"))
    for member in world.members:
        member.values.clear()
    with pytest.raises(NotFoundError, match="no network at all"):
        gather(world)
    for member in world.members:
        member.stop()
    with pytest.raises(UnavailableError, match="none of the 9 members"):
        gather(world)


def test_a_root_key_that_was_rotated_away_is_refused(world: World) -> None:
    """It finds the network, whose names it still derives, and opens no tenant's key."""
    node = world.filled(1)
    new = rotated_root(drawn("new half"), ROOT)
    node.table.replace_tenant(next(iter(node.table.tenants())), wrap(new[:32], TENANT_KEY))
    for _ in range(3):
        world.node().copier.tend()
    assert gather(world, root=new).objects == 1
    with pytest.raises(DeniedError, match="root key does not open"):
        gather(world, "old", ROOT)


def test_lost_keys_are_counted(world: World) -> None:
    """A key that is on no member is told with the number, and left out where that is asked for."""
    world.filled(3)
    for member in world.members:
        member.values.pop(world.formats.key_name(key_id(2)), None)
    with pytest.raises(UnavailableError, match="keys of 1 of 3"):
        gather(world)
    assert gather(world, incomplete=True).keys_missing == 1


def test_snapshot_and_tail_make_the_whole_and_old_segments_are_gone(world: World) -> None:
    """Behind a snapshot segments are deleted; a rebuild takes it and what came after."""
    node = world.filled(5)
    home = Home(str(world.folder / "home"))
    taken = Snapshots(home, network_key_of(ROOT), world.specs).take(node.catalog)
    assert taken is not None
    node.publish(7)
    while node.copier.tend():
        pass
    identity, first = node.log.identity(), int.from_bytes(node.log.trimmed(), "big") + 1
    assert not any(world.holders(world.formats.segment_name(identity, number)) for number in range(1, first + 1))
    found = gather(world)
    assert found.objects == 6
    assert found.entries < 5
    assert same_rows(world, node)


def test_a_run_cut_short_anywhere_goes_on(world: World) -> None:
    """Interrupted at each step in turn, the next run ends with the same rows."""
    node = world.filled(4)

    class Cut(BaseException):
        """Ctrl-C."""

    for steps in range(1, 6):
        left = itertools.count(steps - 1, -1)

        def cut(done_bytes: int, total_bytes: int | None, label: str, left: Iterator[int] = left) -> None:
            del done_bytes, total_bytes, label
            if not next(left):
                raise Cut

        gathering = world.gathering()
        gathering._progress = cut
        with contextlib.suppress(Cut), gathering:
            gathering.read()
    assert gather(world).objects == 4
    assert same_rows(world, node)
