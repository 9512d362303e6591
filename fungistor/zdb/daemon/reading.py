"""Whether one connection is read from, and by whom: its transport, or the rounds that read all plain ones."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from fungistor.zdb.daemon.rounds import Member, Rounds

LINGER_S: Final = 3.0
"""How long a client that is being hung up on may take to hear why."""


class Reading:
    """One connection's."""

    __slots__ = ("_lingering", "_member", "_paused", "_rounds", "_transport", "fd")

    def __init__(self, transport: asyncio.Transport, rounds: Rounds, member: Member) -> None:
        self._transport = transport
        self._rounds = rounds
        self._member = member
        self._paused = False
        self._lingering: asyncio.TimerHandle | None = None
        self.fd = -1
        """The socket, once it is read in rounds."""

    def take_over(self, fd: int) -> None:
        """Read in rounds from now on; not to be called before the transport has begun to read."""
        if self._transport.is_closing():
            return
        self.fd = fd
        if not self._paused:
            self._transport.pause_reading()
            self._rounds.join(fd, self._member)

    def pause(self, wait: bool) -> None:
        """Read no more, or go on."""
        if wait == self._paused or self._transport.is_closing():
            return
        self._paused = wait
        if self.fd < 0:
            (self._transport.pause_reading if wait else self._transport.resume_reading)()
        elif wait:
            self._rounds.leave(self.fd)
        else:
            self._rounds.join(self.fd, self._member)

    def stop(self) -> None:
        """Never read from it again; safe to repeat."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._rounds.leave(self.fd)

    def hang_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close when what was answered is sent and the client has closed its side, or had its time to.

        A socket that is closed with bytes unread is reset, and what is still on its way to the client goes with it. So
        our side is ended first, and what the client goes on to say is thrown away.
        """
        if self._transport.is_closing() or not self._transport.can_write_eof():
            # TLS has an end of its own, which says whether all was sent.
            self.close()
        elif self._lingering is None:
            self._transport.write_eof()
            self.pause(False)
            self._lingering = loop.call_later(LINGER_S, self.close)

    @property
    def lingering(self) -> bool:
        """Whether what the client says is to be thrown away."""
        return self._lingering is not None

    def discard(self, buffer: memoryview) -> None:
        """Read what comes from a client that is hung up on, instead of the transport."""
        try:
            count = os.readv(self.fd, (buffer,))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self.close()

    def close(self) -> None:
        """Close the connection when what was answered is sent."""
        self.stop()
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        self.stop()
        self._transport.abort()
