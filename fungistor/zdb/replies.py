"""Readers of one reply: each says where the next bytes should land and recognises its end.

A value that is as long as expected goes from the socket straight into the caller's buffer. Whatever else a member
answers (nil, an error, another length) is recognised from the same bytes without losing one.
"""

from __future__ import annotations

from typing import Protocol

from fungistor.limits import ZDB_VALUE_BYTES_MAX
from fungistor.zdb.resp import CRLF, LINE_BYTES_MAX, Buffer, ErrorReply, ProtocolError, Reply, bulk_head, parse

STAGE_BYTES = 4096
SMALL_REPLY_BYTES_MAX = ZDB_VALUE_BYTES_MAX + LINE_BYTES_MAX


class LengthError(ProtocolError):
    """A value of another length came. It is not read, so the connection is of no more use."""


class ReplyReader(Protocol):
    """One reply under way."""

    def room(self) -> list[memoryview]:
        """Where the next bytes may land; never more than what belongs to this reply, as far as that is known."""

    def took(self, count: int) -> bool:
        """That many bytes landed there. True when the reply is whole. Raises: ProtocolError."""

    def reset(self) -> None:
        """Forget all: the request is sent again on another connection."""


class Replies:
    """Some ordinary replies, parsed into `values`."""

    def __init__(self, count: int = 1, bytes_max: int | None = None) -> None:
        """`bytes_max`: no more may come in all; None bounds each reply alone."""
        self._count = count
        self._bytes_max = bytes_max
        self._took = 0
        self._stage = bytearray(STAGE_BYTES)
        self._data = bytearray()
        self.values: list[Reply] = []

    def room(self) -> list[memoryview]:
        return [memoryview(self._stage)]

    def took(self, count: int) -> bool:
        self._data += memoryview(self._stage)[:count]
        self._took += count
        if self._bytes_max is not None and self._took > self._bytes_max:
            raise ProtocolError(f"replies are longer than {self._bytes_max} bytes in all")
        at = 0
        while len(self.values) < self._count and (parsed := parse(self._data, at)) is not None:
            value, at = parsed
            self.values.append(value)
        del self._data[:at]
        if len(self._data) > SMALL_REPLY_BYTES_MAX:
            raise ProtocolError(f"a reply is longer than {SMALL_REPLY_BYTES_MAX} bytes")
        return len(self.values) == self._count

    def rest(self) -> bytes:
        """What came after the last reply."""
        return bytes(self._data)

    def reset(self) -> None:
        self._data.clear()
        self.values.clear()
        self._took = 0


class ValueReply:
    """A bulk reply of exactly len(payload) + len(tail) bytes, or nil, or an error.

    Afterwards `payload` and `tail` hold the value when `found`; otherwise `other` says what came instead.
    """

    def __init__(self, payload: memoryview, tail: Buffer) -> None:
        self._head_expected = bulk_head(len(payload) + len(tail))
        self._head = bytearray(len(self._head_expected))
        self._crlf = bytearray(2)
        self._parts = [memoryview(self._head), payload, memoryview(tail), memoryview(self._crlf)]
        self._total = sum(map(len, self._parts))
        self._got = 0
        self._line: Replies | None = None
        self.found = False
        self.other: str = ""
        self.missing = False
        self.wrong_length = False

    def room(self) -> list[memoryview]:
        if self._line is not None:
            return self._line.room()
        left, rooms = self._got, []
        for part in self._parts:
            if left < len(part):
                rooms.append(part[left:] if left else part)
                left = 0
            else:
                left -= len(part)
        return rooms

    def took(self, count: int) -> bool:
        if self._line is not None:
            return self._line.took(count) and self._not_the_value(self._line.values[0])
        before, self._got = self._got, self._got + count
        if before < len(self._head) and not self._head_expected.startswith(self._head[: self._got]):
            return self._divert()
        if self._got < self._total:
            return False
        if self._crlf != CRLF:
            raise ProtocolError(f"a bulk reply of {self._total} bytes does not end where it says")
        self.found = True
        return True

    def reset(self) -> None:
        self._got, self._line, self.other = 0, None, ""
        self.found = self.missing = self.wrong_length = False

    def _divert(self) -> bool:
        """Something else comes: collect what has landed in the wrong places, and go on from there."""
        landed, left = bytearray(), self._got
        for part in self._parts:
            landed += part[:left]
            left -= min(left, len(part))
        if landed[:1] == b"$" and (end := landed.find(CRLF)) > 0 and landed[:end] != b"$-1":
            wanted = len(self._parts[1]) + len(self._parts[2])
            raise LengthError(f"has a value of {bytes(landed[1:end]).decode(errors='replace')} bytes, not of {wanted}")
        self._line = Replies()
        done = False
        while landed:
            piece = landed[:STAGE_BYTES]
            del landed[:STAGE_BYTES]
            self._line.room()[0][: len(piece)] = piece
            done = self._line.took(len(piece))
        return done and self._not_the_value(self._line.values[0])

    def _not_the_value(self, reply: Reply) -> bool:
        match reply:
            case None:
                self.missing, self.other = True, "does not have it"
            case ErrorReply(message):
                self.other = f"answered: {message}"
            case bytes():
                self.wrong_length, self.other = True, f"has a value of {len(reply)} bytes"
            case _:
                raise ProtocolError(f"a GET was answered with {type(reply).__name__}")
        return True
