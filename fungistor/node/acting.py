"""For whom a command acts: the tenant that is named, or the one whose token it was given."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.issuers import TENANT_MAX
from fungistor.catalog.tenants import Tenant, TokenScope
from fungistor.errors import NotFoundError
from fungistor.ids import OWN_TENANT, TenantNumber
from fungistor.keys.ring import NodeKeys
from fungistor.objects.bearers import check_scope, check_token


@dataclass(frozen=True, slots=True)
class Acting:
    """Whoever has the home acts for any tenant; whoever shows a token for its own, as far as its scopes go."""

    named: str | None
    scope: TokenScope
    token: str | None = field(repr=False, default=None)

    @property
    def is_restricted(self) -> bool:
        """Whether one tenant was named, by its name or by a token: then nothing beyond it is shown."""
        return self.named is not None or self.token is not None

    def tenant(self, catalog: Catalog, keys: NodeKeys) -> TenantNumber:
        """The tenant's number. The catalog must have been caught up.

        Raises: NotFoundError for a tenant that is not there, or that the token does not let know; DeniedError.
        """
        named = None if self.named is None else find_tenant(catalog, self.named)
        if self.token is not None:
            token = check_token(catalog.tenants, self.token, time.time())
            if self.named is not None and (named is None or named.number != token.tenant):
                raise _no_such(self.named)
            check_scope(token, self.scope)
            number = token.tenant
        elif self.named is None:
            number = OWN_TENANT
        elif named is None:
            raise _no_such(self.named)
        else:
            number = named.number
        keys.tenant_key(number)  # better now than half way
        return number


def find_tenant(catalog: Catalog, text: str) -> Tenant | None:
    """The tenant of a name, or of a number."""
    tenants = catalog.tenants.all()
    found = next((tenant for tenant in tenants if tenant.name == text), None)
    if found is None and text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= TENANT_MAX:
        found = next((tenant for tenant in tenants if tenant.number == int(text)), None)
    return found


def named_tenant(catalog: Catalog, text: str) -> Tenant:
    """As `find_tenant`. Raises: NotFoundError."""
    found = find_tenant(catalog, text)
    if found is None:
        raise _no_such(text)
    return found


def _no_such(text: str) -> NotFoundError:
    return NotFoundError(f"there is no tenant {text[:80]}", hint="`fungistor tenant list` names them")
