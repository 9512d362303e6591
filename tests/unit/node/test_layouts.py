"""Layouts that are planned for a pool file's members: shares by weight and capacity."""

from __future__ import annotations

from pathlib import Path

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.state import State
from fungistor.ids import MemberId, MemberNumber
from fungistor.node.layouts import CatalogRoll
from fungistor.node.policies import Policies
from fungistor.node.pool_file import PoolMember
from fungistor.placement import PlacementTable, StoragePolicy
from fungistor.testing.memory_log import MemoryLog

GIB = 1 << 30


def spec(number: int, *, capacity: int | None = None, weight: int = 1) -> tuple[PoolMember, MemberNumber]:
    name = MemberId(f"m{number:02}")
    return PoolMember(name, f"127.0.0.1:{number}", "n", capacity=capacity, weight=weight), MemberNumber(number)


def counts(catalog: Catalog) -> dict[int, int]:
    newest = catalog.layout()
    assert newest is not None
    return {int(number): count for number, count in PlacementTable.from_bytes(newest.table).counts().items()}


def test_members_take_shards_by_what_they_may_hold(tmp_path: Path) -> None:
    """Twice the capacity is twice the shards; who says nothing is thought to be as large as the others are on average;
    a weight multiplies it, and 0 drains. Capacities are in the catalog."""
    catalog = Catalog(MemoryLog(), State(str(tmp_path / "state.db")))
    roll = CatalogRoll(catalog)
    sized = [spec(n, capacity=100 * GIB if n <= 30 else 200 * GIB) for n in range(1, 61)]
    special = [spec(61), spec(62, weight=2), spec(63, capacity=400 * GIB, weight=0)]
    roll.commit([*sized, *special])
    held = counts(catalog)
    assert abs(held[1] - held[31] / 2) <= 1
    assert abs(held[61] - 1.5 * held[1]) <= 2
    assert abs(held[62] - 3 * held[1]) <= 3
    assert 63 not in held
    known = {int(capacity.member): capacity.bytes for capacity in catalog.capacities()}
    assert (known[1], known[63], 61 in known) == (100 * GIB, 400 * GIB, False)
    assert roll.changed([*sized, *special]) == ()
    assert roll.changed([*sized[1:], spec(1, capacity=300 * GIB), *special])[0] == "m01"
    catalog.close()


def test_a_layout_that_policies_came_before_is_planned_again(tmp_path: Path) -> None:
    """Each later layout has a table for each policy, planned from the one before: an unchanged pool moves nothing."""
    catalog = Catalog(MemoryLog(), State(str(tmp_path / "state.db")))
    roll = CatalogRoll(catalog)
    members = [spec(n) for n in range(1, 13)]
    roll.commit(members)
    assert Policies(catalog).add(StoragePolicy("p", 4, 2))
    before = catalog.tables()
    roll.commit([*members, spec(13)])
    assert len(catalog.tables()) == 4
    assert roll.plan([*members, spec(13)]).moved_share == 0
    assert before.items() <= catalog.tables().items()
    assert [line.members for line in Policies(catalog).lines()] == [13, 13]
    catalog.close()
