"""How results are shown: JSON lines for programs, tables for people."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from fungistor.errors import FungiStorError
from fungistor.objects.results import Json, Report, error_json

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


class Output:
    """Where a command's results and remarks go. `as_json` is `--json`."""

    def __init__(self, *, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err

    def json_line(self, value: Json) -> None:
        """Write one object at once: who reads the lines need not wait for the last."""
        self.out.write(json.dumps(value) + "\n")
        self.out.flush()

    def line(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """Say something to the person at the terminal; never part of the result."""
        with contextlib.suppress(OSError):  # a terminal that was closed harms nothing but itself
            self.err.write(text + "\n")
            self.err.flush()

    def error(self, error: FungiStorError, what: str = "") -> None:
        if self.as_json:
            value: Json = {"error": error_json(error)}
            if what:
                value["path"] = what
            self.note(json.dumps(value))
            return
        where = "" if not what or error.message.startswith(f"{what}: ") else f"{what}: "
        self.note(f"error: {safe(where)}{safe(error.message)}")
        if error.hint:
            self.note(f"  {safe(error.hint)}")

    def rows(self, reports: Iterable[Report], head: Sequence[str], columns: Sequence[str]) -> None:
        """Write reports as lines, or as a table of columns: `key`, `key:size`, `key:time` or `key:right`."""
        if self.as_json:
            for report in reports:
                self.json_line(report.to_json())
            return
        table = [[_cell(report.to_json(), column) for column in columns] for report in reports]
        for text in table_lines(head, table, [":" in column for column in columns]):
            self.line(text)

    def fields(self, value: Json, columns: Sequence[tuple[str, str]]) -> None:
        """Write one report as an object, or as lines of a name and a value; what is None is left out."""
        if self.as_json:
            self.json_line(value)
            return
        shown = [
            (name, _cell(value, column)) for name, column in columns if value.get(column.split(":")[0]) is not None
        ]
        width = max((len(name) for name, _ in shown), default=0)
        for name, text in shown:
            self.line(f"{name:<{width}}  {text}")


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lay out a table with two spaces between columns; nothing for no rows."""
    if not rows:
        return []
    widths = [max(len(line[place]) for line in (head, *rows)) for place in range(len(head))]
    lines = []
    for line in (head, *rows):
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cell(value: Json, column: str) -> str:
    key, _, kind = column.partition(":")
    item = value.get(key)
    if item is None:
        return "-"
    if kind == "size" and isinstance(item, int):
        return size_text(item)
    if kind == "time" and isinstance(item, int | float):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(item))
    return safe(str(item))


def size_text(count: int | float) -> str:
    """Give bytes as people read them: `512 B`, `3.4 MiB`."""
    amount = float(count)
    if amount < 1024:
        return f"{int(amount)} B"
    for unit in _UNITS:
        amount /= 1024
        if amount < 999.95 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """Give a time as people read it: `12 ms`, `3.4 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def safe(text: str) -> str:
    """Make text from elsewhere harmless on a terminal: names may hold escape sequences and broken encodings."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
