"""A key table whose keys are copied into the pool with what needs them, and erased there when they are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.store import KeyRow, KeyStore
from fungistor.node.copies.copier import Copier


class CopiedKeys:
    """`fungistor.keys.store.KeyStore` on another one."""

    def __init__(self, table: KeyStore, copier: Copier) -> None:
        self._table = table
        self._copier = copier

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes:
        kept = self._table.put(object_id, tenant, wrapped)
        self._copier.fresh((object_id, tenant, kept))
        return kept

    def put_all(self, rows: Sequence[KeyRow]) -> None:
        self._table.put_all(rows)
        for row in rows:
            self._copier.fresh(row)

    def get(self, object_id: ObjectId) -> bytes | None:
        return self._table.get(object_id)

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        """Drop keys, here and in the pool. Members that did not confirm it are asked again until they have."""
        ids = list(object_ids)
        # Noted before and erased after: whoever copies a key meanwhile finds it gone, or is followed by this.
        self._copier.want_erased(ids)
        dropped = self._table.delete(ids)
        self._copier.erase()
        return dropped

    def sweep(self) -> bool:
        return self._table.sweep()

    def rows(self, after: ObjectId, count: int) -> list[KeyRow]:
        return self._table.rows(after, count)

    def replace(self, rows: Sequence[KeyRow]) -> None:
        self._table.replace(rows)

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        self._table.replace_tenant(tenant, wrapped)

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        kept = self._table.put_tenant(tenant, wrapped)
        self._copier.tenants_changed()
        return kept

    def get_tenant(self, tenant: TenantNumber) -> bytes | None:
        return self._table.get_tenant(tenant)

    def tenants(self) -> list[TenantNumber]:
        return self._table.tenants()

    def tenant_rows(self) -> list[tuple[TenantNumber, bytes]]:
        return self._table.tenant_rows()

    def objects(self) -> list[ObjectId]:
        return self._table.objects()

    def follow(self) -> None:
        self._table.follow()

    def close(self) -> None:
        self._copier.close()
        self._table.close()
