"""A key table that all homes of a network share, with a mirror in each home, so that reads never need the shared one.

A key is in the shared table before the command that needs it is in the log, and in a home's mirror before that home
applies the command. So whatever record a home knows, it has the key of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fungistor.errors import CorruptError, DeniedError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.store import KeyRow, SharedKeys
from fungistor.keys.table import KeyTable

ROWS_AT_ONCE: Final = 100
"""Rows of one change: etcd takes 128 operations a transaction."""


class MirroredKeys:
    """`fungistor.keys.store.KeyStore` on a shared table, mirrored into a table of this home.

    Further errors: DeniedError when the shared table is another network's.
    """

    def __init__(self, mirror: KeyTable, shared: SharedKeys, network: bytes) -> None:
        """`network`: what tells this network from any other, see `fungistor.keys.ring.network_mark`."""
        self._mirror = mirror
        self._shared = shared
        self._network = network

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes:
        self._joined()
        [kept] = self._put([(object_id, tenant, wrapped)])
        return kept

    def put_all(self, rows: Sequence[KeyRow]) -> None:
        self._joined()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            self._put(rows[start : start + ROWS_AT_ONCE])

    def _put(self, rows: Sequence[KeyRow]) -> list[bytes]:
        before, position, kept = self._shared.put_all(rows)
        changes = [(object_id, tenant, key) for (object_id, tenant, _), key in zip(rows, kept, strict=True)]
        # Where nobody else changed anything since, this is all there is to follow.
        if not self._mirror.follow_to(self._network, before, position, changes):
            self.follow()
        return kept

    def get(self, object_id: ObjectId) -> bytes | None:
        found = self._mirror.get(object_id)
        return self._shared.get(object_id) if found is None else found

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        self._joined()
        ids = list(object_ids)
        dropped = sum(
            self._shared.drop(ids[start : start + ROWS_AT_ONCE]) for start in range(0, len(ids), ROWS_AT_ONCE)
        )
        self.follow()
        return dropped

    def sweep(self) -> bool:
        swept = self._mirror.sweep()
        return self._shared.purge() and swept

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        self._joined()
        return self._mirror.put_tenant(tenant, self._shared.put_tenant(tenant, wrapped))

    def rows(self, after: ObjectId, count: int) -> list[KeyRow]:
        if not after:
            self.follow()
        return self._mirror.rows(after, count)

    def replace(self, rows: Sequence[KeyRow]) -> None:
        self._joined()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            self._shared.replace(rows[start : start + ROWS_AT_ONCE])
        self.follow()

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        self._joined()
        self._shared.replace_tenant(tenant, wrapped)
        self._mirror.replace_tenant(tenant, wrapped)

    def get_tenant(self, tenant: TenantNumber) -> bytes | None:
        # The shared one first: a rotation on another machine replaced what was mirrored here.
        try:
            found = dict(self._shared.tenants()).get(tenant)
        except UnavailableError:
            return self._mirror.get_tenant(tenant)
        return self._mirror.get_tenant(tenant) if found is None else found

    def tenants(self) -> list[TenantNumber]:
        return sorted({*self._mirror.tenants(), *(tenant for tenant, _ in self._shared.tenants())})

    def tenant_rows(self) -> list[tuple[TenantNumber, bytes]]:
        return sorted({**dict(self._mirror.tenant_rows()), **dict(self._shared.tenants())}.items())

    def objects(self) -> list[ObjectId]:
        self.follow()
        return self._mirror.objects()

    def follow(self) -> None:
        """Bring the mirror up to the shared table as it is now."""
        position = self._joined()
        last = self._shared.last()
        if last < position:
            raise CorruptError(
                f"the shared key table ends at {last}, but this home has followed it to {position}",
                hint="an older copy stands in its place: bring the newest one back",
            )
        while position < last:
            for complete, changes in self._shared.changes(position, last):
                if not self._mirror.follow_to(self._network, position, complete, changes):
                    break  # another process of this home was quicker
                position = complete
                if any(wrapped is None for _, _, wrapped in changes):
                    self._mirror.sweep()
            position = self._joined()

    def close(self) -> None:
        self._mirror.close()
        self._shared.close()

    def _joined(self) -> int:
        """The position of this home's mirror. One that has followed nothing yet brings what it has to the others.

        Later it must not: what it has and the others have not may have been dropped.
        """
        followed = self._mirror.followed()
        if followed is None:
            found = self._shared.claim(self._network)
            if found != self._network:
                raise self._of_another_network()
            self._bring()
            self._mirror.begin_following(self._network)
            followed = self._mirror.followed()
            assert followed is not None
        network, position = followed
        if network != self._network:
            raise self._of_another_network()
        return position

    def _bring(self) -> None:
        after = ObjectId(b"")
        while rows := self._mirror.rows(after, ROWS_AT_ONCE):
            self._shared.put_all(rows)
            after = rows[-1][0]
        for tenant in self._mirror.tenants():
            wrapped = self._mirror.get_tenant(tenant)
            if wrapped is not None and self._shared.put_tenant(tenant, wrapped) != wrapped:
                raise self._of_another_network()
        for tenant, wrapped in self._shared.tenants():
            self._mirror.put_tenant(tenant, wrapped)

    def _of_another_network(self) -> DeniedError:
        return DeniedError(
            "the catalog's key table belongs to another network than this home's keys",
            hint="give the node.key of that network, or the right catalog URL and prefix",
        )
