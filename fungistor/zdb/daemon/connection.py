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

from fungistor.zdb.daemon.commands import Handler, check_set, put_answers
from fungistor.zdb.daemon.express import BATCH_BYTES
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.outbox import Outbox
from fungistor.zdb.daemon.reading import Reading
from fungistor.zdb.daemon.session import BarrierWanted, Later, Session, WaitWanted, parse_number
from fungistor.zdb.daemon.values import MissingFileError
from fungistor.zdb.daemon.vocabulary import ADMIN_COMMANDS, COMMANDS
from fungistor.zdb.daemon.waits import Waits
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
"""Unsent replies beyond this stop a connection under TLS; one more reply may come on top. A plain one stops as soon as
its socket takes no more."""
_ONE_READ_BYTES: Final = 72 << 10
"""A value as long comes with its words in one read, mostly."""
_REMOVED: Final = error("Your active namespace is not available anymore (probably removed).")


class Connection(asyncio.BufferedProtocol):
    """The protocol of one client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.session = Session(hub.context)
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
        self._waits = Waits(self, hub)
        self.lead = hub.receive
        """Where its next bytes are read to, as many as fit."""
        self._choked = False
        self._closing = False
        self.lost = False
        self._refused = False
        """Whether it is hung up on."""
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
        self._transport.set_write_buffer_limits(high=0 if plain else OUTPUT_HIGH_BYTES)
        self._hub.connections.add(self)
        self._hub.empty.clear()
        self._hub.context.stats.clients += 1
        if plain:
            # The transport begins to read only after this call, so it cannot be stopped yet.
            self._hub.loop.call_soon(self._reading.take_over, sock.fileno())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.puts and self in self._hub.pending:
            self._hub.store_pending()
        self.lost = self._closing = True
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
        return self._parser.wants() or self.lead

    def buffer_updated(self, nbytes: int) -> None:
        if self._reading.lingering:
            return
        if self._parser.gathering():
            self._gathered(nbytes)
        else:
            self._hub.context.stats.rx_bytes += nbytes
            self._received(bytes(self._hub.receive[:nbytes]))

    # what the compiled lane asks

    def plain_namespace(self) -> Namespace | None:
        """Where its plain commands go, if nothing is unusual about it now."""
        hub, session = self._hub, self.session
        # SETs that wait to be stored with those of others are before whatever comes now.
        unusual = self._waits.blocked or self._choked or self._closing or self._stream is not None or self.puts
        watched = hub.waiting or hub.mirrors or hub.hooked or session.master
        if unusual or watched or self.outbox.size or self._pushed or not self._parser.idle():
            return None
        namespace = session.namespace
        return None if namespace.removed or namespace.frozen else namespace

    def plain_writing(self, namespace: Namespace) -> bool:
        """Whether its plain SETs are stored."""
        return self.session.writable and not namespace.locked and namespace.slots is None

    @property
    def send_now(self) -> bool:
        """Whether a reply may go to the socket itself: nothing waits before it, nor does it wait for the disk."""
        transport = self._transport
        if self.outbox.size or self._pushed or self._waits.blocked or (self._hub.sync and self.session.wrote):
            return False
        return not transport.is_closing() and not transport.get_write_buffer_size()

    @property
    def held(self) -> bool:
        """Whether it waits for the disk, a hook or a timer."""
        return self._waits.blocked

    @property
    def told(self) -> bool:
        """Whether something is to be sent that no request asked for."""
        return bool(self._pushed)

    def answer(self, *parts: bytes | memoryview) -> None:
        """Send a reply behind what waits."""
        if not self.lost:
            for part in parts:
                self.reply(part)
            self._send_or_hold()

    def wrote(self) -> None:
        """Note that something of it was stored."""
        self.session.wrote = True

    def unusual(self, data: bytes) -> None:
        """Do what the lane does not."""
        self._hub.settle()
        self._received(data)

    def ended(self) -> None:
        """The client sends no more."""
        self._reading.close()

    def readable(self) -> None:
        """Read what is there, instead of the transport."""
        if self._reading.lingering:
            self._reading.discard(self._hub.receive)
            return
        buffer = self._parser.wants()
        try:
            if buffer is None:
                data = os.read(self._reading.fd, len(self.lead))
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
        self.lead = self._hub.lead if self._parser.whole_bytes() > _ONE_READ_BYTES else self._hub.receive
        self._work_off()

    def _received(self, data: bytes) -> None:
        """Do what is asked in a read."""
        self.heard = True
        self.lead = self._hub.receive
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
        self._go_on()
        self._proceed()

    def _go_on(self) -> None:
        """Give what came while the socket took no more to the lane, as if it came now."""
        lane = self._hub.lane
        if lane is not None and self._reading.fd >= 0 and (data := self._parser.untouched()):
            self._hub.settle()
            self._parser.feed(data[lane.go_on(self, self._reading.fd, data) :])

    @property
    def namespace(self) -> Namespace:
        """Where its commands go."""
        return self.session.namespace

    def push(self, data: bytes) -> None:
        """Send what no request asked for, as soon as no reply is in the making."""
        if self._transport.get_write_buffer_size() > PUSHED_BYTES_MAX:
            self.abort()
            return
        self._pushed.append(data)
        if not self._working and not self._waits.blocked and self._stream is None:
            self.flush()

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
        return self._waits.blocked or self in self._hub.waiting or self in self._hub.mirrors

    def abort(self) -> None:
        """Drop the connection."""
        self._reading.abort()

    # the work

    def _proceed(self) -> None:
        """Carry out what can be, then read on or not."""
        if self._closing:
            return
        if not self._waits.blocked:
            self._working = True
            try:
                self._run()
            except ProtocolError as problem:
                self.store_puts()
                if problem.text:
                    self.reply(error(problem.text))
                self.flush()
                self.hang_up()
                return
            finally:
                self._working = False
        self._reading.pause(self._waits.blocked or self._choked or self._parser.starved)

    def _run(self) -> None:
        while not self._waits.blocked and not self._choked and not self._closing:
            if self._stream is not None:
                self._continue_stream()
                continue
            request = self._parser.next()
            if request is None:
                break
            self._execute(request)
            if self._waits.request is None:
                self._parser.release()
            if self.outbox.size >= BATCH_BYTES:
                self.flush()
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
        if self._hub.sync and self.session.wrote and not self._waits.blocked:
            self._waits.for_flush()
        if not self._waits.blocked:
            self.flush()

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
        self.session.wrote = True
        self.reply(NIL if answer is None else bulk(answer))

    def stored(self) -> None:
        """All of them are answered."""
        if not self.lost:
            self._send_or_hold()

    def _proceed_soon(self) -> None:
        self._hub.loop.call_soon(self._proceed)

    def _execute(self, request: list[Argument]) -> None:
        context, session = self._hub.context, self.session
        context.stats.commands += 1
        if session.namespace.removed:
            self.puts.clear()
            self.reply(_REMOVED)
            self.flush()
            self.hang_up()
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
            self.carry_out(name, handler, request)
        if self._hub.waiting or self._hub.mirrors:
            self._hub.executed(self, name, request)

    def carry_out(self, name: bytes, handler: Handler, request: list[Argument]) -> None:
        """Do what a request asks, once its word is known."""
        session = self.session
        try:
            if name in ADMIN_COMMANDS and not session.admin and not (name == b"COMPACT" and session.owns_namespace):
                session.context.stats.unauthorized += 1
                raise ReplyError("Permission denied")
            reply = handler(session, request)
        except ReplyError as refusal:
            self.reply(error(refusal.text))
            return
        except MissingFileError as missing:
            self._waits.for_file(missing.path, name, handler, request)
            return
        if isinstance(reply, bytes):
            self.reply(reply)
        elif isinstance(reply, list):
            for piece in reply:
                self.reply(piece)
        elif isinstance(reply, BarrierWanted):
            self._waits.for_barrier(reply)
        elif isinstance(reply, WaitWanted):
            self._hub.watch(self, reply)
        elif isinstance(reply, Later):
            self._waits.for_reply(reply)
        else:
            self._stream = reply
        if session.mirror:
            self._hub.mirrors.add(self)

    def _unknown(self, name: bytes) -> None:
        self._hub.context.stats.failed += 1
        if name in (b"", b"*"):
            self.reply(error("This is not a valid command"))
        else:
            self.reply(error("Command not supported"))

    def _stage(self, request: list[Argument]) -> None:
        """Keep a small SET until the read is worked off, so that a pipeline of them is one write."""
        try:
            put = check_set(self.session, request)
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
            for answer in put_answers(self.session.namespace, puts):
                self.answered(answer)

    # replies

    def flush(self) -> None:
        """Hand over what there is, unless it has to wait for the disk."""
        if self._pushed and self._stream is None:
            for data in self._pushed:
                self.reply(data)
            self._pushed.clear()
        if not self.outbox.size or self._transport.is_closing():
            return
        if self._hub.sync and self.session.wrote:
            self._waits.for_flush()
            return
        self._hub.context.stats.tx_bytes += self.outbox.hand_over()

    def _continue_stream(self) -> None:
        stream = self._stream
        for piece in stream or ():
            self.reply(piece)
            if self.outbox.size >= BATCH_BYTES:
                self.flush()
                if self._choked:
                    return
        self._stream = None

    def forget_request(self) -> None:
        """Give back the buffers of a request that was carried out after all."""
        self._parser.release()

    def resume(self) -> None:
        """Go on after a wait: send what was held, then carry out what came meanwhile."""
        self.flush()
        if self._refused:
            self.hang_up()
        elif self._closing:
            self._close()
        else:
            self._proceed()

    def hang_up(self) -> None:
        """Close when the client has heard why."""
        self._refused = True
        if self._waits.blocked:
            self._close()
            return
        self._closing = True
        self._reading.hang_up(self._hub.loop)

    def drain(self) -> None:
        """Take no more requests; close when what was asked is answered and sent."""
        self._close()

    def _close(self) -> None:
        if self.puts and self in self._hub.pending:
            self._hub.store_pending()
        self._closing = True
        if not self._waits.blocked:
            self._reading.close()
