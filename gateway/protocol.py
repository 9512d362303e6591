"""uvicorn's HTTP protocol with the bounds that it lacks, and a way to break a connection for good.

It rests on names of uvicorn's httptools protocol (`on_*`, `data_received`, `cycle`, `flow`, and others);
tests/unit/gateway/test_protocol.py fails when a new version moves them.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fungistor.limits import KIB
from gateway import tunnel
from gateway.endpoint import ABORT_EXTENSION
from gateway.hot import JOINED_BYTES_MAX, HotAnswers
from gateway.settings import Settings

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)
LOCAL_SEND_BYTES = 256 * KIB
_HEAD_END = b"\r\n\r\n"
_THIS_MACHINE = ("127.0.0.1", "::1")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class GatewayProtocol(HttpToolsProtocol):
    """One connection. A request's head is bounded in bytes and time; an idle one is closed whatever it still owes."""

    settings = Settings()
    serves: Callable[[str], bool] = staticmethod(lambda _: False)
    """Tells for which authorities a tunnel may be asked."""
    hot: HotAnswers | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_head_open = True
        self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._opening: tunnel.Opening | None = tunnel.Opening()
        self._last_hot_s = -math.inf
        self._unsent = 0
        self._sent_ahead = b""
        self._cycles: tuple[Any, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that never asks is closed, too."""
        super().connection_made(transport)
        self._arm_head_timer()
        self._keep_local_buffers_small(transport)

    def _keep_local_buffers_small(self, transport: asyncio.Transport) -> None:
        """Bound what waits in the kernel for a client on this machine, which as a rule is the proxy in front.

        Its way has no length that buffers must fill, and what waits in megabytes has left the processor's cache before
        it is read: with these the reader's copy costs half. Others have the buffers that the kernel finds right.
        """
        raw = transport.get_extra_info("socket")
        if raw is not None and self.client is not None and self.client[0] in _THIS_MACHINE:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOCAL_SEND_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, and tell whatever is still being answered that nobody is there."""
        self._disarm_head_timer()
        self._sent_ahead = b""
        super().connection_lost(exc)
        # uvicorn keeps the timer of a connection that was reset, and knows the last of several requests alone.
        self._unset_keepalive_if_required()
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take what came: a hot request whole, others as far as it is their turn."""
        if self._is_refused:
            return
        if self._head_bytes == 0 and self._is_head_open and self.hot is not None and self._answer_hot(data):
            return
        self._take(self._sent_ahead + data if self._sent_ahead else data)

    def _take(self, data: bytes) -> None:
        """Read request by request: the next one waits as bytes until the one before it is answered.

        uvicorn would make a waiting request of each, and a few bytes are one.
        """
        self._sent_ahead = b""
        while data and not self._is_refused and not self.transport.is_closing():
            if self._is_answering():
                self._sent_ahead = data
                self.flow.pause_reading()
                if len(data) > self.settings.sent_ahead_bytes_max:
                    self._reset()
                return
            stop = data.find(_HEAD_END)
            piece = data if stop < 0 else data[: stop + len(_HEAD_END)]
            data = data[len(piece) :]
            self._feed(piece)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _feed(self, data: bytes) -> None:
        """Count a head's bytes as they come: the parser gathers a long field without telling."""
        if self._is_head_open:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._arm_head_timer()
        if self._opening is not None:
            self._data_opening(data)
        else:
            super().data_received(data)
        if self._is_head_open and self._head_bytes > self.settings.head_bytes_max:
            self._refuse_head()

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead."""
        super().on_response_complete()
        if self._sent_ahead:
            self._take(self._sent_ahead)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; but not into the middle of an answer that is on its way."""
        if self._is_answering():
            self._reset()
        else:
            super().send_400_response(msg)

    def _data_opening(self, data: bytes) -> None:
        """Look at a connection's first bytes: ASGI knows no tunnels, so CONNECT is answered below it."""
        opening = self._opening
        assert opening is not None
        if opening.feed(data):
            return
        self._opening = None
        if not opening.is_connect:
            super().data_received(opening.buffer)
            return
        authority, rest = opening.take()
        if authority is None or not (self.serves(authority) or self._is_own_address(authority)):
            self._is_refused = True
            self._disarm_head_timer()
            self.transport.write(tunnel.refusal(authority))
            self.transport.close()
            return
        self.transport.write(tunnel.ESTABLISHED)
        self._head_bytes = len(rest)
        self._disarm_head_timer()
        self._arm_head_timer()
        if rest:
            super().data_received(rest)

    def _is_own_address(self, authority: str) -> bool:
        own = self.transport.get_extra_info("sockname")
        return isinstance(own, tuple) and authority in (f"{own[0]}:{own[1]}", f"[{own[0]}]:{own[1]}")

    def _answer_hot(self, data: bytes) -> bool:
        """Answer what is hot here and now, unless an answer is still on its way on this connection."""
        hot, transport = self.hot, self.transport
        cycle: Any = self.cycle  # None before the first request
        if hot is None or self.flow.write_paused or transport.is_closing():
            return False
        if self._sent_ahead or (cycle is not None and not (cycle.response_complete and cycle.keep_alive)):
            return False
        ready = hot.ready(data, self.server_state.default_headers[0][1] if self.server_state.default_headers else b"")
        if ready is None:
            return False
        if len(ready.body) <= JOINED_BYTES_MAX:
            transport.write(ready.head + ready.body)
        else:
            transport.writelines((ready.head, ready.body))
        self._last_hot_s = self.loop.time()
        if self._head_timer is not None:
            self._disarm_head_timer()
        if self.timeout_keep_alive_task is None:
            self._arm_keep_alive(self.timeout_keep_alive)
        if hot.on_answer is not None:
            hot.on_answer(ready, self.client[0] if self.client else "")
        return True

    def _arm_keep_alive(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """Offer the abort to the application."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT_EXTENSION: self._reset}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Start the request unless its head is too large."""
        self._is_head_open = False
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > self.settings.head_bytes_max:
            self._refuse_head()
            return
        absolute = tunnel.split_absolute(self.url)
        if absolute is not None:
            authority, self.url = absolute
            # RFC 9112, 3.2.2: what the target says outweighs the field.
            self.headers[:] = [(b"host", authority), *(field for field in self.headers if field[0] != b"host")]
        before: Any = self.cycle
        super().on_headers_complete()
        self._cycles = (self.cycle,) if before is None or before.response_complete else (before, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body, which no request here needs."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next head. A body, which no request here needs, has no more time than its head."""
        self._disarm_head_timer()
        if not self._is_refused:
            self._is_head_open = True
            self._head_bytes = 0
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close without waiting for a client that does not read the rest of its last answer."""
        # Hot answers do not set the timer anew each: it looks for itself when the last one was.
        left_s = self._last_hot_s + self.timeout_keep_alive - self.loop.time()
        self.timeout_keep_alive_task = None
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if left_s > 0:
            self._arm_keep_alive(left_s)
        elif 0 < self._unsent != unsent:
            self._arm_keep_alive(self.timeout_keep_alive)  # a slow reader of a hot answer still reads
        elif not self.transport.is_closing():
            self.transport.abort()

    def _refuse_head(self) -> None:
        self._is_refused = True
        self._disarm_head_timer()
        text = b"431: the request's head is longer than %d bytes\n" % self.settings.head_bytes_max
        self.transport.write(_TOO_LARGE % (len(text), text))
        self.transport.close()

    def _arm_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.head_s, self._head_is_late)

    def _disarm_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _reset(self) -> None:
        """Close with RST: under HTTP/1.0 a plain close would make a broken page look whole."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()
