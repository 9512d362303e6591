"""From a CID to a source of its blocks: a root by its record alone, anything below by the block index."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fungistor import trail
from fungistor.catalog.catalog import Catalog
from fungistor.catalog.index import BlockIndex, Holder
from fungistor.catalog.record import Record
from fungistor.coding.manifest import Absent, Entry
from fungistor.dag.cid import CID, RAW
from fungistor.errors import ConflictError, CorruptError, FungiStorError, NotFoundError, UnavailableError
from fungistor.ids import OWN_TENANT, ObjectId, TenantNumber
from fungistor.keys.ring import NodeKeys, block_hash, object_id, unwrap
from fungistor.objects.access import Reader, nobody
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.naming import ObjectName, open_name
from fungistor.objects.ports import KeyTable
from fungistor.objects.source import ObjectSource, ReadThreads

MANIFESTS_KEPT = 64
"""Opened manifests, a process: a root page each, 256 KiB at most and mostly far less."""

TENANTS_TRIED_MAX = 64
"""A root is looked for among the objects of so many tenants; of more the block index knows it a moment later."""

HOLDERS_AT_FIRST = 64
HOLDERS_MAX = 4096
"""Of a block, and then of those that nobody but their tenants may read: so many of them hide no object that all may."""

CATCH_UP_S = 2.0
"""How long a reader of an unknown CID waits for this node to catch up before it is told to come again."""


class IdentitySource:
    """The source of a CID that holds its own bytes."""

    def __enter__(self) -> IdentitySource:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to let go."""

    def get(self, cid: CID) -> bytes:
        """Only identity CIDs are known here."""
        if not cid.is_identity:
            raise NotFoundError(f"block {cid} is not stored here")
        return cid.digest

    def hint(self, cids: Sequence[CID]) -> None:
        """Nothing is fetched."""


@dataclass(frozen=True, slots=True)
class Located:
    """An object that holds a block, and the block's entry there."""

    manifest: ManifestReader
    entry: Entry


class Content:
    """Everything this network can be asked for. Thread-safe."""

    def __init__(
        self, catalog: Catalog, index: BlockIndex, keys: NodeKeys, key_table: KeyTable, threads: ReadThreads
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._keys = keys
        self._key_table = key_table
        self._threads = threads
        self._lock = threading.Lock()
        self._manifests: OrderedDict[ObjectId, ManifestReader] = OrderedDict()
        self._index_lock = threading.Lock()

    # -- opening ----------------------------------------------------------------------------------------------

    def open(self, cid: CID, reader: Reader | None = None) -> ObjectSource | IdentitySource:
        """A source of the block `cid` and all below it; close it after use. Without a `reader` it is for anybody.

        What lies in a private object is there for its tenant alone, whatever public objects lie beside it; what lies in
        a public one as well is there for all, by that one.

        Raises:
            NotFoundError: no object that the reader may read holds it, and this node has seen all there is.
            UnavailableError: it cannot be told, or read, now.
        """
        if cid.is_identity:
            # One that links to blocks may be a root here; any other holds all there is.
            known = None if cid.codec == RAW else self._locate_now(cid, reader or nobody())
            if known is None:
                return IdentitySource()
            return self._source(cid, known)
        return self._source(cid, self.locate(cid, reader))

    def find(self, cid: CID, tenant: TenantNumber = OWN_TENANT) -> bytes | None:
        """A block that some object of a tenant holds, None if none does as far as this node has seen.

        Raises:
            UnavailableError: it cannot be read now.
        """
        located = self._locate_among(cid, (tenant,), lambda record: record.tenant == tenant)
        if located is None:
            return None
        with self._source(cid, located) as source:
            return source.get(cid)

    def hides(self, root: CID, reader: Reader | None = None) -> bool:
        """Whether this is the root of private objects alone, none of which the reader may read."""
        reader = reader or nobody()
        held = sorted(self._keys.tenant_keys)[:TENANTS_TRIED_MAX]
        records = [
            self._catalog.record(object_id(self._keys.network_key, tenant, root.codec, root.multihash))
            for tenant in sorted({*held, *reader.tenants})
        ]
        standing = [record for record in records if record is not None]
        return bool(standing) and not any(reader.may_read(record) for record in standing)

    def _source(self, cid: CID, located: Located) -> ObjectSource:
        source = ObjectSource(located.manifest, self._threads)
        source.seed(cid, located.entry)
        return source

    def locate(self, cid: CID, reader: Reader | None = None) -> Located:
        """Find an object that holds a block. Raises as `open`."""
        with trail.phase("catalog"):
            return self._locate(cid, reader or nobody())

    def _locate(self, cid: CID, reader: Reader) -> Located:
        located = self._locate_now(cid, reader)
        if located is not None:
            return located
        # What the reader may not know of takes the way of what is not there, in words and in time.
        deadline = time.monotonic() + CATCH_UP_S
        caught_up = self._catch_up(deadline)
        located = self._locate_now(cid, reader)
        if located is not None:
            return located
        if not caught_up:
            raise UnavailableError(
                f"{cid} is not known here yet, and this node is still catching up with the catalog", retry_after_s=2
            )
        raise NotFoundError(
            f"{cid} is not stored in this network", hint="`fungistor objects` lists what is; publish it first"
        )

    def _locate_now(self, cid: CID, reader: Reader) -> Located | None:
        held = self._keys.tenant_keys
        others = sorted(tenant for tenant in held if tenant not in reader.tenants)[:TENANTS_TRIED_MAX]
        tenants = (*sorted(tenant for tenant in reader.tenants if tenant in held), *others)
        located = self._locate_among(cid, tenants, reader.may_read)
        if located is not None:
            reader.given(located.manifest.record)
        return located

    def _locate_among(
        self, cid: CID, tenants: Sequence[TenantNumber], is_allowed: Callable[[Record], bool]
    ) -> Located | None:
        """Find a block as the root of an object of some tenants, else below a root of any object that is allowed."""
        record = self._root_among(cid, tenants, is_allowed)
        if record is None and self._catalog.behind():
            self._catalog.catch_up()
            record = self._root_among(cid, tenants, is_allowed)
        if record is not None:
            manifest = self.manifest_of(record)
            return Located(manifest, manifest.root_entry)
        key = block_hash(self._keys.network_key, cid.multihash)
        unreadable: FungiStorError | None = None
        tried, limit = 0, HOLDERS_AT_FIRST
        while True:
            holders = self._index.holders(key, limit)
            for holder in holders[tried:]:
                try:
                    located = self._below(cid, holder, is_allowed)
                except UnavailableError as error:
                    unreadable = error
                    continue
                if located is not None:
                    return located
            if len(holders) < limit or limit >= HOLDERS_MAX:
                break
            tried, limit = limit, limit * 8
        if unreadable is not None:
            raise unreadable
        return None

    def _root_among(
        self, cid: CID, tenants: Sequence[TenantNumber], is_allowed: Callable[[Record], bool]
    ) -> Record | None:
        for tenant in tenants:
            record = self._catalog.record(object_id(self._keys.network_key, tenant, cid.codec, cid.multihash))
            if record is not None and is_allowed(record):
                return record
        return None

    def _below(self, cid: CID, holder: Holder, is_allowed: Callable[[Record], bool]) -> Located | None:
        record = self._catalog.record(holder.object_id)
        if record is None or record.tenant not in self._keys.tenant_keys or not is_allowed(record):
            return None
        manifest = self.manifest_of(record)
        entry = manifest.entry_at(holder.node, holder.position, cid.multihash)
        return None if entry is None or isinstance(entry, Absent) else Located(manifest, entry)

    def _catch_up(self, deadline: float) -> bool:
        if self._catalog.behind() and not self._catalog.catch_up():
            return False
        return self.catch_up_index(deadline)

    # -- manifests --------------------------------------------------------------------------------------------

    def manifest(self, identity: ObjectId, tenant: TenantNumber) -> ManifestReader | None:
        """The opened manifest of an object, None where the tenant has no such object."""
        record = self._catalog.record(identity)
        if record is None and self._catalog.behind():
            self._catalog.catch_up()
            record = self._catalog.record(identity)
        return None if record is None or record.tenant != tenant else self.manifest_of(record)

    def manifest_of(self, record: Record) -> ManifestReader:
        """The opened manifest of a record."""
        with self._lock:
            known = self._manifests.get(record.object_id)
            if known is not None and known.record.manifest_id == record.manifest_id:
                self._manifests.move_to_end(record.object_id)
                return known
        opened = ManifestReader(self._threads.reader, record, self.name_of(record).cid, self.object_key(record))
        with self._lock:
            self._manifests[record.object_id] = opened
            while len(self._manifests) > MANIFESTS_KEPT:
                self._manifests.popitem(last=False)
        return opened

    def object_key(self, record: Record) -> bytes:
        """The object's key, unwrapped.

        Raises:
            CorruptError: a record without its key.
        """
        wrapped = self._key_table.get(record.key_id)
        if wrapped is None:
            raise CorruptError(
                "an object's record has no key in the key table",
                hint="restore catalog/keys.sqlite from the backup that belongs to this catalog",
            )
        return unwrap(self._keys.tenant_key(record.tenant), wrapped)

    def name_of(self, record: Record) -> ObjectName:
        """The object's CID and name."""
        return open_name(self.object_key(record), record.sealed_name, record.salt)

    # -- block index ------------------------------------------------------------------------------------------

    def catch_up_index(self, deadline: float | None = None) -> bool:
        """Index the objects that are not yet; False if the deadline (monotonic) passed or one cannot be read now."""
        with self._index_lock:
            complete = True
            followed = self._index.followed()
            # A block may be held by more objects than are looked at: those that are gone must not hide one that is not.
            for _, object_id in self._catalog.removal.gone_after(followed):
                if self._catalog.record(object_id) is None:
                    self._index.drop(object_id)
            for revision, record in self._catalog.records_after(followed):
                if deadline is not None and time.monotonic() > deadline:
                    return False
                is_ours = record.tenant in self._keys.tenant_keys  # nobody can read the map of another's here
                if is_ours and not self._index.is_indexed(record.object_id, record.manifest_id):
                    try:
                        self._index.add(record.object_id, record.manifest_id, self._places(record))
                    except (UnavailableError, ConflictError):
                        complete = False
                if complete:
                    followed = revision
            if followed > self._index.followed():
                self._index.follow(followed)
            return complete

    def _places(self, record: Record) -> Iterator[tuple[bytes, int, int]]:
        for cid, number, position in self.manifest_of(record).held():
            yield block_hash(self._keys.network_key, cid.multihash), number, position
