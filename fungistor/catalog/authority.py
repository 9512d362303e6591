"""Who may do what, decided as commands are applied, by every node alike.

A network starts without issuers: then unsigned commands are accepted, as those are that stand in older logs. The first
registration names the authority, whose key is derived from the root key, and from there on a command counts only where
a registered issuer signed it whose scopes and tenants cover it. All else is refused, with the reason as its outcome.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fungistor.catalog.commands import Body, Command, Kind, Publish, kind_of, scope_of, signed_in
from fungistor.catalog.issuers import ChangeAuthority, RegisterIssuer, Report, RevokeIssuer, Scope, issuer_id
from fungistor.catalog.names import RemoveName, SetName
from fungistor.catalog.record import decode_record
from fungistor.catalog.rules import Decision, Verdict
from fungistor.ids import TenantNumber

CHECKPOINTS_KEPT = 256
"""Digests at earlier reports, to compare with what other nodes say of the same places."""

TABLES = (
    "CREATE TABLE authority (key BLOB NOT NULL)",
    """CREATE TABLE issuer (
        id BLOB PRIMARY KEY,
        key BLOB NOT NULL,
        name TEXT NOT NULL,
        scopes INTEGER NOT NULL,
        tenants TEXT,
        revoked INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # `told` is the issuer's clock, and null where it said nothing.
    """CREATE TABLE report (
        issuer BLOB PRIMARY KEY,
        level INTEGER NOT NULL,
        applied INTEGER NOT NULL,
        digest BLOB NOT NULL,
        told INTEGER
    ) WITHOUT ROWID""",
    # Not of the fingerprint: it would be a digest of digests.
    "CREATE TABLE checkpoint (applied INTEGER PRIMARY KEY, digest BLOB NOT NULL)",
)

FINGERPRINTED = (
    "SELECT key FROM authority ORDER BY key",
    "SELECT id, key, name, scopes, tenants, revoked FROM issuer ORDER BY id",
    "SELECT issuer, level, applied, digest, told FROM report ORDER BY issuer",
)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A registered issuer."""

    id: bytes
    key: bytes
    name: str
    scopes: Scope
    tenants: frozenset[TenantNumber] | None
    revoked: bool


_OF_AUTHORITY = (RegisterIssuer, RevokeIssuer, ChangeAuthority)
"""What the root key alone may say."""


class Door:
    """Whether an entry of the log may take effect. The signature is checked once, scopes for each command in it."""

    def __init__(self, connection: sqlite3.Connection, command: Command, payload: bytes) -> None:
        """`payload`: the entry's bytes, which the command was read from."""
        self._connection = connection
        self._command = command
        self._payload = payload
        self._lacks: dict[Kind, str] = {}
        self._authority = authority_in(connection)
        self._issuer: Issuer | None = None
        self._reason = self._enter()

    def refusal(self, part: Command) -> str:
        """Why this command of the entry may not be applied; empty where it may."""
        if self._reason or isinstance(part.body, _OF_AUTHORITY):
            return self._reason
        issuer = self._issuer
        if issuer is None:  # no issuer is registered yet
            return ""
        kind = kind_of(part.body)
        lacks = self._lacks.get(kind)
        if lacks is None:
            lacks = self._lacks[kind] = self._lacking(issuer, kind, scope_of(part.body))
        if lacks:
            return lacks
        if issuer.tenants is None or scope_of(part.body) & issuer.scopes & Scope.POOL:
            return ""  # who tends the pool does so for every tenant
        tenant = _tenant_of(self._connection, part.body)
        if tenant is not None and tenant not in issuer.tenants:
            return f"node {issuer.name} may not {words_of(kind)} for tenant {tenant}"
        return ""

    @staticmethod
    def _lacking(issuer: Issuer, kind: Kind, scopes: Scope) -> str:
        if not scopes or scopes & issuer.scopes:
            return ""
        wanted = " or ".join(sorted((scope.name or "").lower() for scope in scopes))
        return f"node {issuer.name} may not {words_of(kind)}: it has not the scope {wanted}"

    def _enter(self) -> str:
        command, body = self._command, self._command.body
        if isinstance(body, _OF_AUTHORITY):
            return self._as_authority(body.authority)
        if self._authority is None:
            return ""
        if not command.issuer:
            return "the command is not signed"
        self._issuer = issuer_in(self._connection, command.issuer)
        if self._issuer is None:
            return f"its issuer {command.issuer.hex()} is not registered"
        if self._issuer.revoked:
            return f"node {self._issuer.name} was revoked"
        return "" if self._is_signed(self._issuer.key) else f"its signature is not that of node {self._issuer.name}"

    def _as_authority(self, key: bytes) -> str:
        if self._authority is not None and key != self._authority:
            return "only this network's root key says who may write"
        if self._command.issuer != issuer_id(key) or not self._is_signed(key):
            return "its signature is not that of the root key"
        return ""

    def _is_signed(self, key: bytes) -> bool:
        try:
            _public(key).verify(self._command.signature, signed_in(self._command, self._payload))
        except (InvalidSignature, ValueError):
            return False
        return True


def register(connection: sqlite3.Connection, body: RegisterIssuer) -> Decision:
    """Let an issuer in, as the door has allowed it."""
    tenants = None if body.tenants is None else frozenset(body.tenants)
    new = Issuer(issuer_id(body.public_key), body.public_key, body.name, body.scopes, tenants, revoked=False)
    current = issuer_in(connection, new.id)
    if current == new:
        return Decision(Verdict.UNCHANGED)
    if current is not None and current.revoked:
        return Decision(Verdict.REFUSED, reason=f"node {current.name} was revoked; issue it new keys")
    if authority_in(connection) is None:
        connection.execute("INSERT INTO authority VALUES (?)", (body.authority,))
    listed = None if body.tenants is None else ",".join(str(tenant) for tenant in body.tenants)
    row = (new.id, new.key, new.name, int(new.scopes), listed, 0)
    connection.execute("INSERT OR REPLACE INTO issuer VALUES (?, ?, ?, ?, ?, ?)", row)
    return Decision(Verdict.APPLIED, effect=True)


def change(connection: sqlite3.Connection, body: ChangeAuthority) -> Decision:
    """Let another key be the authority, as the door has allowed it."""
    if authority_in(connection) is None:
        return Decision(Verdict.REFUSED, reason="no node was let in yet, so nobody is the authority")
    if body.new == body.authority:
        return Decision(Verdict.UNCHANGED)
    connection.execute("UPDATE authority SET key = ?", (body.new,))
    return Decision(Verdict.APPLIED, effect=True)


def revoke(connection: sqlite3.Connection, body: RevokeIssuer) -> Decision:
    """Shut an issuer out."""
    current = issuer_in(connection, body.issuer)
    if current is None:
        return Decision(Verdict.REFUSED, reason=f"no issuer {body.issuer.hex()} is registered")
    if current.revoked:
        return Decision(Verdict.UNCHANGED)
    connection.execute("UPDATE issuer SET revoked = 1 WHERE id = ?", (body.issuer,))
    connection.execute("DELETE FROM report WHERE issuer = ?", (body.issuer,))
    return Decision(Verdict.APPLIED, effect=True)


def report(connection: sqlite3.Connection, command: Command, body: Report, applied: int, digest: bytes) -> Decision:
    """Keep what a node says of itself, and what this state is right before: the next reports are about that place."""
    row = (command.issuer, body.level, body.applied, body.digest, command.when)
    connection.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (applied, digest))
    connection.execute(
        "DELETE FROM checkpoint WHERE applied NOT IN (SELECT applied FROM checkpoint ORDER BY applied DESC LIMIT ?)",
        (CHECKPOINTS_KEPT,),
    )
    connection.execute("INSERT OR REPLACE INTO report VALUES (?, ?, ?, ?, ?)", row)
    # No revision: nothing that is served has changed.
    return Decision(Verdict.APPLIED)


def authority_in(connection: sqlite3.Connection) -> bytes | None:
    """The public key that says who may write; None before the first registration."""
    row = connection.execute("SELECT key FROM authority").fetchone()
    return None if row is None else bytes(row[0])


def issuer_in(connection: sqlite3.Connection, identity: bytes) -> Issuer | None:
    """A registered issuer."""
    row = connection.execute(
        "SELECT id, key, name, scopes, tenants, revoked FROM issuer WHERE id = ?", (identity,)
    ).fetchone()
    return None if row is None else _issuer(*row)


def issuers_in(connection: sqlite3.Connection) -> list[Issuer]:
    """Every issuer, also revoked ones, by name."""
    rows = connection.execute("SELECT id, key, name, scopes, tenants, revoked FROM issuer ORDER BY name, id")
    return [_issuer(*row) for row in rows]


def words_of(kind: Kind) -> str:
    """A kind as people read it."""
    return kind.name.lower().replace("_", " ")


def _issuer(identity: bytes, key: bytes, name: str, scopes: int, listed: str | None, revoked: int) -> Issuer:
    tenants = None if listed is None else frozenset(TenantNumber(int(text)) for text in listed.split(",") if text)
    return Issuer(identity, key, name, Scope(scopes), tenants, bool(revoked))


def _tenant_of(connection: sqlite3.Connection, body: Body) -> TenantNumber | None:
    """The tenant whose object a command is about, by its record or by the one that stands; None for none."""
    if isinstance(body, Publish):
        return body.record.tenant
    if isinstance(body, SetName | RemoveName):
        return body.tenant
    object_id = getattr(body, "object_id", None)
    if object_id is None:
        tenant: TenantNumber | None = getattr(body, "tenant", None)
        return tenant
    row = connection.execute("SELECT body FROM record WHERE object_id = ?", (object_id,)).fetchone()
    return None if row is None else decode_record(row[0]).tenant


@lru_cache(maxsize=256)
def _public(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)
