"""New keys for old ones: what they wrapped is wrapped anew, and nothing that lies on members is touched.

Each step may be repeated, so a rotation that was cut short is finished by another: what the new key opens stays.
"""

from __future__ import annotations

from collections.abc import Callable

from fungistor.errors import DeniedError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import unwrap, wrap
from fungistor.keys.store import KeyStore

ROWS_AT_ONCE = 500


def rewrap_objects(
    table: KeyStore, tenant: TenantNumber, old: bytes, new: bytes, progress: Callable[[int], None]
) -> int:
    """Wrap a tenant's object keys, and those of its names, under `new`; give how many there are.

    Raises: DeniedError where a key opens under neither: those that were done stay done.
    """
    after, seen = ObjectId(b""), 0
    while rows := table.rows(after, ROWS_AT_ONCE):
        own = [(object_id, wrapped) for object_id, of, wrapped in rows if of == tenant]
        changed = [
            (object_id, tenant, wrap(new, unwrap(old, wrapped)))
            for object_id, wrapped in own
            if not _opens(new, wrapped)
        ]
        if changed:
            table.replace(changed)
        seen += len(own)
        progress(seen)
        after = rows[-1][0]
    return seen


def rewrap_tenants(table: KeyStore, old_root: bytes, new_root: bytes) -> list[TenantNumber]:
    """Wrap every tenant's key under another root key; both are the halves that wrap."""
    tenants = table.tenants()
    for tenant in tenants:
        wrapped = table.get_tenant(tenant)
        if wrapped is not None and not _opens(new_root, wrapped):
            key = unwrap(old_root, wrapped, what=f"key of tenant {tenant}", under="root key")
            table.replace_tenant(tenant, wrap(new_root, key))
    return tenants


def _opens(key: bytes, wrapped: bytes) -> bool:
    try:
        unwrap(key, wrapped)
    except DeniedError:
        return False
    return True
