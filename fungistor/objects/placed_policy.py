"""A policy as a publish goes by it: what it says, its number in slots, and in which zones members are now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fungistor.catalog.catalog import Catalog
from fungistor.coding.stripe import Cut
from fungistor.errors import InvalidError
from fungistor.ids import MemberNumber, PolicyNumber
from fungistor.placement import DEFAULT_NUMBER, DEFAULT_POLICY, StoragePolicy, Zone
from fungistor.placement.policy import SITE_DEPTH, level_name, zones_survived


@dataclass(frozen=True, slots=True)
class PlacedPolicy:
    """Without `zones` all members are thought to be in one."""

    number: PolicyNumber = DEFAULT_NUMBER
    policy: StoragePolicy = DEFAULT_POLICY
    zones: Mapping[MemberNumber, Zone] = field(default_factory=dict)

    @property
    def cut(self) -> Cut:
        """How its stripes are cut."""
        return Cut(self.policy.k, self.policy.m, self.policy.shard_bytes_min)

    @property
    def depth(self) -> int:
        """The depth of the zones that are counted."""
        return self.policy.zone_depth or SITE_DEPTH

    @property
    def level(self) -> str:
        """What such zones are called."""
        return level_name(self.depth)

    def zones_survived(self, window: Iterable[MemberNumber], absent: Collection[MemberNumber], k: int) -> int:
        """How many whole zones a stripe on these members survives the loss of."""
        return zones_survived(window, absent, k, self.zones, self.depth)


BY_DEFAULT = PlacedPolicy()


def placed_policy(catalog: Catalog, name: str) -> PlacedPolicy:
    """A policy by its name, as the catalog has it.

    Raises: InvalidError: there is none.
    """
    newest = catalog.layout()
    zones = {} if newest is None else {member.number: member.zone for member in newest.members}
    if name == DEFAULT_POLICY.name:
        return PlacedPolicy(zones=zones)
    rows = catalog.policies()
    for row in rows:
        if row.policy.name == name:
            return PlacedPolicy(row.number, row.policy, zones)
    known = ", ".join([DEFAULT_POLICY.name, *(row.policy.name for row in rows)])
    raise InvalidError(f"no policy named {name}", hint=f"there is {known}; `fungistor policy add` makes one")


def numbered_policy(catalog: Catalog, number: PolicyNumber) -> PlacedPolicy:
    """The policy that a slot names, also one that was removed since.

    Raises: InvalidError: there is none.
    """
    if number == DEFAULT_NUMBER:
        return placed_policy(catalog, DEFAULT_POLICY.name)
    newest = catalog.layout()
    zones = {} if newest is None else {member.number: member.zone for member in newest.members}
    for row in catalog.policies(removed=True):
        if row.number == number:
            return PlacedPolicy(number, row.policy, zones)
    raise InvalidError(f"policy number {number} is not known here", hint="let the catalog catch up, then try again")
