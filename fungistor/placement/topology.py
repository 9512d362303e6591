"""Members as places: where they are, how much they take, and how far two places are from each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fungistor.ids import MemberId, MemberNumber

EARTH_RADIUS_KM = 6371.0
FIBRE_KM_PER_S = 200_000.0
"""Light in glass. Real paths bend, so a guess made from it is a lower bound; measurements replace it at once."""


@dataclass(frozen=True, slots=True)
class Member:
    """One place that holds shards. `zone` runs from the largest domain to the smallest: country, site, host, disk."""

    number: MemberNumber
    id: MemberId
    zone: tuple[str, ...] = ()
    weight: int = 1
    lat: float | None = None
    lon: float | None = None


def distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance of two (latitude, longitude) pairs in degrees, by the haversine formula."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))


def round_trip_guess_s(a: tuple[float, float] | None, b: tuple[float, float] | None) -> float:
    """Seconds light needs there and back, 0 where a place is unknown: the first guess of nearness."""
    if a is None or b is None:
        return 0.0
    return 2 * distance_km(a, b) / FIBRE_KM_PER_S
