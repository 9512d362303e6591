"""A key table that all homes of a network share, with a mirror in each home, so that reads never need the shared one.

A key is in the shared table before the command that needs it is in the log, and in a home's mirror before that home
applies the command. So whatever record a home knows, it has the key of.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from fungistor.errors import ConflictError, CorruptError, DeniedError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.store import KeyChange, KeyRow, SharedKeys
from fungistor.keys.table import KeyTable

ROWS_AT_ONCE: Final = 100
"""Rows of one change: etcd takes 128 operations a transaction."""

PAGE_ROWS_MIN: Final = 16
PAGE_ROWS: Final = 1000
"""So many keys that are put together share a page: fewer cost more to drop than they save."""

PUTS_MAX: Final = 50
"""How often a key is put again because a page came in between: some of them a second, where many publish."""


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
        self._put([(object_id, tenant, wrapped)])
        kept = self._mirror.get(object_id)
        if kept is None:
            raise ConflictError("the key was dropped as soon as it was put", hint="try again")
        return kept

    def put_all(self, rows: Sequence[KeyRow]) -> None:
        self.follow()
        fresh = self._mirror.absent(rows)
        for start in range(0, len(fresh), PAGE_ROWS):
            put = fresh[start : start + PAGE_ROWS]
            if len(put) < PAGE_ROWS_MIN:
                self._put(put)
                continue
            done = self._shared.put_page(put)
            assert done is not None, "no position was asked for"
            before, position, page = done
            self._took(before, position, [(*row, page) for row in put])

    def _put(self, rows: Sequence[KeyRow]) -> None:
        """Put keys, each by itself, unless there are some."""
        for _ in range(PUTS_MAX):
            position = self._joined()
            fresh = self._mirror.absent(rows)
            if len(fresh) < len(rows):
                self.follow()  # what is here may have been dropped elsewhere
                position, fresh = self._joined(), self._mirror.absent(rows)
            if not fresh:
                return
            done = self._shared.put_all(fresh, position)
            if done is not None:
                before, position, kept = done
                changes = [(*row[:2], key, None) for row, key in zip(fresh, kept, strict=True)]
                self._took(before, position, changes)
                return
            self.follow()
        raise UnavailableError("others put so many keys that this one finds no place between them", retry_after_s=2)

    def _by_page(self, object_ids: Sequence[ObjectId]) -> tuple[list[ObjectId], dict[bytes, list[ObjectId]]]:
        """Objects whose keys have no page, and those in each page."""
        page_of = self._mirror.pages_of(object_ids)
        pages: dict[bytes, list[ObjectId]] = {}
        for object_id, page in page_of.items():
            pages.setdefault(page, []).append(object_id)
        return [object_id for object_id in object_ids if object_id not in page_of], pages

    def _took(self, before: int, position: int, changes: Sequence[KeyChange]) -> None:
        # Where nobody else changed anything since, this is all there is to follow.
        if not self._mirror.follow_to(self._network, before, position, changes):
            self.follow()

    def get(self, object_id: ObjectId) -> bytes | None:
        found = self._mirror.get(object_id)
        if found is None:
            self.follow()
            found = self._mirror.get(object_id)
        return found

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        self.follow()
        dropped, ids = 0, list(object_ids)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            by_itself, pages = self._by_page(ids[start : start + ROWS_AT_ONCE])
            dropped += self._shared.drop(by_itself, pages)
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
        self.follow()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            anew = {row[0]: row for row in rows[start : start + ROWS_AT_ONCE]}
            by_itself, pages = self._by_page(list(anew))
            self._shared.replace(
                [anew[object_id] for object_id in by_itself],
                {page: [anew[object_id] for object_id in ids] for page, ids in pages.items()},
            )
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
                if any(wrapped is None for _, _, wrapped, _ in changes):
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
        last, there = self._shared_objects()
        after = ObjectId(b"")
        while rows := self._mirror.rows(after, PAGE_ROWS):
            after = rows[-1][0]
            while fresh := [row for row in rows if row[0] not in there]:
                done = self._shared.put_page(fresh, last)
                if done is not None:
                    last = done[1]
                    break
                last, there = self._shared_objects()
        for tenant in self._mirror.tenants():
            wrapped = self._mirror.get_tenant(tenant)
            if wrapped is not None and self._shared.put_tenant(tenant, wrapped) != wrapped:
                raise self._of_another_network()
        for tenant, wrapped in self._shared.tenants():
            self._mirror.put_tenant(tenant, wrapped)

    def _shared_objects(self) -> tuple[int, frozenset[ObjectId]]:
        """How far the shared table is, and the objects that have, or had, a key there."""
        last = self._shared.last()
        changes = itertools.chain.from_iterable(changes for _, changes in self._shared.changes(0, last))
        return last, frozenset(change[0] for change in changes)

    def _of_another_network(self) -> DeniedError:
        return DeniedError(
            "the catalog's key table belongs to another network than this home's keys",
            hint="give the node.key of that network, or the right catalog URL and prefix",
        )
