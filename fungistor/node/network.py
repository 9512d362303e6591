"""What can be asked of a network: the use cases behind the commands, the workers of `up` and the gateway."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fungistor.cache.tiers import Cache, span_key
from fungistor.catalog.catalog import Catalog
from fungistor.catalog.index import BlockIndex
from fungistor.catalog.record import Record
from fungistor.coding.manifest import Slot, Stored
from fungistor.coding.page_codec import decode_root
from fungistor.dag.cid import CID, DAG_PB, RAW, sha256_multihash
from fungistor.dag.reader import NodeInfo, describe, read_file
from fungistor.dag.source import BlockSource, fetch
from fungistor.dag.walk import DirEntry, entries, resolve
from fungistor.errors import FungiStorError, InvalidError, NotEnoughShardsError, NotFoundError
from fungistor.ids import MemberId, MemberNumber, ObjectId, Revision, TenantNumber
from fungistor.keys.ring import NodeKeys, object_id
from fungistor.keys.store import KeyStore
from fungistor.node.config import load_config
from fungistor.node.copies.copier import Copier
from fungistor.node.damage import DamageNotes
from fungistor.node.home import Home
from fungistor.node.identity import gateway_peer_id
from fungistor.node.members import member_specs, placement_tables, pool_members
from fungistor.node.names import NamesOfTenants
from fungistor.node.pool_file import PoolMember
from fungistor.node.snapshots import Snapshots, Taken
from fungistor.objects.access import Reader
from fungistor.objects.content import Content
from fungistor.objects.export import Exporter
from fungistor.objects.export_car import CarExporter, check_out
from fungistor.objects.import_car import CarImporter
from fungistor.objects.known import KnownBlocks
from fungistor.objects.manifest_health import survives, survives_at_least
from fungistor.objects.manifest_reader import ManifestReader, StripeListReader
from fungistor.objects.mend import Mender
from fungistor.objects.names import OwnNames
from fungistor.objects.owed import Payer
from fungistor.objects.paths import parse_cid_path
from fungistor.objects.patience import Patience
from fungistor.objects.placed_policy import placed_policy
from fungistor.objects.publish import Publisher
from fungistor.objects.results import (
    CarFile,
    CarRoot,
    EntryLine,
    EntryType,
    GetOutcome,
    MemberLine,
    ObjectLine,
    Progress,
    PublishFailure,
    PublishOptions,
    PublishOutcome,
    StatReport,
    StatusReport,
    VerifyReport,
    no_progress,
)
from fungistor.objects.source import ObjectSource, ReadThreads
from fungistor.objects.storing import PublishPorts
from fungistor.objects.stripe_reader import OnCorrupt
from fungistor.objects.verify import Verifier
from fungistor.placement.health import MemberState, Standing
from fungistor.pool.pool import Pool

UNIXFS_CODECS = (RAW, DAG_PB)
"""Blocks of other codecs may be in an imported DAG. They are no files, and are given as they are."""

INDEX_WAIT_S = 1.0
LOSSES_MAX = 4
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Parts:
    """What `wiring` joined."""

    home: Home
    keys: NodeKeys
    key_table: KeyStore
    catalog: Catalog
    index: BlockIndex
    pool: Pool
    members: tuple[PoolMember, ...]
    numbers: Mapping[MemberId, MemberNumber]
    content: Content
    threads: ReadThreads
    on_corrupt: OnCorrupt
    tenant: TenantNumber
    """For whom is published, and whose private objects are read."""
    sync: bool
    snapshots: Snapshots
    copier: Copier
    cache: Cache | None = None
    pool_file: str | None = None
    """Of members that other nodes run."""

    def mender(self) -> Mender:
        """Rebuilds shards, and tells of those that are damaged."""
        return Mender(self.pool, self.on_corrupt)

    def stripe_list(self, record: Record) -> StripeListReader:
        """An object's stripes, without any content key."""
        return StripeListReader(self.threads.reader, record)


class Network:
    """One node's view of a network. Thread-safe; close it after use."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._members = parts.members
        self._numbers = parts.numbers
        self.catalog = parts.catalog
        self.content = parts.content
        self.cache = parts.cache
        self.tenant = parts.tenant
        self._names = NamesOfTenants(parts.home, parts.catalog, parts.keys, parts.key_table)
        self._payer = Payer(parts.catalog, parts.pool, parts.stripe_list, parts.mender)
        ports = PublishPorts(
            store=parts.pool,
            catalog=parts.catalog,
            keys=parts.keys,
            key_table=parts.key_table,
            tenant=parts.tenant,
            known=self._known,
            current=self._current,
            mend=self._payer.mend_whole,
            journal=parts.home.journal,
            stdin=sys.stdin.buffer,
            sync=parts.sync,
        )
        self._looked_at: Revision | None = None
        self._layout = (0, 0)
        self._placed = self._place()
        self._publisher = Publisher(ports)
        self._car_importer = CarImporter(ports, lambda cid: self.content.find(cid, parts.tenant))

    @property
    def names(self) -> OwnNames:
        """The tenant's names."""
        return self._names.of(self.tenant)

    def members(self) -> tuple[PoolMember, ...]:
        """The members as the pool file has them."""
        return self._members

    def has_moved(self) -> bool:
        """Whether layouts or the pool file are others than those taken up last."""
        return self._place() != self._placed

    def _place(self) -> tuple[tuple[int, int], int]:
        revision = self.catalog.revision
        if revision != self._looked_at:
            self._looked_at, self._layout = revision, self.catalog.placement_mark()
        changed = 0
        if self._parts.pool_file is not None:
            with contextlib.suppress(OSError):
                changed = os.stat(self._parts.pool_file).st_mtime_ns
        return self._layout, changed

    def follow(self) -> None:
        """Take up what has changed in the pool file and the layouts; connections that stay right are kept."""
        parts = self._parts
        self.catalog.catch_up()
        place = self._place()
        self._members = pool_members(parts.home, load_config(parts.home))
        specs, self._numbers = member_specs(self._members, self.catalog.layout(), parts.keys)
        left = placement_tables(self.catalog, left=True)
        parts.pool.replace(specs, placement_tables(self.catalog), left)
        self._placed = place

    def close(self) -> None:
        """Let threads end and close what is open."""
        self._parts.threads.close()
        self._parts.pool.close()
        self._parts.catalog.close()
        self._parts.index.close()
        self._parts.key_table.close()
        if self.cache is not None:
            self.cache.close()

    # -- publishing -------------------------------------------------------------------------------------------

    def publish(
        self, paths: Sequence[str], options: PublishOptions, progress: Progress = no_progress
    ) -> Iterator[PublishOutcome | PublishFailure]:
        """Publish paths; one result each, as it is acknowledged."""
        Patience(options.wait_s).until_available(self.catalog.check_writable)
        self.content.catch_up_index(time.monotonic() + INDEX_WAIT_S)
        return self._publisher.publish(paths, options, progress)

    def car_import(
        self,
        paths: Sequence[str],
        partial: bool = False,
        progress: Progress = no_progress,
        *,
        private: bool | None = None,
    ) -> Iterator[CarRoot]:
        """Import CAR files; one result a root, as it is acknowledged."""
        self.catalog.check_writable()
        self.content.catch_up_index(time.monotonic() + INDEX_WAIT_S)
        for root in self._car_importer.run(paths, partial=partial, private=private, progress=progress):
            yield root
            # Of the next root, what it shares with this one is found where it lies.
            self.content.catch_up_index(time.monotonic() + INDEX_WAIT_S)

    def _known(self) -> KnownBlocks:
        def open_manifest(identity: ObjectId) -> ManifestReader | None:
            return self.content.manifest(identity, self.tenant)

        return KnownBlocks(self._parts.index, self._parts.keys.network_key, open_manifest, self._parts.pool)

    def _current(self, identity: ObjectId) -> Record | None:
        self.catalog.catch_up()
        return self.catalog.record(identity)

    # -- reading ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, text: str) -> Iterator[tuple[BlockSource, CID]]:
        path = parse_cid_path(text)
        with self.content.open(path.cid, Reader(self.tenant)) as source:
            yield source, resolve(source, path.cid, path.segments).cid

    def get(
        self, cid_path: str, out: str, force: bool = False, no_cache: bool = False, progress: Progress = no_progress
    ) -> GetOutcome:
        """Write a DAG as files. `no_cache`: a command keeps nothing between runs, so members are asked either way."""
        del no_cache
        started = time.monotonic()
        done = 0
        with self._open(cid_path) as (source, cid):
            total = self._content_bytes(source, cid)

            def written(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total, out)

            info = Exporter(source, written).export(cid, out, force=force)
        return GetOutcome(str(cid), out, info.type, done, time.monotonic() - started)

    def cat(self, cid_path: str, no_cache: bool = False) -> Iterator[bytes | memoryview]:
        """A file's bytes, a block at a time; of what is no UnixFS, the block itself."""
        del no_cache
        with self._open(cid_path) as (source, cid):
            if cid.codec not in UNIXFS_CODECS:
                yield fetch(source, cid)
                return
            if describe(source, cid).type == "directory":
                raise InvalidError(f"{cid_path} is a folder", hint="`fungistor ls` lists it, `fungistor get` writes it")
            yield from read_file(source, cid)

    def car_export(
        self, text: str, out: str, force: bool = False, progress: Progress = no_progress, stdout: BinaryIO | None = None
    ) -> CarFile:
        """Write a DAG as a CAR file, or to `stdout` in its place."""
        if stdout is None:
            check_out(out, force=force)  # before anything is fetched
        started = time.monotonic()
        done = 0
        with self._open(text) as (source, cid):

            def written(count: int) -> None:
                nonlocal done
                done += count
                progress(done, None, out)

            exporter = CarExporter(source, written)
            if stdout is None:
                return exporter.export(cid, out, force=force)
            blocks, length = exporter.write(cid, stdout)
            stdout.flush()
        return CarFile(str(cid), out, blocks, length, time.monotonic() - started)

    def ls(self, cid_path: str) -> Iterator[EntryLine]:
        """The entries of a folder. A file's size is its content's, a folder's that of all blocks below it."""
        with self._open(cid_path) as (source, cid):
            for entry in entries(source, cid):
                yield EntryLine(os.fsdecode(entry.name), str(entry.cid), *self._size_and_type(source, entry))

    def _size_and_type(self, source: BlockSource, entry: DirEntry) -> tuple[int, EntryType]:
        if entry.cid.codec not in UNIXFS_CODECS:
            return entry.tsize, "block"
        try:
            info = self._entry_info(source, entry.cid)
        except NotFoundError:
            return entry.tsize, "missing"
        return entry.tsize if info.type == "directory" else info.size, info.type

    def _entry_info(self, source: BlockSource, cid: CID) -> NodeInfo:
        if cid.codec == RAW and isinstance(source, ObjectSource) and (size := source.plain_bytes(cid)) is not None:
            return NodeInfo(cid, "file", size)
        return describe(source, cid)

    def _content_bytes(self, source: BlockSource, cid: CID) -> int | None:
        """How many bytes `get` will write, where that is known without a walk."""
        record = self.catalog.record(self._identity(cid))
        if record is not None:
            return record.sizes.size
        info = self._entry_info(source, cid)
        return info.size if info.type == "file" else None

    # -- looking ----------------------------------------------------------------------------------------------

    def stat(self, cid_path: str) -> StatReport:
        """What is known of a CID without asking members."""
        with self._open(cid_path) as (source, cid):
            kind, size = self._kind_and_size(source, cid)
        record = self.catalog.record(self._identity(cid))
        if record is None:
            return StatReport(str(cid), kind, size, None, None, None, None, None)
        sizes = record.sizes
        manifest = self.content.manifest_of(record)
        policy = placed_policy(self.catalog, record.policy)
        held = survives(self._parts.pool, manifest.all_slots(), self._down(), record, policy)
        return StatReport(
            str(cid), kind, sizes.size, sizes.sealed, sizes.stored, sizes.stripes, record.policy,
            held.members, record.private, held.zones, policy.level,
        )  # fmt: skip

    def _identity(self, cid: CID) -> ObjectId:
        return object_id(self._parts.keys.network_key, self.tenant, cid.codec, cid.multihash)

    def _kind_and_size(self, source: BlockSource, cid: CID) -> tuple[EntryType, int]:
        if cid.codec not in UNIXFS_CODECS:
            return "block", len(fetch(source, cid))
        info = self._entry_info(source, cid)
        return info.type, info.size

    def objects(self) -> Iterator[ObjectLine]:
        """Every object of the tenant, in no particular order."""
        self.catalog.catch_up()
        down = self._down()
        for record in self._records():
            name = self.content.name_of(record)
            sizes = record.sizes
            yield ObjectLine(
                str(name.cid),
                name.name,
                sizes.size,
                sizes.stored,
                self._held(record, down),
                record.published,
                record.private,
            )

    def _records(self) -> Iterator[Record]:
        return (record for record in self.catalog.records() if record.tenant == self.tenant)

    def verify(
        self, cid: str | None, progress: Progress = no_progress, *, every: bool = False
    ) -> Iterator[VerifyReport]:
        """Read and check every shard of one object, of all of the tenant, or of `every` tenant's: it takes no keys."""
        self.catalog.catch_up()
        records: Iterator[Record]
        if cid is not None:
            records = iter([self._record_of(cid)])
        else:
            records = self.catalog.records() if every else self._records()
        verifier = Verifier(self._parts.pool, DamageNotes(self._parts.home).note)
        for record in records:
            yield self._verify(verifier, record, progress)

    def _record_of(self, text: str) -> Record:
        path = parse_cid_path(text)
        if path.segments:
            raise InvalidError("objects are verified whole", hint=f"`fungistor verify {path.cid}`")
        record = self.catalog.record(self._identity(path.cid))
        if record is None:
            raise NotFoundError(f"no object has the root {path.cid}", hint="`fungistor objects` lists them")
        return record

    def _shown(self, record: Record) -> str:
        """What an object is called in a report: of a tenant whose key is not held here, nobody knows its CID."""
        if record.tenant not in self._parts.keys.tenant_keys:
            return f"object {record.object_id.hex()[:16]} of tenant {record.tenant}"
        return str(self.content.name_of(record).cid)

    def _verify(self, verifier: Verifier, record: Record, progress: Progress) -> VerifyReport:
        shown = self._shown(record)
        done = 0

        def counted(slots: Iterator[Slot]) -> Iterator[Slot]:
            nonlocal done
            for slot in slots:
                done += (slot.k + slot.m) * slot.shard_bytes
                progress(done, record.sizes.stored, shown)
                yield slot

        try:
            tally = verifier.verify(counted(self._parts.stripe_list(record).all_slots()))
        except NotEnoughShardsError:
            # The stripe list itself cannot be read: count what is left of the stripe that holds its root.
            tally = verifier.verify([decode_root(record.manifest, record.salt).slot])
            tally.survives = min(tally.survives, -1)
        return VerifyReport(
            shown, tally.shards, tally.good, tally.missing, tally.corrupt,
            readable=tally.survives >= 0, survives=max(tally.survives, 0), by_member=tally.describe(),
        )  # fmt: skip

    def status(self) -> StatusReport:
        """The whole network, members asked now."""
        self.catalog.catch_up()
        standings = self._parts.pool.probe()
        down = {number for number, standing in standings.items() if standing.state in _ABSENT}
        promised = {row.policy.name: row.policy.m for row in self.catalog.policies()}
        held = [(self._held(record, down), promised.get(record.policy, 4)) for record in self.catalog.records()]
        status = self.catalog.status()
        return StatusReport(
            members=tuple(self._line(member, standings) for member in self._members),
            objects=len(held),
            at_risk=sum(0 <= count < most for count, most in held),
            unreadable=sum(count < 0 for count, _ in held),
            owed_shards=status.owed_shards,
            revision=status.revision,
            sync=self._parts.sync,
            stopped=status.stopped,
            differing=tuple(report.name for report in self.catalog.reports() if report.agrees is False),
        )

    def pool_lines(self) -> list[Json]:
        """Each member's place in the layouts. `share`: of all entries of the newest table; `drained`: it may hold no
        shard, by any layout that readers look by."""
        self.catalog.catch_up()
        standings = self._parts.pool.probe()
        tables = placement_tables(self.catalog)
        shares: Counter[MemberNumber] = Counter()
        held = {number for table in tables.values() for row in table.rows for number in row}
        if tables:
            newest = tables[self._parts.pool.newest_layout()]
            shares.update(number for row in newest.rows for number in row)
        entries = max(1, shares.total())
        lines: list[Json] = []
        for member in self._members:
            line = self._line(member, standings)
            number = self._numbers.get(member.id)
            lines.append(
                line.to_json()
                | {
                    "number": number,
                    "weight": member.weight,
                    "capacity": member.capacity,
                    "share": round(shares[number] / entries, 6) if number is not None else 0.0,
                    "drained": number not in held,
                }
            )
        return lines

    def _line(self, member: PoolMember, standings: Mapping[MemberNumber, Standing]) -> MemberLine:
        number = self._numbers.get(member.id)
        standing = standings.get(number) if number is not None else None
        zone = "/".join(member.zone)
        if standing is None:
            return MemberLine(member.id, member.address, zone, "down", "in no layout yet")
        return MemberLine(member.id, member.address, zone, standing.state.value, standing.reason)

    def _down(self) -> set[MemberNumber]:
        pool = self._parts.pool
        return set(pool.members()) - set(pool.up_members())

    def _held(self, record: Record, down: set[MemberNumber]) -> int:
        return survives_at_least(self._parts.pool, decode_root(record.manifest, record.salt).slot, down, record)

    def answers_change(self) -> tuple[int, int]:
        """A token that differs when what was read may be answered otherwise now: a purge, or a new revision."""
        with contextlib.suppress(FungiStorError):
            self.catalog.catch_up()
        return (0 if self.cache is None else self.cache.follow_purges()), int(self.catalog.revision)

    def why_not_ready(self) -> str | None:
        """Why this node should be sent no requests now, None where it may."""
        try:
            if self.catalog.behind():
                return "it is still catching up with the catalog"
        except (FungiStorError, OSError) as error:
            return f"the catalog cannot be read: {error}"
        members, up = len(self._parts.pool.members()), len(self._parts.pool.up_members())
        if members - up > LOSSES_MAX:
            return f"{members - up} of {members} members do not answer, and objects survive {LOSSES_MAX}"
        return None

    def peer_id(self) -> CID:
        """Who this node is to IPFS."""
        return gateway_peer_id(self._parts.keys)

    def cache_numbers(self) -> dict[str, float]:
        """How the cache does, under the names that other gateways use."""
        cache = self.cache
        if cache is None:
            return {}
        disk = cache.disk
        return {
            "ipfs_http_blockstore_cache_hit": cache.memory.hits + (disk.hits if disk else 0),
            "ipfs_http_blockstore_cache_requests": cache.memory.hits + (disk.hits + disk.misses if disk else 0),
            "fungistor_cache_memory_bytes": cache.memory.held_bytes,
        }

    def cached_spans(self, text: str) -> Iterator[bytes]:
        """The keys under which a cache keeps the blocks of an object, or of the one block that `text` names."""
        located = self.content.locate(parse_cid_path(text).cid, Reader(*self._parts.keys.tenant_keys))
        manifest = located.manifest
        stored = manifest.stored() if located.entry is manifest.root_entry else iter([(b"", located.entry)])
        for _, entry in stored:
            if isinstance(entry, Stored):
                slot = manifest.slot(entry.slot)
                offset = sum(slot.block_lengths[: entry.number])
                yield span_key(slot.slot.stripe_id, offset, slot.block_lengths[entry.number])

    @property
    def parts(self) -> Parts:
        """What it stands on, for what is asked of a network less often."""
        return self._parts

    def snapshot(self) -> Taken | None:
        """Put a snapshot of the catalog into the pool and trim the log; None where nothing came since the last."""
        return self._parts.snapshots.take(self.catalog)

    # -- background work of `up` ------------------------------------------------------------------------------

    def probe(self) -> Json:
        """Ask every member; a state and reason by id."""
        standings = self._parts.pool.probe()
        return {
            self._parts.pool.name(number): {"state": standing.state.value, "reason": standing.reason}
            for number, standing in standings.items()
        }

    def warm_up(self) -> None:
        """Open what the first read needs: databases and a connection to every member. Readers need not wait."""
        with contextlib.suppress(FungiStorError):
            self.content.find(CID(1, RAW, sha256_multihash(os.urandom(32))))
            self._parts.pool.greet()

    def pay_owed(self, objects_max: int) -> int:
        """Pay debts of some objects to members that answer; how many shards were paid."""
        return self._payer.pay(objects_max)

    def keep_snapshots(self) -> None:
        """Take a snapshot of the catalog where one is due."""
        if self._parts.snapshots.is_due(self.catalog):
            self.snapshot()

    def follow_names(self) -> bool:
        """Take up what changed in the names of every tenant that this node holds, and sign again what is due."""
        return self._names.follow()

    def keep_copies(self) -> bool:
        """Have the pool take what of the catalog it has not; True while there is more to do now."""
        return self._parts.copier.tend()

    def catch_up_index(self) -> bool:
        """Follow the catalog with state and block index. False: there is nothing more to do now."""
        self.catalog.catch_up()
        with contextlib.suppress(FungiStorError):
            self.content.catch_up_index()
        return False


_ABSENT = (MemberState.PAUSED, MemberState.DOWN)
