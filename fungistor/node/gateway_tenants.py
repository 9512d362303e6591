"""What a gateway worker asks about tenants: whose token, whose link."""

from __future__ import annotations

import time
from collections.abc import Callable

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.tenants import TokenScope
from fungistor.dag.cid import CID
from fungistor.ids import TenantNumber
from fungistor.keys.links import EXPIRES_MAX, Link, is_signed, tenant_of
from fungistor.keys.ring import NodeKeys
from fungistor.objects.bearers import check_scope, check_token


class GatewayTenants:
    """By the state of this node, which follows the catalog. Thread-safe."""

    def __init__(self, catalog: Catalog, keys: NodeKeys, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._keys = keys
        self._clock = clock

    def of_token(self, text: str) -> TenantNumber:
        """The tenant of a token that may read. Raises: BadTokenError, DeniedError."""
        token = check_token(self._catalog.tenants, text, self._clock())
        check_scope(token, TokenScope.READ)
        return token.tenant

    def of_link(
        self, root: CID, names: tuple[bytes, ...], form: str, expires: int, signature: str
    ) -> TenantNumber | None:
        """The tenant of a link that was signed for this very thing, and has not ended by this node's clock."""
        number = tenant_of(signature)
        if number is None or expires > EXPIRES_MAX or self._clock() >= expires:
            return None
        tenant, key = self._catalog.tenants.tenant(number), self._keys.tenant_keys.get(number)
        if tenant is None or key is None:
            return None
        link = Link(number, root.to_v1().encode(), names, form, expires)
        return number if is_signed(link, signature, key, tenant.link_epoch) else None
