"""Joins the front doors: content by its raw path, everything else by Starlette's routes."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from gateway import headers
from gateway.backend import Content
from gateway.endpoint import ContentEndpoint, Exchange, Receive, Scope, Send, log_access, send_problem
from gateway.errors import RefusedError
from gateway.pages.problem import FRONT_PAGE
from gateway.paths import origin_form
from gateway.requests import Request
from gateway.settings import Settings
from gateway.streams import Streamer

NotReady = Callable[[], str | None]
"""Says why this node should get no requests now, or None."""

_PAGE_FIELDS = {"Cache-Control": headers.NO_STORE, "Content-Security-Policy": headers.PAGE_POLICY}


class Gateway:
    """ASGI application. Starlette decodes paths, so what names content never goes through its router."""

    def __init__(self, content: Content, settings: Settings, not_ready: NotReady) -> None:
        self.settings = settings
        self._content = ContentEndpoint(content, Streamer.create(settings))
        self._others = _other_routes(not_ready)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            return
        raw_path = scope.get("raw_path") or scope["path"].encode()
        if origin_form(raw_path).startswith((b"/ipfs/", b"/ipns/")) or scope["path"] in ("/ipfs", "/ipns"):
            await self._content(scope, receive, send)
        else:
            await self._serve_other(scope, receive, send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(Request.from_scope(scope), scope, receive, send)
        scope["fungistor.exchange"] = exchange
        try:
            if exchange.request.method == "OPTIONS":
                await exchange.allow()
            else:
                await self._others(scope, receive, exchange.relay)
        finally:
            if self.settings.access_log:
                log_access(exchange)


def create_app(content: Content, settings: Settings | None = None, *, not_ready: NotReady = lambda: None) -> Gateway:
    """Make the gateway over `content`."""
    return Gateway(content, settings or Settings(), not_ready)


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

    async def not_built(request: StarletteRequest) -> Response:
        raise HTTPException(501, f"{request.url.path} is not available yet")

    async def problem(request: StarletteRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _Problem(request.scope["fungistor.exchange"], error)

    application = Starlette(
        routes=[
            Route("/-/health", health),
            Route("/-/ready", ready),
            Route("/", front),
            Route("/routing/v1/{rest:path}", not_built),
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
