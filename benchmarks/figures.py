"""Pure arithmetic of measurements: series, medians, ratios, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_UNITS = (("K", KIB), ("M", MIB), ("G", GIB))


@dataclass(frozen=True, slots=True)
class Series:
    """What several runs of one thing gave, in the order of the runs."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def ratio(of: Series | None, to: Series | None) -> float | None:
    """Give how many times `to`'s median goes into `of`'s: for seconds, how many times faster `to` is."""
    if of is None or to is None or to.median <= 0:
        return None
    return of.median / to.median


def parse_size(text: str) -> int:
    """Read `4K`, `256K`, `16M`, `1G` or plain bytes.

    Raises: ValueError.
    """
    word = text.strip().upper().removesuffix("IB")
    for letter, factor in _UNITS:
        if word.endswith(letter):
            return _positive(word[: -len(letter)], text) * factor
    return _positive(word, text)


def size_text(size: int) -> str:
    """Write a size in the largest unit that divides it."""
    for letter, factor in reversed(_UNITS):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {letter}iB"
    return f"{size} B"


def number_text(value: float) -> str:
    """Write a number with three digits that count, never as a power of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def value_text(value: float, unit: str) -> str:
    """Write one value in a unit; seconds below a tenth as milliseconds."""
    if unit == "s" and abs(value) < 0.1:
        return f"{number_text(value * 1000)} ms"
    return f"{number_text(value)} {unit}" if unit else number_text(value)


def series_text(series: Series, unit: str) -> str:
    """Write the median, and least and most where there was more than one run."""
    if len(series.values) == 1:
        return value_text(series.median, unit)
    return f"{value_text(series.median, unit)} ({value_text(series.low, unit)} - {value_text(series.high, unit)})"


def ratio_text(value: float | None) -> str:
    """Write how many times; a dash where it was not measured."""
    return "-" if value is None else f"{number_text(value)} x"


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Begin elsewhere in each run, so that nobody always comes first or after the same other."""
    at = by % len(items) if items else 0
    return [*items[at:], *items[:at]]


def _positive(digits: str, text: str) -> int:
    if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
        raise ValueError(f"{text!r} is no size: say 4K, 256K, 16M or 1G")
    return int(digits)
