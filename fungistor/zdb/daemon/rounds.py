"""Plain connections are read in rounds: all that have something to say, one after the other, then what they wrote is
stored by one write.

A transport of the loop costs each read and each reply a third of what a GET takes. So reading is taken from it as soon
as a plain connection is there, and given to an epoll of our own, which the loop watches as one file. TLS stays with
the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from typing import Final, Protocol

PURE: Final = "FUNGISTOR_ZDB_PURE"
"""Set in the environment: the compiled lane is not used."""

_WANTED: Final = 3
"""Raised with each change of what the lane and the Python code ask of each other: one that was compiled before the last
change is left out until the next `make env`."""

compiled: type[Lane] | None = None
if not os.environ.get(PURE):
    with contextlib.suppress(ImportError):
        from fungistor.zdb.daemon._lane import EDITION, Lane

        if EDITION == _WANTED:
            compiled = Lane

_EVENTS_MAX: Final = 128
"""Connections served before what they wrote is stored; who is left comes first next time."""


class Member(Protocol):
    """A connection as seen from here."""

    def readable(self) -> None:
        """Read once, and do what was asked."""


class Rounds:
    """All plain connections that want to be read from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Callable[[], None], lane: Lane | None) -> None:
        """Args: store: called after each round."""
        self._loop = loop
        self._store = store
        self._lane = lane
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}
        self.running = False
        """Whether `store` will be called without being asked for."""
        loop.add_reader(self._epoll.fileno(), self._run)

    def join(self, fd: int, member: Member) -> None:
        """Have a connection read from until it leaves."""
        if fd not in self._members:
            self._epoll.register(fd, select.EPOLLIN)
        self._members[fd] = member

    def leave(self, fd: int) -> None:
        """Read from it no more; also safe where it is not read from."""
        if self._members.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        """Serve nobody any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _run(self) -> None:
        members, lane = self._members, self._lane
        self.running = True
        try:
            for fd, _ in self._epoll.poll(0, _EVENTS_MAX):
                member = members.get(fd)
                if member is None or (lane is not None and lane.serve(member, fd)):
                    continue
                if lane is not None:
                    lane.count()
                member.readable()
        finally:
            # Also where one of them failed: what the others wrote is not to wait.
            self.running = False
            self._store()
            if lane is not None:
                lane.count()
