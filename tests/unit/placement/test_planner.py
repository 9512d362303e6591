"""The planner's promises: distinct members, domains, weights, few moves, refusals with numbers."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import InvalidError
from fungistor.ids import MemberId, MemberNumber
from fungistor.placement import GROUPS, Member, PlacementTable, Policy, moves, plan

MOVES_FACTOR = 1.1


def member(number: int, *zone: str, weight: int = 1) -> Member:
    return Member(MemberNumber(number), MemberId(f"m{number:02}"), zone, weight)


def check(table: PlacementTable, members: list[Member], policy: Policy) -> None:
    """Every row is distinct, of usable members, and no domain that must be survivable has more than m of it."""
    zones = {m.number: m.zone for m in members if m.weight}
    assert len(table.rows) == GROUPS
    for row in set(table.rows):
        assert len(row) == table.row_len == len(set(row))
        assert set(row) <= zones.keys()
        if policy.survive_depth is not None:
            crowd = Counter(zones[number][: policy.survive_depth] for number in row)
            assert max(crowd.values()) <= policy.m


def ideal_moves(before: PlacementTable, after: PlacementTable) -> int:
    had = before.counts()
    return sum(max(0, count - had.get(number, 0)) for number, count in after.counts().items())


pools = st.integers(min_value=0, max_value=2**32).flatmap(
    lambda seed: st.tuples(
        st.just(seed),
        st.integers(min_value=20, max_value=60),
        st.integers(min_value=6, max_value=12),
        st.lists(st.integers(min_value=1, max_value=9), min_size=60, max_size=60),
    )
)


@given(pools)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_pool_is_planned_within_domains_and_replanned_with_few_moves(
    pool: tuple[int, int, int, list[int]],
) -> None:
    """A random pool gets a valid table; after a join and a loss few more entries than the ideal move."""
    seed, count, sites, weights = pool
    members = [member(i, f"site{(i * 7 + seed) % sites}", weight=weights[i]) for i in range(count)]
    policy = Policy(survive_depth=1)
    try:
        before = plan(members, None, policy)
    except InvalidError as refused:
        crowd = Counter(m.zone for m in members)
        assert sum(min(4, size) for size in crowd.values()) < 20, refused
        return
    check(before, members, policy)
    changed = [*members[1:], member(100, "site0", weight=3)]
    try:
        after = plan(changed, before, policy)
    except InvalidError:
        return
    check(after, changed, policy)
    slack = GROUPS // 64
    assert moves(before, after) <= MOVES_FACTOR * ideal_moves(before, after) + slack


@given(st.lists(st.integers(min_value=1, max_value=1000), min_size=21, max_size=80))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_weights_are_met_to_the_row(weights: list[int]) -> None:
    """Each member stands in as many rows as its weight deserves, rounded, or in all of them when it deserves more."""
    members = [member(number, weight=weight) for number, weight in enumerate(weights, 1)]
    counts = plan(members, None, Policy()).counts()
    full = {m.number for m in members if counts.get(m.number, 0) == GROUPS}
    left = GROUPS * (20 - len(full))
    total = sum(m.weight for m in members if m.number not in full)
    for m in members:
        if m.number not in full:
            assert abs(counts.get(m.number, 0) - left * m.weight / total) < 1.001


@pytest.mark.parametrize("count", [21, 30, 57, 200])
def test_a_member_joining_takes_only_what_it_should_hold(count: int) -> None:
    """When one joins, nothing moves but entries that go to it."""
    members = [member(number) for number in range(1, count + 1)]
    before = plan(members, None, Policy())
    after = plan([*members, member(count + 1)], before, Policy())
    assert moves(before, after) == after.counts()[MemberNumber(count + 1)] == GROUPS * 20 // (count + 1)
    assert all(
        old == new or new == count + 1
        for row, turned in zip(before.rows, after.rows, strict=True)
        for old, new in zip(row, turned, strict=True)
    )


def test_a_replaced_member_hands_its_places_to_its_successor_and_no_other_shard_moves() -> None:
    """In a pool of exactly n, a successor stands in its predecessor's place of every row."""
    members = [member(number) for number in range(1, 21)]
    before = plan(members, None, Policy())
    after = plan([*members[:6], *members[7:], member(21)], before, Policy())
    assert [tuple(21 if old == 7 else old for old in row) for row in before.rows] == [tuple(row) for row in after.rows]


def test_planning_again_changes_nothing() -> None:
    """The same members in another order give the same table, with and without the previous one."""
    members = [member(number, f"s{number % 8}", weight=1 + number % 4) for number in range(1, 48)]
    policy = Policy(survive_depth=1)
    first = plan(members, None, policy)
    assert plan(members[::-1], None, policy) == first
    assert plan(members[::-1], first, policy) == first


def test_a_tightened_policy_is_met_from_a_table_that_breaks_it() -> None:
    """When sites must become survivable, crowded rows are thinned, and the rest stays."""
    members = [member(number, f"site{number % 6}") for number in range(1, 37)]
    before = plan(members, None, Policy())
    policy = Policy(survive_depth=1)
    after = plan(members, before, policy)
    check(after, members, policy)
    assert moves(before, after) < GROUPS * 20 // 4


def test_fewer_members_than_n_make_rows_of_all_of_them() -> None:
    """Twelve members give rows of twelve; a thirteenth makes them thirteen."""
    members = [member(number) for number in range(1, 13)]
    before = plan(members, None, Policy())
    after = plan([*members, member(13)], before, Policy())
    assert (before.row_len, after.row_len) == (12, 13)
    assert moves(before, after) == GROUPS
    back = plan(members, after, Policy())
    assert back.row_len == 12
    assert moves(after, back) == 0


def test_members_in_short_windows_come_from_several_domains() -> None:
    """Five neighbours of a row never lie in one site, although sites stand together while rows are filled."""
    members = [member(number, f"site{number % 6}") for number in range(1, 37)]
    zones = {m.number: m.zone for m in members}
    table = plan(members, None, Policy(survive_depth=1))
    for row in set(table.rows):
        for start in range(20):
            assert len({zones[(row + row)[start + step]] for step in range(5)}) >= 2


def test_drained_members_and_foreign_regions_hold_nothing() -> None:
    """Weight 0 and zones outside the allowed regions are left out."""
    members = [member(number, "de" if number % 2 else "us", f"s{number}") for number in range(1, 61)]
    members[0] = member(1, "de", "s1", weight=0)
    table = plan(members, None, Policy(regions=(("de",),)))
    assert set(table.counts()) == {m.number for m in members if m.zone[0] == "de" and m.number != 1}


@pytest.mark.parametrize(
    ("members", "policy", "message"),
    [
        ([member(1), member(2), member(3), member(4)], Policy(), "4 of 4 members can be used, at least 5"),
        (
            [member(number, f"site{number % 3}") for number in range(1, 25)],
            Policy(survive_depth=1),
            "only 12 of 24 members can stand in one row of 20.*at most 4.*site0 has 8",
        ),
        ([member(n, "us") for n in range(1, 25)], Policy(regions=(("de",),)), "0 of 24 members can be used in de"),
        ([member(1), member(1)], Policy(), "same number"),
        ([member(1, weight=-1)], Policy(), "negative weight"),
        ([member(n) for n in range(30)], Policy(n=4, m=4), "makes no sense"),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(members: list[Member], policy: Policy, message: str) -> None:
    """A refusal names how many members there are, how many are needed and which zone is crowded."""
    with pytest.raises(InvalidError, match=message):
        plan(members, None, policy)


def test_nobody_holds_more_than_its_share_of_data_shards() -> None:
    """With every start of the window alike, the 20 members of a full pool hold the same number of each shard index."""
    table = plan([member(number) for number in range(1, 21)], None, Policy())
    assert math.isclose(max(table.counts().values()), min(table.counts().values()))
