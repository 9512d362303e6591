"""DAG-CBOR and DAG-JSON as plain values with CIDs in them: to follow links and paths, and to turn one into the other.

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

from fungistor.dag import dag_pb
from fungistor.dag.cid import CID, DAG_CBOR
from fungistor.errors import CorruptError, InvalidError

DEPTH_MAX = 128
"""Levels of nesting. Real data has a handful; more is an attack on the stack."""

CONTAINERS_MAX = 1 << 18
"""Lists and maps in a dag-cbor block. A byte is enough for an empty one, and Python needs 72: two million of them were
150 MiB of objects for a block of 2 MiB. Real ones are longer than eight bytes."""

Value: TypeAlias = "bool | int | float | str | bytes | CID | list[Value] | dict[str, Value] | None"

_CID_TAG = 42
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE: dict[int, Value] = {20: False, 21: True, 22: None}


def decode(codec: int, block: bytes) -> Value:
    """Read a block of codec DAG_CBOR or, else, DAG_JSON.

    Raises:
        CorruptError: malformed, beyond the bounds above, or a link that is no CID.
    """
    if codec == DAG_CBOR:
        return _Cbor(block).whole()
    return _decode_json(block)


def encode(codec: int, value: Value) -> bytes:
    """Write a value in the one form that its codec, DAG_CBOR or else DAG_JSON, has for it.

    Raises:
        InvalidError: what the codec has no form for: an integer of more than 64 bits, half a surrogate pair.
    """
    if codec == DAG_CBOR:
        parts: list[bytes] = []
        _write_cbor(value, parts)
        return b"".join(parts)
    text = json.dumps(_as_json(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return _utf8(text)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidError("a string with half of a surrogate pair, which no codec but json holds") from None


def _head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes((major << 5 | count,))
    for info, width in _ARGUMENT_BYTES.items():
        if count < 1 << 8 * width:
            return bytes((major << 5 | info,)) + count.to_bytes(width, "big")
    raise InvalidError(f"an integer of {count.bit_length()} bits, dag-cbor holds 64")


def _write_cbor(value: Value, parts: list[bytes]) -> None:
    match value:
        case None | bool():
            parts.append({None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value])
        case int():
            parts.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
        case float():
            parts.append(b"\xfb" + struct.pack(">d", value))
        case str():
            text = _utf8(value)
            parts += (_head(3, len(text)), text)
        case bytes():
            parts += (_head(2, len(value)), value)
        case CID():
            link = b"\0" + value.encode()
            parts += (_head(6, _CID_TAG), _head(2, len(link)), link)
        case list():
            parts.append(_head(4, len(value)))
            for item in value:
                _write_cbor(item, parts)
        case dict():
            parts.append(_head(5, len(value)))
            # The codec's order: shorter keys first, then by bytes.
            for key in sorted(value, key=lambda text: (len(_utf8(text)), _utf8(text))):
                _write_cbor(key, parts)
                _write_cbor(value[key], parts)


def _as_json(value: Value) -> object:
    match value:
        case CID():
            return {"/": str(value)}
        case bytes():
            return {"/": {"bytes": base64.b64encode(value).decode("ascii").rstrip("=")}}
        case list():
            return [_as_json(item) for item in value]
        case dict():
            return {key: _as_json(item) for key, item in value.items()}
        case _:
            return value


def of_dag_pb(block: bytes) -> Value:
    """Return a dag-pb block in the data model, as its specification lays it out.

    Raises:
        CorruptError: malformed.
    """
    spans, data = dag_pb.scan(block)
    links: list[Value] = []
    for span in spans:
        link = dag_pb.decode_link(block, span)
        told: dict[str, Value] = {"Hash": link.cid}
        if link.name is not None:
            told["Name"] = link.name.decode("utf-8", "replace")
        if link.tsize is not None:
            told["Tsize"] = link.tsize
        links.append(told)
    out: dict[str, Value] = {"Links": links}
    if data is not None:
        out["Data"] = block[data[0] : data[1]]
    return out


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
        self._containers = 0

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
        if major in (4, 5):
            self._containers += 1
            if self._containers > CONTAINERS_MAX:
                raise CorruptError(f"a dag-cbor block of more than {CONTAINERS_MAX} lists and maps")
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
