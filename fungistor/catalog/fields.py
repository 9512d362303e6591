"""Reads the arrays of our DAG-CBOR formats field by field, every bound checked, one byte form for each value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import libipld

from fungistor.errors import CorruptError, InvalidError

UINT_MAX = 2**63 - 1
"""SQLite's integers end here."""


def encode_array(values: Sequence[object]) -> bytes:
    """Encode nested lists of ints, bytes, text and None.

    Raises:
        InvalidError: some value has no DAG-CBOR form, such as a lone surrogate in a text.
    """
    try:
        return bytes(libipld.encode_dag_cbor(list(values)))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidError(f"not encodable: {error}") from error


def decode_array(data: bytes, what: str) -> Fields:
    """Decode one array, refusing every byte form but the one `encode_array` gives.

    Raises:
        CorruptError: anything else.
    """
    try:
        value = libipld.decode_dag_cbor(data)
        canonical = bytes(libipld.encode_dag_cbor(value))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CorruptError(f"{what}: not DAG-CBOR: {error}") from error
    if canonical != data:
        raise CorruptError(f"{what}: not in canonical form")
    if not isinstance(value, list):
        raise CorruptError(f"{what}: not an array")
    return Fields(value, what)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Of which values a field is: a test of `{0}` against the bounds `{1}` and `{2}`, and the words for that."""

    test: str
    words: str


_KINDS: dict[type, _Kind] = {
    int: _Kind("type({0}) is int and {1} <= {0} <= {2}", "an integer of"),
    bytes: _Kind("type({0}) is bytes and {1} <= len({0}) <= {2}", "a byte string of a length of"),
    str: _Kind("type({0}) is str and {1} <= len({0}.encode()) <= {2}", "a text whose UTF-8 bytes are"),
    list: _Kind("type({0}) is list and {1} <= len({0}) <= {2}", "an array of a length of"),
    NoneType: _Kind("({0} is None or type({0}) is int and {1} <= {0} <= {2})", "null or an integer of"),
}


class Shape:
    """Fields in a row, each by its name, its type (None's for an integer that may be null), and the least and most of
    an integer or of a length.

    Its tests are one expression, compiled once: records are read by the million, and calls take longer than tests.
    """

    __slots__ = ("_rows", "fits", "width")

    def __init__(self, *rows: tuple[str, type, int, int]) -> None:
        self._rows = rows
        self.width = len(rows)
        self.fits = _compiled(rows)

    def misfit(self, values: Sequence[object]) -> tuple[str, str]:
        """The first field that values which do not fit have wrong, or lack, and how."""
        for row, value in zip(self._rows, values, strict=False):
            if not _compiled([row])(value):
                name, kind, least, most = row
                return name, f"is not {_KINDS[kind].words} {least} to {most}"
        return self._rows[len(values)][0], "is missing"


def _compiled(rows: Sequence[tuple[str, type, int, int]]) -> Callable[..., bool]:
    names = [f"value_{at}" for at in range(len(rows))]
    tests = (_KINDS[row[1]].test.format(name, *row[2:]) for name, row in zip(names, rows, strict=True))
    fits: Callable[..., bool] = eval(f"lambda {', '.join(names)}: {' and '.join(tests)}")  # noqa: S307 - our own words
    return fits


class Fields:
    """The values of one array, taken in order. Every method raises CorruptError that names the field."""

    __slots__ = ("_at", "_values", "_what", "_within")

    def __init__(self, values: list[object], what: str, within: Fields | None = None) -> None:
        """`within`: the fields that this array is one of, for its full name in errors."""
        self._values = values
        self._what = what
        self._within = within
        self._at = 0

    @property
    def path(self) -> str:
        """Which array this is."""
        return self._what if self._within is None else f"{self._within.path}.{self._what}"

    def _take(self, name: str) -> object:
        if self._at >= len(self._values):
            raise CorruptError(f"{self.path}: ends before {name}")
        self._at += 1
        return self._values[self._at - 1]

    def wrong(self, name: str, why: str) -> CorruptError:
        """The error for a field that breaks a rule of its own."""
        return CorruptError(f"{self.path}: {name} {why}")

    def uint(self, name: str, most: int = UINT_MAX, least: int = 0) -> int:
        """Take an integer of `least` to `most`."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"is not an integer of {least} to {most}")
        return value

    def plain(self, shape: Shape) -> list[Any]:
        """Take fields of a shape at once: a fraction of the time of one by one, where there are many."""
        at, self._at = self._at, self._at + shape.width
        taken = self._values[at : self._at]
        if len(taken) < shape.width or not shape.fits(*taken):
            raise self.wrong(*shape.misfit(taken))
        return taken

    def optional_int(self, name: str, least: int, most: int) -> int | None:
        """Take an integer within bounds, or null."""
        value = self._take(name)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"is neither null nor an integer of {least} to {most}")
        return value

    def bytes(self, name: str, least: int, most: int) -> bytes:
        """Take a byte string whose length is within bounds."""
        value = self._take(name)
        if type(value) is not bytes or not least <= len(value) <= most:
            raise self.wrong(name, f"is not {least} to {most} bytes")
        return value

    def text(self, name: str, most: int) -> str:
        """Take a text of 1 to `most` UTF-8 bytes."""
        value = self._take(name)
        if type(value) is not str or not 1 <= len(value.encode()) <= most:
            raise self.wrong(name, f"is not a text of 1 to {most} bytes")
        return value

    def flag(self, name: str) -> bool:
        """Take 0 or 1."""
        return self.uint(name, 1) == 1

    def array(self, name: str, most: int) -> Fields:
        """Take an array of at most `most` values."""
        value = self._take(name)
        if type(value) is not list or len(value) > most:
            raise self.wrong(name, f"is not an array of at most {most}")
        return Fields(value, name, self)

    def optional_array(self, name: str, most: int) -> Fields | None:
        """Take an array of at most `most` values, or null."""
        if self._at < len(self._values) and self._values[self._at] is None:
            self._at += 1
            return None
        return self.array(name, most)

    def rest(self) -> list[object]:
        """Take all that is left, whatever it is."""
        rest, self._at = self._values[self._at :], len(self._values)
        return rest

    def more(self) -> bool:
        """Whether there are values left."""
        return self._at < len(self._values)

    def end(self) -> None:
        """State that all was taken."""
        if self._at < len(self._values):
            raise CorruptError(f"{self.path}: {len(self._values) - self._at} values too many")
