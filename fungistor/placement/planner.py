"""Compute the placement table of a layout: feasible first, weights exactly, then the fewest moves from the last layout.

A first table is laid out by wrapping members round the rows; a later one starts from the table before it and moves
entries along shortest augmenting paths of the flow member -> row -> member, which is how Garage does it
(garagehq.deuxfleurs.fr, "layout computation"). Sets of rows are 4096-bit integers, so one step of a path is a few
machine operations on 512 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from blake3 import blake3

from fungistor.errors import InvalidError
from fungistor.ids import MemberNumber
from fungistor.limits import DATA_SHARDS_MAX, PARITY_SHARDS, SHARD_INDEX_MAX
from fungistor.placement.policy import DEFAULT_POLICY, StoragePolicy
from fungistor.placement.quota import Domain, quotas, split
from fungistor.placement.table import GROUPS, MEMBERS_MAX, PlacementTable
from fungistor.placement.topology import Member

ORDERS = 64
"""Orders of the rows where each row has all members. A stripe with fewer shards leaves out neighbours: with one order
most pairs of members could never be left out together, and a publish while both are down would have no window to go to;
with one for each row any five losses would be fatal to some tiny stripe, and the table would take 59 KB."""

SLABS = 16
"""Pieces of a first table that order their members differently. One piece would give the fewest distinct rows
(members / n copysets), but then a lost member is rebuilt from 19 others only; 16 let hundreds help."""

HOLE = -1
"""A place of a row that nobody holds yet. It behaves like a member that should stand in no row."""

DomainKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a table must promise. `survive_depth`: `zones` zones of that many parts must be survivable, so at most
    `m / zones` of a row lie in one. `regions`: when given, only members whose zone begins with one of them are used.
    `whole`: rows have `n` members, or the policy is refused; else as many as there are."""

    n: int = DATA_SHARDS_MAX + PARITY_SHARDS
    m: int = PARITY_SHARDS
    survive_depth: int | None = None
    regions: tuple[tuple[str, ...], ...] = ()
    zones: int = 1
    whole: bool = False

    @property
    def zone_max(self) -> int:
        """How many of a row may lie in one zone."""
        return self.m // self.zones


def table_policy(policy: StoragePolicy) -> Policy:
    """What the table of a named policy must promise."""
    if policy == DEFAULT_POLICY:
        return Policy()
    depth = policy.zone_depth or None
    return Policy(policy.shards, policy.m, depth, policy.regions, policy.zones or 1, whole=True)


def plan(members: Sequence[Member], previous: PlacementTable | None, policy: Policy) -> PlacementTable:
    """The table for these members. Deterministic: the order of `members` does not matter.

    Raises: InvalidError with the numbers, when the policy cannot be met.
    """
    usable = _usable(members, policy)
    row_len = min(policy.n, len(usable))
    domains, domain_of = _domains(usable, policy, row_len)
    _refuse_impossible(usable, domains, row_len, policy)
    ordered = tuple(domains[key] for key in sorted(domains))
    per_row = policy.zone_max if policy.survive_depth is not None else row_len
    if previous is None:
        target = quotas(ordered, GROUPS, GROUPS * row_len, {})
        return PlacementTable(row_len, _first_rows(ordered, target, row_len))
    board = _Board(_kept_rows(previous, domain_of, row_len, per_row), domain_of, per_row)
    target = quotas(ordered, GROUPS, GROUPS * row_len, board.counts)
    board.balance(target)
    return PlacementTable(row_len, tuple(tuple(MemberNumber(entry) for entry in row) for row in board.rows))


def _usable(members: Sequence[Member], policy: Policy) -> list[Member]:
    if len({member.number for member in members}) != len(members):
        raise InvalidError("two members have the same number")
    if any(member.weight < 0 for member in members):
        raise InvalidError("a member has a negative weight")
    if not 1 <= policy.zones <= policy.m < policy.n <= SHARD_INDEX_MAX + 1:
        raise InvalidError(f"a policy of {policy.n} places of which {policy.m} may die makes no sense")
    usable = [member for member in members if member.weight and _allowed(member, policy)]
    if len(usable) > MEMBERS_MAX:
        raise InvalidError(f"{len(usable)} members are more than the {MEMBERS_MAX} that one table can name")
    where = f" in {', '.join('/'.join(region) for region in policy.regions)}" if policy.regions else ""
    if len(usable) <= policy.m:
        raise InvalidError(
            f"{len(usable)} of {len(members)} members can be used{where}, at least {policy.m + 1} are needed so that "
            f"any {policy.m} may die",
            hint="add members, or name a policy that asks for less",
        )
    if policy.whole and len(usable) < policy.n:
        raise InvalidError(
            f"{len(usable)} of {len(members)} members can be used{where}, and a stripe has {policy.n} shards, each on "
            "another",
            hint=f"add {policy.n - len(usable)} members{where}, or ask for fewer shards",
        )
    return sorted(usable, key=lambda member: member.number)


def _allowed(member: Member, policy: Policy) -> bool:
    return not policy.regions or any(member.zone[: len(region)] == region for region in policy.regions)


def _domains(
    usable: Sequence[Member], policy: Policy, row_len: int
) -> tuple[dict[DomainKey, Domain], dict[int, DomainKey]]:
    """Domains by key and each member's key. With nothing to survive but members, all lie in one unlimited domain."""
    depth = policy.survive_depth or 0
    per_row = policy.zone_max if policy.survive_depth is not None else row_len
    domain_of: dict[int, DomainKey] = {member.number: member.zone[:depth] for member in usable}
    grouped: dict[DomainKey, list[tuple[int, int]]] = {}
    for member in usable:
        grouped.setdefault(domain_of[member.number], []).append((member.number, member.weight))
    domains = {
        key: Domain(tuple(pairs), GROUPS * min(per_row, len(pairs))) for key, pairs in grouped.items()
    }  # the members come sorted by number, so pairs are, too
    return domains, domain_of


def _refuse_impossible(
    usable: Sequence[Member], domains: Mapping[DomainKey, Domain], row_len: int, policy: Policy
) -> None:
    places = sum(domain.entries_max for domain in domains.values()) // GROUPS
    if places >= row_len:
        return
    each = policy.zone_max
    full = [key for key, domain in sorted(domains.items()) if len(domain.members) >= each]
    crowded = [f"{_zone_text(key)} has {len(domains[key].members)}" for key in full if len(domains[key].members) > each]
    lost = "a whole zone" if policy.zones == 1 else f"{policy.zones} whole zones"
    raise InvalidError(
        f"only {places} of {len(usable)} members can stand in one row of {row_len}, as at most {each} may lie in "
        f"one zone of depth {policy.survive_depth}, so that {lost} can be lost: {', '.join(crowded) or 'all count'}",
        hint=f"add {row_len - places} members in zones other than {', '.join(map(_zone_text, full[:8]))}, or name a "
        "policy that asks for less",
    )


def _zone_text(key: DomainKey) -> str:
    return "/".join(key) or "no zone"


def _first_rows(
    domains: Sequence[Domain], target: Mapping[int, int], row_len: int
) -> tuple[tuple[MemberNumber, ...], ...]:
    """Wrap the members round the rows, each as often as its quota says: distinct in every row by construction.

    A member's entries are consecutive and at most one lap long, a domain's at most `m` laps (McNaughton's rule).
    """
    slabs = SLABS if len(target) > row_len else 1
    height = GROUPS // slabs
    # Where rows have all members, only their order differs; elsewhere rows leave out different members already.
    orders = [_order(number, row_len) for number in range(ORDERS if slabs == 1 else 1)]
    left = dict(target)
    rows: list[tuple[MemberNumber, ...]] = []
    for slab in range(slabs):
        part = split(left, domains, height, GROUPS - slab * height)
        left = {member: count - part[member] for member, count in left.items()}
        sequence = [member for member in _shuffled(domains, slab) for _ in range(part[member])]
        for row in range(height):
            entries = sequence[row::height]
            rows.append(tuple(MemberNumber(entries[place]) for place in orders[len(rows) % len(orders)]))
    return tuple(rows)


def _shuffled(domains: Sequence[Domain], slab: int) -> Iterator[int]:
    """All members in an order of this slab, each domain's together."""

    def rank(number: int) -> bytes:
        return blake3(number.to_bytes(8, "little") + slab.to_bytes(2, "little")).digest(length=16)

    for domain in sorted(domains, key=lambda domain: rank(domain.members[0][0])):
        yield from sorted((number for number, _ in domain.members), key=rank)


def _order(number: int, row_len: int) -> list[int]:
    """Order `number` of a row's places."""
    seed = blake3(b"row order" + number.to_bytes(2, "little")).digest(length=4 * row_len)
    return sorted(range(row_len), key=lambda place: (seed[4 * place : 4 * place + 4], place))


def _kept_rows(
    previous: PlacementTable, domain_of: Mapping[int, DomainKey], row_len: int, per_row: int
) -> list[list[int]]:
    """The last layout's rows with holes where a member left or a domain has too many."""
    rows = []
    for row in previous.rows:
        kept: list[int] = [number if number in domain_of else HOLE for number in row]
        if len(kept) > row_len:
            kept = [entry for entry in kept if entry != HOLE][:row_len]
        kept += [HOLE] * (row_len - len(kept))
        seen: dict[DomainKey, int] = {}
        for place, entry in enumerate(kept):
            if entry == HOLE:
                continue
            key = domain_of[entry]
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > per_row:
                kept[place] = HOLE
        rows.append(kept)
    return rows


class _Board:
    """Rows under change, with the set of rows of each member and the set of rows where each domain is full."""

    def __init__(self, rows: list[list[int]], domain_of: Mapping[int, DomainKey], per_row: int) -> None:
        self.rows = rows
        self._domain_of = domain_of
        self._per_row = per_row
        self._holds: dict[int, int] = dict.fromkeys((*domain_of, HOLE), 0)
        self._filled: dict[DomainKey, list[int]] = {key: [0] * GROUPS for key in set(domain_of.values())}
        self._full: dict[DomainKey, int] = dict.fromkeys(self._filled, 0)
        self.counts: dict[int, int] = dict.fromkeys(self._holds, 0)
        for index, row in enumerate(rows):
            for entry in row:
                self._enter(index, entry)

    def balance(self, target: Mapping[int, int]) -> None:
        """Give each member its target and leave no hole. Each step lessens the distance to the target."""
        goal = {HOLE: 0, **target}
        while any(self.counts[member] > goal[member] for member in goal):
            path = self._shortest_path(goal)
            if len(path) <= 3:
                amount = min(self.counts[path[0]] - goal[path[0]], goal[path[-1]] - self.counts[path[-1]])
                amount = min(amount, *(self._rows_between(a, b).bit_count() for a, b in pairwise(path)))
            else:
                amount = 1  # two steps of a longer path may want the same room in one row
            for giver, taker in reversed(tuple(pairwise(path))):
                self._move(giver, taker, amount)

    def _shortest_path(self, goal: Mapping[int, int]) -> list[int]:
        """Members from one that has too many entries to one that has too few, each able to hand a row to the next."""
        came_from: dict[int, int] = {}
        frontier = [member for member in sorted(goal) if self.counts[member] > goal[member]]
        unseen = [member for member in sorted(goal) if self.counts[member] <= goal[member] and member != HOLE]
        # Those who have too few come first, so that a path ends as soon as it can.
        unseen.sort(key=lambda member: self.counts[member] - goal[member])
        while frontier:
            reached: list[int] = []
            for giver in frontier:
                for taker in [member for member in unseen if self._rows_between(giver, member)]:
                    came_from[taker] = giver
                    if self.counts[taker] < goal[taker]:
                        return _walk_back(came_from, taker)
                    reached.append(taker)
                    unseen.remove(taker)
            frontier = reached
        raise AssertionError("a feasible plan always has an augmenting path")

    def _rows_between(self, giver: int, taker: int) -> int:
        """The rows in which `taker` can stand in for `giver`."""
        rows = self._holds[giver] & ~self._holds[taker]
        domain = self._domain_of[taker]
        if giver == HOLE or self._domain_of[giver] != domain:
            rows &= ~self._full[domain]
        return rows

    def _move(self, giver: int, taker: int, amount: int) -> None:
        rows = self._rows_between(giver, taker)
        for _ in range(amount):
            if not rows:
                raise AssertionError("a path was found that cannot be walked")
            lowest = rows & -rows
            rows ^= lowest
            index = lowest.bit_length() - 1
            row = self.rows[index]
            row[row.index(giver)] = taker
            self._leave(index, giver)
            self._enter(index, taker)

    def _enter(self, index: int, member: int) -> None:
        self.counts[member] += 1
        self._holds[member] |= 1 << index
        if member != HOLE:
            domain = self._domain_of[member]
            self._filled[domain][index] += 1
            if self._filled[domain][index] >= self._per_row:
                self._full[domain] |= 1 << index

    def _leave(self, index: int, member: int) -> None:
        self.counts[member] -= 1
        if member == HOLE:
            if HOLE not in self.rows[index]:
                self._holds[HOLE] &= ~(1 << index)
            return
        self._holds[member] &= ~(1 << index)
        domain = self._domain_of[member]
        if self._filled[domain][index] == self._per_row:
            self._full[domain] &= ~(1 << index)
        self._filled[domain][index] -= 1


def _walk_back(came_from: Mapping[int, int], end: int) -> list[int]:
    path = [end]
    while path[-1] in came_from:
        path.append(came_from[path[-1]])
    return path[::-1]
