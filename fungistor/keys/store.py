"""Where wrapped object keys are kept: in a table of one home, or in one that all homes of a network share.

Beside the catalog's log and never in it, so that dropping a key shreds what it opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from fungistor.ids import ObjectId, TenantNumber

KeyRow = tuple[ObjectId, TenantNumber, bytes]
"""An object, its tenant, and its key wrapped by the tenant's."""

KeyChange = tuple[ObjectId, TenantNumber, bytes | None, bytes | None]
"""As `KeyRow`, None: the key was dropped; and the page that a shared table keeps it in, None: none."""


class KeyStore(Protocol):
    """What the use cases ask of a key table, whatever engine it is on. Thread-safe, several processes at once.

    Errors of every method: UnavailableError while the engine cannot be had, CorruptError when it is damaged.
    """

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep an object's wrapped key durably unless there is one; give the one that is kept."""

    def put_all(self, rows: Sequence[KeyRow]) -> None:
        """`put` for many new keys, durable together when this returns."""

    def get(self, object_id: ObjectId) -> bytes | None:
        """An object's wrapped key. Asks nothing beyond this machine where the key is known here."""

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        """Drop objects' keys, here at once and on other nodes as they follow; give how many there were.

        Their bytes are gone from the engine when `sweep` has returned True.
        """

    def sweep(self) -> bool:
        """Take what was dropped out of the engine's own past. False: not all of it could be taken out now."""

    def rows(self, after: ObjectId, count: int) -> list[KeyRow]:
        """Keys in the order of their ids, so many of those that follow one."""

    def replace(self, rows: Sequence[KeyRow]) -> None:
        """Keep keys durably in place of those that are there; one that was dropped stays so."""

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        """Keep a tenant's wrapped key durably in place of the one that is there."""

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped key durably unless there is one; give the one that is kept."""

    def get_tenant(self, tenant: TenantNumber) -> bytes | None:
        """A tenant's wrapped key."""

    def tenants(self) -> list[TenantNumber]:
        """The tenants that have a key, rising."""

    def tenant_rows(self) -> list[tuple[TenantNumber, bytes]]:
        """The tenants' wrapped keys, by rising tenant."""

    def objects(self) -> list[ObjectId]:
        """The objects that have a key, in the order of their ids."""

    def follow(self) -> None:
        """Take up what other nodes have put and dropped."""

    def close(self) -> None:
        """Let go of connections."""


class SharedKeys(Protocol):
    """A key table elsewhere, that several homes mirror. `Position`s are numbers that only grow."""

    def claim(self, network: bytes) -> bytes:
        """Make this the table of a network unless it is one already; give the network that it is of."""

    def put_all(self, rows: Sequence[KeyRow], position: int) -> tuple[int, int, list[bytes]] | None:
        """Keep keys unless there are some: the position right before this change, its own, and the keys kept.

        None where a page changed since `position`, which is how far the caller knows what is in pages.
        """

    def put_page(self, rows: Sequence[KeyRow], position: int | None = None) -> tuple[int, int, bytes] | None:
        """Keep keys, none of which is there, together: the position right before this change, its own, and the page.

        None where anything changed since `position`; the caller needs none where nobody else can have put these.
        """

    def drop(self, object_ids: Sequence[ObjectId], pages: Mapping[bytes, Sequence[ObjectId]]) -> int:
        """Drop keys that have no page, and keys in pages; give how many there were."""

    def replace(self, rows: Sequence[KeyRow], pages: Mapping[bytes, Sequence[KeyRow]]) -> None:
        """Keep keys in place of those that are there, without a page and in pages."""

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        """Keep a tenant's wrapped key in place of the one that is there."""

    def purge(self) -> bool:
        """Take what was dropped out of the engine's history. False: not all of it could be taken out."""

    def last(self) -> int:
        """The position of the newest change."""

    def changes(self, after: int, until: int) -> Iterator[tuple[int, list[KeyChange]]]:
        """What changed after one position up to another, in pieces, each with the position that is complete by it."""

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped key unless there is one; give the one that is kept."""

    def tenants(self) -> list[tuple[TenantNumber, bytes]]:
        """The tenants' wrapped keys."""

    def close(self) -> None:
        """Let go of connections."""
