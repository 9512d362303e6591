"""A policy as people write it: on a command line, or in a table of the pool file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fungistor.errors import InvalidError
from fungistor.limits import DATA_SHARDS_MAX, PARITY_SHARDS, SHARD_UNIT_BYTES
from fungistor.node.pool_file import parse_zone
from fungistor.placement import StoragePolicy
from fungistor.placement.policy import LEVELS

_V = TypeVar("_V", str, int)
_KINDS: Mapping[type, str] = {str: "text", int: "a whole number"}

KEYS = ("name", "k", "m", "min_shard", "survive", "regions")


def policy_of_words(name: str, k: int, m: int, min_shard: int, survive: str, regions: Sequence[str]) -> StoragePolicy:
    """Make a policy of what was said of it.

    Raises: InvalidError naming what is wrong.
    """
    zones, depth = _parse_survive(survive)
    allowed = tuple(sorted({parse_zone(region) for region in regions}))
    policy = StoragePolicy(name, k, m, min_shard, depth, zones, allowed)
    policy.check()
    return policy


def policy_of_table(table: object, where: str) -> StoragePolicy:
    """Make a policy of a table of the pool file. Raises: InvalidError naming the table and the key."""
    if not isinstance(table, Mapping):
        raise InvalidError(f"{where} is not a table", hint='write [[policy]], then name = "eu"')
    if unknown := sorted(set(table) - set(KEYS)):
        raise InvalidError(
            f"{where}: {', '.join(map(repr, unknown))[:200]} is no key of a policy", hint=", ".join(KEYS)
        )
    regions = table.get("regions", [])
    if not isinstance(regions, list) or not all(isinstance(region, str) for region in regions):
        raise InvalidError(f"{where}: regions is not a list of zones")
    try:
        return policy_of_words(
            _typed(table, "name", str, ""),
            _typed(table, "k", int, DATA_SHARDS_MAX),
            _typed(table, "m", int, PARITY_SHARDS),
            _typed(table, "min_shard", int, SHARD_UNIT_BYTES),
            _typed(table, "survive", str, ""),
            regions,
        )
    except InvalidError as error:
        raise InvalidError(f"{where}: {error.message}", hint=error.hint) from error


def _typed(table: Mapping[str, object], key: str, kind: type[_V], default: _V) -> _V:
    value = table.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidError(f"{key} is not {_KINDS[kind]}")
    return value


def _parse_survive(text: str) -> tuple[int, int]:
    """Zones and their depth of `1/site`."""
    if not text:
        return 0, 0
    count, slash, level = text.partition("/")
    if not slash or level not in LEVELS or not (count.isascii() and count.isdigit() and 0 < int(count[:9]) < 256):
        raise InvalidError(f"{text!r} is not N/LEVEL", hint=f"such as 1/site or 2/host; levels are {', '.join(LEVELS)}")
    return int(count), LEVELS.index(level) + 1
