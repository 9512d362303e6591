"""Variable-length integers: the lenient ones of protobuf, and the strict ones of multiformats."""

from __future__ import annotations

from fungistor.errors import CorruptError, InvalidError

_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))
_PROTOBUF_BYTES_MAX = 10
_MULTIFORMATS_BYTES_MAX = 9
UINT64_MAX = (1 << 64) - 1


def encode(value: int) -> bytes:
    """Return the shortest form of a number >= 0."""
    if value < 0x80:
        return _ONE_BYTE[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encoded_bytes(value: int) -> int:
    """Return how many bytes `encode` gives."""
    return (value.bit_length() + 6) // 7 or 1


def decode(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return a protobuf varint and the position behind it. Overlong forms are legal in protobuf.

    Raises:
        CorruptError: it does not end, or exceeds 64 bits.
    """
    value = shift = 0
    for at in range(position, min(position + _PROTOBUF_BYTES_MAX, len(data))):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > UINT64_MAX:
                break
            return value, at + 1
        shift += 7
    raise CorruptError(f"no number of at most 64 bits at byte {position} of {len(data)}")


def decode_strict(data: bytes, position: int) -> tuple[int, int]:
    """Return a multiformats unsigned varint (shortest form, at most 63 bits) and the position behind it.

    Raises:
        InvalidError: it does not end, is longer than it need be, or exceeds 63 bits.
    """
    value = shift = 0
    for at in range(position, min(position + _MULTIFORMATS_BYTES_MAX, len(data))):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and at > position:
                break
            return value, at + 1
        shift += 7
    raise InvalidError(f"no shortest-form varint of at most 63 bits at byte {position} of {len(data)}")
