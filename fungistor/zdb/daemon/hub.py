"""What all connections of a daemon share: receive memory, SETs that are stored together, who watches whom."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.buffers import BufferPool
from fungistor.zdb.daemon.commands import put_answers
from fungistor.zdb.daemon.express import Express
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.outflow import UNSENT_BYTES_MAX, Outflow
from fungistor.zdb.daemon.rounds import Rounds, compiled
from fungistor.zdb.daemon.session import Context, WaitWanted
from fungistor.zdb.daemon.wire import Argument, array, bulk, error, status

if TYPE_CHECKING:
    from fungistor.zdb.daemon.connection import Connection

_RECEIVE_BYTES: Final = 80 << 10
"""One for all connections: a value of 64 KiB with its words arrives in one read."""
_LEAD_BYTES: Final = 4 << 10
"""What is read there after a value that did not fit: the next one's words, so that its bytes go where they belong."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a WAIT waits for."""

    command: bytes
    namespace: Namespace
    timer: asyncio.TimerHandle


class Hub:
    """What all connections of a daemon share."""

    def __init__(
        self,
        context: Context,
        barrier: Barrier,
        loop: asyncio.AbstractEventLoop,
        *,
        sync: bool,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
        mapped_bytes_max: int = 0,
    ) -> None:
        self.hooks = context.hooks
        self.context = context
        self.barrier = barrier
        self.loop = loop
        self.sync = sync
        self.buffers = BufferPool()
        self.outflow = Outflow(unsent_bytes_max)
        self.receive = memoryview(bytearray(_RECEIVE_BYTES))
        self.lead = self.receive[:_LEAD_BYTES]
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.mirrors: set[Connection] = set()
        self.express = Express(self)
        self.lane = None if compiled is None else compiled(self, mapped_bytes_max)
        """Does what is plain of a round, where there was a compiler."""
        if self.lane is not None:
            context.store.tell_closes(self.lane.mappings.forget)
        self.rounds = Rounds(loop, self.settle, self.lane)
        self.pending: list[Connection] = []
        """Those with SETs that are not stored yet."""
        self.waiting: dict[Connection, Waiting] = {}
        self.hooked = context.hooked
        self.empty = asyncio.Event()

    def defer(self, connection: Connection) -> None:
        """Store a connection's SETs when all who have something to read now were read: one write for all of them."""
        if not self.pending and not self.rounds.running:
            self.loop.call_soon(self.store_pending)
        self.pending.append(connection)

    def settle(self) -> None:
        """Store what was asked before the command that comes now, by whomever."""
        if self.lane is not None:
            self.lane.store()
        if self.pending:
            self.store_pending()

    def store_pending(self) -> None:
        """Store what was deferred, in the order in which it came; then answer."""
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        batch: dict[bytes, tuple[Connection, Put]] = {}
        for connection in pending:
            puts = connection.take_puts()
            other = bool(batch) and next(iter(batch.values()))[0].namespace is not connection.namespace
            if other or not batch.keys().isdisjoint(puts):
                _store_batch(batch)
                batch = {}
            batch.update((key, (connection, put)) for key, put in puts.items())
        _store_batch(batch)
        for connection in pending:
            connection.stored()

    def watch(self, connection: Connection, wanted: WaitWanted) -> None:
        """Tell a connection of a command that comes; its requests are answered meanwhile as ever."""
        self.watch_no_more(connection)
        timer = self.loop.call_later(wanted.timeout_s, self._waited_in_vain, connection)
        self.waiting[connection] = Waiting(wanted.command, connection.namespace, timer)

    def watch_no_more(self, connection: Connection) -> None:
        """Tell it of none."""
        waiting = self.waiting.pop(connection, None)
        if waiting is not None:
            waiting.timer.cancel()

    def _waited_in_vain(self, connection: Connection) -> None:
        self.waiting.pop(connection, None)
        connection.push(error("Timeout"))

    def executed(self, source: Connection, name: bytes, request: list[Argument]) -> None:
        """Tell those who watch what a client has executed."""
        namespace = source.namespace
        for connection, waiting in list(self.waiting.items()):
            same = connection is not source and waiting.namespace is namespace
            if same and waiting.command in (name, b"*"):
                waiting.timer.cancel()
                del self.waiting[connection]
                connection.push(status(name))
        if not self.mirrors:
            return
        words = [bulk(bytes(word)) for word in request]
        head = [b":%d\r\n" % time.time(), bulk(namespace.name), b":%d\r\n" % source.owner]
        for connection in list(self.mirrors):
            if connection is not source:
                connection.push(array([*head, *words]))


def _store_batch(batch: dict[bytes, tuple[Connection, Put]]) -> None:
    """Store SETs of one namespace under distinct keys, and note the answers with those who asked."""
    if not batch:
        return
    first = next(iter(batch.values()))[0]
    answers = put_answers(first.namespace, [put for _, put in batch.values()])
    for (connection, _), answer in zip(batch.values(), answers, strict=True):
        connection.answered(answer)
