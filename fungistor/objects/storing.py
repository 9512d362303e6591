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
from fungistor.catalog.commands import NO_MANIFEST, Publish
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.record import Record, Sizes, own_list_key
from fungistor.dag.cid import CID
from fungistor.errors import ConflictError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import NodeKeys, object_id
from fungistor.limits import MIB
from fungistor.objects.known import KnownBlocks
from fungistor.objects.lease import Lease
from fungistor.objects.manifest_writer import SALT_BYTES, WrittenManifest, pack_slot, whole_slot, write_manifest
from fungistor.objects.mend import Mended
from fungistor.objects.naming import ObjectName
from fungistor.objects.object_keys import ObjectKeys
from fungistor.objects.ports import KeyTable, ShardStore
from fungistor.objects.session import Draw, Session, Settlement, WrittenStripe
from fungistor.objects.spool import Spool, StoredBlock
from fungistor.objects.stripe_writer import StripeWriter

SEALING_THREADS = 2
"""One thread takes 1.7 times as long; a third was measured no faster on two cores."""

ONE_THREAD_BYTES = 8 * MIB
"""Up to here one thread seals, so that a small publish leaves one short stripe and not two."""

NAME_BYTES_MAX = 255

LOOKS_MAX = 3
"""What is reused is looked at so often while collections condemn."""


@dataclass(frozen=True, slots=True)
class PublishPorts:
    """All that a publish asks of the world."""

    store: ShardStore
    catalog: Catalog
    keys: NodeKeys
    key_table: KeyTable
    tenant: TenantNumber
    """Whose objects are stored."""
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
    expires: int | None = None
    """Unix seconds; None is never."""
    private: bool | None = None
    """None: as the object is, and public where there is none yet."""


@dataclass(frozen=True, slots=True)
class Committed:
    """An object after its command was appended. `new_bytes`: value bytes that this run wrote."""

    record: Record
    name: str
    settlement: Settlement
    new_bytes: int
    revision: int


class CondemnedError(ConflictError):
    """What a publish relies on is being deleted: it has to store its blocks again."""


def sealing_threads(size: int | None) -> int:
    """How many threads seal content of `size` bytes, None if that is not known."""
    return 1 if size is not None and size <= ONE_THREAD_BYTES else SEALING_THREADS


class Storing:
    """The stripes of one object. `look_up` and the writers may be used by several threads."""

    def __init__(self, ports: PublishPorts, lease: Lease, session: Session, spool: Spool) -> None:
        self._ports = ports
        self._keys = ObjectKeys(ports)
        self._lease = lease
        self._session = session
        self._spool = spool
        self._slots = itertools.count()
        self._began = lease.begin()
        self._known = ports.known()
        self._known.keep_to(session.policy)
        left = session.left()
        condemned = {found.id.hex() for found in ports.catalog.removal.sessions() if found.condemned}
        # What a collection is deleting is not taken up; what one condemns from here on is refused at the commit.
        if left is not None and condemned.isdisjoint(os.path.basename(folder)[:32] for folder in left.folders):
            self._known.take_up(left)
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

    def commit(self, facts: ObjectFacts, *, last: bool = False) -> Committed:
        """Write the manifest, make all durable, and append the command. Every writer must be closed.

        `last`: the lease has no other object to store.

        Raises:
            UnavailableError: too few members hold a stripe durably.
            CondemnedError: blocks that it reuses are being deleted, or its session has ended: it has to store again.
            ConflictError: the object was unpublished meanwhile.
        """
        ports, session = self._ports, self._session
        for slot, reused in self._known.slots():
            self._spool.add_slot(slot, pack_slot(reused))
        identity = object_id(ports.keys.network_key, ports.tenant, facts.root.codec, facts.root.multihash)
        current = ports.current(identity)
        private = (current is not None and current.private) if facts.private is None else facts.private
        named = self._keys.named(current)
        name = named.name if facts.keep_name and named is not None else facts.name
        mended = self._mend(current)
        if current is not None and mended is not None:
            record = replace(current, expires=facts.expires, private=private)
            if named != ObjectName(facts.root, name):  # sealed anew it would be a revision of no effect
                record = replace(record, sealed_name=self._keys.seal_name(current, facts.root, name))
            settlement, new_bytes = mended.settlement, mended.new_bytes
        else:
            salt = self._lease.id + ports.draw(SALT_BYTES - len(self._lease.id))
            key, row = self._keys.draw(salt, ports.tenant)
            ports.key_table.put(*row)
            manifest = write_manifest(
                self._spool,
                facts.root,
                ports.store,
                session,
                self._slots,
                key,
                salt=salt,
                list_key=own_list_key(identity, salt),
                partial=facts.partial,
            )
            settlement, new_bytes = session.settle(), session.new_bytes
            self._known.add_to(settlement)
            sealed_name = self._keys.seal_first_name(key, ObjectName(facts.root, name), salt)
            record = self._record(identity, replace(facts, private=private), manifest, sealed_name, settlement)
        against = current.manifest_id if current is not None else NO_MANIFEST
        self._lease.leftovers |= session.in_vain
        outcome = self._commit(Publish(record, against, self._began), last=last)
        session.committed = True
        standing = ports.current(identity)
        if standing is not None and mended is None:
            self._keys.keep_one(current, record, standing, ObjectName(facts.root, name))
        return Committed(standing or record, name, settlement, new_bytes, outcome.revision)

    def _commit(self, body: Publish, *, last: bool) -> Outcome:
        removal = self._ports.catalog.removal
        for attempt in itertools.count(1):
            body = self._looked_again(body)
            condemned_at = removal.condemned_at()
            try:
                return self._lease.commit(body, last=last)
            except ConflictError as error:
                # Another condemnation between the look and the commit; or the session has ended.
                if last or attempt == LOOKS_MAX or removal.condemned_at() == condemned_at:
                    if removal.condemned_at() > self._began:
                        raise CondemnedError(error.message) from error
                    raise
        raise AssertionError("the loop ends by itself")

    def _looked_again(self, body: Publish) -> Publish:
        """The command, with what it reuses looked at once more if something was condemned since it began."""
        catalog = self._ports.catalog
        catalog.catch_up()
        revision = catalog.revision
        if catalog.removal.condemned_at() <= self._began:
            return body
        if not self._known.still_stands():
            raise CondemnedError("blocks that this publish reuses are being deleted")
        return replace(body, reused_at=revision)

    def _mend(self, current: Record | None) -> Mended | None:
        """What is stored already as this very set of blocks need only be whole again."""
        if current is None or self._session.stripes or current.sizes.blocks != self._spool.blocks_count():
            return None
        if current.policy != self._session.policy.policy.name:
            return None  # its shards lie as another policy wants them
        return self._ports.mend(current)

    def _record(
        self,
        identity: ObjectId,
        facts: ObjectFacts,
        manifest: WrittenManifest,
        sealed_name: bytes,
        settlement: Settlement,
    ) -> Record:
        sizes = Sizes(
            size=facts.size,
            sealed=self._sealed_bytes + manifest.sealed_bytes + self._known.sealed_bytes,
            stored=self._session.value_bytes + self._known.value_bytes,
            blocks=manifest.blocks,
            stripes=manifest.stripes + self._known.stripes,
        )
        keys = manifest.root, manifest.salt, manifest.list_key
        return record_of(identity, self._ports.tenant, facts, sizes, keys, sealed_name, settlement)


def record_of(
    identity: ObjectId,
    tenant: TenantNumber,
    facts: ObjectFacts,
    sizes: Sizes,
    manifest: tuple[bytes, bytes, bytes],
    sealed_name: bytes,
    settlement: Settlement,
) -> Record:
    """The record of an object that was stored; `manifest`: its root, salt and list key."""
    root, salt, list_key = manifest
    return Record(
        object_id=identity,
        tenant=tenant,
        policy=facts.policy,
        private=bool(facts.private),
        profile=facts.profile,
        sizes=sizes,
        manifest=root,
        salt=salt,
        list_key=list_key,
        sealed_name=sealed_name,
        published=int(time.time()),
        expires=facts.expires,
        owed=tuple(sorted(settlement.owed.items())),
    )
