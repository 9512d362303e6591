"""The block index: every holder of a block, whatever is added, replaced and dropped."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.catalog import index as index_module
from fungistor.catalog import runs
from fungistor.catalog.index import BlockIndex, Holder
from fungistor.errors import ConflictError, InvalidError
from fungistor.ids import ObjectId, Revision
from tests.unit.catalog.samples import drawn, record

A, B, C = (record(number).object_id for number in (1, 2, 3))
ONE, TWO = drawn("manifest 1", 16), drawn("manifest 2", 16)


def block(number: int) -> bytes:
    return drawn(f"block {number}", 16)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[BlockIndex]:
    made = BlockIndex(str(tmp_path / "index" / "blocks.db"))
    yield made
    made.close()


def test_a_block_is_found_where_its_object_has_it(index: BlockIndex) -> None:
    """A holder says object, inner node and position; a block of nobody has none."""
    index.add(A, ONE, [(block(1), 7, 3)])
    assert index.holders(block(1)) == [Holder(A, 7, 3)]
    assert index.holders(block(2)) == []


def test_every_holder_is_kept_and_dropping_one_hides_no_other(index: BlockIndex) -> None:
    """Three objects hold a block, the newest first; after a drop the others still do."""
    for object_id in (A, B, C):
        index.add(object_id, ONE, [(block(1), 0, 0), (block(2), 0, 1)])
    assert [holder.object_id for holder in index.holders(block(1))] == [C, B, A]
    index.drop(B)
    assert [holder.object_id for holder in index.holders(block(1))] == [C, A]
    assert [holder.object_id for holder in index.holders(block(2), limit=1)] == [C]
    index.sweep()
    assert [holder.object_id for holder in index.holders(block(1))] == [C, A]


def test_small_objects_move_to_the_large_tree_and_stay_found(
    index: BlockIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through several merges, with drops before and after, each block keeps exactly its live holders."""
    monkeypatch.setattr(index_module, "FRESH_ROWS_MAX", 20)
    ids = [ObjectId(drawn(f"object {number}")) for number in range(30)]
    for number, object_id in enumerate(ids):
        index.add(object_id, ONE, [(block(b), number, b) for b in range(number % 4, 7)])
        if number % 5 == 4:
            index.drop(ids[number - 3])
    gone = {number - 3 for number in range(30) if number % 5 == 4}
    for b in range(7):
        expected = {Holder(ids[n], n, b) for n in range(30) if n % 4 <= b and n not in gone}
        assert set(index.holders(block(b))) == expected


def test_runs_are_merged_and_lose_no_holder(index: BlockIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Objects of many chunks, some dropped: merges leave few runs, every live holder, and no row of the dead."""
    monkeypatch.setattr(index_module, "ROWS_A_CHUNK", 10)
    monkeypatch.setattr(runs, "SLICE_ROWS", 16)
    ids = [ObjectId(drawn(f"object {number}")) for number in range(40)]
    for number, object_id in enumerate(ids):
        index.add(object_id, ONE, ((block(b), number, b) for b in range(number, number + 35)))
        if number % 4 == 3:
            index.drop(ids[number - 2])
    live = [number for number in range(40) if number % 4 != 1]
    for b in range(75):
        expected = [Holder(ids[n], n, b) for n in reversed(live) if n <= b < n + 35]
        assert index.holders(block(b)) == expected
    index.sweep()
    with sqlite3.connect(tmp_path / "index" / "blocks.db") as connection:
        assert len(runs.numbers(connection)) < 3 * runs.FAN_IN < 40 * 35 // 10
        assert connection.execute("SELECT count(*) FROM block").fetchone()[0] == len(live) * 35
    connection.close()


def test_a_merge_cut_short_is_gone_on_with(index: BlockIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a merge stopped after any slice all is found, and the next addition's share ends it."""
    monkeypatch.setattr(index_module, "ROWS_A_CHUNK", 10)
    monkeypatch.setattr(runs, "SLICE_ROWS", 16)
    monkeypatch.setattr(runs, "slices_due", lambda rows: 1)
    for number in range(60):
        index.add(ObjectId(drawn(f"object {number}")), ONE, ((block(100 * number + b), number, b) for b in range(20)))
        for other in range(number + 1):
            assert index.holders(block(100 * other + 7)) == [Holder(ObjectId(drawn(f"object {other}")), other, 7)]


def test_of_many_hashes_the_holders_are_told(index: BlockIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small and large objects alike, and nothing of hashes that no live object has."""
    monkeypatch.setattr(index_module, "ROWS_A_CHUNK", 10)
    monkeypatch.setattr(index_module, "HASHES_A_STATEMENT", 7)
    index.add(A, ONE, ((block(b), 0, b) for b in range(25)))
    index.add(B, ONE, [(block(30), 0, 0)])
    index.add(C, ONE, [(block(31), 0, 0), (block(24), 7, 7)])
    index.drop(A)
    assert index.holders_of([block(b) for b in range(20, 60)], 2) == {
        block(24): [Holder(C, 7, 7)],
        block(30): [Holder(B, 0, 0)],
        block(31): [Holder(C, 0, 0)],
    }
    assert index.holders_of([], 2) == {}


def test_of_a_block_twice_in_an_object_the_first_place_counts(index: BlockIndex) -> None:
    """A file of equal chunks has one row, that of its first chunk in order."""
    index.add(A, ONE, [(block(1), 9, 9), (block(1), 0, 0), (block(1), 5, 5)])
    assert index.holders(block(1)) == [Holder(A, 9, 9)]


def test_indexing_again_replaces_what_was_there(index: BlockIndex) -> None:
    """Under a new manifest the old places are gone at once."""
    index.add(A, ONE, [(block(1), 0, 0), (block(2), 0, 1)])
    index.add(A, TWO, [(block(2), 4, 4)])
    assert index.holders(block(1)) == []
    assert index.holders(block(2)) == [Holder(A, 4, 4)]
    assert list(index.indexed()) == [(A, TWO)]


def test_an_object_without_blocks_below_its_root_counts_as_indexed(index: BlockIndex) -> None:
    """It would be pending for ever otherwise."""
    index.add(A, ONE, [])
    assert index.is_indexed(A, ONE)


def test_pending_are_records_not_indexed_under_the_manifest_they_have(index: BlockIndex) -> None:
    """A new object and one with a new manifest are pending, an indexed one is not."""
    done, changed, new = record(1), record(2, manifest="second"), record(3)
    index.add(done.object_id, done.manifest_id, [])
    index.add(changed.object_id, record(2).manifest_id, [])
    assert list(index.pending([done, changed, new])) == [changed, new]


def test_indexed_lists_more_objects_than_one_turn_reads(index: BlockIndex) -> None:
    """All are listed once, by rising object id."""
    ids = sorted(ObjectId(drawn(f"object {number}")) for number in range(600))
    for object_id in ids:
        index.add(object_id, ONE, [])
    assert [object_id for object_id, _ in index.indexed()] == ids


def test_an_object_is_indexed_whole_or_not_at_all(index: BlockIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places whose source breaks after many chunks leave nothing to be found, and the old places stay meanwhile."""
    monkeypatch.setattr(index_module, "ROWS_A_CHUNK", 10)
    index.add(A, ONE, [(block(1), 1, 1)])

    def breaking() -> Iterator[tuple[bytes, int, int]]:
        for number in range(35):
            assert index.holders(block(1)) == [Holder(A, 1, 1)]
            yield block(number), 2, number
        raise OSError("the page did not come")

    with pytest.raises(OSError, match="the page"):
        index.add(A, TWO, breaking())
    assert index.holders(block(1)) == [Holder(A, 1, 1)]
    assert index.holders(block(2)) == []
    assert index.sweep() == 0
    assert index.sweep(abandoned=True) == 30
    index.add(A, TWO, ((block(number), 2, number) for number in range(35)))
    assert [index.holders(block(number)) for number in range(35)] == [[Holder(A, 2, number)] for number in range(35)]


def test_an_add_that_was_swept_under_way_is_told(index: BlockIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends as a conflict and leaves nothing half."""
    monkeypatch.setattr(index_module, "ROWS_A_CHUNK", 4)

    def swept() -> Iterator[tuple[bytes, int, int]]:
        for number in range(10):
            if number == 6:
                index.sweep(abandoned=True)
            yield block(number), 0, number

    with pytest.raises(ConflictError):
        index.add(A, ONE, swept())
    assert not any(index.holders(block(number)) for number in range(10))


def test_two_indexers_of_one_object_leave_one_whole(index: BlockIndex, tmp_path: Path) -> None:
    """Whoever ends last counts, and there is one holder of each block."""
    other = BlockIndex(str(tmp_path / "index" / "blocks.db"))

    def add(target: BlockIndex) -> None:
        for _ in range(10):
            target.add(A, ONE, [(block(number), 0, number) for number in range(50)])

    threads = [threading.Thread(target=add, args=(target,)) for target in (index, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [index.holders(block(number)) for number in range(50)] == [[Holder(A, 0, number)] for number in range(50)]
    other.close()


def test_a_hash_of_another_length_is_refused(index: BlockIndex) -> None:
    """And the object stays pending."""
    with pytest.raises(InvalidError):
        index.add(A, ONE, [(bytes(32), 0, 0)])
    assert not index.is_indexed(A, ONE)


def test_a_deleted_index_starts_again(tmp_path: Path) -> None:
    """With its folder gone everything is pending, and nothing is an error."""
    path = tmp_path / "index" / "blocks.db"
    index = BlockIndex(str(path))
    index.add(A, ONE, [(block(1), 0, 0)])
    index.close()
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    again = BlockIndex(str(path))
    assert (again.holders(block(1)), list(again.indexed())) == ([], [])
    again.close()


_fresh = itertools.count()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3), st.lists(st.integers(0, 9), max_size=12)),
            st.tuples(st.just("drop"), st.integers(0, 3), st.just([])),
            st.tuples(st.just("sweep"), st.just(0), st.just([])),
        ),
        max_size=12,
    )
)
def test_the_index_is_what_a_dictionary_would_be(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, list[int]]]
) -> None:
    """After any adds, drops and sweeps the holders are those of a plain model."""
    index = BlockIndex(str(tmp_path_factory.mktemp("model") / f"{next(_fresh)}.db"))
    model: dict[ObjectId, dict[int, int]] = {}
    for step, number, blocks in steps:
        object_id = ObjectId(drawn(f"object {number}"))
        if step == "add":
            index.add(object_id, ONE, [(block(b), 0, at) for at, b in enumerate(blocks)])
            model[object_id] = {b: at for at, b in reversed(list(enumerate(blocks)))}
        elif step == "drop":
            index.drop(object_id)
            model.pop(object_id, None)
        else:
            index.sweep()
    for b in range(10):
        expected = {Holder(object_id, 0, places[b]) for object_id, places in model.items() if b in places}
        assert set(index.holders(block(b))) == expected
    index.close()


def test_the_followed_revision_only_rises(index: BlockIndex) -> None:
    """Of two indexers the one that saw less does not take back what the other said."""
    assert index.followed() == 0
    index.follow(Revision(7))
    index.follow(Revision(5))
    assert index.followed() == 7
