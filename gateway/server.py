"""uvicorn, configured: what a worker's server is, apart from what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gateway.app import Gateway
from gateway.protocol import GatewayProtocol
from gateway.rehearsal import rehearse
from gateway.settings import Settings

REFRESH_S = 1.0

LAST_CALL_S = 0.25
"""A worker that drains accepts no more, and listens to those it accepted for so long before it closes idle ones."""

log = logging.getLogger("gateway")


class GatewayServer(uvicorn.Server):
    """A server on inherited sockets: SIGTERM drains it, SIGINT is the supervisor's to forward."""

    def __init__(self, app: Gateway, settings: Settings, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(_config(app, settings))
        self._answer = app.answer
        self._on_started = on_started
        self._desk = app.desk
        self._upkeep: asyncio.Task[None] | None = None
        self._reload = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        await self.on_tick(0)  # the first answers have a Date, too
        self._upkeep = asyncio.create_task(self._keep_up(), name="upkeep")
        await rehearse(self._answer)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what is under way end, and what was accepted a moment ago ask: closed at once, it would be reset."""
        if self._upkeep is not None:
            self._upkeep.cancel()
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)  # for those accepted in this very turn of the loop
        if self.server_state.connections and not self.force_exit:
            await asyncio.sleep(LAST_CALL_S)
        await super().shutdown(sockets)

    async def _keep_up(self) -> None:
        """Look every second, or when asked to, for what has changed."""
        while True:
            is_asked = self._reload.is_set()
            self._reload.clear()
            try:
                await asyncio.to_thread(self._desk.refresh, reload=is_asked)
                self._desk.take_up()
            except Exception as error:  # upkeep that ended silently would be worse
                log.error("upkeep failed, and goes on", exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reload.wait(), REFRESH_S)

    def reload(self) -> None:
        """Read lists, hosts and limits anew."""
        self._reload.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM alone; uvicorn would take SIGINT, and raise both again after it has drained."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGTERM, self.drain)
            loop.add_signal_handler(signal.SIGHUP, self.reload)
        except (RuntimeError, ValueError):  # not the main thread: whoever runs it there calls `drain`
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGHUP)

    def drain(self) -> None:
        """Accept nothing new, finish what is under way within the bound; called again, finish at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _config(app: Gateway, settings: Settings) -> uvicorn.Config:
    extras = {"settings": settings, "serves": staticmethod(app.serves_host), "hot": app.desk.hot}
    protocol = type("BoundedProtocol", (GatewayProtocol,), extras)
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
