"""Replies of one connection that were made and not handed over yet."""

from __future__ import annotations

import asyncio
import os
from typing import Final

_JOIN_BYTES: Final = 4 << 10
"""Replies shorter than this on average are joined; longer ones cost less as a vector."""


class Outbox:
    """Gathers replies, so that those of one read leave in one call."""

    __slots__ = ("_fd", "_parts", "_transport", "size")

    def __init__(self, transport: asyncio.Transport, fd: int) -> None:
        """Args: fd: the socket, where bytes may be sent to it past the transport; -1 where not."""
        self._transport = transport
        self._fd = fd
        self._parts: list[bytes | memoryview] = []
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take a reply or a part of one."""
        self._parts.append(data)
        self.size += len(data)

    def clear(self) -> None:
        """Forget everything."""
        self._parts = []
        self.size = 0

    def hand_over(self) -> int:
        """Send what there is, and give the transport what the socket does not take. Return the bytes."""
        size, parts = self.size, self._parts
        self.clear()
        if len(parts) == 1:
            self._send(parts[0])
        elif size <= _JOIN_BYTES * len(parts):
            self._send(b"".join(parts))
        else:
            self._transport.writelines(parts)
        return size

    def _send(self, data: bytes | memoryview) -> None:
        """Past the transport, which would keep it until the loop comes by, unless other bytes wait there."""
        if self._fd >= 0 and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except OSError:
                # Not now, or never again: the transport finds out which.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)

    def send_with(self, value: memoryview) -> int:
        """Send what there is and a value from a buffer that is reused at once; keep a copy of what is not taken.

        Return the bytes that the socket took; 0 where others wait before them.
        """
        sent, before = 0, b"".join(self._parts)
        if self._fd >= 0 and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            try:
                sent = os.writev(self._fd, (before, value))
            except OSError:
                # Not now, or never again: the transport finds out which.
                sent = 0
        left = before[sent:]
        rest = value[max(sent - len(before), 0) :]
        self._parts = [left] if left else []
        self.size = len(left)
        if len(rest):
            self.add(bytes(rest))
        return sent
