"""Where ASGI meets answers: one request from its first byte to its last, whatever ends it.

Of everything that can happen there is one owner here: the deadline of the first byte, the client that leaves, the body
that fails half-way, and the source that must be closed in each case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from fungistor import trail
from fungistor.errors import FungiStorError, UnavailableError
from gateway import content as content_answers
from gateway import headers
from gateway.backend import Content
from gateway.budget import Share
from gateway.errors import FirstByteTimeoutError, RefusedError, as_json, as_text, problem_of
from gateway.names import Names
from gateway.negotiation import accepts
from gateway.operations.clients import client_key
from gateway.pages.problem import problem_page
from gateway.requests import Answer, Buffer, Request
from gateway.settings import PIECE_BYTES
from gateway.steps import SourceStack, Step, take_step
from gateway.streams import SlowReaderError, StalledBodyError, Streamer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ABORT_EXTENSION = "fungistor.abort"
"""In a scope's extensions: a call that resets the connection. The server of `protocol` offers it."""

ALLOWED_METHODS = "GET, HEAD, OPTIONS"

_CORS = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.CORS)

log = logging.getLogger("gateway")


class BodyFailedError(Exception):
    """A body ended early under a server that offers no abort: raised through ASGI, it drops the connection."""


@dataclass(slots=True)
class Exchange:
    """One request and what was sent for it."""

    request: Request
    scope: Scope
    receive: Receive
    asgi_send: Send
    status: int = 0
    sent_bytes: int = 0
    is_broken_off: bool = False

    async def start(self, status: int, fields: dict[str, str]) -> None:
        """Send status line and header fields, with those that every answer has."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await self.relay({"type": "http.response.start", "status": status, "headers": raw})

    async def relay(self, message: Message) -> None:
        """Send an ASGI message; the start of an answer gets the fields that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            request_id = (b"x-request-id", self.request.request_id.encode("latin-1"))
            message["headers"] = [*message["headers"], *_CORS, *self.request.mount.fields, request_id]
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        await self.asgi_send(message)

    async def send_piece(self, piece: Buffer) -> None:
        """Send a part of the body; returns when the transport wants more."""
        await self.relay({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, body: Buffer = b"") -> None:
        """Send the last part."""
        await self.relay({"type": "http.response.body", "body": body, "more_body": False})

    async def whole(self, status: int, fields: dict[str, str], body: bytes) -> None:
        """Send an answer that is at hand."""
        await self.start(status, {**fields, "Content-Length": str(len(body))})
        await self.end(b"" if self.request.is_head else body)

    async def allow(self) -> None:
        """Answer OPTIONS, which browsers ask before they send what a page wants."""
        await self.start(204, {"Allow": ALLOWED_METHODS, "Access-Control-Max-Age": "86400"})
        await self.end()

    async def client_gone(self) -> None:
        """Wait until the client has left, or has its answer."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def abort(self, why: str) -> None:
        """Break the connection, so that no client and no cache takes what it has for the whole."""
        if not self.is_broken_off:
            self.break_off(why)
        if not self.is_broken_off:
            raise BodyFailedError(why)
        await self.client_gone()

    def break_off(self, why: str) -> None:
        """Reset the connection now, under a server that can."""
        log.warning("request %s broken off after %d bytes: %s", self.request.request_id, self.sent_bytes, why)
        abort = self.scope.get("extensions", {}).get(ABORT_EXTENSION)
        if abort is not None:
            self.is_broken_off = True
            abort()


async def send_problem(exchange: Exchange, error: Exception) -> None:
    """Tell an error in the form that the client reads, before any byte of an answer was sent."""
    request = exchange.request
    problem = problem_of(error)
    if problem.status == 500 and not isinstance(error, RefusedError):
        log.error("request %s failed in phase %s", request.request_id, request.phase, exc_info=error)
    phase = _phase_of(request) if isinstance(error, UnavailableError) else request.phase
    accept = request.accept
    html, plain = accepts(accept, "text/html"), accepts(accept, "application/json")
    fields = {"Cache-Control": headers.NO_STORE, "X-Content-Type-Options": "nosniff", **problem.headers}
    if plain > html:
        body = as_json(problem, phase, request.request_id)
        fields["Content-Type"] = "application/json"
    elif html > 0:
        body = problem_page(problem, phase, request.request_id)
        fields |= {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": headers.PAGE_POLICY}
    else:
        body = as_text(problem, phase, request.request_id)
        fields["Content-Type"] = "text/plain; charset=utf-8"
    await exchange.whole(problem.status, fields, body)


def _phase_of(request: Request) -> str:
    """What the request waits for: below it, in the network, where that is known."""
    return request.trail.phase or request.phase


@dataclass(slots=True)
class _Made:
    """What the worker thread made of a request."""

    answer: Answer | None = None
    first: Step | None = None
    error: Exception | None = None
    is_done: bool = False
    """Set on the loop, as `is_late` is: of the two, whichever comes first holds."""
    is_late: bool = False


Gate = Callable[[Request, content_answers.Wanted], Awaitable[None]]
"""Says for whom a request reads, and raises where a path may not be served; asked before anything is fetched."""


class ContentEndpoint:
    """Answers what is below ``/ipfs/`` and ``/ipns/``, whatever the Host had of it."""

    def __init__(self, content: Content, names: Names, streamer: Streamer, gate: Gate) -> None:
        self._content = content
        self._gate = gate
        self._names = names
        self._streamer = streamer

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request to its end."""
        trail.current.set(exchange.request.trail)  # worker threads inherit it
        await self._respond(exchange)

    async def _respond(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method == "OPTIONS":
            await exchange.allow()
            return
        try:
            if request.method not in ("GET", "HEAD"):
                raise RefusedError(405, f"{request.method} is not allowed here", headers={"Allow": ALLOWED_METHODS})
            decided = content_answers.preflight(request)
            if not isinstance(decided, Answer):
                await self._gate(request, decided)
        except FungiStorError as error:
            await send_problem(exchange, error)
            return
        if isinstance(decided, Answer):
            body = b"".join(bytes(chunk) for chunk in decided.chunks)
            await exchange.whole(decided.status, decided.headers, body)
            return
        await self._respond_from_content(exchange, decided)

    async def _respond_from_content(self, exchange: Exchange, wanted: content_answers.Wanted) -> None:
        stack = SourceStack()
        share = self._streamer.budget.share(client_key(exchange.request.client))
        made = _Made()
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, exchange, made, group.cancel_scope)
                try:
                    await self._make_and_send(exchange, wanted, made, stack, share)
                except Exception as error:  # noqa: BLE001  # carried past the task group, which would wrap it
                    failure = error
                if not made.is_late:
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                if stack.is_open:
                    await anyio.to_thread.run_sync(_close, stack)
            share.close()
        if failure is not None:
            await self._end_failed(exchange, failure)

    async def _watch(self, exchange: Exchange, made: _Made, scope: anyio.CancelScope) -> None:
        """End the request when its client is gone, or with 504 when nothing was made of it in time."""
        with anyio.move_on_after(self._streamer.settings.first_byte_s) as first_byte:
            await exchange.client_gone()
        if first_byte.cancelled_caught:
            if made.is_done:
                await exchange.client_gone()
            else:
                # A thread that is at it ends under the source's own deadlines; the client need not wait for that.
                made.is_late = True
                await send_problem(exchange, self._first_byte_timeout(exchange.request))
        scope.cancel()

    async def _make_and_send(
        self, exchange: Exchange, wanted: content_answers.Wanted, made: _Made, stack: SourceStack, share: Share
    ) -> None:
        reserved = await share.reserve()
        await anyio.to_thread.run_sync(
            partial(_make, exchange.request, wanted, self._content, self._names, stack, made),
            limiter=self._streamer.threads,
        )
        if made.is_late:
            return
        made.is_done = True
        if made.error is not None:
            raise made.error
        assert made.answer is not None
        assert made.first is not None
        share.settle(reserved, made.first.size)
        await self._send(exchange, made.answer, made.first, stack, share)

    def _first_byte_timeout(self, request: Request) -> FirstByteTimeoutError:
        troubles = "; ".join(f"{member}: {why}" for member, why in sorted(request.trail.copy_of_troubles().items()))
        return FirstByteTimeoutError(
            f"nothing came within {self._streamer.settings.first_byte_s:g} s, in phase {_phase_of(request)!r}"
            + (f" ({troubles})" if troubles else ""),
            hint="the members that hold it may be slow or down; trying again can help",
            retry_after_s=10,
        )

    async def _send(self, exchange: Exchange, answer: Answer, first: Step, stack: SourceStack, share: Share) -> None:
        fields = answer.headers
        length = answer.length
        if length is None and first.is_last and not exchange.request.is_head:
            length = first.size
        if length is not None and answer.status != 304:
            fields["Content-Length"] = str(length)
        fields["Server-Timing"] = _server_timing(exchange.request)
        await exchange.start(answer.status, fields)
        if exchange.request.is_head or answer.status == 304:
            await exchange.end()
        elif first.is_last and first.size <= PIECE_BYTES:
            await exchange.end(first.chunks[0] if len(first.chunks) == 1 else b"".join(first.chunks))
        else:
            await self._streamer.send_all(first, answer.chunks, stack, share, exchange.send_piece, exchange.break_off)
            if length is not None and exchange.sent_bytes != length:
                raise BodyFailedError(f"{exchange.sent_bytes} bytes of {length} were read")
            await exchange.end()

    async def _end_failed(self, exchange: Exchange, failure: Exception) -> None:
        if exchange.status == 0:
            await send_problem(exchange, failure)
            return
        if not isinstance(failure, FungiStorError | SlowReaderError | StalledBodyError | BodyFailedError | OSError):
            log.error("request %s failed while sending", exchange.request.request_id, exc_info=failure)
        await exchange.abort(f"phase {exchange.request.phase}: {failure}")


def _make(
    request: Request,
    wanted: content_answers.Wanted,
    content: Content,
    names: Names,
    stack: SourceStack,
    made: _Made,
) -> None:
    """Run in a worker thread: the answer and its first bytes, so that a failure there still has a status."""
    try:
        answer = content_answers.answer(request, wanted, content, names, stack)
        first = take_step(answer.chunks, stack, answer.first_bytes)
        if first.size == answer.length and not first.is_last:
            first.is_last = True
            stack.close()
        made.first, made.answer = first, answer
    except Exception as error:  # noqa: BLE001  # handed to the loop, which tells it to the client
        made.error = error


def _server_timing(request: Request) -> str:
    """Milliseconds to the first block, and what they were spent on."""
    parts = [f"{phase};dur={seconds * 1000:.1f}" for phase, seconds in list(request.trail.spent_s.items())]
    return ", ".join([*parts, f"first-block;dur={(time.monotonic() - request.started_s) * 1000:.1f}"])


def _close(stack: SourceStack) -> None:
    try:
        stack.close()
    except Exception as error:  # the answer is out; a source that cannot close is for the log alone
        log.error("a block source failed to close", exc_info=error)
