"""One home's catalog on fake members with real sockets, its copies kept there, for tests that lose some of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.claims import CLAIM_LEVEL, ClaimCheckLog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import Log
from fungistor.catalog.state import State
from fungistor.ids import MemberId, MemberNumber, ObjectId, TenantNumber
from fungistor.keys.ring import network_key_of, wrap, wrapping_half
from fungistor.keys.table import KeyTable
from fungistor.node.catalog_place import NOTHING_SAID
from fungistor.node.copies.copier import Copier
from fungistor.node.copies.deposit import Claimed, EntryDeposit
from fungistor.node.copies.findings import Asked
from fungistor.node.copies.formats import CopyFormats
from fungistor.node.copies.gathering import Gathering
from fungistor.node.copies.keys import CopiedKeys
from fungistor.node.home import Home
from fungistor.node.pool_file import PoolMember
from fungistor.objects.results import no_progress
from fungistor.pool.members import IDENTITY_KEY, MemberSpec
from fungistor.pool.pool import Pool
from fungistor.testing.fake_member import FakeMember
from tests.unit.catalog.samples import command, drawn, layout, publish

ROOT = drawn("root key")
TENANT_KEY = drawn("tenant key")
MEMBERS = 9


@dataclass
class Node:
    """A home: log, state, key table, and the copier between them and the members."""

    log: Log
    state: State
    table: KeyTable
    copier: Copier
    keys: CopiedKeys
    catalog: Catalog
    pool: Pool
    engine: Log

    def publish_together(self, numbers: Iterable[int]) -> None:
        """Objects with their keys that share an entry of the log."""
        bodies = [publish(number) for number in numbers]
        for body in bodies:
            self.keys.put(body.record.key_id, TenantNumber(0), wrap(TENANT_KEY, drawn("a key")))
        self.catalog.commit_all([command(body) for body in bodies])

    def publish(self, number: int) -> None:
        """An object with its key, as a publisher commits it."""
        body = publish(number)
        self.keys.put(body.record.key_id, TenantNumber(0), wrap(TENANT_KEY, drawn(f"key {number}")))
        self.catalog.commit(command(body))

    def close(self) -> None:
        self.catalog.close()
        self.keys.close()
        self.pool.close()


@dataclass
class World:
    """Members, and homes that were opened on them."""

    folder: Path
    members: list[FakeMember]
    nodes: list[Node] = field(default_factory=list)

    @property
    def formats(self) -> CopyFormats:
        return CopyFormats(network_key_of(ROOT))

    def specs(self) -> list[MemberSpec]:
        return [
            MemberSpec(MemberNumber(number), MemberId(f"m{number:02}"), member.address)
            for number, member in enumerate(self.members, 1)
        ]

    def node(self, name: str = "home", *, claims: bool = False) -> Node:
        """A home; of several of one name it is the same. `claims`: large entries of its log lie on members."""
        home = Home(str(self.folder / name))
        os.makedirs(home.catalog, exist_ok=True)
        engine, state = SqliteLog(home.catalog_log, sync=False), State(home.catalog_state)
        log: Log = engine
        claimed = None
        if claims:
            deposit = EntryDeposit(self.formats, engine.identity, self.specs, home.unsettled)
            log = claiming = ClaimCheckLog(engine, deposit, lambda: state.level() >= CLAIM_LEVEL)
            claimed = Claimed(claiming, deposit)
        table = KeyTable(home.key_table, sync=False)
        table.put_tenant(TenantNumber(0), wrap(wrapping_half(ROOT), TENANT_KEY))
        copier = Copier(home, network_key_of(ROOT), log, table, state.snapshots, claimed)
        pool = Pool(self.specs(), {})
        copier.attach(pool)
        keys = CopiedKeys(table, copier)
        made = Node(log, state, table, copier, keys, Catalog(log, state, copies=copier), pool, engine)
        self.nodes.append(made)
        return made

    def filled(self, count: int, *, claims: bool = False) -> Node:
        """A home with a layout and some objects."""
        node = self.node(claims=claims)
        node.catalog.commit(command(layout(1, range(1, MEMBERS + 1))))
        for number in range(count):
            node.publish(number)
        return node

    def holders(self, name: bytes) -> list[FakeMember]:
        """Members that have something under a name."""
        return [member for member in self.members if name in member.values]

    def gathering(self, folder: str = "new", root: bytes = ROOT, *, incomplete: bool = False) -> Gathering:
        """What an empty machine would do that has the root key and the pool file."""
        place = self.folder / folder
        place.mkdir(exist_ok=True)
        pool = [PoolMember(spec.id, spec.address, spec.namespace) for spec in self.specs()]
        return Gathering(str(place), Asked("pool.toml", root, NOTHING_SAID, incomplete), pool, no_progress)


@contextlib.contextmanager
def copied_world(folder: Path) -> Iterator[World]:
    """Members that are of a network already, and nothing else."""
    with contextlib.ExitStack() as stack:
        world = World(folder, [stack.enter_context(FakeMember()) for _ in range(MEMBERS)])
        for member in world.members:
            member.values[IDENTITY_KEY] = b"somebody's"
        try:
            yield world
        finally:
            for node in world.nodes:
                node.close()


def key_id(number: int) -> ObjectId:
    """The key of object `number`."""
    return publish(number).record.key_id
