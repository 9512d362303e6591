"""Large entries lie on members and claims stand for them in the engine; members fail meanwhile, and writers die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from fungistor.catalog.catalog import sign
from fungistor.catalog.claims import CLAIMED_BYTES, Claim, claim_in, encode_claim
from fungistor.catalog.issuers import ALL_SCOPES, RegisterIssuer, Report
from fungistor.catalog.log import START, LogTrimmedError
from fungistor.catalog.snapshots import Snapshot
from fungistor.errors import CorruptError, UnavailableError
from fungistor.keys.ring import SigningKey
from fungistor.node.copies.deposit import EntryDeposit
from fungistor.node.copies.reading import CopyReader
from fungistor.node.copies.unsettled import Unsettled
from fungistor.pool import keeping
from fungistor.pool.keeping import COPIES
from fungistor.pool.pool import Pool
from fungistor.testing.faults import FaultPlan, Lie
from tests.unit.catalog.samples import command, drawn
from tests.unit.copies.copying import Node, World, copied_world
from tests.unit.copies.test_rebuilding import gather, same_rows

TOGETHER = 40


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with copied_world(tmp_path) as made:
        yield made


def standing(node: Node) -> list[bytes]:
    """What the engine has."""
    return [entry.payload for entry in node.engine.read(node.engine.trimmed())]


def claims_of(node: Node) -> list[Claim]:
    return [claim for payload in standing(node) if (claim := claim_in(payload)) is not None]


def entry_name(world: World, node: Node, claim: Claim) -> bytes:
    return world.formats.entry_name(node.log.identity(), claim.place)


def whole(node: Node) -> list[bytes]:
    return [entry.payload for entry in node.log.read(node.log.trimmed())]


def take_snapshot(node: Node) -> None:
    """Commit one of all that was applied, as if its pieces were on members, and trim the log before it."""
    head = node.state.progress()
    identity = os.urandom(32)
    made = Snapshot(identity, head.position, head.applied, node.state.digest(), 1, 5, 9, 999)
    node.catalog.commit(command(made))
    node.catalog.trim(made)


def test_a_large_entry_is_claimed_from_six_members(world: World) -> None:
    """The engine has 60 bytes of 40 publishes; members have the entry, before it is acknowledged; small ones stay."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    (claim,) = claims_of(node)
    assert claim.size > CLAIMED_BYTES
    assert max(map(len, standing(node)[-1:])) < 64
    assert len(world.holders(entry_name(world, node, claim))) == COPIES
    assert node.catalog.objects == TOGETHER
    assert [len(payload) for payload in whole(node)][-1] == claim.size


def test_another_home_reads_what_it_claims_before_it_knows_the_members(world: World) -> None:
    """A node that begins asks who answers at the places of its pool file; its state is the writer's."""
    node = world.filled(1, claims=True)
    for start in range(1, 1 + 12 * TOGETHER, TOGETHER):
        node.publish_together(range(start, start + TOGETHER))
    (world.folder / "other" / "catalog").mkdir(parents=True)
    for name in ("log.sqlite", "log.sqlite-wal"):
        found = next((world.folder / "home").rglob(name), None)
        if found is not None:
            (world.folder / "other" / "catalog" / name).write_bytes(found.read_bytes())
    other = world.node("other", claims=True)
    assert other.catalog.catch_up()
    assert other.state.digest() == node.state.digest()
    assert other.catalog.objects == 1 + 12 * TOGETHER


def test_four_holders_gone_and_one_that_lies_hide_nothing(world: World) -> None:
    """Of six that have it one is enough, and what does not fit the claim is not believed."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    expected = whole(node)
    holders = world.holders(entry_name(world, node, claims_of(node)[0]))
    for member in holders[:4]:
        member.stop()
    holders[4].faults = FaultPlan(lie=Lie.FLIP)
    assert whole(node) == expected
    holders[5].faults = FaultPlan(lie=Lie.SWAP)
    with pytest.raises(UnavailableError, match=r"entry 3 of the catalog lies on members, and none that answers has it"):
        whole(node)
    assert node.catalog.objects == TOGETHER, "what was applied is read without it"
    holders[0].restart()
    assert whole(node) == expected


def test_a_member_that_hangs_is_waited_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever did not answer is asked last from then on: a node that catches up waits for it once, not each time."""
    monkeypatch.setattr(keeping, "FIRST_READ_S", 0.2)
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    (claim,) = claims_of(node)
    ranked = sorted(range(len(world.members)), key=lambda at: blake3(claim.place + f"m{at + 1:02}".encode()).digest())
    hanging = [world.members[at] for at in ranked[:3]]
    for member in hanging:
        member.faults = FaultPlan(hang_on=frozenset({"GET", "PING"}))
    with Pool(world.specs(), {}) as pool:
        waited = []
        for _ in range(2):
            found = pool.find_by_seed({entry_name(world, node, claim): claim.place}, lambda _, value: bool(value))
            assert found.missing == []
            waited.append(len(found.silent))
    assert waited == [3, 0]
    for member in hanging:
        member.resume()


def test_where_members_cannot_take_it_the_entry_stands_in_the_log(world: World) -> None:
    """What need not wait for the pool is committed all the same, whole."""
    node = world.filled(1, claims=True)
    for member in world.members[:4]:
        member.stop()
    payload = os.urandom(CLAIMED_BYTES)
    node.log.append(0, [payload])
    assert standing(node)[-1] == payload == whole(node)[-1]


def test_no_claim_is_written_that_a_node_cannot_read(world: World) -> None:
    """While a node reports that it is older, entries stand in the log whole, and from then on as claims."""
    node = world.filled(1, claims=True)
    root, signer = SigningKey(drawn("authority")), SigningKey(drawn("an older node"))
    registration = command(RegisterIssuer(root.issuer, signer.issuer, "older", ALL_SCOPES))
    node.catalog.commit(sign(registration, root, 1))
    node.catalog.commit(sign(command(Report(2, 0, b"")), signer, 2))
    payload = os.urandom(CLAIMED_BYTES)
    node.log.append(0, [payload])
    assert standing(node)[-1] == payload
    assert node.state.level() == 2


def test_entries_go_with_the_segments_that_a_snapshot_replaces(world: World) -> None:
    """After a snapshot and the trim members give up what was claimed before it, and nothing that still may be."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    node.publish_together(range(TOGETHER, 2 * TOGETHER))
    first, second = claims_of(node)
    take_snapshot(node)
    node.publish_together(range(2 * TOGETHER, 3 * TOGETHER))
    while node.copier.tend():
        pass
    assert claims_of(node)[0] == second, "the entry at a snapshot stays in the log"
    assert world.holders(entry_name(world, node, first)) == []
    assert [len(world.holders(entry_name(world, node, claim))) for claim in claims_of(node)] == [COPIES, COPIES]
    assert [len(payload) > CLAIMED_BYTES for payload in whole(node)] == [True, False, True]
    take_snapshot(node)
    while node.copier.tend():
        pass
    assert world.holders(entry_name(world, node, second)) == []


def test_a_reader_whom_the_trim_overtakes_is_told_of_the_trim(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wants to claim is gone from the pool by then: it has to take the snapshot, not to wait for members."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    node.publish(TOGETHER)
    honest = EntryDeposit.get

    def overtaken(deposit: EntryDeposit, claims: Sequence[Claim]) -> list[bytes | None]:
        node.engine.trim(node.engine.last())
        for claim in claims:
            node.pool.forget([entry_name(world, node, claim)])
        return honest(deposit, claims)

    monkeypatch.setattr(EntryDeposit, "get", overtaken)
    with pytest.raises(LogTrimmedError):
        list(node.log.read(START))


def test_entries_move_to_the_members_that_are_there(world: World) -> None:
    """When members were replaced, what is claimed lies on six of those that are there now, too."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    while node.copier.tend():
        pass
    name = entry_name(world, node, claims_of(node)[0])
    gone = world.holders(name)[0]
    left = [spec for spec, member in zip(world.specs(), world.members, strict=True) if member is not gone]
    gone.values.clear()
    second = world.node(claims=True)
    second.pool.replace(left, {})
    second.copier.tend()
    while second.copier.tend():
        pass
    assert gone not in world.holders(name)
    assert len(world.holders(name)) == COPIES


def test_a_rebuild_brings_back_what_is_claimed(world: World) -> None:
    """Four members gone and one as it was before: the rows are the same. Without the entry it says which is missing."""
    node = world.filled(1, claims=True)
    stale = dict(world.members[8].values)
    node.publish_together(range(1, TOGETHER))
    node.publish(TOGETHER)
    claim = claims_of(node)[0]
    now, world.members[8].values = world.members[8].values, stale
    for member in world.members[:4]:
        member.stop()
    found = gather(world)
    assert (found.objects, found.is_proven) == (TOGETHER + 1, True)
    assert same_rows(world, node)
    world.members[8].values = now
    for member in world.members[:4]:
        member.restart()
    for member in world.members:
        member.values.pop(entry_name(world, node, claim), None)
    with pytest.raises(CorruptError, match=r"entry 3 of the catalog is on no member that answers, though its claim is"):
        list(CopyReader(node.pool, world.formats).segments(node.log.identity(), 0, b""))


PUT_AND_DIE = """
import os, sys
from fungistor.node.copies.unsettled import Unsettled
notes = Unsettled(sys.argv[1])
notes.add(bytes.fromhex(sys.argv[2]))
print("noted", flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_what_a_killed_writer_put_goes_once_nothing_can_claim_it(world: World) -> None:
    """Not while it lives, and not before the log was trimmed as far as it was when it was found dead."""
    node = world.filled(1, claims=True)
    payload = os.urandom(CLAIMED_BYTES)
    claim = Claim(os.urandom(16), bytes(32), len(payload))
    name = entry_name(world, node, claim)
    words = [sys.executable, "-c", PUT_AND_DIE, str(world.folder / "home" / "catalog" / "unsettled"), name.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"noted\n"
        node.pool.keep([(name, world.formats.seal_entry(node.log.identity(), payload))], claim.place)
        while node.copier.tend():
            pass
        take_snapshot(node)
        while node.copier.tend():
            pass
        assert len(world.holders(name)) == COPIES, "its writer lives"
        assert writer.stdin is not None
        writer.stdin.close()
        writer.wait()
    while node.copier.tend():
        pass
    assert len(world.holders(name)) == COPIES, "the log goes on from where it may be claimed"
    for number in range(2):
        node.publish(1 + number)
        take_snapshot(node)
        node.copier._retry_at = 0.0
        while node.copier.tend():
            pass
    assert world.holders(name) == []
    assert os.listdir(world.folder / "home" / "catalog" / "unsettled") == []


def test_what_was_settled_is_not_noted(world: World) -> None:
    """A writer that ended well leaves no note; one that put and never appended leaves its own."""
    node = world.filled(1, claims=True)
    node.publish_together(range(1, TOGETHER))
    node.log.close()
    folder = world.folder / "home" / "catalog" / "unsettled"
    assert os.listdir(folder) == []
    notes = Unsettled(str(folder))
    notes.add(b"n" * 20)
    assert list(notes.left_behind(9, 9)) == []
    notes.close()
    assert list(Unsettled(str(folder)).left_behind(9, 8)) == []
    assert list(Unsettled(str(folder)).left_behind(12, 9)) == [[b"n" * 20]]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("at", range(4))
def test_a_damaged_claim_is_no_entry(at: int) -> None:
    """A claim that was cut or has other fields is refused as corrupt, and never taken for a command."""
    good = encode_claim(Claim(bytes(16), bytes(32), 5000))
    assert claim_in(good) == Claim(bytes(16), bytes(32), 5000)
    for bad in (good[:-1], good[:20], good + b"\0", good[:2] + b"\x41\0" + good[19:])[at : at + 1]:
        with pytest.raises(CorruptError):
            claim_in(bad)
