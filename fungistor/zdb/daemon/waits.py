"""What a connection stands still for: a flush that covers what it wrote, a hook that brings a file, a reply in the
making. Nobody else waits with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fungistor.zdb.daemon.commands import Handler, barrier_reply
from fungistor.zdb.daemon.session import BarrierWanted, Later
from fungistor.zdb.daemon.wire import Argument, error

if TYPE_CHECKING:
    from fungistor.zdb.daemon.connection import Connection
    from fungistor.zdb.daemon.hub import Hub

_UNFLUSHED: Final = error("Cannot write data right now")
_FLUSH_FAILED: Final = error("Flush failed, writes are refused until restart")


class Waits:
    """One connection's."""

    __slots__ = ("_connection", "_hub", "_tried", "blocked", "request")

    def __init__(self, connection: Connection, hub: Hub) -> None:
        self._connection = connection
        self._hub = hub
        self._tried: set[str] = set()
        self.blocked = False
        """Whether it stands still."""
        self.request: list[Argument] | None = None
        """A request that waits for a hook: its buffers are still in use."""

    def for_file(self, path: str, name: bytes, handler: Handler, request: list[Argument]) -> None:
        """Have a data file brought, then carry the request out."""
        connection = self._connection
        connection.flush()
        self.blocked = True
        self.request = request
        tried = self._tried

        def brought(_code: int) -> None:
            # One that failed may have brought it all the same: the file is looked for once more.
            tried.add(path)
            if connection.lost:
                return
            self.blocked = False
            self._again(name, handler, request)

        self._hub.hooks.restore(path, brought)

    def _again(self, name: bytes, handler: Handler, request: list[Argument]) -> None:
        namespace = self._connection.namespace
        self.request = None
        if not namespace.removed:
            before, namespace.asked = namespace.asked, self._tried
            try:
                self._connection.carry_out(name, handler, request)
            finally:
                namespace.asked = before
        if self.request is None:
            self._tried = set()
            self._connection.forget_request()
        if not self.blocked:
            self._connection.resume()

    def for_reply(self, later: Later) -> None:
        """Stand still until the reply is there."""
        connection = self._connection
        connection.flush()
        self.blocked = True

        def done(reply: bytes) -> None:
            if connection.lost:
                return
            self.blocked = False
            connection.reply(reply)
            connection.resume()

        self._hub.loop.call_soon(later.begin, done)

    def for_barrier(self, wanted: BarrierWanted) -> None:
        """Answer WAITAOF when the flush is done or its time is over."""
        connection, session = self._connection, self._connection.session
        if not (self._hub.sync and session.wrote):
            connection.flush()
        self.blocked = True
        timer: asyncio.TimerHandle | None = None
        answered = False

        def answer(reply: bytes) -> None:
            nonlocal answered
            if answered or connection.lost:
                return
            answered = True
            if timer is not None:
                timer.cancel()
            self.blocked = False
            connection.reply(reply)
            connection.resume()

        def done(whole: bool) -> None:
            if not whole and self._hub.sync and session.wrote:
                self._fail()
                return
            session.wrote = False
            answer(barrier_reply(session, 1) if whole else _FLUSH_FAILED)

        if wanted.timeout_s:
            timer = self._hub.loop.call_later(wanted.timeout_s, lambda: answer(barrier_reply(session, 0)))
        self._hub.barrier.request(done)

    def for_flush(self) -> None:
        """Under --sync a reply leaves only when the flush that covers it is done, whoever else it covers."""
        connection = self._connection
        # What is stored after the flush began would be answered by it and not be covered.
        connection.store_puts()
        if self.blocked:
            return
        self.blocked = True

        def done(whole: bool) -> None:
            if not whole:
                self._fail()
            elif not connection.lost:
                connection.session.wrote = False
                self.blocked = False
                connection.resume()

        self._hub.barrier.request(done)

    def _fail(self) -> None:
        """Which of the held replies answer writes is not kept, and none of them may claim to be on disk."""
        connection = self._connection
        if connection.lost:
            return
        connection.outbox.clear()
        connection.reply(_UNFLUSHED)
        connection.session.wrote = self.blocked = False
        connection.flush()
        connection.hang_up()
