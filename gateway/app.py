"""Joins the front doors: Hosts first, then content by its raw path, everything else by Starlette's routes."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fungistor.errors import FungiStorError, UnavailableError
from fungistor.names.errors import NameTimeoutError
from gateway import delegated, headers
from gateway.backend import Content
from gateway.delegated import Announcement, DelegatedRouting
from gateway.endpoint import ContentEndpoint, Exchange, Receive, Scope, Send, send_problem
from gateway.errors import FirstByteTimeoutError, RefusedError
from gateway.hosts import HostTable, PlaceKind, default_hosts, may_have_dnslink
from gateway.names import Names, NoNames
from gateway.negotiation import is_verifiable
from gateway.operations.desk import Desk
from gateway.pages.problem import FRONT_PAGE
from gateway.requests import Answer, Request
from gateway.settings import Settings
from gateway.streams import Streamer
from gateway.virtual_hosts import Asked, Decision, Mounted, bare, check_host, decide, needs_dns

NotReady = Callable[[], str | None]
"""Says why this node should get no requests now, or None."""

_PAGE_FIELDS = {"Cache-Control": headers.NO_STORE, "Content-Security-Policy": headers.PAGE_POLICY}


ROUTING_THREADS = 4
"""A look whether something is held takes as long as the catalog; readers' threads are not for it."""

DNS_THREADS = 8
"""Requests that wait for DNS to say what their Host is; more wait in line, and content has threads of its own."""


class Gateway:
    """ASGI application. Starlette decodes paths, so what names content never goes through its router."""

    def __init__(
        self,
        content: Content,
        names: Names,
        settings: Settings,
        not_ready: NotReady,
        hosts: HostTable,
        desk: Desk,
        announcement: Announcement | None,
    ) -> None:
        self.settings = settings
        self.desk = desk
        self.hosts = hosts
        self._names = names
        self._content = ContentEndpoint(desk.guarded(content), names, Streamer.create(settings), desk.gate)
        self._routing = DelegatedRouting(desk.guarded(content), names, announcement)
        self._routing_threads = anyio.CapacityLimiter(ROUTING_THREADS)
        self._others = _other_routes(lambda: not_ready() or desk.why_not_ready)
        self._dns_threads = anyio.CapacityLimiter(DNS_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self.desk.serve(scope, receive, send, self.answer)

    def take_hosts(self, hosts: HostTable) -> None:
        """Go by another table of Hosts from the next request on."""
        self.hosts = hosts

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has passed the desk."""
        exchange = Exchange(Request.from_scope(scope), scope, receive, send)
        request = exchange.request
        try:
            decided = await self._decide(request, scope["scheme"])
        except FungiStorError as error:
            await send_problem(exchange, error)
            return
        if isinstance(decided, Mounted):
            request.raw_path, request.mount = decided.raw_path, decided.mount
            await self._content(exchange)
        elif isinstance(decided, Answer) and request.method not in ("GET", "HEAD"):
            await self._content(exchange)  # it answers OPTIONS, and refuses the rest
        elif isinstance(decided, Answer):
            body = b"".join(bytes(chunk) for chunk in decided.chunks)
            await exchange.whole(decided.status, decided.headers, body)
        else:
            await self._serve_other(exchange)

    def serves_host(self, authority: str) -> bool:
        """Tell whether an authority is known to lead here, without asking anybody: a gateway, one's subdomain, or a
        DNSLink website."""
        try:
            check_host(authority)
        except FungiStorError:
            return False
        is_known = self.hosts.place(authority).kind is not PlaceKind.UNKNOWN
        return is_known or bool(may_have_dnslink(authority) and self._names.peek_dnslink(bare(authority)))

    async def _decide(self, request: Request, scheme: str) -> Decision:
        """Ask the hostname layer. A DNSLink that nobody here knows yet is asked for in a thread."""
        host, scheme = self.desk.trusted.host_and_scheme(request, scheme)
        check_host(host)  # before anything remembers it
        asked = Asked(
            host, scheme, request.raw_path, request.suffix, is_verifiable(request.query.get("format"), request.accept)
        )
        known: bool | None = None
        if needs_dns(self.hosts, asked):
            request.phase = "host"
            known = self._names.peek_dnslink(bare(host))
            if known is None:
                known = await self._ask_dns(asked)
            request.phase = "request"
        return decide(self.hosts, asked, lambda _: bool(known))

    async def _ask_dns(self, asked: Asked) -> bool:
        try:
            with anyio.fail_after(self.settings.dns_s):
                return await anyio.to_thread.run_sync(
                    self._names.has_dnslink, bare(asked.host), limiter=self._dns_threads, abandon_on_cancel=True
                )
        except (UnavailableError, TimeoutError) as error:
            # Who asks by CID need not wait for DNS to come back.
            if asked.is_content:
                return False
            if isinstance(error, UnavailableError):
                raise
            raise NameTimeoutError(
                f"nobody said within {self.settings.dns_s:g} s what {bare(asked.host)} is", retry_after_s=10
            ) from None

    async def _serve_routing(self, exchange: Exchange) -> None:
        try:
            with anyio.fail_after(self.settings.first_byte_s):
                answer = await anyio.to_thread.run_sync(
                    self._routing.answer, exchange.request, limiter=self._routing_threads, abandon_on_cancel=True
                )
        except FungiStorError as error:
            await send_problem(exchange, error)
        except TimeoutError:
            late = FirstByteTimeoutError(f"nothing was found within {self.settings.first_byte_s:g} s", retry_after_s=10)
            await send_problem(exchange, late)
        else:
            await exchange.whole(answer.status, answer.headers, b"".join(bytes(chunk) for chunk in answer.chunks))

    async def _serve_other(self, exchange: Exchange) -> None:
        exchange.scope["fungistor.exchange"] = exchange
        if exchange.request.method == "OPTIONS":
            await exchange.allow()
        elif exchange.request.raw_path.startswith(delegated.PREFIX):
            await self._serve_routing(exchange)
        else:
            await self._others(exchange.scope, exchange.receive, exchange.relay)


def create_app(
    content: Content,
    settings: Settings | None = None,
    *,
    names: Names | None = None,
    not_ready: NotReady = lambda: None,
    hosts: HostTable | None = None,
    desk: Desk | None = None,
    announcement: Announcement | None = None,
) -> Gateway:
    """Make the gateway over `content` and `names`, for the Hosts of a table, behind a desk."""
    bounds = settings or Settings()
    return Gateway(
        content,
        names or NoNames(),
        bounds,
        not_ready,
        hosts or default_hosts(),
        desk or Desk(bounds),
        announcement,
    )


def _other_routes(not_ready: NotReady) -> Starlette:
    async def health(_: StarletteRequest) -> Response:
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": headers.NO_STORE})

    async def ready(_: StarletteRequest) -> Response:
        why = not_ready()
        told = {"status": "ready"} if why is None else {"status": "not ready", "detail": why}
        fields = {"Cache-Control": headers.NO_STORE} | ({} if why is None else {"Retry-After": "5"})
        return JSONResponse(told, status_code=200 if why is None else 503, headers=fields)

    async def front(_: StarletteRequest) -> Response:
        return HTMLResponse(FRONT_PAGE, headers=_PAGE_FIELDS)

    async def problem(request: StarletteRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _Problem(request.scope["fungistor.exchange"], error)

    application = Starlette(
        routes=[
            Route("/-/health", health),
            Route("/-/ready", ready),
            Route("/", front),
        ],
        exception_handlers={HTTPException: problem},
    )
    application.router.redirect_slashes = False
    return application


class _Problem(Response):
    """An error of Starlette's router, told as every other error is."""

    def __init__(self, exchange: Exchange, error: HTTPException) -> None:
        super().__init__(status_code=error.status_code)
        self._exchange = exchange
        hint = "content is under /ipfs/CID" if error.status_code == 404 else ""
        detail = "there is nothing at this path" if error.status_code == 404 else str(error.detail)
        self._error = RefusedError(error.status_code, detail, hint=hint, headers=error.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        await send_problem(self._exchange, self._error)
