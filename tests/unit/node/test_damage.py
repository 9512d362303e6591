"""Notes of damaged shards: kept over processes and cut-short repairs, and never believed blindly."""

from __future__ import annotations

from pathlib import Path

from fungistor.coding.manifest import Slot
from fungistor.ids import LayoutNumber, StripeId
from fungistor.node.damage import DamageNotes
from fungistor.node.home import Home


def slot(number: int) -> Slot:
    return Slot(StripeId(bytes([number]) * 32), 2, 4, 64, bytes(32), LayoutNumber(1))


def notes(tmp_path: Path) -> DamageNotes:
    home = Home(str(tmp_path))
    home.prepare()
    (tmp_path / "index").mkdir(exist_ok=True)
    return DamageNotes(home)


def test_notes_stay_until_a_repair_has_settled(tmp_path: Path) -> None:
    """What a repair took and did not come to mend is there for the next, with what was noted meanwhile."""
    found = notes(tmp_path)
    found.note(slot(1), 3)
    found.note(slot(2), 0)
    assert sorted(found.take().of(slot(1))) == [3]
    found.note(slot(1), 5)
    again = DamageNotes(Home(str(tmp_path))).take()
    assert (sorted(again.of(slot(1))), sorted(again.of(slot(2))), len(again)) == ([3, 5], [0], 3)
    found.settle()
    assert len(found.take()) == 0


def test_bytes_that_are_no_notes_are_passed_over(tmp_path: Path) -> None:
    """A half-written line, another program's words, a shard that no stripe has: none of them stops a repair."""
    found = notes(tmp_path)
    found.note(slot(1), 2)
    with (tmp_path / "index" / "damaged").open("ab") as file:
        file.write(b"\xff\xfe nonsense\n" + bytes([1]).hex().encode() * 32 + b" 999\n" + b"01" * 31 + b" 1\nabc")
    assert list(found.take().of(slot(1))) == [2]


def test_a_home_that_cannot_be_written_is_no_reader_s_trouble(tmp_path: Path) -> None:
    """Notes are hints: without a folder for them nothing is noted, and nothing raised."""
    found = DamageNotes(Home(str(tmp_path / "none")))
    found.note(slot(1), 2)
    assert len(found.take()) == 0
    found.settle()
