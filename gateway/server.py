"""uvicorn, configured: what a worker's server is, apart from what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gateway.app import Gateway
from gateway.protocol import GatewayProtocol
from gateway.settings import Settings


class GatewayServer(uvicorn.Server):
    """A server on inherited sockets: SIGTERM drains it, SIGINT is the supervisor's to forward."""

    def __init__(self, app: Gateway, settings: Settings, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(_config(app, settings))
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        await self.on_tick(0)  # the first answers have a Date, too
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM alone; uvicorn would take SIGINT, and raise both again after it has drained."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGTERM, self.drain)
        except (RuntimeError, ValueError):  # not the main thread: whoever runs it there calls `drain`
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    def drain(self) -> None:
        """Accept nothing new, finish what is under way within the bound; called again, finish at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _config(app: Gateway, settings: Settings) -> uvicorn.Config:
    protocol = type(
        "BoundedProtocol", (GatewayProtocol,), {"settings": settings, "serves": staticmethod(app.serves_host)}
    )
    return uvicorn.Config(
        app,
        http=protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # every request tells its own errors; uvicorn would tell them again with a traceback
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
    )
