"""DAG-CBOR and DAG-JSON as plain values with CIDs in them, to follow links and paths through them.

libipld is several times faster but gives a link and a byte string alike as bytes, so links could not be told from
data; it serves as the oracle in the tests. Such blocks are rare and small.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import NoReturn, TypeAlias

from fungistor.dag.cid import CID, DAG_CBOR
from fungistor.errors import CorruptError, InvalidError

DEPTH_MAX = 128
"""Levels of nesting. Real data has a handful; more is an attack on the stack."""

Value: TypeAlias = "bool | int | float | str | bytes | CID | list[Value] | dict[str, Value] | None"

_CID_TAG = 42
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE: dict[int, Value] = {20: False, 21: True, 22: None}


def decode(codec: int, block: bytes) -> Value:
    """Read a block of codec DAG_CBOR or, else, DAG_JSON.

    Raises:
        CorruptError: malformed, nested deeper than DEPTH_MAX, or a link that is no CID.
    """
    if codec == DAG_CBOR:
        return _Cbor(block).whole()
    return _decode_json(block)


def links(codec: int, block: bytes) -> list[CID]:
    """Return the links of a block in the order in which they stand, repeated ones repeated.

    Raises:
        CorruptError: as `decode`.
    """
    found: list[CID] = []
    _collect(decode(codec, block), found)
    return found


def _collect(value: Value, found: list[CID]) -> None:
    if isinstance(value, CID):
        found.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)


class _Cbor:
    """A cursor over one DAG-CBOR block. Tolerant of key order and long integers, which old writers got wrong."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._position = 0

    def whole(self) -> Value:
        value = self._value(0)
        if self._position != len(self._block):
            raise CorruptError(f"{len(self._block) - self._position} bytes behind the end of a dag-cbor block")
        return value

    def _take(self, count: int) -> bytes:
        start = self._position
        if count > len(self._block) - start:
            raise CorruptError(f"a dag-cbor item of {count} bytes at byte {start} of {len(self._block)}")
        self._position = start + count
        return self._block[start : self._position]

    def _value(self, depth: int) -> Value:
        if depth > DEPTH_MAX:
            raise CorruptError(f"a dag-cbor block nested deeper than {DEPTH_MAX}")
        head = self._take(1)[0]
        major, small = head >> 5, head & 31
        if major == 7:
            return self._simple(small)
        if small < 24:
            argument = small
        elif small in _ARGUMENT_BYTES:
            argument = int.from_bytes(self._take(_ARGUMENT_BYTES[small]), "big")
        else:
            raise CorruptError("a dag-cbor item of indefinite length")
        if major < 2:
            return argument if major == 0 else -1 - argument
        if major == 2:
            return self._take(argument)
        if major == 3:
            return self._text(argument)
        if major == 4:
            return self._items(argument, depth)
        if major == 5:
            return self._map(argument, depth)
        return self._link(argument, depth)

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise CorruptError("a dag-cbor string that is not UTF-8") from None

    def _items(self, count: int, depth: int) -> list[Value]:
        if count > len(self._block) - self._position:
            raise CorruptError(f"a dag-cbor list of {count} items in {len(self._block)} bytes")
        return [self._value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Value]:
        out: dict[str, Value] = {}
        for _ in range(min(count, len(self._block) + 1)):
            key = self._value(depth + 1)
            if not isinstance(key, str) or key in out:
                raise CorruptError("a dag-cbor map with a key twice, or one that is no string")
            out[key] = self._value(depth + 1)
        return out

    def _link(self, tag: int, depth: int) -> CID:
        if tag != _CID_TAG:
            raise CorruptError(f"tag {tag} in a dag-cbor block, only links are tagged")
        value = self._value(depth + 1)
        if not isinstance(value, bytes) or value[:1] != b"\0":
            raise CorruptError("a dag-cbor link that is not a zero byte and a CID")
        try:
            return CID.decode(value[1:])
        except InvalidError as error:
            raise CorruptError(f"a dag-cbor link that is no CID: {error}") from None

    def _simple(self, small: int) -> Value:
        if small in _SIMPLE:
            return _SIMPLE[small]
        if small not in _FLOATS:
            raise CorruptError(f"simple value {small} in a dag-cbor block")
        number = float(struct.unpack(_FLOATS[small], self._take(_ARGUMENT_BYTES[small]))[0])
        if not math.isfinite(number):
            raise CorruptError("a dag-cbor number that is not finite")
        return number


def _decode_json(block: bytes) -> Value:
    try:
        value: Value = json.loads(block.decode("utf-8"), object_pairs_hook=_json_object, parse_constant=_json_constant)
        _check_depth(value)
    except RecursionError:
        raise CorruptError(f"a dag-json block nested deeper than {DEPTH_MAX}") from None
    except (ValueError, InvalidError) as error:
        raise CorruptError(f"not a dag-json block: {error}") from None
    return value


def _check_depth(value: Value, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise CorruptError(f"a dag-json block nested deeper than {DEPTH_MAX}")
    if isinstance(value, list):
        for item in value:
            _check_depth(item, depth + 1)
    elif isinstance(value, dict):
        for item in value.values():
            _check_depth(item, depth + 1)


def _json_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _json_object(pairs: list[tuple[str, Value]]) -> Value:
    """Turn {"/": "<cid>"} into a link and {"/": {"bytes": "<base64>"}} into bytes; all else with "/" is reserved."""
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice in a map")
    if "/" not in out:
        return out
    inner = out["/"]
    if len(out) == 1 and isinstance(inner, str):
        return CID.parse(inner)
    if len(out) == 1 and isinstance(inner, dict) and list(inner) == ["bytes"] and isinstance(inner["bytes"], str):
        text = inner["bytes"]
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError(f"bytes that are not base64: {error}") from None
    return out
