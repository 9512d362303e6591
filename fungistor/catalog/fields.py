"""Reads the arrays of our DAG-CBOR formats field by field, every bound checked, one byte form for each value."""

from __future__ import annotations

from collections.abc import Sequence
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


Shape = tuple[tuple[str, type[int] | type[bytes], int, int], ...]
"""Of fields in a row: name, type, and the least and most of an integer, or of a byte string's length."""

_WORDS = {int: "an integer of", bytes: "a byte string of a length of"}


class Fields:
    """The values of one array, taken in order. Every method raises CorruptError that names the field."""

    __slots__ = ("_at", "_values", "_what")

    def __init__(self, values: list[object], what: str) -> None:
        self._values = values
        self._what = what
        self._at = 0

    def _take(self, name: str) -> object:
        if self._at >= len(self._values):
            raise CorruptError(f"{self._what}: ends before {name}")
        self._at += 1
        return self._values[self._at - 1]

    def wrong(self, name: str, why: str) -> CorruptError:
        """The error for a field that breaks a rule of its own."""
        return CorruptError(f"{self._what}: {name} {why}")

    def uint(self, name: str, most: int = UINT_MAX, least: int = 0) -> int:
        """Take an integer of `least` to `most`."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"is not an integer of {least} to {most}")
        return value

    def plain(self, shape: Shape) -> list[Any]:
        """Take integers, byte strings and texts at once: a third of the time of one by one, where there are many."""
        at, self._at = self._at, self._at + len(shape)
        taken = self._values[at : self._at]
        for (name, kind, least, most), value in zip(shape, taken, strict=False):
            if type(value) is not kind or not least <= (value if kind is int else len(value)) <= most:  # type: ignore[arg-type, operator]
                raise self.wrong(name, f"is not {_WORDS[kind]} {least} to {most}")
        if len(taken) < len(shape):
            raise CorruptError(f"{self._what}: ends before {shape[len(taken)][0]}")
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
        return Fields(value, f"{self._what}.{name}")

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
        if self.more():
            raise CorruptError(f"{self._what}: {len(self._values) - self._at} values too many")
