"""RESP as the original 0-db speaks it: requests parsed from any split of their bytes, replies encoded.

The parser does no I/O. Small arguments are cut out of what was fed; a large one is gathered in a buffer that the
transport fills directly, so that a value crosses memory once on its way from the socket to the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fungistor.limits import MIB, ZDB_VALUE_BYTES_MAX

ARGUMENTS_MAX: Final = 1024
ARGUMENT_BYTES_MAX: Final = ZDB_VALUE_BYTES_MAX
HEADER_LINE_BYTES_MAX: Final = 8192
LARGE_ARGUMENT_BYTES: Final = 16 << 10
"""Above this an argument is gathered in place; below, a copy is cheaper than the bookkeeping."""
REQUEST_BYTES_MAX: Final = ARGUMENT_BYTES_MAX + MIB
"""All arguments of a request together: one value of the longest kind and more words than any command takes.

The original bounds each argument alone, so that 1024 of them may claim 8 GiB.
"""

_SET_BEGINS: Final = b"*3\r\n$3\r\nSET\r\n$"
_GET_BEGINS: Final = b"*2\r\n$3\r\nGET\r\n$"
_SHORT: Final = {b"%d" % number: number for number in range(1, 256)}
"""Lengths that a key may have."""
_NEVER: Final = 1 << 40
"""Stands for a length that is none: nothing is found so far on."""

Argument = bytes | memoryview
Allocate = Callable[[int], memoryview | None]
Release = Callable[[memoryview], None]

NIL: Final = b"$-1\r\n"
OK: Final = b"+OK\r\n"
EMPTY: Final = b""


class ProtocolError(Exception):
    """The stream cannot be followed any further: answer `text` if there is one, then close."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ReplyError(Exception):
    """A command is refused; `text` goes to the client as it stands."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def error(text: str) -> bytes:
    """Return an error reply; a line break inside would be read as a second reply."""
    return b"-" + text.replace("\r", " ").replace("\n", " ").encode() + b"\r\n"


def status(text: bytes) -> bytes:
    """Return a status reply."""
    return b"+" + text + b"\r\n"


def integer(number: int) -> bytes:
    """Return an integer reply."""
    return b":%d\r\n" % number


def bulk(data: bytes) -> bytes:
    """Return a bulk reply."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(items: list[bytes]) -> bytes:
    """Return an array reply of items already encoded."""
    return b"*%d\r\n" % len(items) + b"".join(items)


def _number(line: bytes) -> int | None:
    """Return the decimal number of a header line, or None: no sign, blank or underscore as `int` would take."""
    if line.endswith(b"\r"):
        line = line[:-1]
    return int(line) if line.isdigit() and len(line) <= 10 else None


def whole_get(data: bytes, pos: int) -> tuple[bytes, int] | None:
    """Return the key of a GET in the form that every client sends, and where it ends; None for the careful way."""
    if not data.startswith(_GET_BEGINS, pos):
        return None
    pos += len(_GET_BEGINS)
    line = data.find(b"\r\n", pos, pos + 5)
    end = line + 2 + _SHORT.get(data[pos:line], _NEVER)
    if line < 0 or data[end : end + 2] != b"\r\n":
        return None
    return data[line + 2 : end], end + 2


def whole_set(data: bytes, pos: int) -> tuple[bytes, bytes, int] | None:
    """Return key and value of a SET in the form that every client sends, and where it ends; else None."""
    if not data.startswith(_SET_BEGINS, pos):
        return None
    pos += len(_SET_BEGINS)
    line = data.find(b"\r\n", pos, pos + 5)
    key_at = line + 2
    key_end = key_at + _SHORT.get(data[pos:line], _NEVER)
    value_line = data.find(b"\r\n", key_end + 3, key_end + 12)
    digits = data[key_end + 3 : value_line]
    if value_line < 0 or data[key_end : key_end + 3] != b"\r\n$" or not digits.isdigit():
        return None
    value_at = value_line + 2
    end = value_at + int(digits)
    if data[end : end + 2] != b"\r\n":
        return None
    return data[key_at:key_end], data[value_at:end], end + 2


class RequestParser:
    """Bytes in, requests out, for one connection.

    Use: `feed` what was read (or fill `wants()` and tell `filled`), then call `next` until it returns None, and
    `release` after each request was carried out. `starved` says that no buffer was to be had: call `next` again later.
    """

    __slots__ = (
        "_allocate",
        "_args",
        "_data",
        "_filled",
        "_gather",
        "_left",
        "_length",
        "_lent",
        "_pos",
        "_release",
        "_total",
        "starved",
    )

    def __init__(self, allocate: Allocate, release: Release) -> None:
        self._allocate = allocate
        self._release = release
        self._data = b""
        self._pos = 0
        self._args: list[Argument] = []
        self._left = 0
        self._length = -1
        self._total = 0
        self._gather: memoryview | None = None
        self._filled = 0
        self._lent: list[memoryview] = []
        self.starved = False

    def feed(self, data: bytes) -> None:
        """Take bytes that were read; never while `wants` asks for them elsewhere."""
        self._data = data if self._pos == len(self._data) else self._data[self._pos :] + data
        self._pos = 0

    def untouched(self) -> bytes:
        """Hand back what was fed and not begun, to be fed again or done without; nothing in the middle of a request."""
        if self._left or self._gather is not None:
            return b""
        data, self._data, self._pos = self._data[self._pos :], b"", 0
        return data

    def wants(self) -> memoryview | None:
        """Return the buffer that the next bytes of the stream must go to, or None for `feed`."""
        return None if self._gather is None else self._gather[self._filled : self._length + 2]

    def idle(self) -> bool:
        """Whether nothing of a request is left: what is fed next begins one."""
        return not self._left and self._pos == len(self._data) and self._gather is None

    def filled(self, count: int) -> int:
        """Say that `count` bytes were put into what `wants` gave; return how many are missing there."""
        self._filled += count
        return 0 if self._gather is None else self._length + 2 - self._filled

    def whole_bytes(self) -> int:
        """Return how long the argument that is gathered will be, its line break included; 0 where none is."""
        return 0 if self._gather is None else self._length + 2

    def gathering(self) -> bool:
        """Whether a buffer is held for an argument that is still coming."""
        return self._gather is not None

    def release(self) -> None:
        """Give back the buffers of the last request; its arguments must not be used any more."""
        for buffer in self._lent:
            self._release(buffer)
        self._lent.clear()

    def close(self) -> None:
        """Give back everything; the parser is not used again."""
        self.release()
        if self._gather is not None:
            self._release(self._gather)
            self._gather = None
        self._args = []
        self._data = b""
        self._pos = 0

    def next(self) -> list[Argument] | None:
        """Return the next whole request, or None when more bytes (or, if `starved`, a buffer) are needed.

        Raises:
            ProtocolError: the stream is malformed or beyond a bound.
        """
        self.starved = False
        if self._left == 0:
            request = self._whole()
            if request is not None:
                return request
            if not self._start():
                return None
        while self._left:
            if self._length < 0 and not self._argument_header():
                return None
            if not self._argument():
                return None
        request = self._args
        self._args = []
        self._total = 0
        return request

    def _whole(self) -> list[Argument] | None:
        """Return the next request if it lies there whole and plain; anything else is for the careful way.

        This is the hot path: a third of the time of the careful one.
        """
        data, pos = self._data, self._pos
        line = data.find(b"\r\n", pos, pos + 7)
        if line < 0 or data[pos] != 0x2A:
            return None
        count = data[pos + 1 : line]
        if not count.isdigit() or not 0 < int(count) <= ARGUMENTS_MAX:
            return None
        pos = line + 2
        args: list[Argument] = []
        for _ in range(int(count)):
            line = data.find(b"\r\n", pos, pos + 9)
            if line < 0 or data[pos] != 0x24:
                return None
            digits = data[pos + 1 : line]
            if not digits.isdigit():
                return None
            pos = line + 2
            end = pos + int(digits)
            if data[end : end + 2] != b"\r\n":
                return None
            args.append(data[pos:end])
            pos = end + 2
        self._pos = pos
        return args

    def _line(self) -> bytes | None:
        """Return the next header line without its first byte and line feed, or None if it is not all there."""
        end = self._data.find(b"\n", self._pos)
        # Too long is too long, whether or not its end came along with it.
        if (len(self._data) if end < 0 else end) - self._pos >= HEADER_LINE_BYTES_MAX:
            raise ProtocolError("")
        if end < 0:
            return None
        line = self._data[self._pos + 1 : end]
        self._pos = end + 1
        return line

    def _start(self) -> bool:
        if self._pos >= len(self._data):
            return False
        if self._data[self._pos] != 0x2A:
            raise ProtocolError("Malformed request, array expected")
        line = self._line()
        if line is None:
            return False
        count = _number(line)
        if not count:
            raise ProtocolError("Internal memory error" if line.startswith(b"-") else "Missing arguments")
        if count > ARGUMENTS_MAX:
            raise ProtocolError("Too many arguments")
        self._left = count
        return True

    def _argument_header(self) -> bool:
        if self._pos >= len(self._data):
            return False
        if self._data[self._pos] != 0x24:
            raise ProtocolError("Malformed query string")
        line = self._line()
        if line is None:
            return False
        length = _number(line)
        if length is None:
            raise ProtocolError("Malformed query string")
        self._total += length
        if length > ARGUMENT_BYTES_MAX or self._total > REQUEST_BYTES_MAX:
            raise ProtocolError("Payload too big")
        self._length = length
        return True

    def _argument(self) -> bool:
        """Take one argument whose length is known; return whether it was all there."""
        length = self._length
        if self._gather is not None:
            if self._filled < length + 2:
                return False
            buffer, self._gather = self._gather, None
            self._lent.append(buffer)
            self._take(buffer[:length], bytes(buffer[length : length + 2]))
            return True
        pos = self._pos
        end = pos + length + 2
        if len(self._data) >= end:
            self._pos = end
            self._take(self._data[pos : end - 2], self._data[end - 2 : end])
            return True
        if length > LARGE_ARGUMENT_BYTES:
            self._begin_gathering(length)
        return False

    def _begin_gathering(self, length: int) -> None:
        buffer = self._allocate(length + 2)
        if buffer is None:
            self.starved = True
            return
        here = len(self._data) - self._pos
        buffer[:here] = memoryview(self._data)[self._pos :]
        self._data = b""
        self._pos = 0
        self._gather = buffer
        self._filled = here

    def _take(self, argument: Argument, ending: bytes) -> None:
        if ending != b"\r\n":
            raise ProtocolError("Malformed query string")
        self._args.append(argument)
        self._left -= 1
        self._length = -1
