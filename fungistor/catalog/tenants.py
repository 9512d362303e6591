"""Commands about tenants: who there is, how much each may hold, and the tokens that speak for one.

Whatever may be committed twice says which state it was computed against (`change`), so that an old entry that somebody
appends again is refused: neither a quota nor a revoked token comes back by it. What these commands do to the rows of a
state is in `fungistor.catalog.tenant_rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from fungistor.catalog.fields import UINT_MAX, Fields
from fungistor.catalog.issuers import TENANT_MAX
from fungistor.ids import TenantNumber

TENANT_NAME_BYTES_MAX = 64
TOKEN_ID_BYTES = 8
TOKEN_DIGEST_BYTES = 32
TOKEN_LABEL_BYTES_MAX = 64
TOKENS_MAX = 1024
"""Tokens of a tenant that are not revoked."""

OWN_TENANT_NAME = "default"
"""Of the tenant that every network has; it may be renamed, and never removed."""


class TokenScope(IntFlag):
    """What the bearer of a token may do for its tenant. Bits are never reused."""

    READ = 1
    PUBLISH = 2
    UNPUBLISH = 4
    NAMES = 8
    ADMIN = 16


ALL_TOKEN_SCOPES = TokenScope.READ | TokenScope.PUBLISH | TokenScope.UNPUBLISH | TokenScope.NAMES | TokenScope.ADMIN


@dataclass(frozen=True, slots=True)
class AddTenant:
    """Let there be a tenant. Numbers only rise, so that none is used twice. A bound of None is no bound."""

    tenant: TenantNumber
    name: str
    bytes_max: int | None
    objects_max: int | None
    at: int


@dataclass(frozen=True, slots=True)
class ChangeTenant:
    """Give a tenant another name, other quotas, or a later link epoch, which ends all links signed before.

    `change` is one more than the number of the tenant's last change.
    """

    tenant: TenantNumber
    change: int
    name: str
    bytes_max: int | None
    objects_max: int | None
    link_epoch: int


@dataclass(frozen=True, slots=True)
class RemoveTenant:
    """Remove a tenant that has nothing any more. `change` as in `ChangeTenant`."""

    tenant: TenantNumber
    change: int


@dataclass(frozen=True, slots=True)
class AddToken:
    """Let whoever shows the secret of this digest act for a tenant. Times in Unix seconds; no `expires` is never."""

    id: bytes
    tenant: TenantNumber
    digest: bytes = field(repr=False)
    scopes: TokenScope
    label: str
    expires: int | None
    at: int


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Take a token back for good."""

    id: bytes
    tenant: TenantNumber


TenantBody = AddTenant | ChangeTenant | RemoveTenant | AddToken | RevokeToken


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as it stands. `change` counts what was changed of it since it was added."""

    number: TenantNumber
    name: str
    bytes_max: int | None = None
    objects_max: int | None = None
    link_epoch: int = 0
    change: int = 0
    added: int = 0
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the catalog knows it: what it is made of is with its bearer alone."""

    id: bytes
    tenant: TenantNumber
    digest: bytes = field(repr=False)
    scopes: TokenScope
    label: str
    expires: int | None
    added: int
    revoked: bool

    def is_good(self, now: float) -> bool:
        """Whether it was neither revoked nor has expired."""
        return not self.revoked and (self.expires is None or now < self.expires)


def add_tenant_fields(body: AddTenant) -> list[object]:
    """The body as the array of its command."""
    return [body.tenant, body.name, body.bytes_max, body.objects_max, body.at]


def take_add_tenant(fields: Fields) -> AddTenant:
    """Read the body. Raises: CorruptError, as all of these."""
    body = AddTenant(
        TenantNumber(fields.uint("tenant", TENANT_MAX, least=1)),
        fields.text("name", TENANT_NAME_BYTES_MAX),
        fields.optional_int("bytes max", 0, UINT_MAX),
        fields.optional_int("objects max", 0, UINT_MAX),
        fields.uint("at"),
    )
    fields.end()
    return body


def change_tenant_fields(body: ChangeTenant) -> list[object]:
    """The body as the array of its command."""
    return [body.tenant, body.change, body.name, body.bytes_max, body.objects_max, body.link_epoch]


def take_change_tenant(fields: Fields) -> ChangeTenant:
    """Read the body."""
    body = ChangeTenant(
        TenantNumber(fields.uint("tenant", TENANT_MAX)),
        fields.uint("change", least=1),
        fields.text("name", TENANT_NAME_BYTES_MAX),
        fields.optional_int("bytes max", 0, UINT_MAX),
        fields.optional_int("objects max", 0, UINT_MAX),
        fields.uint("link epoch"),
    )
    fields.end()
    return body


def remove_tenant_fields(body: RemoveTenant) -> list[object]:
    """The body as the array of its command."""
    return [body.tenant, body.change]


def take_remove_tenant(fields: Fields) -> RemoveTenant:
    """Read the body."""
    body = RemoveTenant(TenantNumber(fields.uint("tenant", TENANT_MAX, least=1)), fields.uint("change", least=1))
    fields.end()
    return body


def add_token_fields(body: AddToken) -> list[object]:
    """The body as the array of its command."""
    return [body.id, body.tenant, body.digest, int(body.scopes), body.label, body.expires, body.at]


def take_add_token(fields: Fields) -> AddToken:
    """Read the body."""
    body = AddToken(
        fields.bytes("id", TOKEN_ID_BYTES, TOKEN_ID_BYTES),
        TenantNumber(fields.uint("tenant", TENANT_MAX)),
        fields.bytes("digest", TOKEN_DIGEST_BYTES, TOKEN_DIGEST_BYTES),
        TokenScope(fields.uint("scopes", int(ALL_TOKEN_SCOPES), least=1)),
        fields.text("label", TOKEN_LABEL_BYTES_MAX),
        fields.optional_int("expires", 0, UINT_MAX),
        fields.uint("at"),
    )
    fields.end()
    return body


def revoke_token_fields(body: RevokeToken) -> list[object]:
    """The body as the array of its command."""
    return [body.id, body.tenant]


def take_revoke_token(fields: Fields) -> RevokeToken:
    """Read the body."""
    body = RevokeToken(
        fields.bytes("id", TOKEN_ID_BYTES, TOKEN_ID_BYTES), TenantNumber(fields.uint("tenant", TENANT_MAX))
    )
    fields.end()
    return body


_Form = tuple[int, type[TenantBody], Callable[[Any], list[object]], Callable[[Fields], TenantBody]]

TENANT_FORMS: tuple[_Form, ...] = (
    (40, AddTenant, add_tenant_fields, take_add_tenant),
    (41, ChangeTenant, change_tenant_fields, take_change_tenant),
    (42, RemoveTenant, remove_tenant_fields, take_remove_tenant),
    (43, AddToken, add_token_fields, take_add_token),
    (44, RevokeToken, revoke_token_fields, take_revoke_token),
)
"""The kinds of these bodies, and how they stand in a command."""
