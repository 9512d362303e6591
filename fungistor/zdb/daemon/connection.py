"""One client connection: bytes to requests to replies, batched per read, bounded both ways.

SETs of small values that arrive in one read are stored in one write, and so are those of all clients who had something
to read at the same time. A large value is waited for as a whole: the kernel wakes the loop when it is there, not once
a segment. A large reply goes from a reused buffer straight to the socket. A connection whose client does not read is
not read from either; one that waits for a flush or for a receive buffer is not carried on until it has it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final, cast

from fungistor.zdb.daemon.commands import Handler, barrier_reply, check_set, put_answers
from fungistor.zdb.daemon.express import BATCH_BYTES
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.namespace import MissingFileError, Namespace, Put
from fungistor.zdb.daemon.outbox import Outbox
from fungistor.zdb.daemon.reading import Reading
from fungistor.zdb.daemon.session import BarrierWanted, Later, Session, WaitWanted, parse_number
from fungistor.zdb.daemon.vocabulary import ADMIN_COMMANDS, COMMANDS
from fungistor.zdb.daemon.wakeups import Wakeups
from fungistor.zdb.daemon.wire import (
    NIL,
    Argument,
    ProtocolError,
    ReplyError,
    RequestParser,
    bulk,
    error,
)

PUSHED_BYTES_MAX: Final = 16 << 20
"""A mirror that does not read is dropped when this much waits for it."""
OUTPUT_HIGH_BYTES: Final = 256 << 10
"""Unsent replies beyond this stop the connection; one more reply may come on top."""
_ONE_READ_BYTES: Final = 72 << 10
"""A value as long comes with its words in one read, mostly."""
_UNFLUSHED: Final = error("Cannot write data right now")
_FLUSH_FAILED: Final = error("Flush failed, writes are refused until restart")
_REMOVED: Final = error("Your active namespace is not available anymore (probably removed).")


class Connection(asyncio.BufferedProtocol):
    """The protocol of one client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._session = Session(hub.context)
        self._parser = RequestParser(hub.buffers.take, hub.buffers.give)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.puts: dict[bytes, Put] = {}
        self.outbox: Outbox = cast("Outbox", None)
        self._wakeups: Wakeups = cast("Wakeups", None)
        self._reading: Reading = cast("Reading", None)
        self.reply: Callable[[bytes | memoryview], None] = cast("Callable[[bytes | memoryview], None]", None)
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
        self.heard = self.greeted = False
        """Whether something came since that was looked at last, and whether anything ever did."""
        hub.accepted += 1
        self.owner = hub.accepted
        """Who it is to mirrors; a master says it in each request."""

    # transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        plain = sock is not None and transport.get_extra_info("sslcontext") is None
        tcp = sock is not None and sock.family != socket.AF_UNIX
        self.outbox = Outbox(self._transport, sock.fileno() if plain else -1)
        self._wakeups = Wakeups(self._transport, sock if plain and tcp else None)
        self._reading = Reading(self._transport, self._hub.rounds, self)
        self.reply = self.outbox.add
        if tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(high=OUTPUT_HIGH_BYTES)
        self._hub.connections.add(self)
        self._hub.empty.clear()
        self._hub.context.stats.clients += 1
        if plain:
            # The transport begins to read only after this call, so it cannot be stopped yet.
            self._hub.loop.call_soon(self._reading.take_over, sock.fileno())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.puts and self in self._hub.pending:
            self._hub.store_pending()
        self._lost = self._closing = True
        self._reading.stop()
        self._hub.connections.discard(self)
        self._hub.outflow.caught_up(self)
        self._hub.mirrors.discard(self)
        self._hub.watch_no_more(self)
        if not self._hub.connections:
            self._hub.empty.set()
        self._parser.close()
        self.puts.clear()
        self.outbox.clear()
        self._pushed.clear()
        self._stream = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._parser.wants() or self._lead

    def buffer_updated(self, nbytes: int) -> None:
        if self._parser.gathering():
            self._gathered(nbytes)
        else:
            self._hub.context.stats.rx_bytes += nbytes
            self._received(bytes(self._hub.receive[:nbytes]))

    # what the compiled lane asks

    def plain_namespace(self) -> Namespace | None:
        """Where its plain commands go, if nothing is unusual about it now."""
        hub, session = self._hub, self._session
        unusual = self._blocked or self._choked or self._closing or self._stream is not None
        if unusual or session.master or hub.waiting or hub.mirrors or hub.hooked or not self._parser.idle():
            return None
        namespace = session.namespace
        return None if namespace.removed or namespace.frozen else namespace

    def plain_writing(self, namespace: Namespace) -> bool:
        """Whether its plain SETs are stored."""
        return self._session.writable and not namespace.locked and namespace.slots is None

    @property
    def read_bytes(self) -> int:
        """How much to read at a time."""
        return len(self._lead)

    @property
    def send_now(self) -> bool:
        """Whether a reply may go to the socket itself: nothing waits before it, nor does it wait for the disk."""
        transport = self._transport
        if self.outbox.size or self._pushed or self._blocked or (self._hub.sync and self._session.wrote):
            return False
        return not transport.is_closing() and not transport.get_write_buffer_size()

    @property
    def held(self) -> bool:
        """Whether it waits for the disk, a hook or a timer."""
        return self._blocked

    @property
    def told(self) -> bool:
        """Whether something is to be sent that no request asked for."""
        return bool(self._pushed)

    def answer(self, *parts: bytes | memoryview) -> None:
        """Send a reply behind what waits."""
        if not self._lost:
            for part in parts:
                self.reply(part)
            self._send_or_hold()

    def wrote(self) -> None:
        """Note that something of it was stored."""
        self._session.wrote = True

    def unusual(self, data: bytes) -> None:
        """Do what the lane does not."""
        self._hub.settle()
        self._received(data)

    def ended(self) -> None:
        """The client sends no more."""
        self._reading.close()

    def readable(self) -> None:
        """Read what is there, instead of the transport."""
        buffer = self._parser.wants()
        try:
            if buffer is None:
                data = os.read(self._reading.fd, len(self._lead))
                count = len(data)
                self._hub.context.stats.rx_bytes += count
            else:
                count = os.readv(self._reading.fd, (buffer,))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if not count:
            self.ended()
        elif buffer is None:
            self._received(data)
        else:
            self._gathered(count)

    def _gathered(self, count: int) -> None:
        """Go on when a large value is there as a whole."""
        self._hub.context.stats.rx_bytes += count
        self.heard = True
        self._wakeups.last_read = self._hub.loop.time()
        missing = self._parser.filled(count)
        if missing:
            self._wakeups.expect(missing)
            return
        # The next one is likely as long: only where it fits into no read is it better to read its words alone.
        self._lead = self._hub.lead if self._parser.whole_bytes() > _ONE_READ_BYTES else self._hub.receive
        self._work_off()

    def _received(self, data: bytes) -> None:
        """Do what is asked in a read."""
        self.heard = True
        self._lead = self._hub.receive
        done = self._hub.express.work(self, data)
        if done == len(data) and not self._choked:
            self._store_or_defer()
            return
        self._parser.feed(data[done:])
        self._work_off()

    def _work_off(self) -> None:
        self._proceed()
        if self._wakeups.awaited != 1 or self._parser.gathering():
            self._wakeups.expect(self._parser.filled(0))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._choked = True
        self._hub.outflow.slow(self)

    def resume_writing(self) -> None:
        self._choked = False
        self._hub.outflow.caught_up(self)
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

    def stalled(self, now: float) -> bool:
        """Whether it holds a receive buffer for a value of which nothing has come for too long."""
        return self._parser.gathering() and self._wakeups.stalled(now)

    @property
    def unsent(self) -> int:
        """Bytes of replies that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def busy(self) -> bool:
        """Whether its silence is ours: it waits for something, or is told what others do."""
        return self._blocked or self in self._hub.waiting or self in self._hub.mirrors

    def abort(self) -> None:
        """Drop the connection."""
        self._reading.abort()

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
                self.store_puts()
                if problem.text:
                    self.reply(error(problem.text))
                self._flush()
                self._close()
                return
            finally:
                self._working = False
        self._reading.pause(self._blocked or self._choked or self._parser.starved)

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
            if self.outbox.size >= BATCH_BYTES:
                self._flush()
        self._store_or_defer()
        if self._parser.starved:
            self._hub.buffers.wait(self._proceed_soon)

    def _store_or_defer(self) -> None:
        if self.puts and len(self._hub.connections) > 1:
            self._hub.defer(self)
        else:
            self.store_puts()
            self._send_or_hold()

    def settle_writes(self) -> None:
        """Do what this and other clients asked before the command that comes now."""
        if self.puts:
            self.store_puts()
        self._hub.settle()

    def _send_or_hold(self) -> None:
        if self._hub.sync and self._session.wrote and not self._blocked:
            self._hold_for_sync()
        if not self._blocked:
            self._flush()

    # SETs that are stored together with those of other clients

    def take_puts(self) -> dict[bytes, Put]:
        """Hand over what is to be stored."""
        puts = self.puts.copy()
        self.puts.clear()
        return puts

    def answered(self, answer: bytes | ReplyError | None) -> None:
        """Take the answer to one of them."""
        if isinstance(answer, ReplyError):
            self.reply(error(answer.text))
            return
        self._session.wrote = True
        self.reply(NIL if answer is None else bulk(answer))

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
            self.puts.clear()
            self.reply(_REMOVED)
            self._flush()
            self._close()
            return
        word = request[0]
        name = word if isinstance(word, bytes) and word in COMMANDS else bytes(word[:32]).upper()
        if session.master and len(request) > 1:
            self.owner = parse_number(request.pop()) & 0xFFFFFFFF
        if name == b"SET" and len(request) == 3 and isinstance(request[2], bytes) and not context.hooked:
            context.stats.count(name)
            self._stage(request)
        else:
            self.settle_writes()
            handler = COMMANDS.get(name)
            if handler is None or len(word) > 32:
                self._unknown(name)
                return
            context.stats.count(name)
            self._answer(name, handler, request)
        if self._hub.waiting or self._hub.mirrors:
            self._hub.executed(self, name, request)

    def _answer(self, name: bytes, handler: Handler, request: list[Argument]) -> None:
        session = self._session
        try:
            if name in ADMIN_COMMANDS and not session.admin and not (name == b"COMPACT" and session.owns_namespace):
                session.context.stats.unauthorized += 1
                raise ReplyError("Permission denied")
            reply = handler(session, request)
        except ReplyError as refusal:
            self.reply(error(refusal.text))
            return
        except MissingFileError as missing:
            self._restore(missing.path, name, handler, request)
            return
        if isinstance(reply, bytes):
            self.reply(reply)
        elif isinstance(reply, list):
            for piece in reply:
                self.reply(piece)
        elif isinstance(reply, BarrierWanted):
            self._wait_for_barrier(reply)
        elif isinstance(reply, WaitWanted):
            self._hub.watch(self, reply)
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

    def _wait_for(self, later: Later) -> None:
        """Stand still until the reply is there; others go on."""
        self._flush()
        self._blocked = True

        def done(reply: bytes) -> None:
            if self._lost:
                return
            self._blocked = False
            self.reply(reply)
            self._resume()

        self._hub.loop.call_soon(later.begin, done)

    def _unknown(self, name: bytes) -> None:
        self._hub.context.stats.failed += 1
        if name in (b"", b"*"):
            self.reply(error("This is not a valid command"))
        else:
            self.reply(error("Command not supported"))

    def _stage(self, request: list[Argument]) -> None:
        """Keep a small SET until the read is worked off, so that a pipeline of them is one write."""
        try:
            put = check_set(self._session, request)
        except ReplyError as refusal:
            self.store_puts()
            self.reply(error(refusal.text))
            return
        if put.key in self.puts:
            self.store_puts()
        self.puts[put.key] = put

    def store_puts(self) -> None:
        if self.puts:
            puts = list(self.puts.values())
            self.puts.clear()
            for answer in put_answers(self._session.namespace, puts):
                self.answered(answer)

    # replies

    def _flush(self) -> None:
        """Hand over what there is, unless it has to wait for the disk."""
        if self._pushed and self._stream is None:
            for data in self._pushed:
                self.reply(data)
            self._pushed.clear()
        if not self.outbox.size or self._transport.is_closing():
            return
        if self._hub.sync and self._session.wrote:
            self._hold_for_sync()
            return
        self._hub.context.stats.tx_bytes += self.outbox.hand_over()

    def _continue_stream(self) -> None:
        stream = self._stream
        for piece in stream or ():
            self.reply(piece)
            if self.outbox.size >= BATCH_BYTES:
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
            self.reply(reply)
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
        self.store_puts()
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
        self.outbox.clear()
        self.reply(_UNFLUSHED)
        self._session.wrote = self._blocked = False
        self._flush()
        self._close()

    def drain(self) -> None:
        """Take no more requests; close when what was asked is answered and sent."""
        self._close()

    def _close(self) -> None:
        if self.puts and self in self._hub.pending:
            self._hub.store_pending()
        self._closing = True
        if not self._blocked:
            self._reading.close()
