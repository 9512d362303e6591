"""A run as a page of Markdown and as JSON: pure functions of its record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.aims import Verdict
from benchmarks.figures import Series, ratio_text, series_text
from benchmarks.record import OURS, Key, Record, Unit

LARGER_IS_BETTER: frozenset[Unit] = frozenset(("MB/s", "requests/s", "objects/s"))

HEAD = """\
# Results

Written by `python -m benchmarks`: do not edit. What each benchmark does, and how to run them, is in
[benchmarks.md](benchmarks.md). Each value is a median, with least and most of all runs behind it. In brackets after a
peer's value: how many times better ours is in the same run.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; bars in cells are kept from being its own."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def markdown(
    record: Record,
    verdicts: Sequence[Verdict],
    about: Mapping[str, str],
    missing: Sequence[str],
    remarks: Sequence[str],
) -> str:
    """Write the whole page."""
    parts = [HEAD, *(f"**{remark}**\n" for remark in remarks)]
    parts.append("## Machine and run\n\n" + table(("what", "value"), list(about.items())))
    judged = [each for each in verdicts if each.met is not None]
    rows = [(each.aim, each.measured, "met" if each.met else "**missed**") for each in judged]
    parts.append("## Aims\n\nThose that this run measured.\n\n" + table(("aim", "measured", ""), rows))
    parts += [_section(record, name) for name in dict.fromkeys(key.benchmark for key in record.values)]
    notes = [f"- {note}" for note in record.notes]
    notes += [f"- `{name}` was not found on PATH: it has no column." for name in missing]
    if notes:
        parts.append("## Notes\n\n" + "\n".join(notes) + "\n")
    return "\n".join(parts)


def as_json(
    record: Record, verdicts: Sequence[Verdict], about: Mapping[str, str], missing: Sequence[str]
) -> dict[str, object]:
    """The same for machines."""
    return {
        "version": 1,
        "machine": dict(about),
        "missing_peers": list(missing),
        "aims": [asdict(each) for each in verdicts],
        "notes": record.notes,
        "series": record.as_json(),
    }


def json_text(content: Mapping[str, object]) -> str:
    """Write JSON with a line for each item of a list, so that a later run's differences can be read."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list) and value:
            lines = ",\n".join(f"  {json.dumps(item)}" for item in value)
            parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _section(record: Record, benchmark: str) -> str:
    keys = [key for key in record.values if key.benchmark == benchmark]
    contenders = list(dict.fromkeys(key.contender for key in keys))
    # Ours first: the others' ratios are to it.
    contenders.sort(key=lambda name: name != OURS)
    rows = []
    for case, quantity in dict.fromkeys((key.case, key.quantity) for key in keys):
        label = case if quantity in ("time", "rate", "memory") else f"{case}: {quantity}"
        rows.append([label, *(_cell(record, Key(benchmark, case, name, quantity)) for name in contenders)])
    return f"## {benchmark}\n\n" + table(("", *contenders), rows)


def _cell(record: Record, key: Key) -> str:
    values = record.values.get(key)
    if values is None:
        return "-"
    unit, series = record.units[key], Series(tuple(values))
    text = series_text(series, unit)
    ours = record.series(key.benchmark, key.case, OURS, key.quantity)
    if ours is None or key.contender == OURS or series.median <= 0 or ours.median <= 0:
        return text
    times = ours.median / series.median if unit in LARGER_IS_BETTER else series.median / ours.median
    return f"{text} [{ratio_text(times)}]"
