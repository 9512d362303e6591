"""One client connection: bytes to requests to replies, batched per read, bounded both ways.

SETs of small values that arrive in one read are stored in one write, and so are those of all clients who had something
to read at the same time. A connection whose client does not read is
not read from either; one that waits for a flush or for a receive buffer is not carried on until it has it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

from fungistor.zdb.daemon.admin import ADMIN_COMMANDS as _OWN_ADMIN_COMMANDS
from fungistor.zdb.daemon.admin import NAMESPACE_COMMANDS
from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.buffers import BufferPool
from fungistor.zdb.daemon.commands import KEY_COMMANDS, Handler, barrier_reply, check_set, put_answers
from fungistor.zdb.daemon.namespace import MissingFileError, Namespace, Put
from fungistor.zdb.daemon.session import BarrierWanted, Context, Later, Session, WaitWanted, parse_number
from fungistor.zdb.daemon.walks import RAW_COMMANDS, WALK_COMMANDS
from fungistor.zdb.daemon.wire import (
    NIL,
    Argument,
    ProtocolError,
    ReplyError,
    RequestParser,
    array,
    bulk,
    error,
    status,
)

_RECEIVE_BYTES: Final = 80 << 10
"""One for all connections: a value of 64 KiB with its words arrives in one read."""
_LEAD_BYTES: Final = 4 << 10
"""What is read there after a value that did not fit: the next one's words, so that its bytes go where they belong."""
PUSHED_BYTES_MAX: Final = 16 << 20
"""A mirror that does not read is dropped when this much waits for it."""
OUTPUT_HIGH_BYTES: Final = 256 << 10
"""Unsent replies beyond this stop the connection; one more reply may come on top."""
_BATCH_BYTES: Final = 64 << 10
_JOIN_BYTES: Final = 4 << 10
"""Replies shorter than this on average are joined; longer ones cost less as a vector."""
STALL_S: Final = 10.0
"""A client that stops in the middle of a value gives its buffer up after this, when others wait for one."""

ADMIN_COMMANDS: Final[dict[bytes, Handler]] = {**_OWN_ADMIN_COMMANDS, **RAW_COMMANDS}
COMMANDS: Final[dict[bytes, Handler]] = {**KEY_COMMANDS, **NAMESPACE_COMMANDS, **WALK_COMMANDS, **ADMIN_COMMANDS}
_UNFLUSHED: Final = error("Cannot write data right now")
_FLUSH_FAILED: Final = error("Flush failed, writes are refused until restart")
_REMOVED: Final = error("Your active namespace is not available anymore (probably removed).")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a WAIT waits for."""

    command: bytes
    namespace: Namespace
    timer: asyncio.TimerHandle


class Hub:
    """What all connections of a daemon share."""

    def __init__(self, context: Context, barrier: Barrier, loop: asyncio.AbstractEventLoop, *, sync: bool) -> None:
        self.hooks = context.hooks
        self.context = context
        self.barrier = barrier
        self.loop = loop
        self.sync = sync
        self.buffers = BufferPool()
        self.receive = memoryview(bytearray(_RECEIVE_BYTES))
        self.lead = self.receive[:_LEAD_BYTES]
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.mirrors: set[Connection] = set()
        self.pending: list[Connection] = []
        """Those with SETs that are not stored yet."""
        self.waiting: dict[Connection, Waiting] = {}
        self.empty = asyncio.Event()

    def defer(self, connection: Connection) -> None:
        """Store a connection's SETs when all who have something to read now were read: one write for all of them."""
        if not self.pending:
            self.loop.call_soon(self.store_pending)
        self.pending.append(connection)

    def store_pending(self) -> None:
        """Store what was deferred, in the order in which it came; then answer."""
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


class Connection(asyncio.BufferedProtocol):
    """The protocol of one client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._session = Session(hub.context)
        self._parser = RequestParser(hub.buffers.take, hub.buffers.give)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._puts: dict[bytes, Put] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._stream: Iterator[bytes] | None = None
        self._pushed: list[bytes] = []
        self._working = False
        self._held: list[Argument] | None = None
        """A request that waits for a hook: its buffers are still in use."""
        self._tried: set[str] = set()
        self._lead = hub.receive
        self._blocked = False
        self._choked = False
        self._closing = False
        self._lost = False
        self._paused = False
        self.last_read = 0.0
        hub.accepted += 1
        self.owner = hub.accepted
        """Who it is to mirrors; a master says it in each request."""

    # transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(high=OUTPUT_HIGH_BYTES)
        self._hub.connections.add(self)
        self._hub.empty.clear()
        self._hub.context.stats.clients += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._puts and self in self._hub.pending:
            self._hub.store_pending()
        self._lost = self._closing = True
        self._hub.connections.discard(self)
        self._hub.mirrors.discard(self)
        self._end_waiting()
        if not self._hub.connections:
            self._hub.empty.set()
        self._parser.close()
        self._puts.clear()
        self._out.clear()
        self._pushed.clear()
        self._stream = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._parser.wants() or self._lead

    def buffer_updated(self, nbytes: int) -> None:
        self._hub.context.stats.rx_bytes += nbytes
        if self._parser.gathering():
            self.last_read = self._hub.loop.time()
            self._parser.filled(nbytes)
            if self._parser.wants():
                return
            self._lead = self._hub.lead
        else:
            self._parser.feed(bytes(self._hub.receive[:nbytes]))
            self._lead = self._hub.receive
        self._proceed()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._proceed()

    @property
    def namespace(self) -> Namespace:
        """Where its commands go."""
        return self._session.namespace

    def push(self, data: bytes) -> None:
        """Send what no request asked for, as soon as no reply is in the making."""
        if self._transport.get_write_buffer_size() > PUSHED_BYTES_MAX:
            self.abort()
            return
        self._pushed.append(data)
        if not self._working and not self._blocked and self._stream is None:
            self._flush()

    @property
    def gathering(self) -> bool:
        """Whether a receive buffer is held for a value that is still coming."""
        return self._parser.gathering()

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    # the work

    def _proceed(self) -> None:
        """Carry out what can be, then read on or not."""
        if self._closing:
            return
        if not self._blocked:
            self._working = True
            try:
                self._run()
            except ProtocolError as problem:
                self._store_puts()
                if problem.text:
                    self._reply(error(problem.text))
                self._flush()
                self._close()
                return
            finally:
                self._working = False
        wait = self._blocked or self._choked or self._parser.starved
        if wait != self._paused and not self._transport.is_closing():
            self._paused = wait
            if wait:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _run(self) -> None:
        while not self._blocked and not self._choked and not self._closing:
            if self._stream is not None:
                self._continue_stream()
                continue
            request = self._parser.next()
            if request is None:
                break
            self._execute(request)
            if self._held is None:
                self._parser.release()
            if self._out_bytes >= _BATCH_BYTES:
                self._flush()
        if self._puts and len(self._hub.connections) > 1:
            self._hub.defer(self)
        else:
            self._store_puts()
            self._send_or_hold()
        if self._parser.starved:
            self._hub.buffers.wait(self._proceed_soon)

    def _send_or_hold(self) -> None:
        if self._hub.sync and self._session.wrote and not self._blocked:
            self._hold_for_sync()
        if not self._blocked:
            self._flush()

    # SETs that are stored together with those of other clients

    def take_puts(self) -> dict[bytes, Put]:
        """Hand over what is to be stored."""
        puts, self._puts = self._puts, {}
        return puts

    def answered(self, answer: bytes | ReplyError | None) -> None:
        """Take the answer to one of them."""
        if isinstance(answer, ReplyError):
            self._reply(error(answer.text))
            return
        self._session.wrote = True
        self._reply(NIL if answer is None else bulk(answer))

    def stored(self) -> None:
        """All of them are answered."""
        if not self._lost:
            self._send_or_hold()

    def _proceed_soon(self) -> None:
        self._hub.loop.call_soon(self._proceed)

    def _execute(self, request: list[Argument]) -> None:
        context, session = self._hub.context, self._session
        context.stats.commands += 1
        if session.namespace.removed:
            self._puts.clear()
            self._reply(_REMOVED)
            self._flush()
            self._close()
            return
        name = bytes(request[0][:32]).upper()
        if session.master and len(request) > 1:
            self.owner = parse_number(request.pop()) & 0xFFFFFFFF
        if name == b"SET" and len(request) == 3 and isinstance(request[2], bytes) and not session.context.hooked:
            self._stage(request)
            self._tell(name, request)
            return
        self._store_puts()
        if self._hub.pending:
            # What others asked before this command is done before it.
            self._hub.store_pending()
        handler = COMMANDS.get(name)
        if handler is None or len(request[0]) > 32:
            self._unknown(name)
            return
        operations = context.stats.operations
        text = name.decode()
        operations[text] = operations.get(text, 0) + 1
        self._answer(name, handler, request)
        self._tell(name, request)

    def _tell(self, name: bytes, request: list[Argument]) -> None:
        if self._hub.waiting or self._hub.mirrors:
            self._hub.executed(self, name, request)

    def _answer(self, name: bytes, handler: Handler, request: list[Argument]) -> None:
        session = self._session
        try:
            if name in ADMIN_COMMANDS and not session.admin:
                session.context.stats.unauthorized += 1
                raise ReplyError("Permission denied")
            reply = handler(session, request)
        except ReplyError as refusal:
            self._reply(error(refusal.text))
            return
        except MissingFileError as missing:
            self._restore(missing.path, name, handler, request)
            return
        if isinstance(reply, bytes):
            self._reply(reply)
        elif isinstance(reply, list):
            for piece in reply:
                self._reply(piece)
        elif isinstance(reply, BarrierWanted):
            self._wait_for_barrier(reply)
        elif isinstance(reply, WaitWanted):
            self._watch(reply)
        elif isinstance(reply, Later):
            self._wait_for(reply)
        else:
            self._stream = reply
        if session.mirror:
            self._hub.mirrors.add(self)

    def _restore(self, path: str, name: bytes, handler: Handler, request: list[Argument]) -> None:
        """Have a data file brought, then carry the request out; nobody else waits."""
        self._flush()
        self._blocked = True
        self._held = request
        tried = self._tried

        def brought(_code: int) -> None:
            # One that failed may have brought it all the same: the file is looked for once more.
            tried.add(path)
            if self._lost:
                return
            self._blocked = False
            self._again(name, handler, request, tried)

        self._hub.hooks.restore(path, brought)

    def _again(self, name: bytes, handler: Handler, request: list[Argument], tried: set[str]) -> None:
        namespace = self._session.namespace
        self._held = None
        if not namespace.removed:
            before, namespace.asked = namespace.asked, tried
            try:
                self._answer(name, handler, request)
            finally:
                namespace.asked = before
        if self._held is None:
            self._tried = set()
            self._parser.release()
        if not self._blocked:
            self._resume()

    def _watch(self, wanted: WaitWanted) -> None:
        """Be told of a command; meanwhile requests are answered as ever."""
        self._end_waiting()
        timer = self._hub.loop.call_later(wanted.timeout_s, self._waited_in_vain)
        self._hub.waiting[self] = Waiting(wanted.command, self._session.namespace, timer)

    def _waited_in_vain(self) -> None:
        self._hub.waiting.pop(self, None)
        self.push(error("Timeout"))

    def _end_waiting(self) -> None:
        waiting = self._hub.waiting.pop(self, None)
        if waiting is not None:
            waiting.timer.cancel()

    def _wait_for(self, later: Later) -> None:
        """Stand still until the reply is there; others go on."""
        self._flush()
        self._blocked = True

        def done(reply: bytes) -> None:
            if self._lost:
                return
            self._blocked = False
            self._reply(reply)
            self._resume()

        self._hub.loop.call_soon(later.begin, done)

    def _unknown(self, name: bytes) -> None:
        self._hub.context.stats.failed += 1
        if name in (b"", b"*"):
            self._reply(error("This is not a valid command"))
        else:
            self._reply(error("Command not supported"))

    def _stage(self, request: list[Argument]) -> None:
        """Keep a small SET until the read is worked off, so that a pipeline of them is one write."""
        operations = self._hub.context.stats.operations
        operations["SET"] = operations.get("SET", 0) + 1
        try:
            put = check_set(self._session, request)
        except ReplyError as refusal:
            self._store_puts()
            self._reply(error(refusal.text))
            return
        if put.key in self._puts:
            self._store_puts()
        self._puts[put.key] = put

    def _store_puts(self) -> None:
        if self._puts:
            puts, self._puts = list(self._puts.values()), {}
            for answer in put_answers(self._session.namespace, puts):
                self.answered(answer)

    # replies

    def _reply(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    def _flush(self) -> None:
        """Give the transport what there is: joined while that is cheaper than a longer vector."""
        if self._pushed and self._stream is None:
            for data in self._pushed:
                self._reply(data)
            self._pushed.clear()
        if not self._out or self._transport.is_closing():
            return
        if self._hub.sync and self._session.wrote:
            self._hold_for_sync()
            return
        self._hub.context.stats.tx_bytes += self._out_bytes
        if len(self._out) == 1:
            self._transport.write(self._out[0])
        elif self._out_bytes <= _JOIN_BYTES * len(self._out):
            self._transport.write(b"".join(self._out))
        else:
            self._transport.writelines(self._out)
        self._out = []
        self._out_bytes = 0

    def _continue_stream(self) -> None:
        stream = self._stream
        for piece in stream or ():
            self._reply(piece)
            if self._out_bytes >= _BATCH_BYTES:
                self._flush()
                if self._choked:
                    return
        self._stream = None

    def _wait_for_barrier(self, wanted: BarrierWanted) -> None:
        """Answer WAITAOF when the flush is done or its time is over; the connection stands still meanwhile."""
        if not (self._hub.sync and self._session.wrote):
            self._flush()
        self._blocked = True
        timer: asyncio.TimerHandle | None = None
        answered = False

        def answer(reply: bytes) -> None:
            nonlocal answered
            if answered or self._lost:
                return
            answered = True
            if timer is not None:
                timer.cancel()
            self._blocked = False
            self._reply(reply)
            self._resume()

        def done(whole: bool) -> None:
            if not whole and self._hub.sync and self._session.wrote:
                self._fail_sync()
                return
            self._session.wrote = False
            answer(barrier_reply(self._session, 1) if whole else _FLUSH_FAILED)

        if wanted.timeout_s:
            timer = self._hub.loop.call_later(wanted.timeout_s, lambda: answer(barrier_reply(self._session, 0)))
        self._hub.barrier.request(done)

    def _hold_for_sync(self) -> None:
        """Under --sync a reply leaves only when the flush that covers it is done, whoever else it covers."""
        # What is stored after the flush began would be answered by it and not be covered.
        self._store_puts()
        if self._blocked:
            return
        self._blocked = True

        def done(whole: bool) -> None:
            if not whole:
                self._fail_sync()
            elif not self._lost:
                self._session.wrote = False
                self._blocked = False
                self._resume()

        self._hub.barrier.request(done)

    def _resume(self) -> None:
        """Go on after a wait: send what was held, then carry out what came meanwhile."""
        self._flush()
        if self._closing:
            self._close()
        else:
            self._proceed()

    def _fail_sync(self) -> None:
        """Which of the held replies answer writes is not kept, and none of them may claim to be on disk."""
        if self._lost:
            return
        self._out, self._out_bytes = [_UNFLUSHED], len(_UNFLUSHED)
        self._session.wrote = self._blocked = False
        self._flush()
        self._close()

    def drain(self) -> None:
        """Take no more requests; close when what was asked is answered and sent."""
        self._close()

    def _close(self) -> None:
        if self._puts and self in self._hub.pending:
            self._hub.store_pending()
        self._closing = True
        if not self._blocked:
            self._transport.close()
