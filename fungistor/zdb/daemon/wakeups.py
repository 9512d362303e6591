"""When the kernel wakes the loop for a connection that sends a large value: when it is there, not once a segment."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_BYTES_MIN: Final = 16 << 10
_BYTES_MAX: Final = 512 << 10
"""How much of a value the kernel is asked to gather before it wakes the loop; it makes its own buffer as large."""
STALL_S: Final = 10.0
"""A client that stops in the middle of a value gives its buffer up after this, when others wait for one."""


class Wakeups:
    """One connection's."""

    __slots__ = ("_socket", "_transport", "awaited", "last_read")

    def __init__(self, transport: asyncio.Transport, sock: socket.socket | None) -> None:
        """Args: sock: the TCP socket; None where the kernel cannot be asked, as under TLS."""
        self._transport = transport
        self._socket = sock
        self.awaited = 1
        """How many bytes the kernel waits for."""
        self.last_read = 0.0

    def expect(self, missing: int) -> None:
        """Wait for so much of a value, or for anything where none is gathered."""
        wanted = min(missing, _BYTES_MAX) if missing >= _BYTES_MIN else 1
        if wanted != self.awaited and self._socket is not None and not self._transport.is_closing():
            self.awaited = wanted
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    def stalled(self, now: float) -> bool:
        """Whether nothing of the value that is gathered has come for too long."""
        if now - self.last_read <= STALL_S:
            return False
        if self.awaited > 1:
            # It may be slow and not gone: from now on every byte is noticed.
            self.last_read = now
            self.expect(0)
            return False
        return True
