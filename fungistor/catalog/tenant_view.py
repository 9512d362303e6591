"""What the state says of tenants: for the commands about them, quotas before an upload, whoever shows a token."""

from __future__ import annotations

from fungistor.catalog.database import Database
from fungistor.catalog.tenant_rows import (
    highest_tenant,
    tenant_in,
    tenants_in,
    token_in,
    tokens_in,
    why_no_room,
    why_no_tenant,
    why_not_empty,
)
from fungistor.catalog.tenant_usage import Usage, counted_anew, usage_in
from fungistor.catalog.tenants import Tenant, Token
from fungistor.ids import TenantNumber


class TenantView:
    """Thread-safe. Errors as `fungistor.catalog.database.Database` gives them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Tenant]:
        """Every tenant that stands, the network's own first."""
        with self._database.read() as sql:
            return tenants_in(sql)

    def tenant(self, number: TenantNumber) -> Tenant | None:
        """One tenant that stands."""
        with self._database.read() as sql:
            found = tenant_in(sql, number)
        return None if found is None or found.removed else found

    def next_number(self) -> TenantNumber:
        """The number that the next tenant gets."""
        with self._database.read() as sql:
            return TenantNumber(highest_tenant(sql) + 1)

    def usage(self, number: TenantNumber) -> Usage:
        """How much a tenant has."""
        with self._database.read() as sql:
            return usage_in(sql, number)

    def usage_anew(self) -> dict[TenantNumber, Usage]:
        """How much every tenant has, counted from the records: what `usage` always has to say."""
        with self._database.read() as sql:
            return counted_anew(sql)

    def why_no_room(self, number: TenantNumber, more_bytes: int, more_objects: int) -> str:
        """Why a tenant could not be given so much more as of now; empty where it could."""
        with self._database.read() as sql:
            tenant = tenant_in(sql, number)
            if tenant is None or tenant.removed:
                return why_no_tenant(sql, number)
            return why_no_room(tenant, usage_in(sql, number), more_bytes, more_objects)

    def why_not_empty(self, tenant: Tenant) -> str:
        """Why a tenant could not be removed as of now; empty where it could."""
        with self._database.read() as sql:
            return why_not_empty(sql, tenant, usage_in(sql, tenant.number))

    def token(self, identity: bytes) -> Token | None:
        """A token, revoked or not."""
        with self._database.read() as sql:
            return token_in(sql, identity)

    def tokens(self, number: TenantNumber) -> list[Token]:
        """A tenant's tokens that were not revoked, the oldest first."""
        with self._database.read() as sql:
            return tokens_in(sql, number)
