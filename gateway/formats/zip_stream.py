"""ZIP written as it is sent (APPNOTE 6.3): stored members, the checksum of each behind it, the directory at the end.

The standard library's writer keeps an object a member until the end, some 700 bytes each, and writes the directory of
them in one piece. Here what the directory will say is written to a scratch file as soon as it is known.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

HELD_BYTES = 1 << 20
"""Of the directory, in memory: some 8,000 members. Beyond it lies in a file without a name."""

_PIECE_BYTES = 64 * 1024
_LIMIT = 0xFFFFFFFF
_COUNT_LIMIT = 0xFFFF
_PLAIN, _ZIP64 = 20, 45
_UNIX = 3
_SIZES_BEHIND, _UTF8 = 1 << 3, 1 << 11
_STORED = 0

_LOCAL = struct.Struct("<4s5H3L2H")
_BEHIND = struct.Struct("<4s3L")
_BEHIND_64 = struct.Struct("<4sL2Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_EXTRA = struct.Struct("<2H")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")

Time = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ZipMember:
    """What the archive says of one member; folders' names end with a slash. `mode` is Unix's, type included."""

    name: str
    time: Time
    mode: int
    size: int


class ZipStream:
    """Gives the bytes of an archive. Close it after use."""

    def __init__(self) -> None:
        self._directory = SpooledTemporaryFile(max_size=HELD_BYTES)  # noqa: SIM115  # `close` closes it
        self._count = 0
        self._offset = 0

    def close(self) -> None:
        """Let the scratch file go."""
        self._directory.close()

    def member(self, member: ZipMember, content: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield one member: its head, `content` of the size announced, and what checks it."""
        start = self._offset
        name = member.name.encode()
        is_long = member.size >= _LIMIT
        flags = _SIZES_BEHIND | (0 if name.isascii() else _UTF8)
        date, clock = _dos(member.time)
        common = (_ZIP64 if is_long else _PLAIN, flags, _STORED, clock, date)
        shown = _LIMIT if is_long else 0
        extra = _extra(0, 0) if is_long else b""
        yield self._pass(_LOCAL.pack(b"PK\x03\x04", *common, 0, shown, shown, len(name), len(extra)) + name + extra)
        checksum = 0
        for piece in content:
            checksum = zlib.crc32(piece, checksum)
            self._offset += len(piece)
            yield piece
        behind = _BEHIND_64 if is_long else _BEHIND
        yield self._pass(behind.pack(b"PK\x07\x08", checksum, member.size, member.size))
        self._note(member, name, common, checksum, start)

    def end(self) -> Iterator[bytes]:
        """Yield the directory."""
        start = self._offset
        self._directory.seek(0)
        while piece := self._directory.read(_PIECE_BYTES):
            yield self._pass(piece)
        size, count = self._offset - start, self._count
        if count >= _COUNT_LIMIT or start >= _LIMIT or size >= _LIMIT:
            yield _END_64.pack(b"PK\x06\x06", 44, _UNIX << 8 | _ZIP64, _ZIP64, 0, 0, count, count, size, start)
            yield _LOCATOR_64.pack(b"PK\x06\x07", 0, start + size, 1)
        count = min(count, _COUNT_LIMIT)
        yield _END.pack(b"PK\x05\x06", 0, 0, count, count, min(size, _LIMIT), min(start, _LIMIT), 0)

    def _pass(self, piece: bytes) -> bytes:
        self._offset += len(piece)
        return piece

    def _note(
        self, member: ZipMember, name: bytes, common: tuple[int, int, int, int, int], checksum: int, start: int
    ) -> None:
        long = [value for value in (member.size, member.size, start) if value >= _LIMIT]
        extra = _extra(*long) if long else b""
        size, offset = min(member.size, _LIMIT), min(start, _LIMIT)
        version, *rest = common
        needed = _ZIP64 if long else version
        outer = member.mode << 16 | (0x10 if member.name.endswith("/") else 0)
        self._directory.write(
            _CENTRAL.pack(
                b"PK\x01\x02", _UNIX << 8 | needed, needed, *rest, checksum, size, size,
                len(name), len(extra), 0, 0, 0, outer, offset,
            ) + name + extra
        )  # fmt: skip
        self._count += 1


def _extra(*values: int) -> bytes:
    return _EXTRA.pack(1, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


def _dos(time: Time) -> tuple[int, int]:
    year, month, day, hour, minute, second = time
    return (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
