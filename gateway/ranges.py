"""Byte ranges (RFC 9110, section 14) and multipart/byteranges bodies with a length known beforehand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway.errors import RefusedError

RANGES_MAX = 32
"""Players ask for one, PDF readers for a few; more is a way to make a server work."""

_SPEC = re.compile(r"([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` to before `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def content_range(self, total: int) -> str:
        """Format for ``Content-Range``."""
        return f"bytes {self.start}-{self.stop - 1}/{total}"


def parse_range(text: str, total: int) -> tuple[ByteRange, ...] | None:
    """Return the ranges to send of a body of `total` bytes, None to send all of it.

    None for a unit other than bytes, for an empty body, and when the ranges together are longer than the body: then
    the whole is cheaper, and overlaps amplify nothing.

    Raises:
        RefusedError: 416 when no range can be satisfied, a range is malformed, or there are more than RANGES_MAX.
    """
    unit, equals, specs = text.partition("=")
    if not equals or unit.strip().lower() != "bytes" or total == 0:
        return None
    asked = [spec.strip() for spec in specs.split(",") if spec.strip()]
    if not asked or len(asked) > RANGES_MAX:
        raise _refused(f"{len(asked)} ranges asked for, between 1 and {RANGES_MAX} are served", total)
    satisfiable = [found for spec in asked if (found := _resolve(spec, total)) is not None]
    if not satisfiable:
        raise _refused(f"no asked range lies within the {total} bytes", total)
    if sum(found.size for found in satisfiable) > total:
        return None
    return tuple(satisfiable)


def _resolve(spec: str, total: int) -> ByteRange | None:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise _refused(f"malformed range {spec[:40]!r}", total)
    first, last, suffix = found.groups()
    if suffix is not None:
        return ByteRange(max(0, total - int(suffix)), total) if int(suffix) else None
    start = int(first)
    if last and int(last) < start:
        raise _refused(f"range {spec!r} ends before it starts", total)
    if start >= total:
        return None
    return ByteRange(start, min(int(last) + 1, total) if last else total)


def _refused(why: str, total: int) -> RefusedError:
    return RefusedError(416, why, headers={"Content-Range": f"bytes */{total}"})


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart/byteranges body over `ranges` of an entity of `total` bytes."""

    ranges: Sequence[ByteRange]
    total: int
    content_type: str
    boundary: str

    def _head(self, part: ByteRange) -> bytes:
        return (
            f"\r\n--{self.boundary}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Range: {part.content_range(self.total)}\r\n\r\n"
        ).encode("latin-1")

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        return sum(len(self._head(part)) + part.size for part in self.ranges) + len(self._tail)

    def chunks(self, read: Callable[[int, int], Iterator[bytes | memoryview]]) -> Iterator[bytes | memoryview]:
        """Yield the body; `read(start, stop)` gives the entity's bytes."""
        for part in self.ranges:
            yield self._head(part)
            yield from read(part.start, part.stop)
        yield self._tail
