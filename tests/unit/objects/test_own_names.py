"""Names of the network's own: one order, records that verify, nothing in the log that tells what they mean."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.log import START
from fungistor.catalog.state import State
from fungistor.errors import ConflictError, CorruptError, FungiStorError, InvalidError, NotFoundError
from fungistor.ids import ObjectId, Revision, TenantNumber
from fungistor.keys.ring import NodeKeys, unwrap
from fungistor.keys.table import KeyTable
from fungistor.names.record import parse
from fungistor.names.table import NameTable
from fungistor.objects.name_value import NamedPath, NameKey, open_value, seal_value
from fungistor.objects.names import OwnNames, check_name
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.unit.names.signing import Signer

TENANT = TenantNumber(0)
ONE = "/ipfs/bafkqaaik"
TWO = "/ipfs/bafybeib5lboymwd6p2eo4qb2lkueaine577flvsjjeuevmp2nlio72xv5q"
THREE = f"{TWO}/docs"
DAY_S = 86_400


@dataclass(slots=True)
class Nodes:
    """Nodes of one network: a log and a key table that they share, a state and records each has for itself."""

    folder: Path
    stack: ExitStack
    store: MemoryLogStore = field(default_factory=MemoryLogStore)
    keys: NodeKeys = field(
        default_factory=lambda: NodeKeys(os.urandom(32), {TENANT: os.urandom(32)}, os.urandom(32), "0" * 16)
    )
    now_s: float = 1_800_000_000.0
    count: int = 0

    def table(self) -> KeyTable:
        return self.stack.enter_context(closing(KeyTable(str(self.folder / "keys.sqlite"), sync=False)))

    def node(self, log: MemoryLog | None = None) -> tuple[OwnNames, NameTable, Catalog]:
        self.count += 1
        records = NameTable(str(self.folder / f"names{self.count}.sqlite"))
        state = State(str(self.folder / f"state{self.count}.sqlite"))
        catalog = self.stack.enter_context(closing(Catalog(log or MemoryLog(self.store), state)))
        return OwnNames(catalog, self.keys, self.table(), records, TENANT, lambda: self.now_s), records, catalog


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def test_values_follow_each_other(nodes: Nodes) -> None:
    """Each value gets the next sequence and a record that verifies under the same key; roll back is a value, too."""
    names, records, _ = nodes.node()
    first = names.publish("site", ONE)
    assert (first.sequence, first.is_new, first.changed) == (1, True, True)
    second = names.publish("site", TWO, ttl_s=60, lifetime_s=DAY_S)
    assert (second.key, second.sequence, second.is_new) == (first.key, 2, False)
    again = names.publish("site", TWO, ttl_s=60, lifetime_s=DAY_S)
    assert (again.sequence, again.changed, again.revision) == (2, False, second.revision)
    held = records.newest(first.key)
    assert held is not None
    assert parse(first.key, held.encoded) == held
    assert (held.value, held.sequence, held.ttl_s, held.expires_s) == (TWO, 2, 60, nodes.now_s + DAY_S)
    assert names.rollback("site").value.path == ONE
    assert names.rollback("site", to=2).value == NamedPath("site", TWO, 60, DAY_S)
    assert [(past.sequence, past.path) for past in names.history("site")] == [(4, TWO), (3, ONE), (2, TWO), (1, ONE)]
    assert records.key_of("site") == first.key
    for wrong in (0, 5):
        with pytest.raises(NotFoundError, match="has no value of sequence"):
            names.rollback("site", to=wrong)
    with pytest.raises(ConflictError, match="at sequence 4, not 3"):
        names.publish("site", ONE, against=3)


def test_other_nodes_follow(nodes: Nodes) -> None:
    """Another node, whose state file is new, signs the same values; a removed name is gone there as well."""
    names, _, _ = nodes.node()
    site = names.publish("site", ONE)
    other, records, _ = nodes.node()
    assert other.follow() is False
    first = records.newest(site.key)
    assert first is not None
    assert (first.value, first.sequence) == (ONE, 1)
    names.publish("site", TWO)
    names.publish("blog", ONE)
    other.follow()
    assert {alias: r.value for r in records.all() if (alias := records.aliases()[r.name])} == {"site": TWO, "blog": ONE}
    names.remove("site")
    other.follow()
    assert records.key_of("site") is None
    assert records.newest(site.key) is None
    assert [past.path for past in other.history("blog")] == [ONE]


def test_records_are_signed_again_before_they_end(nodes: Nodes) -> None:
    """Past half of its life a record is signed again, under the same sequence and with a later end; not before."""
    names, records, _ = nodes.node()
    key = names.publish("site", ONE, lifetime_s=DAY_S).key
    first = records.newest(key)
    nodes.now_s += DAY_S / 2 - 1
    names.follow()
    assert records.newest(key) == first
    nodes.now_s += 1
    names.follow()
    again = records.newest(key)
    assert first is not None
    assert again is not None
    assert (again.sequence, again.value, again.expires_s) == (1, ONE, first.expires_s + DAY_S / 2)
    assert len(records.history(key)) == 1


def test_publishers_at_once_have_one_order(nodes: Nodes) -> None:
    """Of publishers that begin a name together one key stands; every value is in the history, no sequence twice."""
    made = [nodes.node()[0] for _ in range(4)]
    failures: list[FungiStorError] = []
    together = threading.Barrier(4)

    def publish(number: int) -> None:
        together.wait()
        for turn in range(5):
            try:
                made[number].publish("site", f"{ONE}/{number}-{turn}")
            except FungiStorError as error:
                failures.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    histories = [names.history("site") for names in made]
    assert all(history == histories[0] for history in histories)
    assert [past.sequence for past in histories[0]] == list(range(20, 0, -1))
    wanted = {f"{ONE}/{number}-{turn}" for number in range(4) for turn in range(5)}
    assert {past.path for past in histories[0]} == wanted
    assert len(nodes.table().objects()) == 1  # the keys of those who came second are dropped again


def test_removed_names_are_shredded(nodes: Nodes) -> None:
    """Removing a name drops its key, so the log's values open no more; a name that comes back has another key."""
    names, _, catalog = nodes.node()
    key = names.publish("site", ONE).key
    (row,) = catalog.names_after(Revision(0))
    sealed = catalog.name_values(row.name_id)[0].sealed
    assert nodes.table().get(ObjectId(row.key_ref)) is not None
    names.remove("site")
    assert nodes.table().get(ObjectId(row.key_ref)) is None
    for gone in (lambda: names.history("site"), lambda: names.remove("site"), lambda: names.rollback("site")):
        with pytest.raises(NotFoundError, match="there is no name site"):
            gone()
    back = names.publish("site", ONE)
    assert back.key != key
    assert back.sequence == 2
    with pytest.raises(CorruptError):
        open_value(os.urandom(32), sealed)


def test_a_publisher_that_slept_through_a_removal(nodes: Nodes) -> None:
    """A value sealed under a removed name's key is not taken: it is sealed again under the new one."""
    sleeper_log = MemoryLog(nodes.store)
    sleeper, _, _ = nodes.node(sleeper_log)
    names, _, _ = nodes.node()
    names.publish("site", ONE)

    def meanwhile(when: str) -> None:
        if when == "before":
            sleeper_log.fault = None
            names.remove("site")
            names.publish("site", TWO)

    sleeper_log.fault = meanwhile
    late = sleeper.publish("site", THREE)
    assert [past.path for past in names.history("site")] == [THREE, TWO]
    names.follow()
    assert late.sequence == 3


def test_the_log_tells_neither_name_nor_value(nodes: Nodes) -> None:
    """What the engine holds has no trace of name, path, CID or IPNS key, and equal values look different."""
    names, _, _ = nodes.node()
    key = names.publish("secret-plans", TWO).key
    names.publish("secret-plans", ONE)
    names.publish("secret-plans", TWO)
    entries = [entry.payload for entry in MemoryLog(nodes.store).read(START)]
    assert len(entries) == 3
    digest = key.multihash[-32:]
    for entry in entries:
        for word in (b"secret-plans", b"ipfs", b"bafy", digest):
            assert word not in entry
    sealed = [seal_value(b"k" * 32, NamedPath("a", ONE, 1, 1)) for _ in range(2)]
    assert sealed[0][0] != sealed[1][0]
    assert sealed[0][1] == sealed[1][1]


def test_imported_records_and_own_ones(nodes: Nodes) -> None:
    """A record of an own key cannot be imported over the catalog; one of a later sequence stops a publish clearly."""
    names, records, catalog = nodes.node()
    done = names.publish("site", ONE)
    (row,) = catalog.names_after(Revision(0))
    wrapped = nodes.table().get(ObjectId(row.key_ref))
    assert wrapped is not None
    own = NameKey(unwrap(nodes.keys.tenant_keys[TENANT], wrapped))
    foreign = parse(done.key, own.sign(NamedPath("site", TWO, 1, DAY_S), 9, int(nodes.now_s)))
    with pytest.raises(ConflictError, match="the one of site, a name that this network publishes itself"):
        records.put(foreign, nodes.now_s)
    other, other_records, _ = nodes.node()
    assert other_records.put(foreign, nodes.now_s) is True
    with pytest.raises(ConflictError, match="sequence 9 was imported, the catalog is at 1"):
        other.publish("site", TWO)
    with pytest.raises(ConflictError, match="sequence 9 was imported"):
        other.follow()
    assert [past.path for past in names.history("site")] == [ONE]


def test_a_key_table_that_is_older_than_the_catalog(nodes: Nodes) -> None:
    """A name whose key is missing says so, keeps no other from being followed, and is taken up when the key comes."""
    names, _, catalog = nodes.node()
    names.publish("site", ONE)
    (row,) = catalog.names_after(Revision(0))
    table = nodes.table()
    wrapped = table.get(ObjectId(row.key_ref))
    assert wrapped is not None
    table.delete([ObjectId(row.key_ref)])
    names.publish("blog", TWO)
    other, records, _ = nodes.node()
    for _ in range(2):
        with pytest.raises(CorruptError, match="not in the key table"):
            other.follow()
    assert list(records.aliases().values()) == ["blog"]
    table.put(ObjectId(row.key_ref), TENANT, wrapped)
    other.follow()
    assert sorted(records.aliases().values()) == ["blog", "site"]


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "A", "a.b", "a/b", "ä", "a b", "a" * 64, "..", Signer(1).text, "bafkqaaa", "a\n", "a\0"],
)
def test_what_is_no_name(name: str) -> None:
    """What is a key, a CID, a domain name or no DNS label is refused before anything is asked."""
    with pytest.raises(InvalidError, match=r"cannot be a name|domain name"):
        check_name(name)


def test_what_is_no_value(nodes: Nodes) -> None:
    """Times and paths out of bounds are refused, and nothing is committed."""
    names, _, catalog = nodes.node()
    attempts: list[Callable[[], object]] = [
        lambda: names.publish("site", f"{ONE}/{'a' * 2048}"),
        lambda: names.publish("site", ONE, ttl_s=-1),
        lambda: names.publish("site", ONE, lifetime_s=59),
        lambda: names.publish("site", ONE, lifetime_s=367 * DAY_S),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidError):
            attempt()
    assert catalog.revision == 0
