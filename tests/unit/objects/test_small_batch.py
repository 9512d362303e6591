"""Many small objects by one publish: what they share, what each of them is told, and what becomes of the odd ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Group, Publish, decode_command
from fungistor.catalog.log import START
from fungistor.catalog.removal import EndSession
from fungistor.coding.manifest import Slot
from fungistor.coding.page_codec import decode_root
from fungistor.errors import UnavailableError
from fungistor.keys.store import KeyRow
from fungistor.keys.table import KeyTable
from fungistor.limits import INLINE_BYTES_MAX
from fungistor.objects import small_batch
from fungistor.objects.ports import ShardStore
from fungistor.objects.results import PublishFailure, PublishOptions, PublishOutcome
from fungistor.objects.root_pages import SharedRoots
from fungistor.objects.verify import Verifier
from fungistor.testing.memory_network import MemoryNetwork
from tests.unit.objects.trees import noise, write


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch ends by the clock of a busy machine."""
    monkeypatch.setattr(small_batch, "WAIT_S_MAX", 3600.0)


def small(tree: Path, count: int, size: int = 3000) -> list[str]:
    """So many files of some bytes, no two alike."""
    return [str(write(tree, f"f{number:04}", noise(number, size + number))) for number in range(count)]


def published(results: list[PublishOutcome | PublishFailure]) -> list[PublishOutcome]:
    """Results, all of them good."""
    assert not [result for result in results if isinstance(result, PublishFailure)]
    return [result for result in results if isinstance(result, PublishOutcome)]


def entries(network: MemoryNetwork) -> list[bytes]:
    """The log's payloads."""
    return [entry.payload for entry in network.log.read(START)]


def test_small_objects_share_stripes_and_one_entry(network: MemoryNetwork, tree: Path) -> None:
    """150 files of 3 KB are one entry of the log of at most 400 bytes each, and lie on members at 1.35 times their
    size; what each is told to take comes to what members hold; four members may die."""
    paths = small(tree, 150)
    before = len(entries(network))
    outcomes = published(network.publish_all(paths))
    assert [outcome.path for outcome in outcomes] == paths
    opened, group = entries(network)[before:]
    body = decode_command(group).body
    assert isinstance(body, Group)
    assert [type(part.body) for part in body.commands] == [Publish] * 150 + [EndSession]
    assert (len(opened) + len(group)) / 150 <= 400
    held = sum(map(len, network.store.values().values()))
    assert sum(outcome.stored for outcome in outcomes) == sum(outcome.new for outcome in outcomes) == held
    assert held < 1.35 * sum(outcome.size for outcome in outcomes)
    assert {outcome.survives for outcome in outcomes} == {4}
    network.store.down(random.Random(7).sample(network.store.members(), 4))
    network.forget()
    for number in range(0, 150, 7):
        assert b"".join(network.read(outcomes[number].cid)) == noise(number, 3000 + number)


def test_keys_go_one_by_one_while_some_node_knows_no_pages(
    network: MemoryNetwork, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of an earlier program would not find keys that share a value: until all have moved on none does."""
    together: list[int] = []

    def put_all(_: KeyTable, rows: Sequence[KeyRow]) -> None:
        together.append(len(rows))

    monkeypatch.setattr(KeyTable, "put_all", put_all)
    monkeypatch.setattr(Catalog, "knows_key_pages", property(lambda _: False))
    outcomes = published(network.publish_all(small(tree, 3)))
    assert together == []
    for number, outcome in enumerate(outcomes):
        assert b"".join(network.read(outcome.cid)) == noise(number, 3000 + number)


def test_each_path_has_its_own_end(network: MemoryNetwork, tree: Path) -> None:
    """Among small files: one that is missing, one that is large, a folder, an empty one, one of the same bytes as
    another, and one that was published before. Results come in order, and only the missing one failed."""
    known = network.publish(str(write(tree, "known", b"known")))
    write(tree, "folder/a", b"a")
    write(tree, "folder/sub/b", b"b")
    paths = [
        str(write(tree, "one", b"one")),
        str(tree / "missing"),
        str(write(tree, "large", noise(1, INLINE_BYTES_MAX + 1))),
        str(tree / "folder"),
        str(write(tree, "none", b"")),
        str(write(tree, "same", b"one")),
        str(tree / "known"),
        str(write(tree, "end", b"end")),
    ]
    results = network.publish_all(paths)
    assert [result.path for result in results] == paths
    assert [isinstance(result, PublishFailure) for result in results].index(True) == 1
    good = published([result for result in results if not isinstance(result, PublishFailure)])
    cids = {outcome.path: outcome.cid for outcome in good}
    assert (cids[paths[5]], cids[paths[6]]) == (cids[paths[0]], known.cid)
    assert len(list(network.catalog.records())) == len({*cids.values()})
    for path, cid in cids.items():
        if path != paths[3]:
            assert b"".join(network.read(cid)) == Path(path).read_bytes()
    assert b"".join(network.read(cids[paths[3]], "sub", "b")) == b"b"
    assert list(network.catalog.removal.sessions()) == []


def test_a_batch_ends_by_its_count(network: MemoryNetwork, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of seven: every object is committed all the same, and the last batch ends the session."""
    monkeypatch.setattr(small_batch, "OBJECTS_MAX", 7)
    before = len(entries(network))
    published(network.publish_all(small(tree, 20)))
    sizes = [
        len(body.commands)
        for payload in entries(network)[before:]
        if isinstance(body := decode_command(payload).body, Group)
    ]
    assert sizes == [7, 7, 7]  # the last six, and the session's end
    assert network.catalog.objects == 20


def test_members_that_are_away_fail_all_of_a_batch(network: MemoryNetwork, tree: Path) -> None:
    """With too few members nothing of it is committed and each path fails with the reason; when they are back the same
    publish succeeds, and keys of the first try are nobody's."""
    paths = small(tree, 10)
    network.store.down(network.store.members()[2:])
    results = network.publish_all(paths)
    assert all(isinstance(result, PublishFailure) for result in results)
    assert {type(result.error) for result in results if isinstance(result, PublishFailure)} == {UnavailableError}
    assert list(network.catalog.records()) == []
    network.store.heal()
    assert len(published(network.publish_all(paths, PublishOptions()))) == 10


def test_who_came_first_keeps_the_manifest(network: MemoryNetwork, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another publisher commits one of the objects between its look and its commit: the object is there once, reads,
    and the key of the manifest that lost is dropped."""
    paths = small(tree, 5)
    settle = SharedRoots.close

    def meanwhile(roots: SharedRoots) -> None:
        monkeypatch.setattr(SharedRoots, "close", settle)
        network.publish(paths[2])
        settle(roots)

    monkeypatch.setattr(SharedRoots, "close", meanwhile)
    outcomes = published(network.publish_all(paths))
    network.forget()
    assert b"".join(network.read(outcomes[2].cid)) == noise(2, 3002)
    records = list(network.catalog.records())
    assert sorted(network.key_table.objects()) == sorted(record.key_id for record in records)
    assert len({decode_root(record.manifest, record.salt).slot.stripe_id for record in records}) == 2


def test_what_is_dropped_of_a_shared_stripe_is_given_back(network: MemoryNetwork, tree: Path) -> None:
    """Nine of ten objects of shared stripes are dropped: after a collection members hold little more than the rest
    takes, no stripe is a whole one of the old, and the rest reads, also after a second collection finds nothing."""
    outcomes = published(network.publish_all(small(tree, 200, 2000)))
    full = sum(map(len, network.store.values().values()))
    for number, outcome in enumerate(outcomes):
        if number % 10:
            network.unpublish(outcome.cid)
    collected = network.collector().collect(grace_s=0)
    assert collected.repacked >= 1
    assert collected.waiting == 0
    assert sum(map(len, network.store.values().values())) < 0.15 * full
    assert network.collector().collect(grace_s=0).deleted == 0
    network.forget()
    for number in range(0, 200, 10):
        assert b"".join(network.read(outcomes[number].cid)) == noise(number, 2000 + number)
        assert network.verify(outcomes[number].cid).missing == 0


def test_a_shared_stripe_is_checked_once_a_run(network: MemoryNetwork, tree: Path) -> None:
    """Of sixty objects in one stripe, each is told what is missing of it, and a damaged shard counts for all of them;
    members are asked for the stripe once. Another run looks again."""
    outcomes = published(network.publish_all(small(tree, 60, 1000)))
    slots = {slot.stripe_id: slot for outcome in outcomes for slot in network.slots(outcome.cid)}
    [slot] = slots.values()
    asked: list[bytes] = []
    inspect = network.store.inspect

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(network.store, name)

        def inspect(self, slot: Slot) -> object:
            asked.append(slot.stripe_id)
            return inspect(slot)

    network.store.all[network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)[3]].values.clear()
    verifier = Verifier(cast("ShardStore", Counting()))
    for outcome in outcomes:
        tally = verifier.verify(network.slots(outcome.cid))
        assert (tally.shards, tally.missing, tally.survives) == (slot.k + slot.m, 1, 3)
    assert asked == [slot.stripe_id]
    Verifier(cast("ShardStore", Counting())).verify([slot])
    assert asked == [slot.stripe_id] * 2
