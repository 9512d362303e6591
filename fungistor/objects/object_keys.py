"""Objects' keys and the names sealed under them: one key in the table for each manifest that stands."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Protocol

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command, Publish
from fungistor.catalog.record import Record
from fungistor.coding.seal import KEY_BYTES
from fungistor.dag.cid import CID
from fungistor.errors import ConflictError
from fungistor.ids import ObjectId, SessionId, TenantNumber
from fungistor.keys.ring import NodeKeys, unwrap, wrap
from fungistor.objects.naming import ObjectName, open_name, seal_first_name, seal_name
from fungistor.objects.ports import KeyTable


class KeyPorts(Protocol):
    """What this asks of the world."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def keys(self) -> NodeKeys: ...

    @property
    def key_table(self) -> KeyTable: ...


class ObjectKeys:
    """The keys of objects that are published."""

    def __init__(self, ports: KeyPorts) -> None:
        self._ports = ports

    def draw(self, salt: bytes, tenant: TenantNumber) -> tuple[bytes, tuple[ObjectId, TenantNumber, bytes]]:
        """A new key, and its row for the table, where the open session protects it until a record names it."""
        key = os.urandom(KEY_BYTES)
        return key, (ObjectId(salt), tenant, wrap(self._ports.keys.tenant_key(tenant), key))

    def of(self, record: Record) -> bytes:
        """An object's key. Raises: ConflictError: it was dropped."""
        wrapped = self._ports.key_table.get(record.key_id)
        if wrapped is None:
            raise ConflictError("the object was unpublished meanwhile", hint="publish it again")
        return unwrap(self._ports.keys.tenant_key(record.tenant), wrapped)

    def named(self, record: Record | None) -> ObjectName | None:
        """What an object is known by."""
        return None if record is None else open_name(self.of(record), record.sealed_name, record.salt)

    def seal_first_name(self, key: bytes, name: ObjectName, salt: bytes) -> bytes:
        """The name of an object whose key was just drawn."""
        known = self._ports.catalog.knows_short_names
        return seal_first_name(key, name, salt) if known else seal_name(key, name)

    def seal_name(self, record: Record, cid: CID, name: str) -> bytes:
        """A name for an object's record."""
        return seal_name(self.of(record), ObjectName(cid, name))

    def keep_one(self, before: Record | None, record: Record, standing: Record, name: ObjectName) -> None:
        """Drop the key of the manifest that does not stand: the one replaced, or this one if another came first."""
        keys = self._ports.key_table
        if standing.key_id == record.key_id:
            if before is not None and before.key_id != record.key_id:
                keys.delete([before.key_id])
            return
        keys.delete([record.key_id])
        named = self.named(standing)
        if named != name:  # the name was sealed under the key that is gone
            renamed = replace(standing, sealed_name=self.seal_name(standing, name.cid, name.name))
            self._ports.catalog.commit(Command(SessionId(os.urandom(16)), 0, Publish(renamed, standing.manifest_id)))
