"""What `fungistor pool` asks of a running `up`: members taken in, drained, labelled and let go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fungistor.errors import InvalidError
from fungistor.node.fleet import Fleet
from fungistor.node.layouts import PoolPlan
from fungistor.node.new_members import new_members
from fungistor.node.pool_file import CAPACITY_BYTES_MAX, POOL_MEMBERS_MAX, WEIGHT_MAX, PoolMember, parse_zone

ADDED_MAX = 1000


def answer(fleet: Fleet, request: Mapping[str, object]) -> PoolPlan:
    """Do it, or with `dry_run` say what it would come to.

    Raises: InvalidError, NotFoundError, ConflictError, FailedError as the fleet does.
    """
    verb, dry_run = request.get("verb"), bool(request.get("dry_run"))
    if verb == "add":
        return fleet.enlist(_drawn(fleet, request.get("count")), dry_run=dry_run)
    ids = request.get("ids")
    if not isinstance(ids, list) or not ids:
        raise InvalidError("no member is named")
    names = list(dict.fromkeys(fleet.find(str(name)) for name in ids))
    if verb == "remove":
        return fleet.dismiss(names, lost=bool(request.get("lost")), dry_run=dry_run)
    if verb == "drain":
        return fleet.relabel(names, lambda spec: replace(spec, weight=0), dry_run=dry_run)
    if verb == "label":
        return fleet.relabel(names, _change(request), dry_run=dry_run)
    raise InvalidError("this control request is not known", hint="is this `fungistor` of another version?")


def _drawn(fleet: Fleet, count: object) -> list[PoolMember]:
    if not isinstance(count, int) or not 1 <= count <= ADDED_MAX or len(fleet.ids()) + count > POOL_MEMBERS_MAX:
        raise InvalidError(f"{count} members cannot be added: a pool has up to {POOL_MEMBERS_MAX}")
    taken = [int(found[1]) for name in fleet.ids() if (found := re.fullmatch(r"m(\d{1,9})", name))]
    return new_members(count, after=max(taken, default=0))


def _change(request: Mapping[str, Any]) -> Callable[[PoolMember], PoolMember]:
    changes: dict[str, Any] = {}
    if (zone := request.get("zone")) is not None:
        changes["zone"] = parse_zone(str(zone))
    for key, most in (("weight", WEIGHT_MAX), ("capacity", CAPACITY_BYTES_MAX)):
        if (value := request.get(key)) is not None:
            if type(value) is not int or not 0 <= value <= most:
                raise InvalidError(f"{key} {value!r} is no integer of 0 to {most}")
            changes[key] = value
    if not changes:
        raise InvalidError("nothing is to be changed", hint="give --zone, --weight or --capacity")
    return lambda spec: replace(spec, **changes)
