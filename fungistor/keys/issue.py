"""Issuing: what a node gets from the root key, once; after that it runs without it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from fungistor.ids import OWN_TENANT, TenantNumber
from fungistor.keys.ring import KEY_BYTES, NodeKeys, fingerprint, network_key_of, unwrap, wrap, wrapping_half
from fungistor.keys.store import KeyStore


def issue(root_key: bytes, table: KeyStore, tenants: Iterable[TenantNumber] = (OWN_TENANT,)) -> NodeKeys:
    """A new node's keys: the network's key, those of `tenants` (drawn where the table has none), a new signing key.

    Raises: DeniedError if the table's tenants belong to another root key; the errors of the table.
    """
    return renew(root_key, table, secrets.token_bytes(KEY_BYTES), tenants)


def renew(
    root_key: bytes, table: KeyStore, signing_key: bytes, tenants: Iterable[TenantNumber] = (OWN_TENANT,)
) -> NodeKeys:
    """A node's keys as the table has them now, under the signing key that it is known by. Raises as `issue`."""
    tenant_keys = {tenant: tenant_key(root_key, table, tenant) for tenant in tenants}
    return NodeKeys(network_key_of(root_key), tenant_keys, signing_key, fingerprint(root_key))


def tenant_key(root_key: bytes, table: KeyStore, tenant: TenantNumber) -> bytes:
    """A tenant's key as the table has it, drawn where it has none. Raises as `issue`."""
    wrapped = table.get_tenant(tenant)
    if wrapped is None:
        # Another node may be first; the table then gives its key to both.
        wrapped = table.put_tenant(tenant, wrap(wrapping_half(root_key), secrets.token_bytes(KEY_BYTES)))
    return unwrap(wrapping_half(root_key), wrapped, what=f"key of tenant {tenant}", under="root key")
