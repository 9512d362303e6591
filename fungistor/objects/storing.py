"""One object on its way to members and catalog: what `publish` and `car import` share, wherever blocks come from.

Blocks go through `writers` and the spool; `commit` writes the manifest, waits for the flush and appends the command.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import NO_MANIFEST, Command, Publish
from fungistor.catalog.record import Record, Sizes
from fungistor.coding.seal import KEY_BYTES
from fungistor.dag.cid import CID
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import NodeKeys, object_id, unwrap, wrap
from fungistor.limits import MIB
from fungistor.objects.known import KnownBlocks
from fungistor.objects.manifest_writer import WrittenManifest, pack_slot, whole_slot, write_manifest
from fungistor.objects.mend import Mended
from fungistor.objects.naming import ObjectName, open_name, seal_name
from fungistor.objects.ports import KeyTable, ShardStore
from fungistor.objects.session import Draw, Session, Settlement, WrittenStripe
from fungistor.objects.spool import Spool, StoredBlock
from fungistor.objects.stripe_writer import StripeWriter

SEALING_THREADS = 2
"""One thread takes 1.7 times as long; a third was measured no faster on two cores."""

ONE_THREAD_BYTES = 8 * MIB
"""Up to here one thread seals, so that a small publish leaves one short stripe and not two."""

NAME_BYTES_MAX = 255
TENANT = TenantNumber(0)


@dataclass(frozen=True, slots=True)
class PublishPorts:
    """All that a publish asks of the world."""

    store: ShardStore
    catalog: Catalog
    keys: NodeKeys
    key_table: KeyTable
    known: Callable[[], KnownBlocks]
    current: Callable[[ObjectId], Record | None]
    """The record of an object as the catalog has it now."""
    mend: Callable[[Record], Mended | None]
    """Bring an object's missing shards back; None where that cannot be done and it has to be stored again."""
    journal: str
    stdin: BinaryIO
    draw: Draw = os.urandom
    sync: bool = True
    """False on a network for trials, where nothing waits for the disk."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the catalog is to know of an object. `size`: content bytes. `profile`: its code."""

    root: CID
    size: int
    name: str
    policy: str
    profile: int
    keep_name: bool = False
    """Whether a name that the object has already stays."""
    partial: bool = False
    """Whether blocks below the root may be absent."""


@dataclass(frozen=True, slots=True)
class Committed:
    """An object after its command was appended. `new_bytes`: value bytes that this run wrote."""

    record: Record
    name: str
    settlement: Settlement
    new_bytes: int
    revision: int


def sealing_threads(size: int | None) -> int:
    """How many threads seal content of `size` bytes, None if that is not known."""
    return 1 if size is not None and size <= ONE_THREAD_BYTES else SEALING_THREADS


class Storing:
    """The stripes of one object. `look_up` and the writers may be used by several threads."""

    def __init__(self, ports: PublishPorts, session: Session, spool: Spool) -> None:
        self._ports = ports
        self._session = session
        self._spool = spool
        self._slots = itertools.count()
        self._began = ports.catalog.revision
        self._known = ports.known()
        self._lock = threading.Lock()
        self._sealed_bytes = 0

    def new_writer(self) -> StripeWriter:
        """A writer of stripes of this object, for one thread."""
        return StripeWriter(self._ports.store, self._session, self._slots, self._written)

    def look_up(self, multihashes: Sequence[bytes]) -> Mapping[bytes, StoredBlock]:
        """Find those of some blocks that are stored already."""
        return self._known.find(multihashes, self._slots)

    def _written(self, slot: int, stripe: WrittenStripe) -> None:
        self._spool.add_slot(slot, pack_slot(whole_slot(stripe)))
        with self._lock:
            self._sealed_bytes += sum(stripe.block_lengths)

    def commit(self, facts: ObjectFacts) -> Committed:
        """Write the manifest, make all durable, and append the command. Every writer must be closed.

        Raises:
            UnavailableError: too few members hold a stripe durably.
            ConflictError: another publish of the same object came first.
        """
        ports, session = self._ports, self._session
        for slot, reused in self._known.slots():
            self._spool.add_slot(slot, pack_slot(reused))
        identity = object_id(ports.keys.network_key, TENANT, facts.root.codec, facts.root.multihash)
        current = ports.current(identity)
        key = self._object_key(identity)
        named = open_name(key, current.sealed_name) if current is not None else None
        name = named.name if facts.keep_name and named is not None else facts.name
        if current is not None and named == ObjectName(facts.root, name):
            sealed_name = current.sealed_name  # sealed anew it would be another record, and so a revision of no effect
        else:
            sealed_name = seal_name(key, ObjectName(facts.root, name))
        mended = self._mend(current)
        if current is not None and mended is not None:
            record = replace(current, sealed_name=sealed_name, policy=facts.policy)
            settlement, new_bytes = mended.settlement, mended.new_bytes
        else:
            manifest = write_manifest(
                self._spool, facts.root, ports.store, session, self._slots, key, partial=facts.partial
            )
            settlement, new_bytes = session.settle(), session.new_bytes
            self._known.add_to(settlement)
            record = self._record(identity, facts, manifest, sealed_name, settlement)
        against = current.manifest_id if current is not None else NO_MANIFEST
        outcome = ports.catalog.commit(Command(session.id, 0, Publish(record, against, self._began)))
        return Committed(record, name, settlement, new_bytes, outcome.revision)

    def _mend(self, current: Record | None) -> Mended | None:
        """What is stored already as this very set of blocks need only be whole again."""
        if current is None or self._session.stripes or current.sizes.blocks != self._spool.blocks_count():
            return None
        return self._ports.mend(current)

    def _object_key(self, identity: ObjectId) -> bytes:
        """The object's key: the one in the table, or a new one put there. Two publishers end with the same.

        The one that this node has seen is not believed: where the table is shared it may have been dropped since.
        """
        tenant_key = self._ports.keys.tenant_keys[TENANT]
        wrapped = self._ports.key_table.put(identity, TENANT, wrap(tenant_key, os.urandom(KEY_BYTES)))
        return unwrap(tenant_key, wrapped)

    def _record(
        self,
        identity: ObjectId,
        facts: ObjectFacts,
        manifest: WrittenManifest,
        sealed_name: bytes,
        settlement: Settlement,
    ) -> Record:
        return Record(
            object_id=identity,
            tenant=TENANT,
            policy=facts.policy,
            private=False,
            profile=facts.profile,
            sizes=Sizes(
                size=facts.size,
                sealed=self._sealed_bytes + manifest.sealed_bytes + self._known.sealed_bytes,
                stored=self._session.value_bytes + self._known.value_bytes,
                blocks=manifest.blocks,
                stripes=manifest.stripes + self._known.stripes,
            ),
            manifest=manifest.root,
            salt=manifest.salt,
            list_key=manifest.list_key,
            sealed_name=sealed_name,
            published=int(time.time()),
            owed=tuple(sorted(settlement.owed.items())),
        )
