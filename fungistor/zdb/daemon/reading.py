"""Whether one connection is read from, and by whom: its transport, or the rounds that read all plain ones."""

from __future__ import annotations

import asyncio

from fungistor.zdb.daemon.rounds import Member, Rounds


class Reading:
    """One connection's."""

    __slots__ = ("_member", "_paused", "_rounds", "_transport", "fd")

    def __init__(self, transport: asyncio.Transport, rounds: Rounds, member: Member) -> None:
        self._transport = transport
        self._rounds = rounds
        self._member = member
        self._paused = False
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
        self._rounds.leave(self.fd)

    def close(self) -> None:
        """Close the connection when what was answered is sent."""
        self.stop()
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        self.stop()
        self._transport.abort()
