"""The daemon's process: opens the store, listens, serves until SIGTERM or SIGINT, leaves everything on disk."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import uvloop

from fungistor.errors import FailedError, FungiStorError
from fungistor.zdb.daemon.admin_http import AdminHttp
from fungistor.zdb.daemon.background import Parent, detach
from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.compactor import Compactor
from fungistor.zdb.daemon.config import DaemonConfig
from fungistor.zdb.daemon.crash_watch import CrashWatch, watch_for_crash
from fungistor.zdb.daemon.files import replace_file
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.hooks import Hooks
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.listening import Door, Listeners
from fungistor.zdb.daemon.log import ERROR, INFO, WARNING, LogSink, install, say
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.notify import Notifier, passed_sockets
from fungistor.zdb.daemon.offline import live_rows
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.rounds import compiled
from fungistor.zdb.daemon.session import Context, ServerStats, dirty_ids
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.upkeep import Upkeep

_DRAIN_S: Final = 2.0
_LISTENED_S: Final = 0.05
"""When nothing was asked for so long, all that was sent before a stop has been read."""
_HOOKS_S: Final = 60.0
"""How long a stop waits for hooks; an upload of a file takes its time."""
_SAME_SIGNAL_S: Final = 0.5
"""A stop often comes twice, to the process and to its group: only later ones ask to end at once."""
_MODES: Final = {"mixed": None, "user": MODE_USER, "seq": MODE_SEQUENTIAL}
_LOOPBACK: Final = ("127.", "::1", "localhost")

Ready = Callable[[str], None]


def run(config: DaemonConfig, *, ready: Ready | None = None) -> int:
    """Serve until told to stop, then return the exit code.

    Args:
        ready: called once with the address (`host:port`, or the socket's path) when requests are served.

    Raises:
        ConflictError: another daemon holds the folders.
        FailedError: the folders, the address or a file that the configuration names cannot be used.
    """
    passed = passed_sockets(os.environ)
    if config.background and not config.dump:
        return detach(lambda parent: _Daemon(config, ready, passed, parent).run())
    return _Daemon(config, ready, passed, None).run()


class _Daemon:
    """One run from start to end."""

    def __init__(
        self, config: DaemonConfig, ready: Ready | None, passed: list[tuple[str, socket.socket]], parent: Parent | None
    ) -> None:
        self._config = config
        self._ready = ready
        self._passed = passed
        self._parent = parent
        self._notifier = Notifier(os.environ)
        self._watch: CrashWatch | None = None
        self._sink = self._log()
        instance = f"unix://{config.socket}" if config.socket else f"tcp://{config.listen}:{config.port}"
        self._hooks = Hooks(config.hook, instance, timeout_s=config.hook_timeout)
        self._handled: list[signal.Signals] = []

    def _log(self) -> LogSink:
        config = self._config
        try:
            return install(as_json=config.log_json, verbose=config.verbose, path=config.logfile)
        except OSError as error:
            raise FailedError(f"cannot write --logfile {config.logfile}: {error.strerror}") from error

    def run(self) -> int:
        try:
            code = self._run()
        except FungiStorError as error:
            if self._config.logfile is not None:
                say(ERROR, "daemon.failed", error.message, hint=error.hint)
            self._begin_end()
            raise
        # Any other exception is a crash, and the hook is told.
        self._begin_end()
        return code

    def _run(self) -> int:
        config = self._config
        if config.hook is not None:
            self._watch = watch_for_crash(self._hooks.words("crash"))
        say(INFO, "daemon.starting", "opening the folders", data=config.data, index=config.index, pid=os.getpid())
        self._hooks.before_start(config.index, config.data)
        store = Store(
            config.data, config.index, datasize=config.datasize, durable=not config.no_sync, mode=_MODES[config.mode]
        )
        for line in store.report:
            say(WARNING, "recovery.found", line)
        if config.maxsize:
            store.namespaces[DEFAULT].descriptor.maxsize = config.maxsize
        if config.dump:
            return _dump(store)
        loop = uvloop.new_event_loop()
        loop.set_exception_handler(_on_loop_error)
        try:
            asyncio.set_event_loop(loop)
            return int(loop.run_until_complete(self._serve(store, loop)))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            store.close()
            say(INFO, "daemon.stopped", "all files are closed")

    async def _serve(self, store: Store, loop: asyncio.AbstractEventLoop) -> int:
        config, hooks = self._config, self._hooks
        stop = asyncio.Event()
        context = self._context(store, stop)
        barrier = Barrier(store, loop, skip=config.no_sync)
        hub = Hub(
            context, barrier, loop, sync=config.sync and not config.no_sync, unsent_bytes_max=config.max_unsent,
            mapped_bytes_max=config.max_mapped,
        )  # fmt: skip
        compactor = Compactor(store, barrier, loop)
        context.start_compaction = compactor.start
        if config.secure:
            context.flush_closed = lambda: barrier.request(lambda _whole: None)
        door = Door(hub, config.max_connections)
        listeners = Listeners(config, door, loop)
        admin = AdminHttp(context, hub, lambda: door.limit, lambda: listeners.credentials)
        upkeep = Upkeep(hub, config)
        self._handle_signals(loop, stop, listeners)
        try:
            await listeners.open(self._passed)
            if config.admin_http is not None:
                await admin.open(config.admin_http)
            for namespace in store.namespaces.values():
                context.greet(namespace)
            if await hooks.wait("ready"):
                say(WARNING, "hook.not-ready", "the hook says that it is not ready: stopped")
                return 0
            upkeep.start(self._notifier.alive, self._notifier.watchdog_s / 2)
            self._tell_ready(listeners, store)
            if hub.lane is not None:
                # Behind the faulthandler, which cares for the same signal.
                hub.lane.mappings.guard()
            admin.refuses = ""
            await stop.wait()
        finally:
            admin.refuses = "it is stopping"
            self._notifier.stopping("closing connections", _DRAIN_S + _HOOKS_S + 30)
            listeners.close()
            await _drain(hub)
            await compactor.stop()
            await hooks.stop(_HOOKS_S)
            await upkeep.stop()
            barrier.stop()
            self._notifier.status("telling the hook")
            await hooks.tell_closing([_closing(namespace) for namespace in store.namespaces.values()], _HOOKS_S)
            admin.close()
            hub.rounds.close()
            listeners.remove_socket_file()
            self._release_signals(loop)
        return int(any(one.broken and one.unfinished is None for one in store.namespaces.values()))

    def _context(self, store: Store, stop: asyncio.Event) -> Context:
        config = self._config

        def end() -> None:
            # As by a signal, but `close` is told on those alone.
            self._begin_end()
            stop.set()

        return Context(
            store=store,
            stats=ServerStats(),
            run_id=secrets.token_hex(20).encode(),
            instance=self._hooks.instance,
            admin_password=os.fsencode(config.admin or ""),
            protect=config.protect,
            hooks=self._hooks,
            debug=config.debug_commands,
            mixed=config.mode == "mixed",
            stop=end,
            durability="none" if config.no_sync else "always" if config.sync else "barrier",
        )

    def _tell_ready(self, listeners: Listeners, store: Store) -> None:
        config = self._config
        if config.port_file is not None:
            addresses = filter(None, (listeners.tcp or listeners.unix, listeners.tls))
            ports = [text.rsplit(":", 1)[-1] for text in addresses]
            replace_file(config.port_file, "\n".join(ports).encode(), sync=False)
        say(
            INFO, "daemon.serving", f"serving on {listeners.address}", tcp=listeners.tcp, tls=listeners.tls,
            unix=listeners.unix, namespaces=len(store.namespaces), lane="python" if compiled is None else "compiled",
        )  # fmt: skip
        for address in filter(None, (listeners.tcp, listeners.tls)):
            if not config.admin and not address.strip("[").startswith(_LOOPBACK):
                say(WARNING, "rights.everybody", f"whoever reaches {address} is admin: there is no --admin")
        self._notifier.ready(self._status(listeners))
        if self._ready is not None:
            self._ready(listeners.address)
        if self._parent is not None:
            self._parent.leave(keep_output=config.logfile is not None)
        self._sink.take_stderr()
        # With the faulthandler a crash in C leaves a word about where.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            faulthandler.enable(file=sys.stderr.fileno())

    def _status(self, listeners: Listeners) -> str:
        return f"serving on {', '.join(filter(None, (listeners.tcp, listeners.tls, listeners.unix)))}"

    # signals

    def _handle_signals(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, listeners: Listeners) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        reloads: set[asyncio.Task[None]] = set()

        def on_stop(number: signal.Signals) -> None:
            if stop.is_set():
                return
            say(INFO, "daemon.stopping", f"{number.name}: another one ends it at once")
            self._hooks.tell("close")
            self._begin_end()
            loop.call_later(_SAME_SIGNAL_S, self._release_signals, loop)
            stop.set()

        terminal = self._config.logfile is None and os.isatty(2)

        def on_hang_up() -> None:
            if terminal and not os.isatty(2):
                # The terminal is gone, and with it the person who started this.
                on_stop(signal.SIGHUP)
                return
            task = loop.create_task(self._reload(listeners))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        # What our parent ignores is not meant for us: Ctrl-C in a group, the hang-up of a terminal.
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, on_stop, number)
                self._handled.append(number)
        # Rotating logs is asked of every daemon that way, and the original would die of it.
        loop.add_signal_handler(signal.SIGHUP, on_hang_up)

    def _begin_end(self) -> None:
        if self._watch is not None:
            self._watch.ending()

    def _release_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on the next signal ends the process at once, whatever it waits for."""
        for number in self._handled:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        self._handled.clear()

    async def _reload(self, listeners: Listeners) -> None:
        """SIGHUP: begin a new log file, show a new certificate."""
        self._notifier.reloading()
        try:
            self._sink.reopen()
        except OSError as error:
            say(ERROR, "log.not-reopened", f"the log file stays the old one: {error.strerror}")
        try:
            await listeners.renew_tls()
        except FailedError as error:
            say(ERROR, "tls.not-renewed", f"the old certificate goes on: {error.message}", hint=error.hint)
        else:
            if listeners.credentials is not None:
                say(INFO, "tls.renewed", "new connections see the new certificate")
        say(INFO, "daemon.reloaded", "log and certificates are opened again")
        self._notifier.ready(self._status(listeners))


def _closing(namespace: Namespace) -> tuple[str, ...]:
    segments = namespace.segments
    number = segments.ends.file_id
    return (
        os.fsdecode(namespace.name), f"{segments.index_path}/i{number}", f"{segments.data_path}/d{number}",
        dirty_ids(namespace),
    )  # fmt: skip


def _dump(store: Store) -> int:
    """List live keys, as people read them."""
    try:
        for row in live_rows(store):
            sys.stdout.write("  ".join(f"{name} {value}" for name, value in row.items()) + "\n")
        sys.stdout.flush()
    finally:
        store.close()
    return 0


async def _drain(hub: Hub) -> None:
    """Read what was sent already, let it be answered and sent, for a moment; then drop who does not read."""
    loop, stats = hub.loop, hub.context.stats
    deadline = loop.time() + _DRAIN_S
    seen = -1
    while hub.connections and seen != stats.commands and loop.time() < deadline:
        seen = stats.commands
        await asyncio.sleep(_LISTENED_S)
    for connection in list(hub.connections):
        connection.drain()
    if hub.connections:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hub.empty.wait(), _DRAIN_S)
    for connection in list(hub.connections):
        connection.abort()
    await asyncio.sleep(0)


def _on_loop_error(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """What no callback caught: a client's broken TLS is its own affair, all else is a fault of ours."""
    error = context.get("exception")
    text = str(context.get("message", ""))
    if isinstance(error, OSError):
        say(WARNING, "connection.failed", f"{text}: {type(error).__name__} {error.strerror or ''}".strip())
        return
    logging.getLogger("fungistor.zdb").error("%s", text, exc_info=error, extra={"event": "daemon.fault"})
