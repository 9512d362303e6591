"""Statistics, aims and the page: what a run's values become."""

from __future__ import annotations

import json

import pytest

from benchmarks.aims import judge
from benchmarks.figures import (
    GIB,
    KIB,
    MIB,
    Series,
    number_text,
    parse_size,
    ratio,
    ratio_text,
    rotated,
    series_text,
    size_text,
    value_text,
)
from benchmarks.record import DURABLE, KUBO, MACHINE, OURS, ZSTOR, Key, Record
from benchmarks.report import as_json, json_text, markdown, table


def filled(*entries: tuple[str, str, str, list[float]]) -> Record:
    record = Record()
    for benchmark, case, contender, values in entries:
        for value in values:
            record.add(Key(benchmark, case, contender), value)
    return record


def test_a_series_knows_its_middle_and_its_ends() -> None:
    """The median of an even number of runs is the mean of the two in the middle; order does not matter."""
    series = Series((4.0, 1.0, 3.0, 2.0))
    assert (series.median, series.low, series.high) == (2.5, 1.0, 4.0)


def test_a_ratio_compares_medians_and_is_none_where_one_is_missing() -> None:
    """Twice the seconds is twice as slow; nothing measured gives no number."""
    assert ratio(Series((4.0, 4.0)), Series((2.0,))) == 2.0
    assert ratio(None, Series((2.0,))) is None
    assert ratio(Series((2.0,)), None) is None
    assert ratio(Series((2.0,)), Series((0.0,))) is None


@pytest.mark.parametrize(
    ("text", "size"), [("4K", 4 * KIB), ("256k", 256 * KIB), ("16M", 16 * MIB), ("1GiB", GIB), ("100", 100)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    """Sizes are powers of 1024, whatever their case."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "0", "-1M", "1.5G", "4X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Anything else is an error that says so."""
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


def test_numbers_are_written_with_the_digits_that_count() -> None:
    """Seconds below a tenth become milliseconds; no powers of ten; ranges only where there is one."""
    assert [number_text(value) for value in (0, 0.1234, 3.14159, 12345.6)] == ["0", "0.123", "3.14", "12,346"]
    assert value_text(0.0042, "s") == "4.20 ms"
    assert value_text(1.5, "s") == "1.50 s"
    assert value_text(7, "") == "7.00"
    assert series_text(Series((2.0,)), "s") == "2.00 s"
    assert series_text(Series((2.0, 1.0, 4.0)), "s") == "2.00 s (1.00 s - 4.00 s)"
    assert [size_text(size) for size in (100, 4096, 16 * MIB, GIB)] == ["100 B", "4 KiB", "16 MiB", "1 GiB"]
    assert (ratio_text(None), ratio_text(2.0)) == ("-", "2.00 x")


def test_each_run_begins_with_another() -> None:
    """Over as many runs as there are contenders each is first once."""
    assert [rotated("abc", run)[0] for run in range(3)] == ["a", "b", "c"]
    assert rotated([], 5) == []


def test_a_table_has_a_cell_a_column_and_hides_bars() -> None:
    """A bar in a cell is not taken for the table's own."""
    assert table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    """An empty record gives every aim and judges none."""
    verdicts = judge(Record(), GIB)
    assert verdicts
    assert {each.met for each in verdicts} == {None}


def test_aims_against_peers_compare_seconds() -> None:
    """2 x Kubo is met at half its seconds and missed just above; 10 x zstor at a tenth."""
    fast = filled(
        ("publish", "1 GiB", KUBO, [4.0, 3.0, 5.0]),
        ("publish", "1 GiB", OURS, [2.0]),
        ("publish", "1 GiB", ZSTOR, [20.0]),
    )
    slow = filled(
        ("publish", "1 GiB", KUBO, [4.0]), ("publish", "1 GiB", OURS, [2.1]), ("publish", "1 GiB", ZSTOR, [20.0])
    )
    assert [each.met for each in judge(fast, GIB) if "2 x Kubo" in each.aim or "store" in each.aim] == [True, True]
    assert [each.met for each in judge(slow, GIB) if "2 x Kubo" in each.aim or "store" in each.aim] == [False, False]


def test_the_durable_aim_is_held_against_the_slower_of_disk_and_unsynced() -> None:
    """With a disk of 3 s and 2 s unsynced, 0.7 of the lesser rate allows 4.28 s."""
    for seconds, met in ((4.2, True), (4.4, False)):
        record = filled(
            ("publish", "1 GiB", DURABLE, [seconds]),
            ("publish", "1 GiB", OURS, [2.0]),
            ("limits", "1.25 x the largest file to the disk", MACHINE, [3.0]),
        )
        (verdict,) = [each for each in judge(record, GIB) if "durable: at least" in each.aim]
        assert (verdict.met, "(the disk)" in verdict.measured) == (met, True)


def test_the_cold_read_is_held_against_one_core_of_sha256() -> None:
    """1 GiB in 1.0 s is 1074 MB/s: met at 2000 MB/s of sha256, missed at 2200."""
    for rate, met in ((2000.0, True), (2200.0, False)):
        record = filled(("fetch, healthy", "1 GiB", OURS, [1.0]))
        record.add(Key("limits", "sha256", MACHINE, "rate"), rate, "MB/s")
        (verdict,) = [each for each in judge(record, GIB) if "sha256" in each.aim]
        assert verdict.met is met


def test_memory_is_judged_by_its_worst_use_and_idle_is_none() -> None:
    """The highest value of all uses counts, not a median; what an idle network takes does not."""
    record = Record()
    for case, mib in (("idle", 400.0), ("get", 100.0), ("publish", 149.0), ("publish", 151.0), ("publish", 140.0)):
        record.add(Key("memory", case, OURS, "memory"), mib, "MiB")
    (verdict,) = [each for each in judge(record, GIB) if each.aim.startswith("memory")]
    assert (verdict.met, verdict.measured) == (False, "151 MiB (publish)")


def test_the_page_says_what_is_missing_and_how_many_times_better_ours_is() -> None:
    """Seconds compare downwards, rates upwards; a peer that was not found is named."""
    record = filled(("publish", "4 KiB", KUBO, [3.0]), ("publish", "4 KiB", OURS, [1.5]))
    record.add(Key("warm", "4 KiB", OURS, "rate"), 300, "requests/s")
    record.add(Key("warm", "4 KiB", KUBO, "rate"), 100, "requests/s")
    record.note("Said once.")
    record.note("Said once.")
    verdicts = judge(record, GIB)
    page = markdown(record, verdicts, {"cpu": "two"}, ["zstor"], ["Not quiet."])
    assert "| 4 KiB | 1.50 s | 3.00 s [2.00 x] |" in page
    assert "| 4 KiB | 300 requests/s | 100 requests/s [3.00 x] |" in page
    assert "`zstor` was not found on PATH" in page
    assert "**Not quiet.**" in page
    assert page.count("Said once.") == 1
    again = json.loads(json_text(as_json(record, verdicts, {"cpu": "two"}, ["zstor"])))
    assert again["missing_peers"] == ["zstor"]
    assert {line["contender"]: line["median"] for line in again["series"] if line["benchmark"] == "warm"} == {
        OURS: 300,
        KUBO: 100,
    }
