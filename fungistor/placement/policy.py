"""Named policies: how many shards a stripe has, what must be survivable, and where shards may lie."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fungistor.errors import InvalidError
from fungistor.ids import MemberNumber
from fungistor.limits import DATA_SHARDS_MAX, KIB, MIB, PARITY_SHARDS, SHARD_INDEX_MAX, SHARD_UNIT_BYTES

Zone = tuple[str, ...]
"""From the largest thing that dies together to the smallest: country, site, host, disk."""

NAME_CHARACTERS_MAX: Final = 32
ZONE_DEPTH_MAX: Final = 8
REGIONS_MAX: Final = 64
SHARD_BYTES_LEAST: Final = 512
SHARD_BYTES_MOST: Final = MIB

SITE_DEPTH: Final = 2
"""What is told of zones where a policy promises nothing of them."""

LEVELS: Final = ("country", "site", "host", "disk")

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """How the stripes of an object are cut and placed.

    `shard_bytes_min`: k grows by one for each so many bytes, up to `k`. `zones` whole zones of depth `zone_depth` may
    die at once (0, 0: nothing but members is promised), or any `m` members. `regions`: a member's zone begins with one
    of these; none is anywhere.
    """

    name: str
    k: int = DATA_SHARDS_MAX
    m: int = PARITY_SHARDS
    shard_bytes_min: int = SHARD_UNIT_BYTES
    zone_depth: int = 0
    zones: int = 0
    regions: tuple[Zone, ...] = ()

    @property
    def shards(self) -> int:
        """Of a stripe that is as wide as it can be."""
        return self.k + self.m

    @property
    def zone_shards_max(self) -> int:
        """How many shards of a stripe one zone may hold, so that the promised number of zones may die."""
        return self.m // self.zones if self.zones else self.shards

    def check(self) -> None:
        """Raises: InvalidError naming what is wrong and what may be."""
        if not _NAME.fullmatch(self.name) or len(self.name) > NAME_CHARACTERS_MAX:
            raise InvalidError(f"{self.name!r} is no name of a policy", hint="up to 32 of a-z, 0-9, dot, - and _")
        if self.k < 1 or self.m < 1 or self.shards > SHARD_INDEX_MAX + 1:
            raise InvalidError(
                f"{self.k} + {self.m} is no code: k and m are 1 or more, and {SHARD_INDEX_MAX + 1} at most together"
            )
        if not SHARD_BYTES_LEAST <= self.shard_bytes_min <= SHARD_BYTES_MOST:
            raise InvalidError(f"the least shard is {SHARD_BYTES_LEAST} bytes to {SHARD_BYTES_MOST // KIB} KiB")
        if (self.zone_depth > 0) != (self.zones > 0) or not 0 <= self.zone_depth <= ZONE_DEPTH_MAX:
            raise InvalidError("how many zones may die and of which level go together", hint="give both, or neither")
        if not 0 <= self.zones <= self.m:
            raise InvalidError(
                f"with {self.m} spare shards no more than {self.m} zones can be lost, {self.zones} are asked",
                hint="ask for more parity (m), or for fewer zones",
            )
        if len(self.regions) > REGIONS_MAX or not all(0 < len(region) <= ZONE_DEPTH_MAX for region in self.regions):
            raise InvalidError(f"regions are up to {REGIONS_MAX} zones, such as de or nl/ams")

    def allows(self, zone: Zone) -> bool:
        """Whether a member there may hold shards."""
        return not self.regions or any(zone[: len(region)] == region for region in self.regions)


DEFAULT_POLICY: Final = StoragePolicy("default")
"""It adapts to the pool: with fewer members than it has shards, k is smaller. All others are met in full or refused."""


def level_name(depth: int) -> str:
    """What zones of a depth are called."""
    return LEVELS[depth - 1] if 1 <= depth <= len(LEVELS) else f"zone of {depth} parts"


def zones_survived(
    window: Iterable[MemberNumber],
    absent: Collection[MemberNumber],
    k: int,
    zones: Mapping[MemberNumber, Zone],
    depth: int,
) -> int:
    """How many whole zones a stripe survives the loss of, whichever they are; shards of `absent` members are gone."""
    crowds = Counter(zones.get(member, ())[:depth] for member in window if member not in absent)
    spare = crowds.total() - k
    survived = 0
    for crowd in sorted(crowds.values(), reverse=True):
        spare -= crowd
        if spare < 0:
            break
        survived += 1
    return survived
