"""The little of protobuf that records and keys need: numbers and byte strings, the last of a repeated field counts."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.dag import varint
from fungistor.errors import CorruptError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


@dataclass(frozen=True, slots=True)
class Fields:
    """A message's fields by number."""

    values: dict[int, int | bytes]

    @classmethod
    def read(cls, message: bytes) -> Fields:
        """Take a message apart. Fields of fixed width are passed over: none is known here.

        Raises: CorruptError.
        """
        values: dict[int, int | bytes] = {}
        at = 0
        while at < len(message):
            tag, at = varint.decode(message, at)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                values[number], at = varint.decode(message, at)
            elif kind == _BYTES:
                length, at = varint.decode(message, at)
                if length > len(message) - at:
                    raise CorruptError(f"protobuf field {number} is cut off: {length} bytes, {len(message) - at} left")
                values[number] = message[at : at + length]
                at += length
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise CorruptError(f"protobuf field {number} has wire type {kind}")
        if at > len(message):
            raise CorruptError("the last protobuf field is cut off")
        return cls(values)

    def number(self, field: int) -> int | None:
        """Return a number, None where it is absent.

        Raises: CorruptError where it is no number.
        """
        value = self.values.get(field)
        if isinstance(value, bytes):
            raise CorruptError(f"protobuf field {field} is no number")
        return value

    def bytes(self, field: int) -> bytes | None:
        """Return a byte string, None where it is absent.

        Raises: CorruptError where it is a number.
        """
        value = self.values.get(field)
        if isinstance(value, int):
            raise CorruptError(f"protobuf field {field} is no byte string")
        return value


def encode_number(field: int, value: int) -> bytes:
    """Return a field that is a number."""
    return varint.encode(field << 3 | _VARINT) + varint.encode(value)


def encode_bytes(field: int, value: bytes) -> bytes:
    """Return a field that is a byte string."""
    return varint.encode(field << 3 | _BYTES) + varint.encode(len(value)) + value
