"""The use cases behind `tenant`, `token` and `link`: who there is, how much each may have, and who speaks for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import SESSION_BYTES, Body, Command
from fungistor.catalog.index import BlockIndex
from fungistor.catalog.tenant_usage import Usage
from fungistor.catalog.tenants import (
    TENANT_NAME_BYTES_MAX,
    TOKEN_LABEL_BYTES_MAX,
    AddTenant,
    AddToken,
    ChangeTenant,
    RemoveTenant,
    RevokeToken,
    Tenant,
    Token,
    TokenScope,
)
from fungistor.errors import ConflictError, InvalidError, NotFoundError
from fungistor.ids import OWN_TENANT, SessionId, TenantNumber
from fungistor.keys.files import load_node_keys, load_root_key, save_node_keys
from fungistor.keys.issue import tenant_key
from fungistor.keys.ring import NodeKeys
from fungistor.keys.store import KeyStore
from fungistor.keys.tokens import ID_BYTES, draw_token
from fungistor.node.files import locked
from fungistor.node.home import Home
from fungistor.node.new_keys import refuse_half_rotated
from fungistor.node.scope_words import scope_names
from fungistor.objects.results import Json

TRIES_MAX = 16
"""Of one whom others overtake each time by adding or changing a tenant."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TenantLine:
    """A tenant as it is listed. `held`: this node has its key."""

    tenant: Tenant
    usage: Usage
    tokens: int
    held: bool

    def to_json(self) -> Json:
        """The keys of `--json`."""
        tenant, usage = self.tenant, self.usage
        return {
            "tenant": tenant.name,
            "number": tenant.number,
            "bytes": usage.bytes,
            "bytes_max": tenant.bytes_max,
            "objects": usage.objects,
            "objects_max": tenant.objects_max,
            "stored": usage.stored,
            "tokens": self.tokens,
            "link_epoch": tenant.link_epoch,
            "held": self.held,
        }


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token as it is listed: never what opens a door."""

    token: Token
    tenant: str
    now: float

    def to_json(self) -> Json:
        """The keys of `--json`."""
        token = self.token
        return {
            "id": token.id.hex(),
            "tenant": self.tenant,
            "scopes": scope_names(token.scopes),
            "label": token.label,
            "added": token.added,
            "expires": token.expires,
            "expired": not token.is_good(self.now),
        }


def check_name(name: str) -> str:
    """A tenant's name that can be one. Raises: InvalidError."""
    fits = 1 <= len(name.encode()) <= TENANT_NAME_BYTES_MAX and name.isprintable() and not name.isspace()
    if not fits or name != name.strip() or name.isdecimal():
        raise InvalidError(
            f"{name[:80]!r} cannot be a tenant's name",
            hint=f"1 to {TENANT_NAME_BYTES_MAX} printable bytes, and no number",
        )
    return name


class Tenancy:
    """What is asked of one network's tenants, by whoever has this home."""

    def __init__(
        self,
        home: Home,
        catalog: Catalog,
        keys: NodeKeys,
        table: KeyStore,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._catalog = catalog
        self._keys = keys
        self._table = table
        self._environ = environ
        self._clock = clock

    # -- looking ----------------------------------------------------------------------------------------------

    def lines(self) -> list[TenantLine]:
        """Every tenant."""
        self._catalog.catch_up()
        return [self._line(tenant) for tenant in self._catalog.tenants.all()]

    def line(self, number: TenantNumber) -> TenantLine:
        """One tenant. Raises: NotFoundError."""
        return self._line(self._standing(number))

    def _line(self, tenant: Tenant) -> TenantLine:
        view = self._catalog.tenants
        now = self._clock()
        tokens = sum(token.is_good(now) for token in view.tokens(tenant.number))
        return TenantLine(tenant, view.usage(tenant.number), tokens, tenant.number in self._keys.tenant_keys)

    def _standing(self, number: TenantNumber) -> Tenant:
        self._catalog.catch_up()
        found = self._catalog.tenants.tenant(number)
        if found is None:
            raise NotFoundError(f"there is no tenant {number}", hint="`fungistor tenant list` names them")
        return found

    # -- tenants ----------------------------------------------------------------------------------------------

    def add(self, name: str, bytes_max: int | None, objects_max: int | None) -> TenantLine:
        """Let there be a tenant, with a key of its own in the key table and in this home.

        Raises: NotFoundError without the root key; ConflictError where the name is taken.
        """
        check_name(name)
        root = self._root()  # before anything is committed

        def attempt() -> TenantNumber:
            self._catalog.catch_up()
            if any(tenant.name == name for tenant in self._catalog.tenants.all()):
                raise _TakenError(
                    f"there is a tenant {name} already", hint="`fungistor tenant hold` takes its key here"
                )
            number = self._catalog.tenants.next_number()
            # The key before the commit, so that whatever keeps copies of the two has both when it is acknowledged.
            tenant_key(root, self._table, number)
            self._commit(AddTenant(number, name, bytes_max, objects_max, int(self._clock())))
            return number

        number = _often(attempt)
        self._take_key(root, number)
        return self.line(number)

    def hold(self, number: TenantNumber) -> TenantLine:
        """Take a tenant's key into this home, where the root key is. Raises as `add`."""
        self._take_key(self._root(), self._standing(number).number)
        os.makedirs(self._home.index, mode=0o700, exist_ok=True)
        with contextlib.closing(BlockIndex(self._home.block_index)) as index:
            index.begin_again()  # the tenant's objects were passed over
        return self.line(number)

    def change(
        self,
        number: TenantNumber,
        to: Callable[[Tenant], Tenant],
    ) -> TenantLine:
        """Give a tenant another name, other quotas, or a later link epoch.

        Raises: ConflictError where the name is taken.
        """

        def attempt() -> None:
            wanted = to(self._standing(number))
            check_name(wanted.name)
            if any(t.name == wanted.name and t.number != number for t in self._catalog.tenants.all()):
                raise _TakenError(f"there is a tenant {wanted.name} already", hint="give another name")
            self._commit(
                ChangeTenant(
                    number,
                    wanted.change + 1,
                    wanted.name,
                    wanted.bytes_max,
                    wanted.objects_max,
                    wanted.link_epoch,
                )
            )

        _often(attempt)
        return self.line(number)

    def revoke_links(self, number: TenantNumber) -> TenantLine:
        """End all links that were signed for a tenant so far."""
        return self.change(number, lambda tenant: replace(tenant, link_epoch=tenant.link_epoch + 1))

    def remove(self, number: TenantNumber, *, dry_run: bool = False) -> TenantLine:
        """Remove a tenant that has nothing any more; its tokens end with it.

        Raises: InvalidError for the network's own; ConflictError where it has something.
        """
        if number == OWN_TENANT:
            raise InvalidError(
                "the network's own tenant cannot be removed", hint="a quota of 0 lets it publish nothing"
            )
        line = self.line(number)
        if reason := self._catalog.tenants.why_not_empty(line.tenant):
            raise ConflictError(reason, hint="`fungistor objects --tenant` and `name list --tenant` list them")
        if not dry_run:
            self._commit(RemoveTenant(number, line.tenant.change + 1))
        return line

    # -- tokens -----------------------------------------------------------------------------------------------

    def add_token(
        self, number: TenantNumber, scopes: TokenScope, label: str, lasts_s: int | None
    ) -> tuple[TokenLine, str]:
        """Issue a token; its text is known to nobody but who is given it now."""
        if not label or len(label.encode()) > TOKEN_LABEL_BYTES_MAX or not label.isprintable():
            raise InvalidError(f"a token's label has 1 to {TOKEN_LABEL_BYTES_MAX} printable bytes")
        tenant = self._standing(number)
        now, drawn = int(self._clock()), draw_token()
        expires = None if lasts_s is None else now + lasts_s
        self._commit(AddToken(drawn.id, number, drawn.digest, scopes, label, expires, now))
        added = self._catalog.tenants.token(drawn.id)
        assert added is not None
        return TokenLine(added, tenant.name, now), drawn.text

    def tokens(self, number: TenantNumber) -> list[TokenLine]:
        """A tenant's tokens that were not revoked."""
        tenant, now = self._standing(number), self._clock()
        return [TokenLine(token, tenant.name, now) for token in self._catalog.tenants.tokens(number)]

    def revoke_token(self, number: TenantNumber, text: str, *, dry_run: bool = False) -> TokenLine:
        """Take a token back, by its id. Raises: NotFoundError."""
        tenant = self._standing(number)
        found = self._catalog.tenants.token(_token_id(text))
        if found is None or found.tenant != number or found.revoked:
            raise NotFoundError("the tenant has no such token", hint="`fungistor token list` tells their ids")
        if not dry_run:
            self._commit(RevokeToken(found.id, number))
        return TokenLine(found, tenant.name, self._clock())

    # -- parts ------------------------------------------------------------------------------------------------

    def _commit(self, body: Body) -> None:
        self._catalog.commit(Command(SessionId(os.urandom(SESSION_BYTES)), 0, body))

    def _root(self) -> bytes:
        refuse_half_rotated(self._home)
        root = load_root_key(os.path.join(self._home.keys, "root.key"), self._environ)
        self._keys.check_root(root)
        return root

    def _take_key(self, root: bytes, tenant: TenantNumber) -> None:
        """Have the tenant's key, drawn if the table has none, in this node's key file."""
        key = tenant_key(root, self._table, tenant)
        path = os.path.join(self._home.keys, "node.key")
        with locked(os.path.join(self._home.keys, ".lock")):  # one process of a home at a time changes the key file
            keys = load_node_keys(path)
            if keys.tenant_keys.get(tenant) != key:
                save_node_keys(path, replace(keys, tenant_keys={**keys.tenant_keys, tenant: key}))


class _TakenError(ConflictError):
    """Trying again cannot help."""


def _often(attempt: Callable[[], T]) -> T:
    """Try again as long as others are quicker."""
    for tried in range(TRIES_MAX):
        try:
            return attempt()
        except _TakenError:
            raise
        except ConflictError:
            if tried + 1 == TRIES_MAX:
                raise
    raise AssertionError("the loop ends by itself")


def _token_id(text: str) -> bytes:
    digits = text.removeprefix("fst_").partition("_")[0]
    try:
        identity = bytes.fromhex(digits)
    except ValueError:
        identity = b""
    if len(identity) != ID_BYTES:
        raise InvalidError(f"a token's id has {2 * ID_BYTES} hex digits", hint="`fungistor token list` tells them")
    return identity
