"""What the commands of `fungistor.catalog.tenants` do to the rows of a state, and what a quota lets a publish do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fungistor.catalog import tenant_usage
from fungistor.catalog.record import Record
from fungistor.catalog.rules import Decision, Verdict, refuse
from fungistor.catalog.tenant_usage import Usage
from fungistor.catalog.tenants import (
    OWN_TENANT_NAME,
    TOKENS_MAX,
    AddTenant,
    AddToken,
    ChangeTenant,
    RemoveTenant,
    RevokeToken,
    Tenant,
    Token,
    TokenScope,
)
from fungistor.ids import OWN_TENANT, TenantNumber

if TYPE_CHECKING:  # effects registers what stands here
    from fungistor.catalog.commands import Body, Command
    from fungistor.catalog.rows import Counters

TABLES = (
    # A removed one stays, so that its number is never used again.
    """CREATE TABLE tenant (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        bytes_max INTEGER,
        objects_max INTEGER,
        link_epoch INTEGER NOT NULL,
        change INTEGER NOT NULL,
        added INTEGER NOT NULL,
        removed INTEGER NOT NULL
    )""",
    # A revoked one stays: the entry that brought it may be appended again by whoever has the log.
    """CREATE TABLE token (
        id BLOB PRIMARY KEY,
        tenant INTEGER NOT NULL,
        digest BLOB NOT NULL,
        scopes INTEGER NOT NULL,
        label TEXT NOT NULL,
        expires INTEGER,
        added INTEGER NOT NULL,
        revoked INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX token_by_tenant ON token (tenant)",
    *tenant_usage.TABLES,
)

FINGERPRINTED = (
    "SELECT number, name, bytes_max, objects_max, link_epoch, change, added, removed FROM tenant ORDER BY number",
    "SELECT id, tenant, digest, scopes, label, expires, added, revoked FROM token ORDER BY id",
    *tenant_usage.FINGERPRINTED,
)

_TENANT = "SELECT number, name, bytes_max, objects_max, link_epoch, change, added, removed FROM tenant"
_TOKEN = "SELECT id, tenant, digest, scopes, label, expires, added, revoked FROM token"  # noqa: S105 - a query

APPLIED = Decision(Verdict.APPLIED, effect=True)
UNCHANGED = Decision(Verdict.UNCHANGED)


# --- publishing, as far as it concerns tenants


def why_no_tenant(sql: sqlite3.Connection, number: TenantNumber) -> str:
    """Why nothing can be committed for a tenant; empty where it stands."""
    tenant = tenant_in(sql, number)
    if tenant is None:
        return f"there is no tenant {number}"
    return f"tenant {tenant.name} was removed" if tenant.removed else ""


def check_room(sql: sqlite3.Connection, counters: Counters, before: Record | None, decision: Decision) -> Decision:
    """Deny a publish that its tenant's quota has no room for, as it is applied: whoever came first has the room."""
    after = decision.record
    if not decision.effect or after is None:
        return decision
    tenant = counters.tenants.get(after.tenant) or tenant_in(sql, after.tenant)
    if tenant is None or tenant.removed:
        return refuse(why_no_tenant(sql, after.tenant))
    counters.tenants[tenant.number] = tenant
    if tenant.bytes_max is None and tenant.objects_max is None:
        return decision
    usage = counters.ledger.of(sql, tenant.number)
    objects = 0 if before is not None else 1
    more = after.sizes.size - (0 if before is None else before.sizes.size)
    reason = why_no_room(tenant, usage, more, objects)
    return Decision(Verdict.DENIED, reason=reason) if reason else decision


def why_no_room(tenant: Tenant, usage: Usage, more_bytes: int, more_objects: int) -> str:
    """Why a quota has no room for so much more; empty where it has. What takes nothing more is never refused."""
    if tenant.objects_max is not None and more_objects > 0 and usage.objects + more_objects > tenant.objects_max:
        return f"quota of tenant {tenant.name}: it has {usage.objects} of {tenant.objects_max} objects"
    if tenant.bytes_max is not None and more_bytes > 0 and usage.bytes + more_bytes > tenant.bytes_max:
        return (
            f"quota of tenant {tenant.name}: it has {usage.bytes} of {tenant.bytes_max} bytes,"
            f" and this takes {more_bytes} more"
        )
    return ""


# --- tenants


def _add(sql: sqlite3.Connection, counters: Counters, _: Command, body: AddTenant) -> Decision:
    highest = sql.execute("SELECT coalesce(max(number), 0) FROM tenant").fetchone()[0]
    if body.tenant <= highest:
        return refuse(f"tenant number {body.tenant} was used before; the next free one is {highest + 1}")
    if _is_taken(sql, body.name, body.tenant):
        return refuse(f"there is a tenant {body.name} already")
    _put(sql, counters, Tenant(body.tenant, body.name, body.bytes_max, body.objects_max, added=body.at))
    counters.revision += 1
    return APPLIED


def _change(sql: sqlite3.Connection, counters: Counters, _: Command, body: ChangeTenant) -> Decision:
    current = tenant_in(sql, body.tenant)
    if current is None or current.removed:
        return refuse(why_no_tenant(sql, body.tenant))
    if body.change != current.change + 1:
        return refuse(f"tenant {current.name} was changed meanwhile")
    if body.link_epoch < current.link_epoch:
        return refuse("an epoch of links that has ended does not come back")
    if _is_taken(sql, body.name, body.tenant):
        return refuse(f"there is a tenant {body.name} already")
    changed = replace(
        current,
        name=body.name,
        bytes_max=body.bytes_max,
        objects_max=body.objects_max,
        link_epoch=body.link_epoch,
    )
    if changed == current:
        return UNCHANGED
    _put(sql, counters, replace(changed, change=body.change))
    counters.revision += 1
    return APPLIED


def _remove(sql: sqlite3.Connection, counters: Counters, _: Command, body: RemoveTenant) -> Decision:
    current = tenant_in(sql, body.tenant)
    if current is None or current.removed:
        return refuse(why_no_tenant(sql, body.tenant))
    if body.change != current.change + 1:
        return refuse(f"tenant {current.name} was changed meanwhile")
    if reason := why_not_empty(sql, current, counters.ledger.of(sql, current.number)):
        return refuse(reason)
    _put(sql, counters, replace(current, change=body.change, removed=True))
    sql.execute("UPDATE token SET revoked = 1 WHERE tenant = ?", (body.tenant,))
    counters.revision += 1
    return APPLIED


def why_not_empty(sql: sqlite3.Connection, tenant: Tenant, usage: Usage) -> str:
    """Why a tenant cannot be removed; empty where it has nothing."""
    names = sql.execute("SELECT count(*) FROM name WHERE tenant = ? AND key_ref != x''", (tenant.number,)).fetchone()[0]
    if usage.objects or names:
        return f"tenant {tenant.name} has {usage.objects} objects and {names} names: take them back first"
    return ""


# --- tokens


def _add_token(sql: sqlite3.Connection, counters: Counters, _: Command, body: AddToken) -> Decision:
    if reason := why_no_tenant(sql, body.tenant):
        return refuse(reason)
    new = Token(body.id, body.tenant, body.digest, body.scopes, body.label, body.expires, body.at, revoked=False)
    current = token_in(sql, body.id)
    if current is not None:
        return UNCHANGED if current == new else refuse(f"there is or was a token {body.id.hex()} already")
    count = sql.execute("SELECT count(*) FROM token WHERE tenant = ? AND revoked = 0", (body.tenant,)).fetchone()[0]
    if count >= TOKENS_MAX:
        return refuse(f"the tenant has {count} tokens, which is the most: revoke some")
    sql.execute(
        "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        (body.id, body.tenant, body.digest, int(body.scopes), body.label, body.expires, body.at),
    )
    counters.revision += 1
    return APPLIED


def _revoke_token(sql: sqlite3.Connection, counters: Counters, _: Command, body: RevokeToken) -> Decision:
    current = token_in(sql, body.id)
    if current is None or current.tenant != body.tenant:
        return refuse(f"the tenant has no token {body.id.hex()}")
    if current.revoked:
        return UNCHANGED
    sql.execute("UPDATE token SET revoked = 1 WHERE id = ?", (body.id,))
    counters.revision += 1
    return APPLIED


# --- rows


def tenant_in(sql: sqlite3.Connection, number: TenantNumber) -> Tenant | None:
    """A tenant, removed or not. The network's own is there before anybody said so."""
    row = sql.execute(f"{_TENANT} WHERE number = ?", (number,)).fetchone()
    if row is None:
        return Tenant(OWN_TENANT, OWN_TENANT_NAME) if number == OWN_TENANT else None
    return _as_tenant(row)


def tenants_in(sql: sqlite3.Connection) -> list[Tenant]:
    """Every tenant that stands, by number."""
    rows = sql.execute(f"{_TENANT} WHERE removed = 0 AND number != ? ORDER BY number", (OWN_TENANT,)).fetchall()
    own = tenant_in(sql, OWN_TENANT)
    assert own is not None
    return [own, *(_as_tenant(row) for row in rows)]


def highest_tenant(sql: sqlite3.Connection) -> int:
    """The highest number that a tenant ever had."""
    return int(sql.execute("SELECT coalesce(max(number), 0) FROM tenant").fetchone()[0])


def token_in(sql: sqlite3.Connection, identity: bytes) -> Token | None:
    """A token, revoked or not."""
    row = sql.execute(f"{_TOKEN} WHERE id = ?", (identity,)).fetchone()
    return None if row is None else _as_token(row)


def tokens_in(sql: sqlite3.Connection, tenant: TenantNumber) -> list[Token]:
    """A tenant's tokens that were not revoked, the oldest first."""
    rows = sql.execute(f"{_TOKEN} WHERE tenant = ? AND revoked = 0 ORDER BY added, id", (tenant,))
    return [_as_token(row) for row in rows]


def _as_tenant(row: tuple[Any, ...]) -> Tenant:
    number, name, bytes_max, objects_max, link_epoch, change, added, removed = row
    return Tenant(TenantNumber(number), name, bytes_max, objects_max, link_epoch, change, added, bool(removed))


def _as_token(row: tuple[Any, ...]) -> Token:
    identity, tenant, digest, scopes, label, expires, added, revoked = row
    return Token(identity, TenantNumber(tenant), digest, TokenScope(scopes), label, expires, added, bool(revoked))


def _put(sql: sqlite3.Connection, counters: Counters, tenant: Tenant) -> None:
    counters.tenants.clear()
    sql.execute(
        "INSERT OR REPLACE INTO tenant VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tenant.number,
            tenant.name,
            tenant.bytes_max,
            tenant.objects_max,
            tenant.link_epoch,
            tenant.change,
            tenant.added,
            int(tenant.removed),
        ),
    )


def _is_taken(sql: sqlite3.Connection, name: str, by_other_than: TenantNumber) -> bool:
    return any(tenant.name == name and tenant.number != by_other_than for tenant in tenants_in(sql))


EFFECTS: Mapping[type[Body], Callable[[sqlite3.Connection, Counters, Command, Any], Decision]] = {
    AddTenant: _add,
    ChangeTenant: _change,
    RemoveTenant: _remove,
    AddToken: _add_token,
    RevokeToken: _revoke_token,
}
