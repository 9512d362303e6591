"""Make a pool of members that run elsewhere what a pool file says: the first layout of a network, and every later one.

A member that the network does not know is taken in: it must answer, and hold no other network's identity. Its own is
left there before the layout names it, so that whatever ends this half-way is finished by doing it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fungistor.errors import ConflictError, InvalidError, UnavailableError
from fungistor.ids import MemberId, MemberNumber
from fungistor.keys.ring import NodeKeys
from fungistor.node.catalog_place import CatalogOptions, placed
from fungistor.node.config import load_config, save_config
from fungistor.node.enrolment import enrol
from fungistor.node.first_keys import ensure_keys
from fungistor.node.geo import with_places
from fungistor.node.home import Home
from fungistor.node.identity import member_identity
from fungistor.node.layouts import CatalogRoll, PoolPlan, check_policy
from fungistor.node.policies import Policies
from fungistor.node.policy_words import policy_of_table
from fungistor.node.pool_file import PoolMember, load_policy_tables, load_pool
from fungistor.node.wiring import open_catalog
from fungistor.pool import IDENTITY_KEY
from fungistor.zdb.client import Client, Login, MemberError

CALL_WAIT_S = 5.0
FLUSH_WAIT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Applied:
    """What a pool file comes to. `changed`: members of another weight, capacity, zone or place. `plan` None: no member
    is new or another. `policies`: those that the network had not."""

    plan: PoolPlan | None
    changed: tuple[str, ...]
    is_done: bool
    policies: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether all is as the file says."""
        return self.plan is None and not self.policies

    def to_json(self) -> dict[str, object]:
        """The contract's keys."""
        plan = {} if self.plan is None else self.plan.to_json()
        return plan | {
            "changed": list(self.changed),
            "policies": list(self.policies),
            "applied": self.is_done,
            "unchanged": self.is_nothing,
        }


def apply(home: Home, path: str, asked: CatalogOptions, *, go: bool, lost: bool, say: Callable[[str], None]) -> Applied:
    """Say what a pool file comes to; with `go` do it. `lost`: members that it leaves out are gone with all they held.

    Raises:
        InvalidError: the file, or this home's having members of its own.
        UnavailableError: a new member does not answer, or the catalog cannot be had.
        ConflictError: a new member is another network's; one that is left out may hold shards; stripes would be left
            without a place; another layout came first.
    """
    home.check_version()
    config = load_config(home)
    if config.pool is None and os.path.exists(home.pool_file):
        raise InvalidError(
            f"{home.root} is the home of a network with members of its own",
            hint="`fungistor pool add` and `drain` change it; or give another --home",
        )
    members = with_places(load_pool(path), config.geoip_database)
    policies = [policy_of_table(t, f"{path}: [[policy]] number {n}") for n, t in enumerate(load_policy_tables(path), 1)]
    if not os.path.exists(os.path.join(home.keys, "node.key")) and not go:
        for policy in policies:
            check_policy(policy, members)
        return Applied(_founding(members), (), is_done=False, policies=tuple(policy.name for policy in policies))
    if go:
        home.prepare()
        config = replace(placed(home, config, asked), pool=os.path.abspath(path))
        ensure_keys(home, say)
        save_config(home, config)
    with open_catalog(home) as (catalog, keys, _):
        catalog.catch_up()
        if go:
            enrol(home, keys, catalog)
        known = Policies(catalog)
        fresh = [policy for policy in policies if not known.standing(policy)]
        for policy in fresh:
            check_policy(policy, members)
        applied = _Change(CatalogRoll(catalog), keys, members, lost=lost).run(go=go)
        if go:
            for policy in fresh:
                known.add(policy)
        return replace(
            applied, policies=tuple(policy.name for policy in fresh), is_done=go and bool(applied.plan or fresh)
        )


def _founding(members: Sequence[PoolMember]) -> PoolPlan:
    taking = sum(member.weight > 0 for member in members)
    return PoolPlan(1, len(members), taking, tuple(member.id for member in members), (), 0.0, 0)


class _Change:
    """From what the newest layout says to what the file says."""

    def __init__(self, roll: CatalogRoll, keys: NodeKeys, members: Sequence[PoolMember], *, lost: bool) -> None:
        self._roll = roll
        self._keys = keys
        self._lost = lost
        self._known = roll.numbers()
        self._fresh = [member for member in members if member.id not in self._known]
        first = roll.next_number()
        drawn = {member.id: MemberNumber(first + place) for place, member in enumerate(self._fresh)}
        self._numbers: dict[MemberId, MemberNumber] = {**self._known, **drawn}
        self._numbered = [(member, self._numbers[member.id]) for member in members]

    def run(self, *, go: bool) -> Applied:
        """Look at it all before anything is written."""
        changed = self._roll.changed(self._numbered)
        named = {member.id for member, _ in self._numbered}
        left_out = {name: number for name, number in self._known.items() if name not in named}
        if not (self._fresh or changed or left_out):
            return Applied(None, (), is_done=False)
        plan = self._roll.plan(self._numbered)
        self._check_left_out(left_out)
        for leave in (False, True) if go else (False,):
            for member in self._fresh:
                self._greet(member, leave=leave)
        if go:
            self._roll.commit(self._numbered)
        return Applied(plan, changed, is_done=go)

    def _check_left_out(self, left_out: Mapping[MemberId, MemberNumber]) -> None:
        if self._lost:
            return
        holders = self._roll.holders()
        if held := sorted(name for name, number in left_out.items() if number in holders):
            raise ConflictError(
                f"{', '.join(held[:5])}{' ...' if len(held) > 5 else ''} may still hold shards",
                hint="give them weight = 0, apply, and `fungistor repair` first; --lost if they are gone for ever",
            )

    def _greet(self, member: PoolMember, *, leave: bool) -> None:
        """See that a new member can be taken in; with `leave` put the network's identity there, durably."""
        wanted = member_identity(self._keys.network_key, self._numbers[member.id], member.id)
        login = Login(namespace=member.namespace, password=member.password, tls=member.trust)
        try:
            with Client(member.address, login, timeout_s=CALL_WAIT_S) as client:
                found = client.call("GET", IDENTITY_KEY)
                if found is not None and found != wanted:
                    raise ConflictError(
                        f"{member.id} at {member.address} is a member of another network, or was one of this",
                        hint="give it an empty namespace",
                    )
                if leave and found is None:
                    client.call("SET", IDENTITY_KEY, wanted)
                    if client.run_id:
                        client.call("WAITAOF", 1, 0, FLUSH_WAIT_MS, timeout_s=FLUSH_WAIT_MS / 1000 + CALL_WAIT_S)
        except MemberError as error:
            raise UnavailableError(
                f"{member.id} at {member.address}: {error.message}",
                hint="start it, make its namespace and password there, and apply again; the pool did not change",
            ) from error
