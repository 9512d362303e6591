"""One round of requests to many members at once, moved by one poll loop in the caller's thread."""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Generic, Self, TypeVar

from fungistor.ids import MemberNumber
from fungistor.pool.members import MemberSpec
from fungistor.pool.stock import Stock
from fungistor.zdb.client import Connection, MemberError
from fungistor.zdb.replies import ReplyReader
from fungistor.zdb.resp import Buffer

Tag = TypeVar("Tag", bound=Hashable)
POLL_S_MAX = 60.0


class Silence(Enum):
    """What came of a request that was given up."""

    SPOKE = "it said something, if only a greeting or half a reply"
    SILENT = "it accepted the connection and said nothing"
    UNREACHED = "nobody accepted the connection"


@dataclass(frozen=True, slots=True)
class Done(Generic[Tag]):
    """A request was answered; the reply is in its reader. `run_id` of the daemon that answered."""

    tag: Tag
    run_id: bytes


@dataclass(frozen=True, slots=True)
class Failed(Generic[Tag]):
    """A request will not be answered. `demotes`: the member itself is to blame."""

    tag: Tag
    reason: str
    demotes: bool


@dataclass(frozen=True, slots=True)
class Heard(Generic[Tag]):
    """Something came, but not all yet."""

    tag: Tag


Event = Done[Tag] | Failed[Tag] | Heard[Tag]


@dataclass(slots=True)
class _Exchange(Generic[Tag]):
    tag: Tag
    spec: MemberSpec
    connection: Connection
    request: Sequence[Buffer]
    reply: ReplyReader
    greet_first: bool
    reused: bool
    interest: int = 0


class Round(Generic[Tag]):
    """Requests under way, each known by its tag. On leaving, connections of unanswered ones are closed."""

    def __init__(self, stock: Stock, clock: Callable[[], float], *, wake_fd: int | None = None) -> None:
        self._stock = stock
        self._clock = clock
        self._poll = select.poll()
        self._by_fd: dict[int, _Exchange[Tag]] = {}
        self._early: list[Event[Tag]] = []
        self._wake_fd = wake_fd
        if wake_fd is not None:
            self._poll.register(wake_fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for exchange in self._by_fd.values():
            exchange.connection.close()
        self._by_fd.clear()

    def ask(
        self,
        tag: Tag,
        number: MemberNumber,
        request: Sequence[Buffer],
        reply: ReplyReader,
        *,
        greet_first: bool = False,
        fresh: bool = False,
    ) -> None:
        """Send a request on an idle or (`fresh`) a new connection. What goes wrong comes out of `wait`."""
        connection = None if fresh else self._stock.take(number)
        try:
            reused = connection is not None
            connection = connection or self._stock.open(number)
            spec = self._stock.spec(number)
        except (MemberError, KeyError) as error:
            reason = error.message if isinstance(error, MemberError) else "is no member any more"
            self._early.append(Failed(tag, reason, demotes=True))
            return
        self._start(_Exchange(tag, spec, connection, request, reply, greet_first, reused))

    def abandon(self, tag: Tag) -> Silence:
        """Give up on a request; its connection is closed. Returns how silent the member was."""
        for exchange in list(self._by_fd.values()):
            if exchange.tag == tag:
                self._forget(exchange)
                connection = exchange.connection
                spoke = connection.heard or (connection.greeted and not exchange.reused)
                connection.close()
                return Silence.SPOKE if spoke else Silence.SILENT if connection.connected else Silence.UNREACHED
        return Silence.SPOKE

    def outstanding(self) -> list[Tag]:
        return [exchange.tag for exchange in self._by_fd.values()]

    def wait(self, until: float | None) -> list[Event[Tag]]:
        """Move everything that can move, waiting for it until then; what happened, in order."""
        events, self._early = self._early, []
        timeout_s = 0.0 if events else POLL_S_MAX if until is None else min(max(0.0, until - self._clock()), POLL_S_MAX)
        for fd, flags in self._poll.poll(math.ceil(timeout_s * 1000)):
            if fd == self._wake_fd:
                continue
            exchange = self._by_fd.get(fd)
            if exchange is not None:
                self._advance(exchange, flags, events)
        return events + self._take_early()

    def _take_early(self) -> list[Event[Tag]]:
        early, self._early = self._early, []
        return early

    def _start(self, exchange: _Exchange[Tag]) -> None:
        try:
            exchange.connection.submit(exchange.request, exchange.reply, greet_first=exchange.greet_first)
        except MemberError as error:
            self._failed(exchange, error, self._early)
            return
        exchange.interest = exchange.connection.interest()
        fd = exchange.connection.fileno()
        self._by_fd[fd] = exchange
        self._poll.register(fd, exchange.interest)

    def _advance(self, exchange: _Exchange[Tag], flags: int, events: list[Event[Tag]]) -> None:
        connection = exchange.connection
        try:
            whole = connection.advance(flags)
        except MemberError as error:
            self._forget(exchange)
            self._failed(exchange, error, events)
            return
        if whole:
            self._forget(exchange)
            events.append(Done(exchange.tag, connection.run_id))
            if connection.reusable:
                self._stock.give(exchange.spec.number, exchange.spec, connection)
            else:
                connection.close()
            return
        if connection.heard:
            events.append(Heard(exchange.tag))
        if connection.interest() != exchange.interest:
            exchange.interest = connection.interest()
            self._poll.modify(connection.fileno(), exchange.interest)

    def _failed(self, exchange: _Exchange[Tag], error: MemberError, events: list[Event[Tag]]) -> None:
        """An idle connection may have died long ago: that is worth one try on a new one."""
        stale = exchange.reused and not exchange.connection.heard
        exchange.connection.close()
        if not stale:
            events.append(Failed(exchange.tag, error.message, error.demotes))
            return
        exchange.reply.reset()
        try:
            connection = self._stock.open(exchange.spec.number)
        except MemberError as again:
            events.append(Failed(exchange.tag, again.message, again.demotes))
            return
        exchange.connection, exchange.reused = connection, False
        self._start(exchange)

    def _forget(self, exchange: _Exchange[Tag]) -> None:
        fd = exchange.connection.fileno()
        del self._by_fd[fd]
        self._poll.unregister(fd)
