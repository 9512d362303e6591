"""RESP2 as ZDB speaks it, seen from a client: commands out, replies in. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.errors import CorruptError
from fungistor.limits import ZDB_VALUE_BYTES_MAX

CRLF = b"\r\n"
LINE_BYTES_MAX = 8192
ARRAY_ITEMS_MAX = 1 << 16
DEPTH_MAX = 4


Buffer = bytes | bytearray | memoryview


class ProtocolError(CorruptError):
    """These bytes are no RESP reply; the connection they came on is out of step for good."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A reply of the form `-message`."""

    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """A reply of the form `+text`."""

    text: str


Reply = bytes | int | None | Status | ErrorReply | list["Reply"]


def command(*words: bytes | str | int) -> bytes:
    """One whole command."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def set_head(key: bytes, value_bytes: int) -> bytes:
    """A SET up to where its value begins; the value and CRLF follow on the wire from the caller's own buffers."""
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, value_bytes)


def bulk_head(value_bytes: int) -> bytes:
    """What stands before a bulk reply of that length."""
    return b"$%d\r\n" % value_bytes


def parse(data: bytes | bytearray, start: int = 0, depth: int = 0) -> tuple[Reply, int] | None:
    """The reply that begins at `start` and where it ends; None while it is not whole.

    Raises: ProtocolError for what no continuation can make a reply.
    """
    end = data.find(CRLF, start)
    if end < 0:
        if len(data) - start > LINE_BYTES_MAX:
            raise ProtocolError(f"a reply's first line is longer than {LINE_BYTES_MAX} bytes")
        return None
    mark, line, after = data[start : start + 1], bytes(data[start + 1 : end]), end + 2
    match mark:
        case b"+":
            return Status(line.decode(errors="replace")), after
        case b"-":
            return ErrorReply(line.decode(errors="replace")), after
        case b":":
            return _number(line), after
        case b"$":
            return _bulk(data, _number(line), after)
        case b"*":
            return _array(data, _number(line), after, depth)
    raise ProtocolError(f"a reply begins with {bytes(mark)!r}")


def _number(line: bytes) -> int:
    digits = line[1:] if line[:1] == b"-" else line
    if not digits.isdigit() or len(digits) > 20:
        raise ProtocolError(f"a reply has {line[:32]!r} where a number belongs")
    return int(line)


def _bulk(data: bytes | bytearray, length: int, start: int) -> tuple[bytes | None, int] | None:
    if length == -1:
        return None, start
    if not 0 <= length <= ZDB_VALUE_BYTES_MAX:
        raise ProtocolError(f"a reply announces {length} bytes, at most {ZDB_VALUE_BYTES_MAX} are allowed")
    end = start + length
    if len(data) < end + 2:
        return None
    if data[end : end + 2] != CRLF:
        raise ProtocolError(f"a bulk reply of {length} bytes does not end there")
    return bytes(data[start:end]), end + 2


def _array(data: bytes | bytearray, count: int, start: int, depth: int) -> tuple[list[Reply] | None, int] | None:
    if count == -1:
        return None, start
    if not 0 <= count <= ARRAY_ITEMS_MAX or depth >= DEPTH_MAX:
        raise ProtocolError(f"a reply announces {count} items at depth {depth}")
    items: list[Reply] = []
    for _ in range(count):
        parsed = parse(data, start, depth + 1)
        if parsed is None:
            return None
        item, start = parsed
        items.append(item)
    return items, start
