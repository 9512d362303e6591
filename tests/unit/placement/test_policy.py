"""Named policies: what they may say, what their tables promise, and what is said where members cannot meet them."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import InvalidError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, PolicyNumber, StripeId
from fungistor.placement import (
    DEFAULT_POLICY,
    Member,
    PlacementTable,
    StoragePolicy,
    layout_of,
    plan,
    policy_of,
    table_policy,
    track,
    window,
)
from fungistor.placement.policy import zones_survived
from fungistor.placement.tracks import LAYOUT_MAX, POLICY_NUMBER_MAX


def member(number: int, *zone: str, weight: int = 1) -> Member:
    return Member(MemberNumber(number), MemberId(f"m{number:03}"), zone, weight)


worlds = st.tuples(
    st.integers(min_value=0, max_value=2**32),
    st.integers(min_value=1, max_value=3),
    st.integers(min_value=1, max_value=8),
    st.integers(min_value=0, max_value=4),
)
"""A seed, how many zones may die, k, and m beyond the zones."""


def world(seed: int) -> list[Member]:
    """Sites of one to six members in three countries, a third of them drained or heavier."""
    chance = random.Random(seed)
    members: list[Member] = []
    for site in range(chance.randint(4, 14)):
        country = chance.choice(("de", "nl", "us"))
        members += [
            member(len(members) + 1 + one, country, f"site{site}", weight=chance.choice((0, 1, 1, 2, 5)))
            for one in range(chance.randint(1, 6))
        ]
    return members


@given(worlds)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_zones_that_may_die_leave_k_shards_and_a_refusal_says_what_is_enough(
    drawn: tuple[int, int, int, int],
) -> None:
    """Of every stripe of every width, whichever promised number of sites dies, k shards stay, all in allowed countries;
    where the members do not suffice, as many more as the refusal says, each in a site of its own, do."""
    seed, zones, k, more = drawn
    policy = StoragePolicy("p", k, zones + more, 4096, 2, zones, (("de",), ("nl",)))
    policy.check()
    members = world(seed)
    for _ in range(3):
        try:
            table = plan(members, None, table_policy(policy))
            break
        except InvalidError as refused:
            found = re.search(r"add (\d+) members", refused.hint or "")
            enough = int(found[1]) if found else policy.m + 1
            first = len(members) + 1
            members += [member(first + one, "de", f"new{first + one}") for one in range(enough)]
    else:
        raise AssertionError("what a refusal asks for does not suffice")
    sites = {one.number: one.zone for one in members}
    assert {sites[number][0] for number in table.members()} <= {"de", "nl"}
    for number in range(40):
        for shards in {policy.m + 1, policy.shards}:
            held = window(table, StripeId(random.Random(number).randbytes(32)), shards)
            crowds = Counter(sites[one] for one in held)
            dead = sum(crowd for _, crowd in crowds.most_common(zones))
            assert shards - dead >= shards - policy.m
            assert zones_survived(held, (), shards - policy.m, sites, 2) >= zones


def test_weights_are_met_in_tables_of_policies_and_a_drained_member_holds_nothing() -> None:
    """Members share the rows of their site as their weights say, within a hundredth."""
    members = [member(n, "de", f"site{n % 6}", weight=0 if n == 30 else 1 + n % 3) for n in range(1, 31)]
    table = plan(members, None, table_policy(StoragePolicy("p", 4, 2, 4096, 2, 1)))
    counts = table.counts()
    assert MemberNumber(30) not in counts
    for site in range(6):
        there = [one for one in members if one.number % 6 == site and one.weight]
        held, weight = sum(counts[one.number] for one in there), sum(one.weight for one in there)
        for one in there:
            assert abs(counts[one.number] - held * one.weight / weight) <= max(2, held / 100)


def test_a_table_of_a_policy_moves_little_when_a_member_joins() -> None:
    """Only what the new one takes moves, and the promise holds on."""
    policy = table_policy(StoragePolicy("p", 6, 3, 4096, 2, 1))
    members = [member(n, "de", f"site{n % 5}") for n in range(1, 21)]
    before = plan(members, None, policy)
    after = plan([*members, member(21, "de", "site0")], before, policy)
    moved = sum(a != b for old, new in zip(before.rows, after.rows, strict=True) for a, b in zip(old, new, strict=True))
    assert moved <= 1.1 * after.counts()[MemberNumber(21)]
    assert PlacementTable.from_bytes(after.to_bytes()) == after


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (StoragePolicy("Eu"), "no name of a policy"),
        (StoragePolicy("p" * 33), "no name of a policy"),
        (StoragePolicy("p", k=0), "is no code"),
        (StoragePolicy("p", k=250, m=6), "is no code"),
        (StoragePolicy("p", m=0), "is no code"),
        (StoragePolicy("p", shard_bytes_min=10), "least shard"),
        (StoragePolicy("p", zone_depth=2), "go together"),
        (StoragePolicy("p", zones=1), "go together"),
        (StoragePolicy("p", m=2, zone_depth=2, zones=3), "no more than 2 zones"),
        (StoragePolicy("p", regions=((),)), "regions are"),
    ],
)
def test_what_a_policy_may_not_say(policy: StoragePolicy, words: str) -> None:
    """Each with its reason."""
    with pytest.raises(InvalidError, match=words):
        policy.check()


@pytest.mark.parametrize(
    ("policy", "words", "hint"),
    [
        (StoragePolicy("p", 16, 5), "6 of 6 members can be used, and a stripe has 21", "add 15 members"),
        (StoragePolicy("p", 4, 2, 4096, 2, 2), "only 3 of 6", "add 3 members in zones other than de/a, de/b, nl/c"),
        (StoragePolicy("p", 2, 2, 4096, 0, 0, (("nl",),)), "2 of 6 members can be used in nl", ""),
    ],
)
def test_a_refusal_names_numbers_and_what_to_add(policy: StoragePolicy, words: str, hint: str) -> None:
    """Two members on each of three sites cannot meet any of these."""
    members = [member(n, "nl" if n > 4 else "de", "aabbcc"[n - 1]) for n in range(1, 7)]
    with pytest.raises(InvalidError, match=words) as refused:
        plan(members, None, table_policy(policy))
    assert hint in (refused.value.hint or "")


def test_a_slot_s_layout_names_policy_and_layout() -> None:
    """Both come out of one number of 32 bits, and layouts from before there were policies are the default's."""
    for policy, layout in ((0, 1), (0, LAYOUT_MAX), (3, 17), (POLICY_NUMBER_MAX, LAYOUT_MAX)):
        number = track(PolicyNumber(policy), LayoutNumber(layout))
        assert (policy_of(number), layout_of(number)) == (policy, layout)
        assert number < 2**32
    assert track(PolicyNumber(0), LayoutNumber(7)) == 7


def test_zones_that_are_lost_already_count() -> None:
    """Each site with a shard that is needed bounds it; absent members' shards are gone."""
    zones = {MemberNumber(n): ("de", f"s{n // 2}") for n in range(8)}
    held = [MemberNumber(n) for n in range(8)]
    assert zones_survived(held, (), 4, zones, 2) == 2
    assert zones_survived(held, held[:1], 4, zones, 2) == 1
    assert zones_survived(held, held[:5], 4, zones, 2) == 0
    assert zones_survived(held, (), 4, {}, 2) == 0
    assert DEFAULT_POLICY.zone_shards_max == 20
