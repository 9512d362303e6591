"""How many rows each member should stand in, so that weights are met as far as rows and domains allow.

Integers only: two machines that plan from the same members must come to the same table, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRACTION_BITS = 24
"""Shares are computed this many bits finer than one row, so that rounding never eats a whole one."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Members that die together: (member, weight) pairs and the most entries that they may hold all in all."""

    members: tuple[tuple[int, int], ...]
    entries_max: int


def quotas(domains: Sequence[Domain], rows: int, total: int, before: Mapping[int, int]) -> dict[int, int]:
    """Entries for each member: proportional to weight, at most `rows` a member and `entries_max` a domain.

    Shares are those of water rising alike over all weights until `total` is reached (a full member or domain takes no
    more). Fractions are rounded towards what a member had `before`, so that rounding alone moves nothing.
    The caller has made sure that `total` fits.
    """
    weights = sum(weight for domain in domains for _, weight in domain.members)
    shift = FRACTION_BITS + weights.bit_length()
    level = _level(domains, rows, total, shift)
    shares = [_domain_share(domain, rows, level, shift) for domain in domains]
    held = [sum(before.get(member, 0) for member, _ in domain.members) for domain in domains]
    sums = round_shares(shares, 1 << shift, total, held)
    result: dict[int, int] = {}
    for domain, domain_total in zip(domains, sums, strict=True):
        alone = [Domain((pair,), rows) for pair in domain.members]
        inner = _level(alone, rows, domain_total, shift)
        member_shares = [_domain_share(one, rows, inner, shift) for one in alone]
        held = [before.get(member, 0) for member, _ in domain.members]
        rounded = round_shares(member_shares, 1 << shift, domain_total, held)
        result.update(zip((member for member, _ in domain.members), rounded, strict=True))
    return result


def split(counts: Mapping[int, int], domains: Sequence[Domain], part: int, whole: int) -> dict[int, int]:
    """The share of `counts`, given for `whole` rows, falling on `part` of them; sums are rounded by less than one."""
    sums = [sum(counts[member] for member, _ in domain.members) for domain in domains]
    parts = round_shares([total * part for total in sums], whole, sum(sums) * part // whole, [0] * len(sums))
    result: dict[int, int] = {}
    for domain, domain_part in zip(domains, parts, strict=True):
        members = [member for member, _ in domain.members]
        shares = [counts[member] * part for member in members]
        result.update(zip(members, round_shares(shares, whole, domain_part, [0] * len(members)), strict=True))
    return result


def round_shares(shares: Sequence[int], unit: int, total: int, before: Sequence[int]) -> list[int]:
    """Round each share/unit so that they add up to `total`; up go those who had more before, then the largest rests."""
    floors = [share // unit for share in shares]

    def order(place: int) -> tuple[bool, int, int]:
        return before[place] <= floors[place], -(shares[place] % unit), place

    up = sorted((place for place in range(len(shares)) if shares[place] % unit), key=order)
    for place in up[: total - sum(floors)]:
        floors[place] += 1
    return floors


def _level(domains: Sequence[Domain], rows: int, total: int, shift: int) -> int:
    """The lowest level at which all shares together reach `total`."""
    low, high = 0, rows << shift
    while low < high:
        middle = (low + high) // 2
        if sum(_domain_share(domain, rows, middle, shift) for domain in domains) >= total << shift:
            high = middle
        else:
            low = middle + 1
    return low


def _domain_share(domain: Domain, rows: int, level: int, shift: int) -> int:
    full = rows << shift
    return min(domain.entries_max << shift, sum(min(full, level * weight) for _, weight in domain.members))
