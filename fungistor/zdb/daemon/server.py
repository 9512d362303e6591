"""The daemon's process: opens the store, listens, serves until SIGTERM or SIGINT, leaves everything on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

import uvloop

from fungistor.errors import FailedError
from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.compactor import Compactor
from fungistor.zdb.daemon.config import DaemonConfig
from fungistor.zdb.daemon.connection import Connection
from fungistor.zdb.daemon.files import replace_file
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.hooks import Hooks
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.metrics import serve_metrics
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.session import Context, ServerStats, dirty_ids
from fungistor.zdb.daemon.store import DEFAULT, Store

_BACKLOG: Final = 512
_TICK_S: Final = 5.0
_DRAIN_S: Final = 2.0
_HOOKS_S: Final = 60.0
"""How long a stop waits for hooks; an upload of a file takes its time."""
_MODES: Final = {"mixed": None, "user": MODE_USER, "seq": MODE_SEQUENTIAL}


def run(config: DaemonConfig, *, ready: Callable[[str], None] | None = None) -> int:
    """Serve until told to stop, then return the exit code.

    Args:
        ready: called once with the address (`host:port`, or the socket's path) when requests are served.

    Raises:
        ConflictError: another daemon holds the folders.
        FailedError: the folders or the address cannot be used.
    """
    instance = f"unix://{config.socket}" if config.socket else f"tcp://{config.listen}:{config.port}"
    hooks = Hooks(config.hook, instance)
    hooks.before_start(config.index, config.data)
    store = Store(
        config.data, config.index, datasize=config.datasize, durable=not config.no_sync, mode=_MODES[config.mode]
    )
    for line in store.report:
        sys.stderr.write(f"zdb: {line}\n")
    if config.maxsize:
        store.namespaces[DEFAULT].descriptor.maxsize = config.maxsize
    loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return int(loop.run_until_complete(_serve(config, store, hooks, ready)))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        store.close()


async def _serve(config: DaemonConfig, store: Store, hooks: Hooks, ready: Callable[[str], None] | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, hooks, stop)
    context = Context(
        store=store,
        stats=ServerStats(),
        run_id=secrets.token_hex(20).encode(),
        instance=hooks.instance,
        admin_password=(config.admin or "").encode(),
        protect=config.protect,
        hooks=hooks,
        debug=config.debug_commands,
        mixed=config.mode == "mixed",
        stop=stop.set,
        durability="none" if config.no_sync else "always" if config.sync else "barrier",
    )
    barrier = Barrier(store, loop, skip=config.no_sync)
    hub = Hub(context, barrier, loop, sync=config.sync and not config.no_sync)
    compactor = Compactor(store, barrier, loop)
    context.start_compaction = compactor.start
    servers, address = await _listen(config, hub, loop)
    if config.admin_http is not None:
        servers.append(await _listen_metrics(config.admin_http, hub, servers))
    housekeeping = loop.create_task(_tick(hub))
    try:
        for namespace in store.namespaces.values():
            context.greet(namespace)
        if await hooks.wait("ready"):
            sys.stderr.write("zdb: the hook says that it is not ready: stopped\n")
            return 0
        if config.port_file is not None:
            replace_file(config.port_file, address.rsplit(":", 1)[-1].encode(), sync=False)
        if ready is not None:
            ready(address)
        await stop.wait()
    finally:
        housekeeping.cancel()
        for server in servers:
            server.close()
        await compactor.stop()
        await hooks.stop(_HOOKS_S)
        await _drain(hub)
        with contextlib.suppress(asyncio.CancelledError):
            await housekeeping
        barrier.stop()
        for namespace in store.namespaces.values():
            _tell_closing(hooks, namespace)
        if config.socket is not None:
            with contextlib.suppress(OSError):
                os.unlink(config.socket)
    return 0 if not any(namespace.broken for namespace in store.namespaces.values()) else 1


async def _listen_metrics(address: str, hub: Hub, opened: list[asyncio.AbstractServer]) -> asyncio.AbstractServer:
    try:
        return await serve_metrics(address, hub.context, lambda: len(hub.connections))
    except BaseException:
        for server in opened:
            server.close()
        raise


def _on_signal(hooks: Hooks, stop: asyncio.Event) -> None:
    hooks.tell("close")
    stop.set()


def _tell_closing(hooks: Hooks, namespace: Namespace) -> None:
    segments = namespace.segments
    number = segments.ends.file_id
    hooks.detach(
        "namespace-closing", os.fsdecode(namespace.name), f"{segments.index_path}/i{number}",
        f"{segments.data_path}/d{number}", dirty_ids(namespace),
    )  # fmt: skip


async def _listen(
    config: DaemonConfig, hub: Hub, loop: asyncio.AbstractEventLoop
) -> tuple[list[asyncio.AbstractServer], str]:
    """Listen where the configuration says and return the address to tell."""
    servers: list[asyncio.AbstractServer] = []
    address = ""
    try:
        if config.socket is None or config.dualnet:
            # A socket of our own: given a host, the loop would start resolver threads, 1.4 MiB a daemon.
            server = await loop.create_server(lambda: Connection(hub), sock=_bound(config), backlog=_BACKLOG)
            servers.append(server)
            host, port = server.sockets[0].getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if config.socket is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(config.socket)
            servers.append(await loop.create_unix_server(lambda: Connection(hub), config.socket, backlog=_BACKLOG))
            address = config.socket
    except OSError as error:
        for opened in servers:
            opened.close()
        where = config.socket or f"{config.listen}:{config.port}"
        raise FailedError(
            f"cannot listen on {where}: {error.strerror or error}", hint="choose another address, or port 0 for any"
        ) from error
    return servers, address


def _bound(config: DaemonConfig) -> socket.socket:
    """Return a TCP socket bound to the configured address.

    Raises:
        OSError: the address is taken, or none of this machine.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in config.listen else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.listen == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((config.listen, config.port))
    except OSError:
        bound.close()
        raise
    return bound


async def _drain(hub: Hub) -> None:
    """Let what was asked be answered and sent, for a moment; then drop who does not read."""
    for connection in list(hub.connections):
        connection.drain()
    if hub.connections:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hub.empty.wait(), _DRAIN_S)
    for connection in list(hub.connections):
        connection.abort()
    await asyncio.sleep(0)


async def _tick(hub: Hub) -> None:
    """Now and then: let idle memory go, and drop who holds a buffer that others wait for."""
    seen = -1
    while True:
        await asyncio.sleep(_TICK_S)
        now = hub.loop.time()
        if hub.buffers.contended:
            for connection in list(hub.connections):
                if connection.stalled(now):
                    connection.abort()
        if hub.context.stats.commands == seen:
            hub.buffers.trim()
        seen = hub.context.stats.commands
