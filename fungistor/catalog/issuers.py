"""Commands about who may write: nodes are registered with scopes, revoked, and tell what they can and have.

The bytes stand in docs/formats/catalog.md. What they do is in `fungistor.catalog.authority`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol

from blake3 import blake3

from fungistor.catalog.fields import Fields
from fungistor.ids import TenantNumber

PUBLIC_KEY_BYTES = 32
ISSUER_ID_BYTES = 8
SIGNATURE_BYTES = 64
DIGEST_BYTES = 32
NODE_NAME_BYTES_MAX = 64
TENANTS_MAX = 4096
TENANT_MAX = 2**32 - 1
LEVEL_MAX = 2**16 - 1

LEVEL = 3
"""Which kinds of commands this program applies: those of level 0 are from before commands were signed, of level 1 from
before there were several tenants, short publishes and named policies, of level 2 from before claims and pages of keys
as they are now."""


class Scope(IntFlag):
    """What an issuer may do. Bits are never reused."""

    PUBLISH = 1
    DELETE = 2
    NAMES = 4
    POOL = 8
    ADMIN = 16


ALL_SCOPES = Scope.PUBLISH | Scope.DELETE | Scope.NAMES | Scope.POOL | Scope.ADMIN
ANY_SCOPE = Scope(0)
"""What any registered issuer may do."""


class Signer(Protocol):
    """A node's keys, as far as signing needs them."""

    @property
    def issuer(self) -> bytes:
        """The 32-byte Ed25519 public key."""

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message."""


def issuer_id(public_key: bytes) -> bytes:
    """What commands name an issuer by: its key would take four times the room in every entry."""
    return blake3(public_key).digest(ISSUER_ID_BYTES)


@dataclass(frozen=True, slots=True)
class RegisterIssuer:
    """Let a key issue commands, or change what it may. Only the authority, a key derived from the root key, may say so;
    the first registration also says who the authority is. `tenants` None: all of them."""

    authority: bytes
    public_key: bytes
    name: str
    scopes: Scope
    tenants: tuple[TenantNumber, ...] | None = None


@dataclass(frozen=True, slots=True)
class RevokeIssuer:
    """Refuse all further commands of an issuer; what it did before stands."""

    authority: bytes
    issuer: bytes


@dataclass(frozen=True, slots=True)
class ChangeAuthority:
    """Let another key be the authority, as the root key was rotated: the one before it signs this, its last command."""

    authority: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What a node can and has: its level, and the digest of its state at the checkpoint after `applied` commands."""

    level: int
    applied: int
    digest: bytes


def register_fields(body: RegisterIssuer) -> list[object]:
    """The body as it is encoded."""
    tenants = None if body.tenants is None else list(body.tenants)
    return [body.authority, body.public_key, body.name, int(body.scopes), tenants]


def take_register(fields: Fields) -> RegisterIssuer:
    """The body as it is read."""
    authority = fields.bytes("authority", PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    public_key = fields.bytes("public key", PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    name = fields.text("name", NODE_NAME_BYTES_MAX)
    scopes = Scope(fields.uint("scopes", int(ALL_SCOPES)))
    rows = fields.optional_array("tenants", TENANTS_MAX)
    tenants: list[TenantNumber] | None = None
    if rows is not None:
        tenants, least = [], 0
        while rows.more():
            tenants.append(TenantNumber(rows.uint("tenant", TENANT_MAX, least=least)))
            least = tenants[-1] + 1
    fields.end()
    return RegisterIssuer(authority, public_key, name, scopes, None if tenants is None else tuple(tenants))


def revoke_fields(body: RevokeIssuer) -> list[object]:
    """The body as it is encoded."""
    return [body.authority, body.issuer]


def take_revoke(fields: Fields) -> RevokeIssuer:
    """The body as it is read."""
    authority = fields.bytes("authority", PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    issuer = fields.bytes("issuer", ISSUER_ID_BYTES, ISSUER_ID_BYTES)
    fields.end()
    return RevokeIssuer(authority, issuer)


def change_fields(body: ChangeAuthority) -> list[object]:
    """The body as it is encoded."""
    return [body.authority, body.new]


def take_change(fields: Fields) -> ChangeAuthority:
    """The body as it is read."""
    authority = fields.bytes("authority", PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    new = fields.bytes("new", PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    fields.end()
    return ChangeAuthority(authority, new)


def report_fields(body: Report) -> list[object]:
    """The body as it is encoded."""
    return [body.level, body.applied, body.digest]


def take_report(fields: Fields) -> Report:
    """The body as it is read."""
    level = fields.uint("level", LEVEL_MAX)
    applied = fields.uint("applied")
    digest = fields.bytes("digest", 0, DIGEST_BYTES)
    if len(digest) != (DIGEST_BYTES if applied else 0):
        raise fields.wrong("digest", "does not stand with the number of commands applied")
    fields.end()
    return Report(level, applied, digest)
