"""Named policies: what `fungistor policy` and a pool file ask for, planned on the members that the catalog has."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Body, Command
from fungistor.catalog.layouts import LayoutMember
from fungistor.catalog.policies import AddPolicy, RemovePolicy
from fungistor.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from fungistor.ids import PolicyNumber, SessionId
from fungistor.objects.results import Json
from fungistor.placement import (
    DEFAULT_NUMBER,
    DEFAULT_POLICY,
    Member,
    PlacementTable,
    StoragePolicy,
    plan,
    table_policy,
    track,
)
from fungistor.placement.policy import level_name

TRIES_MAX = 3
"""Of adding a policy while somebody else changes the pool."""


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A policy, what is stored by it, and how many members it may use."""

    policy: StoragePolicy
    number: PolicyNumber
    objects: int
    stored: int
    members: int

    def to_json(self) -> Json:
        """The keys of `--json`."""
        policy = self.policy
        return {
            "name": policy.name,
            "k": policy.k,
            "m": policy.m,
            "min_shard": policy.shard_bytes_min,
            "zones": policy.zones,
            "zone_level": level_name(policy.zone_depth) if policy.zone_depth else None,
            "regions": ["/".join(region) for region in policy.regions],
            "overhead": round(policy.shards / policy.k, 4),
            "members": self.members,
            "objects": self.objects,
            "stored": self.stored,
            "number": self.number,
        }


class Policies:
    """The policies of one network."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def lines(self) -> Iterator[PolicyLine]:
        """Every policy, the default first."""
        self._catalog.catch_up()
        objects: Counter[str] = Counter()
        stored: Counter[str] = Counter()
        for record in self._catalog.records():
            objects[record.policy] += 1
            stored[record.policy] += record.sizes.stored
        newest = self._catalog.layout()
        tables = {} if newest is None else self._catalog.tables()
        rows = [(DEFAULT_NUMBER, DEFAULT_POLICY), *((row.number, row.policy) for row in self._catalog.policies())]
        for number, policy in rows:
            table = tables.get(track(number, newest.number)) if newest is not None else None
            members = 0 if table is None else len(PlacementTable.from_bytes(table).members())
            yield PolicyLine(policy, number, objects[policy.name], stored[policy.name], members)

    def line(self, name: str) -> PolicyLine:
        """One of them. Raises: NotFoundError."""
        for line in self.lines():
            if line.policy.name == name:
                return line
        raise NotFoundError(f"no policy named {name}", hint="`fungistor policy list` lists them")

    def standing(self, policy: StoragePolicy) -> bool:
        """Whether the network has this very policy.

        Raises: InvalidError: it has another one of that name.
        """
        policy.check()
        if policy == DEFAULT_POLICY:
            return True
        known = {row.policy.name: row.policy for row in self._catalog.policies()} | {"default": DEFAULT_POLICY}
        if policy.name in known and known[policy.name] != policy:
            raise InvalidError(
                f"there is another policy {policy.name} already, and a policy does not change: objects rely on it",
                hint="give this one another name, and publish by it what shall be stored so",
            )
        return policy.name in known

    def add(self, policy: StoragePolicy, *, dry_run: bool = False) -> bool:
        """Let objects be published by a policy; False where there is this one already.

        Raises:
            InvalidError: the members cannot meet it, and what to add; or there is another one of that name.
            ConflictError: somebody keeps changing the pool.
        """
        for _ in range(TRIES_MAX):
            self._catalog.catch_up()
            if self.standing(policy):
                return False
            newest = self._catalog.layout()
            if newest is None:
                raise UnavailableError("the pool has no members yet", hint="start it with `fungistor up` first")
            table = _planned(policy, newest.members)
            if dry_run:
                return True
            number = max((row.number for row in self._catalog.policies(removed=True)), default=0) + 1
            try:
                self._commit(AddPolicy(PolicyNumber(number), policy, newest.number, table.to_bytes()))
            except ConflictError as error:
                refused = error
            else:
                return True
        raise refused

    def remove(self, name: str) -> None:
        """Forget a policy that nothing is stored by.

        Raises: NotFoundError; InvalidError for the default; ConflictError where something is stored by it.
        """
        self._catalog.catch_up()
        if name == DEFAULT_POLICY.name:
            raise InvalidError("the policy default is always there")
        number = self.line(name).number
        self._commit(RemovePolicy(number))

    def _commit(self, body: Body) -> None:
        self._catalog.commit(Command(SessionId(secrets.token_bytes(SESSION_BYTES)), 0, body))


def _planned(policy: StoragePolicy, members: Sequence[LayoutMember]) -> PlacementTable:
    try:
        return plan([_place(member) for member in members], None, table_policy(policy))
    except InvalidError as error:
        raise InvalidError(f"policy {policy.name} cannot be met: {error.message}", hint=error.hint) from error


def _place(member: LayoutMember) -> Member:
    return Member(member.number, member.id, member.zone, member.weight)
