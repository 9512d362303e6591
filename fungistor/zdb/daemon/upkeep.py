"""What a daemon does unasked while it serves: files rotated by age, flushes by time, connections that say nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from fungistor.zdb.daemon.config import DaemonConfig
from fungistor.zdb.daemon.connection import Connection
from fungistor.zdb.daemon.format import INDEX_HEADER
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.log import INFO, WARNING, say
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.wire import ReplyError

TICK_S: Final = 5.0
_CLOCK_S: Final = 1.0
"""How often ages of files are looked at: `--rotate` counts seconds."""


class Rotation:
    """Begins new files in namespaces that were written to, as the original's `--rotate`: a deletion is no write."""

    def __init__(self, after_s: float, namespaces: Iterable[Namespace], now: float) -> None:
        self._after_s = after_s
        self._seen = {one: (one.segments.ends.file_id, one.segments.ends.index_end, now) for one in namespaces}

    def due(self, namespace: Namespace, now: float) -> bool:
        """Whether its newest file is older than that and something was appended to it by this process."""
        ends = namespace.segments.ends
        seen = self._seen.get(namespace)
        if seen is None or seen[0] != ends.file_id or ends.index_end < seen[1]:
            # Begun since, or emptied: all that is in it is new.
            seen = ends.file_id, INDEX_HEADER.size, now
        self._seen[namespace] = seen
        return ends.index_end > seen[1] and now - seen[2] > self._after_s

    def forget(self, namespaces: set[Namespace]) -> None:
        """Keep only those that are there."""
        for gone in self._seen.keys() - namespaces:
            del self._seen[gone]


class Upkeep:
    """The daemon's own tasks, each in a loop of its own until `stop`."""

    def __init__(self, hub: Hub, config: DaemonConfig) -> None:
        self._hub = hub
        self._config = config
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[Connection, float] = {}
        self._commands = -1
        self._write_failures = 0

    def start(self, alive: Callable[[], None], alive_s: float) -> None:
        """Begin; `alive` is called every `alive_s`, if that is not 0, as long as the loop turns."""
        self._every(TICK_S, self._tick)
        if alive_s:
            self._every(alive_s, alive)
        if self._config.synctime:
            self._every(self._config.synctime, self._flush)
        if self._config.rotate:
            namespaces = self._hub.context.store.namespaces.values()
            rotation = Rotation(self._config.rotate, namespaces, self._hub.loop.time())
            self._every(_CLOCK_S, lambda: self._rotate(rotation))
        if self._config.idle_timeout or self._config.greeting_timeout:
            shortest = min(filter(None, (self._config.idle_timeout, self._config.greeting_timeout)))
            self._every(min(shortest / 4, TICK_S), self._close_silent)

    async def stop(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(seconds)
                work()

        self._tasks.append(self._hub.loop.create_task(repeat()))

    def _tick(self) -> None:
        """Let idle memory go, drop who holds a buffer that others wait for, finish what a disk had stopped."""
        hub = self._hub
        now = hub.loop.time()
        if hub.buffers.contended:
            for connection in list(hub.connections):
                if connection.stalled(now):
                    connection.abort()
        if hub.context.stats.commands == self._commands:
            hub.buffers.trim()
            if hub.lane is not None:
                hub.lane.mappings.let_go()
        self._commands = hub.context.stats.commands
        for namespace in list(hub.context.store.namespaces.values()):
            if namespace.unfinished is not None and namespace.recovers():
                say(INFO, "namespace.mended", "it takes writes again", namespace=os.fsdecode(namespace.name))
        io = hub.context.store.io
        failures = io.data_write_failed + io.index_write_failed
        if failures != self._write_failures:
            self._write_failures = failures
            hub.context.stats.write_failed_at = time.time()
            say(WARNING, "disk.refuses", "the disk refuses writes", failures=failures)

    def _flush(self) -> None:
        """Nothing that was acknowledged waits longer for the disk; a flush that fails is told by the barrier."""
        self._hub.barrier.request(lambda _whole: None)

    def _rotate(self, rotation: Rotation) -> None:
        now = self._hub.loop.time()
        namespaces = list(self._hub.context.store.namespaces.values())
        rotation.forget(set(namespaces))
        for namespace in namespaces:
            if not rotation.due(namespace, now):
                continue
            name = os.fsdecode(namespace.name)
            try:
                namespace.rotate()
            except ReplyError as error:
                say(WARNING, "rotation.failed", error.text, namespace=name)
            else:
                say(INFO, "rotation.done", "began new files", namespace=name, file=namespace.segments.ends.file_id)

    def _close_silent(self) -> None:
        """Close connections that never sent anything, and those on which nothing happens, if that is wanted."""
        now, heard = self._hub.loop.time(), self._heard
        for gone in heard.keys() - self._hub.connections:
            del heard[gone]
        for connection in list(self._hub.connections):
            if connection.heard or connection.busy:
                connection.heard = False
                connection.greeted = True
                heard[connection] = now
                continue
            limit = self._config.idle_timeout if connection.greeted else self._config.greeting_timeout
            since = heard.setdefault(connection, now)
            if limit and now - since > limit:
                connection.abort()
