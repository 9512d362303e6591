"""Committing and following, on the log in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import libipld
import pytest

from fungistor.catalog.catalog import APPLY_ENTRIES, Catalog, CatalogStoppedError
from fungistor.catalog.commands import Body, Group, Payment, PayOwed, Publish, RetireLayouts, encode_command
from fungistor.catalog.log import BATCH_ENTRIES_MAX, START, Entry, FenceMovedError, Position
from fungistor.catalog.outcomes import OUTCOMES_KEPT
from fungistor.catalog.removal import Unpublish
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import State
from fungistor.errors import ConflictError, CorruptError, InvalidError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber, Revision
from fungistor.testing.memory_log import MemoryLog, MemoryLogStore
from tests.unit.catalog.samples import command, layout, owing, publish, record

Node = Callable[[str], Catalog]


@pytest.fixture
def store() -> MemoryLogStore:
    return MemoryLogStore()


@pytest.fixture
def node(tmp_path: Path, store: MemoryLogStore) -> Iterator[Node]:
    """Nodes of one network by name, each with a state of its own."""
    opened: list[Catalog] = []

    def open_node(name: str) -> Catalog:
        opened.append(Catalog(MemoryLog(store), State(str(tmp_path / f"{name}.db"))))
        return opened[-1]

    yield open_node
    for catalog in opened:
        catalog.close()


def later_command() -> bytes:
    return bytes(libipld.encode_dag_cbor([1, "of a later program"]))


def test_a_commit_is_seen_by_its_node_at_once_and_by_others_when_they_catch_up(node: Node) -> None:
    """The record and the revision are there when `commit` returns; a follower is behind until it catches up."""
    a, b = node("a"), node("b")
    outcome = a.commit(command(publish(1)))
    assert (outcome.verdict, outcome.revision) == (Verdict.APPLIED, 1)
    assert a.record(record(1).object_id) == record(1)
    assert (b.record(record(1).object_id), b.behind()) == (None, True)
    assert b.catch_up()
    assert (b.record(record(1).object_id), b.behind(), b.revision) == (record(1), False, 1)


def test_revisions_count_commands_with_effect_without_gaps(node: Node) -> None:
    """Refused and unchanged commands take no revision."""
    a = node("a")
    bodies: list[Body] = [
        publish(1),
        publish(1),
        publish(2),
        publish(3, against=b"x" * 16),
        layout(1),
        layout(3),
        publish(4),
    ]
    outcomes = a.commit_all([command(body) for body in bodies])
    assert [outcome.revision for outcome in outcomes] == [1, 1, 2, 2, 3, 3, 4]
    assert [outcome.verdict.name for outcome in outcomes] == [
        "APPLIED", "UNCHANGED", "APPLIED", "REFUSED", "APPLIED", "REFUSED", "APPLIED"
    ]  # fmt: skip


def test_records_are_listed_by_the_revision_of_their_last_change(node: Node) -> None:
    """After a revision come the records that changed since, each once, in the order of their changes."""
    a = node("a")
    for number in (1, 2, 3):
        a.commit(command(publish(number)))
    a.commit(command(publish(1, private=True)))
    changed = [(revision, found.object_id) for revision, found in a.records_after(Revision(1))]
    assert changed == [(2, record(2).object_id), (3, record(3).object_id), (4, record(1).object_id)]
    assert list(a.records_after(Revision(4))) == []


def test_a_refused_commit_is_a_conflict(node: Node) -> None:
    """`commit` raises with the reason, `commit_all` gives it as a value; the state is as it was."""
    a = node("a")
    with pytest.raises(ConflictError, match="unpublished"):
        a.commit(command(publish(against=b"x" * 16)))
    assert (a.revision, list(a.records())) == (0, [])


def test_an_append_in_doubt_is_repeated_without_double_effect(node: Node, store: MemoryLogStore) -> None:
    """The acknowledgement is lost after the append: the repeat gives the first one's outcome and one entry."""
    a = node("a")
    log = MemoryLog(store)
    broken = Catalog(log, a._state)

    def lose(when: str) -> None:
        if when == "after":
            raise UnavailableError("the connection broke")

    log.fault = lose
    sent = command(publish(1))
    with pytest.raises(UnavailableError):
        broken.commit(sent)
    log.fault = None
    assert broken.commit(sent).revision == 1
    assert (len(store.payloads), broken.revision) == (1, 1)


def test_an_entry_that_is_twice_in_the_log_counts_once(node: Node, store: MemoryLogStore) -> None:
    """Two nodes, or a retry inside an engine, append the same command twice: every state applies the first only."""
    a = node("a")
    a.commit(command(publish(1, owed=owing((3, 5)))))
    pay = command(PayOwed(record(1).object_id, record(1).manifest_id, (Payment(MemberNumber(3), 5, 4),)))
    undo = command(publish(2))
    for sent in (pay, undo, pay):
        MemoryLog(store).append(0, [encode_command(sent)])
    a.catch_up()
    assert (a.revision, a.owed()[0].shards, a.status().applied) == (3, 4, 4)


def test_one_name_for_two_commands_is_a_conflict(node: Node) -> None:
    """A session that uses a sequence twice is told, instead of being given the other command's outcome."""
    a = node("a")
    a.commit(command(publish(1), session="s"))
    with pytest.raises(ConflictError, match="another command"):
        a.commit(command(publish(2), session="s"))
    with pytest.raises(InvalidError):
        a.commit_all([command(publish(3), session="t"), command(publish(4), session="t")])


def test_a_commit_under_an_old_fence_changes_nothing(node: Node, store: MemoryLogStore) -> None:
    """A session that began before the epoch moved is refused, but the outcome of what it did commit is still told."""
    a = node("a")
    fence = a.fence()
    done = command(publish(1))
    a.commit(done, fence=fence)
    MemoryLog(store).raise_epoch(fence)
    with pytest.raises(FenceMovedError):
        a.commit(command(publish(2)), fence=fence)
    assert a.commit(done, fence=fence).revision == 1
    assert [r.object_id for r in a.records()] == [record(1).object_id]


def test_two_publishers_of_one_root_both_commit(node: Node) -> None:
    """Neither is refused: the first one's manifest stands, with its name, and both are told."""
    a, b = node("a"), node("b")
    first = a.commit(command(publish(1, manifest="a")))
    second = b.commit(command(publish(1, manifest="b", sealed_name=b"b's name")))
    assert (first.verdict, second.verdict) == (Verdict.APPLIED, Verdict.MERGED)
    assert b.record(record(1).object_id) == record(1, manifest="a")


def test_a_later_command_stops_applying_and_reads_go_on(node: Node, store: MemoryLogStore) -> None:
    """Nothing behind it is applied or committed, what was there reads on, and `status` says why."""
    a = node("a")
    a.commit(command(publish(1)))
    MemoryLog(store).append(0, [later_command(), encode_command(command(publish(2)))])
    assert a.catch_up() is False
    status = a.status()
    assert (status.revision, status.objects, status.behind) == (1, 1, True)
    assert status.stopped is not None
    assert "version 1" in status.stopped
    length = len(store.payloads)
    with pytest.raises(CatalogStoppedError, match="version 1"):
        a.commit(command(publish(3)))
    assert (len(store.payloads), a.record(record(1).object_id)) == (length, record(1))
    assert a.wait(0.01) is False, "a follower that stands still must not spin"


def test_a_stopped_state_goes_on_when_the_entry_can_be_read(node: Node, store: MemoryLogStore) -> None:
    """As after an update of the program: the stop is where it stood, not a mark that stays."""
    a = node("a")
    MemoryLog(store).append(0, [later_command()])
    assert a.catch_up() is False
    store.payloads[0] = encode_command(command(publish(1)))
    assert a.catch_up() is True
    assert (a.status().stopped, a.revision) == (None, 1)


def test_a_damaged_entry_stops_applying(node: Node, store: MemoryLogStore) -> None:
    """Garbage is not skipped: skipping it here and not elsewhere would part the nodes."""
    MemoryLog(store).append(0, [b"garbage"])
    a = node("a")
    assert a.catch_up() is False
    assert "damaged" in str(a.status().stopped)


def test_every_node_comes_to_the_same_state_whatever_its_turns(
    node: Node, tmp_path: Path, store: MemoryLogStore
) -> None:
    """A node that applied one by one, one that replayed in chunks and one that applied by hand have equal rows."""
    a = node("a")
    for number in range(60):
        a.commit(command(publish(number % 17, private=number % 5 == 0, owed=owing((1 + number % 3, 2)))))
        a.commit(command(layout(1 + number)))
    b = node("b")
    b.catch_up()
    by_hand = State(str(tmp_path / "c.db"))
    entries = list(MemoryLog(store).read(START))
    for entry in entries:
        by_hand.apply([entry])
    assert a._state.fingerprint() == b._state.fingerprint() == by_hand.fingerprint()
    by_hand.close()


def test_commands_of_one_entry_meet_each_other_as_those_of_many_do(tmp_path: Path) -> None:
    """An object that comes, changes, goes and comes back within one entry: rows and verdicts are as by an entry each,
    whether or not it was there before."""
    first, other = record(1), record(1, manifest="second")
    bodies: list[Body] = [
        publish(2),
        publish(1),
        publish(1, manifest="third"),
        publish(1, against=first.manifest_id, manifest="second"),
        Unpublish(first.object_id, other.manifest_id, at=1),
        publish(1, against=other.manifest_id),
        publish(1),
    ]
    commands = [command(body, session="one", sequence=at) for at, body in enumerate(bodies)]
    group = command(Group(tuple(commands)), session="one")
    found = []
    for before in (3, 2):
        for name, batch in ("each", commands), ("all", [group]):
            state = State(str(tmp_path / f"{name} after {before}.db"))
            payloads = map(encode_command, [command(publish(before), session="before"), *batch])
            state.apply(Entry(Position(at.to_bytes(8, "big")), payload) for at, payload in enumerate(payloads, 1))
            found.append((state.digest(), state.outcomes(commands)))
            assert state.is_sound()
            state.close()
    assert found[0] == found[1]
    assert found[2] == found[3] != found[0]
    assert [outcome[0].verdict for outcome in found[0][1] if outcome is not None] == [
        Verdict.APPLIED,
        Verdict.APPLIED,
        Verdict.MERGED,
        Verdict.APPLIED,
        Verdict.APPLIED,
        Verdict.REFUSED,
        Verdict.APPLIED,
    ]


def test_a_deleted_state_is_rebuilt(node: Node, tmp_path: Path) -> None:
    """Replay brings back the same rows, over more entries than one turn applies."""
    a = node("a")
    numbers = range(APPLY_ENTRIES + 2 * BATCH_ENTRIES_MAX)
    for start in range(0, len(numbers), BATCH_ENTRIES_MAX):
        a.commit_all([command(publish(n)) for n in numbers[start : start + BATCH_ENTRIES_MAX]])
    before = a._state.fingerprint()
    a.close()
    for file in tmp_path.glob("a.db*"):
        file.unlink()
    again = node("a")
    assert again.catch_up()
    assert (again._state.fingerprint(), again.status().objects) == (before, len(numbers))


def test_a_state_of_another_log_is_refused(node: Node, tmp_path: Path, store: MemoryLogStore) -> None:
    """A log put in the place of the one that the state follows is noticed, empty or not, and nothing is lost."""
    a = node("a")
    a.commit(command(publish(1)))
    other = Catalog(MemoryLog(), a._state)
    with pytest.raises(CorruptError, match="follows log"):
        other.catch_up()
    MemoryLog(other_store := MemoryLogStore()).append(0, store.payloads)
    same_length = Catalog(MemoryLog(other_store), a._state)
    with pytest.raises(CorruptError, match="follows log"):
        same_length.commit(command(publish(2)))
    assert len(other_store.payloads) == 1
    store.payloads.clear()
    with pytest.raises(CorruptError):
        a.catch_up()
    assert a.record(record(1).object_id) == record(1)


def test_debts_are_listed_and_paid(node: Node) -> None:
    """`owed` lists each object's debtors, `status` their sum; paid shards leave both."""
    a = node("a")
    a.commit(command(publish(1, owed=owing((3, 2), (7, 1)))))
    a.commit(command(publish(2, owed=owing((3, 4)))))
    assert sorted((debt.member, debt.shards) for debt in a.owed()) == [(3, 2), (3, 4), (7, 1)]
    assert a.status().owed_shards == 7
    a.commit(command(PayOwed(record(1).object_id, record(1).manifest_id, (Payment(MemberNumber(3), 2, 0),))))
    kept = a.record(record(1).object_id)
    assert kept is not None
    assert (kept.owed, kept.owed_shards) == (owing((7, 1)), 1)
    assert a.status().owed_shards == 5


def test_a_replaced_manifest_brings_its_own_debts(node: Node) -> None:
    """The debts of the manifest before are gone with it."""
    a = node("a")
    a.commit(command(publish(1, owed=owing((3, 2)))))
    new = record(1, manifest="second", owed=owing((5, 1)))
    a.commit(command(Publish(new, record(1).manifest_id)))
    assert [(debt.member, debt.shards) for debt in a.owed()] == [(5, 1)]
    assert a.status().objects == 1


def test_layouts_are_kept_by_number(node: Node) -> None:
    """Older layouts stay readable, the newest is the default, and a number keeps its bytes."""
    a = node("a")
    assert a.layout() is None
    a.commit(command(layout(1, table=bytes(160_000))))
    a.commit(command(layout(2)))
    assert a.layouts() == [layout(1, table=bytes(160_000)), layout(2)]
    assert (a.layout(), a.layout(LayoutNumber(1)), a.layout(LayoutNumber(3))) == (layout(2), a.layouts()[0], None)


def test_older_layouts_are_looked_by_until_they_retire(node: Node) -> None:
    """A publisher that began before and commits after the mover looked has it look again; then all is the newest's."""
    a = node("a")
    a.commit(command(layout(1)))
    a.commit(command(publish(1)))
    a.commit(command(layout(2)))
    seen = a.revision
    a.commit(command(replace(publish(2), began=Revision(1))))
    with pytest.raises(ConflictError, match="meanwhile"):
        a.commit(command(RetireLayouts(LayoutNumber(2), seen)))
    a.commit(command(replace(publish(3), began=seen)))
    a.commit(command(RetireLayouts(LayoutNumber(2), a.revision)))
    assert (a.layouts(), a.layout(LayoutNumber(1)), a.highest_member()) == ([layout(2)], layout(1), 5)
    with pytest.raises(ConflictError, match="retired since this publish began"):
        a.commit(command(replace(publish(4), began=seen)))
    assert [changed.object_id for _, changed in a.records_after(seen)] == [record(2).object_id, record(3).object_id]


def test_wait_applies_what_arrives(node: Node) -> None:
    """A follower that waits has the record when `wait` returns; without news the time passes."""
    a, b = node("a"), node("b")
    assert b.wait(0.01) is False
    heard: list[bool] = []
    follower = threading.Thread(target=lambda: heard.append(b.wait(10)))
    follower.start()
    a.commit(command(publish(1)))
    follower.join(20)
    assert (heard, b.record(record(1).object_id)) == ([True], record(1))


def test_outcomes_are_forgotten_by_count_on_every_node_alike(
    node: Node, store: MemoryLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last so many outcomes stay, whether a node applied one by one or all at once."""
    assert OUTCOMES_KEPT >= 65536
    monkeypatch.setattr("fungistor.catalog.outcomes.OUTCOMES_KEPT", 10)
    a = node("a")
    sent = [command(publish(number)) for number in range(25)]
    for one in sent:
        a.commit(one)
    MemoryLog(store).append(0, [encode_command(sent[20]), encode_command(sent[0])])
    a.catch_up()
    b = node("b")
    b.catch_up()
    assert a._state.fingerprint() == b._state.fingerprint()
    assert a._state.outcomes([sent[1]]) == [None]
    assert a.revision == 25
