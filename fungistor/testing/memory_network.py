"""The use cases over members in memory: what `node.wiring` joins, with no socket and no disk but a scratch folder."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import BinaryIO, Self

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Body, Command
from fungistor.catalog.index import BlockIndex
from fungistor.catalog.layouts import LayoutMember, PlacePool, SetLayout
from fungistor.catalog.policies import AddPolicy, PolicyTable, RemovePolicy
from fungistor.catalog.record import Record
from fungistor.catalog.state import State
from fungistor.catalog.tenants import AddTenant
from fungistor.coding.manifest import Slot
from fungistor.dag.cid import CID
from fungistor.dag.reader import read_file
from fungistor.dag.walk import resolve
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, ObjectId, PolicyNumber, SessionId, TenantNumber
from fungistor.keys.ring import NodeKeys, fingerprint, network_key_of, object_id
from fungistor.keys.table import KeyTable
from fungistor.objects.collect import Collector
from fungistor.objects.content import Content
from fungistor.objects.known import KnownBlocks
from fungistor.objects.manifest_reader import ManifestReader, StripeListReader
from fungistor.objects.mend import Mender
from fungistor.objects.owed import Payer
from fungistor.objects.publish import Publisher
from fungistor.objects.repack import Repacker
from fungistor.objects.results import PublishFailure, PublishOptions, PublishOutcome, Unpublished
from fungistor.objects.source import ReadThreads
from fungistor.objects.storing import PublishPorts
from fungistor.objects.stripe_reader import StripeReader
from fungistor.objects.unpublish import RemovalPorts, Remover
from fungistor.objects.verify import Tally, Verifier
from fungistor.placement import Member, PlacementTable, Policy, StoragePolicy, plan, table_policy, track
from fungistor.repair.clearing import Cleared, Clearer
from fungistor.repair.mover import Look, Mover, Suspects
from fungistor.repair.tour import Tour, Toured
from fungistor.testing.memory_log import MemoryLog
from fungistor.testing.memory_store import MemoryStore

LAYOUT = LayoutNumber(1)
TENANT = TenantNumber(0)


def members(count: int) -> list[Member]:
    """Members 1..count without zones."""
    return [Member(MemberNumber(number), MemberId(f"m{number:02}")) for number in range(1, count + 1)]


def newest_row(world: Sequence[Member]) -> int:
    """How many members of those that take shards a row has."""
    return min(20, sum(member.weight > 0 for member in world))


class MemoryNetwork:
    """One node's view of a network in memory. Use in `with`.

    `draw` gives the random bytes of keys and sessions: with a seeded one every shard has its place by the seed.
    `liars` lists the (slot, index) of each shard that readers found to lie.
    """

    def __init__(
        self,
        folder: str,
        world: Sequence[Member],
        policy: Policy | None = None,
        *,
        draw: Callable[[int], bytes] = os.urandom,
        read_threads: int = 2,
    ) -> None:
        self.folder = folder
        table = plan(world, None, policy or Policy(n=min(20, len(world))))
        self.store = MemoryStore({member.number: member.id for member in world}, {LAYOUT: table})
        root_key = draw(32)
        self.tenant_keys = {TENANT: draw(32)}
        self.keys = NodeKeys(network_key_of(root_key), self.tenant_keys, draw(32), fingerprint(root_key))
        self.tenant = TENANT
        self.key_table = KeyTable(os.path.join(folder, "keys.sqlite"))
        self.log = MemoryLog()
        self.catalog = Catalog(self.log, State(os.path.join(folder, "state.sqlite")))
        self.index = BlockIndex(os.path.join(folder, "index.sqlite"))
        layout = SetLayout(
            LAYOUT,
            tuple(LayoutMember(member.number, member.id, member.zone, member.weight) for member in world),
            table.to_bytes(),
            b"",
        )
        self.catalog.commit(Command(SessionId(draw(16)), 0, layout))
        self.liars: list[tuple[Slot, int]] = []
        self.threads = ReadThreads(StripeReader(self.store, self._lies), read_threads)
        self.content = Content(self.catalog, self.index, self.keys, self.key_table, self.threads)
        self.payer = Payer(self.catalog, self.store, self.stripe_list, self.mender)
        self.journal = os.path.join(folder, "journal")
        self.stdin: BinaryIO = io.BytesIO()
        self._draw = draw
        self.now = time.time()
        self.dropped_spans: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.threads.close()
        self.catalog.close()
        self.index.close()
        self.key_table.close()

    def _lies(self, slot: Slot, index: int) -> None:
        self.liars.append((slot, index))

    # publishing

    def ports(self) -> PublishPorts:
        """What a publish stands on."""
        return PublishPorts(
            store=self.store,
            catalog=self.catalog,
            keys=self.keys,
            key_table=self.key_table,
            tenant=self.tenant,
            known=lambda: KnownBlocks(self.index, self.keys.network_key, self._open_manifest, self.store),
            current=self.record_of_id,
            mend=self.payer.mend_whole,
            journal=self.journal,
            stdin=self.stdin,
            draw=self._draw,
        )

    def _open_manifest(self, identity: ObjectId) -> ManifestReader | None:
        return self.content.manifest(identity, self.tenant)

    def add_tenant(self, name: str, bytes_max: int | None = None, objects_max: int | None = None) -> TenantNumber:
        """Let there be another tenant; set `tenant` to act for it."""
        number = self.catalog.tenants.next_number()
        self.tenant_keys[number] = self._draw(32)
        added = AddTenant(number, name, bytes_max, objects_max, int(self.now))
        self.catalog.commit(Command(SessionId(self._draw(16)), 0, added))
        return number

    def publish_all(
        self, paths: Sequence[str], options: PublishOptions | None = None
    ) -> list[PublishOutcome | PublishFailure]:
        """Publish paths and index what was published."""
        results = list(Publisher(self.ports()).publish(paths, options or PublishOptions()))
        self.content.catch_up_index()
        return results

    def publish(self, path: str, options: PublishOptions | None = None) -> PublishOutcome:
        """Publish one path. Raises what the failure says."""
        [result] = self.publish_all([path], options)
        if isinstance(result, PublishFailure):
            raise result.error
        return result

    # the pool

    def set_layout(self, world: Sequence[Member]) -> LayoutNumber:
        """Make these members the newest layout, planned from the one before; new ones are there and empty."""
        newest = self.catalog.layout()
        assert newest is not None
        table = plan(world, PlacementTable.from_bytes(newest.table), Policy(n=newest_row(world)))
        number = LayoutNumber(newest.number + 1)
        self.store.join({member.number: member.id for member in world}, number, table)
        placed = tuple(LayoutMember(member.number, member.id, member.zone, member.weight) for member in world)
        before = self.catalog.tables()
        tables = tuple(
            PolicyTable(
                row.number,
                plan(
                    world,
                    PlacementTable.from_bytes(before[track(row.number, newest.number)]),
                    table_policy(row.policy),
                ).to_bytes(),
            )
            for row in self.catalog.policies()
        )
        layout = SetLayout(number, placed, table.to_bytes(), b"")
        self._commit(PlacePool(layout, tables) if tables else layout)
        self.look_at_layouts()
        return number

    def add_policy(self, policy: StoragePolicy) -> PolicyNumber:
        """Let objects be published by a policy."""
        newest = self.catalog.layout()
        assert newest is not None
        world = [Member(member.number, member.id, member.zone, member.weight) for member in newest.members]
        number = PolicyNumber(1 + max((row.number for row in self.catalog.policies(removed=True)), default=0))
        self._commit(AddPolicy(number, policy, newest.number, plan(world, None, table_policy(policy)).to_bytes()))
        self.look_at_layouts()
        return number

    def remove_policy(self, number: PolicyNumber) -> None:
        """Forget a policy. Raises: ConflictError where something is stored by it."""
        self._commit(RemovePolicy(number))

    def look_at_layouts(self) -> None:
        """Have readers look by the tables that the catalog has now."""
        self.store.layouts, self.store.left = (
            {number: PlacementTable.from_bytes(table) for number, table in self.catalog.tables(left=left).items()}
            for left in (False, True)
        )

    def _commit(self, body: Body) -> None:
        self.catalog.commit(Command(SessionId(self._draw(16)), 0, body))

    def tour(self, suspects: Suspects = lambda _: (), look: Look = Look.WHOLE) -> Toured:
        """Bring all shards where the newest layout wants them; readers look by the layouts that are left."""
        mover = lambda: Mover(self.store, self.mender(), lambda _: None, suspects, look)  # noqa: E731
        toured = Tour(
            self.catalog, lambda record: self.stripe_list(record).all_slots(), mover, self.payer.mend_whole
        ).run()
        self.look_at_layouts()
        return toured

    def clear(self, *, grace_s: int = 0) -> Cleared:
        """Delete what old layouts left behind."""
        self.look_at_layouts()
        slots = lambda record: self.stripe_list(record).all_slots()  # noqa: E731
        cleared = Clearer(self.catalog, self.store, slots, lambda: self.now).run(grace_s)
        self.look_at_layouts()
        return cleared

    # taking back

    def remover(self) -> Remover:
        """What unpublishes, with a clock of its own."""
        ports = RemovalPorts(
            self.catalog,
            self.content,
            self.index,
            self.keys,
            self.key_table,
            self.dropped_spans.extend,
            lambda: self.now,
        )
        return Remover(ports)

    def collector(self) -> Collector:
        """What gives space back, with the same clock."""
        repacker = Repacker(
            self.catalog, self.store, self.stripe_list, self.mender, self.journal, sync=False, clock=lambda: self.now
        )
        return Collector(self.catalog, self.store, self.stripe_list, repacker, self.journal, lambda: self.now)

    def unpublish(self, cid: str, *, grace_s: int = 0) -> Unpublished:
        """Take one object back."""
        root = CID.parse(cid)
        identity = object_id(self.keys.network_key, self.tenant, root.codec, root.multihash)
        return self.remover().unpublish(root, identity, grace_s=grace_s)

    # looking

    def record_of_id(self, identity: ObjectId) -> Record | None:
        """An object's record as the catalog has it now."""
        self.catalog.catch_up()
        return self.catalog.record(identity)

    def record(self, cid: CID | str) -> Record:
        """The record of a root."""
        root = CID.parse(cid) if isinstance(cid, str) else cid
        record = self.record_of_id(object_id(self.keys.network_key, self.tenant, root.codec, root.multihash))
        assert record is not None
        return record

    def mender(self) -> Mender:
        """A mender whose findings come to `liars`."""
        return Mender(self.store, self._lies)

    def stripe_list(self, record: Record) -> StripeListReader:
        """An object's stripe list."""
        return StripeListReader(self.threads.reader, record)

    def slots(self, cid: CID | str) -> list[Slot]:
        """Every stripe that an object needs."""
        return list(self.stripe_list(self.record(cid)).all_slots())

    def verify(self, cid: CID | str) -> Tally:
        """Read and check every shard of an object."""
        return Verifier(self.store).verify(self.slots(cid))

    def forget(self) -> None:
        """Read as a fresh process does: with nothing held from before."""
        self.threads.close()
        self.threads = ReadThreads(StripeReader(self.store, self._lies), 1)
        self.content = Content(self.catalog, self.index, self.keys, self.key_table, self.threads)

    def read(self, cid: CID | str, *names: str) -> Iterator[bytes | memoryview]:
        """The bytes of a file, a block at a time."""
        root = CID.parse(cid) if isinstance(cid, str) else cid
        with self.content.open(root) as source:
            yield from read_file(source, resolve(source, root, names).cid)
