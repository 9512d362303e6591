"""The flush barrier: one fsync round at a time, in a worker thread, for everybody who asked before it began.

A round takes all files written since the last one. Whoever asks while it runs waits for the next, because what it
was acknowledged may have been written after the round took its files.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fungistor.zdb.daemon.files import flush_each
from fungistor.zdb.daemon.log import ERROR, say
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.segments import Unsynced
from fungistor.zdb.daemon.store import Store

Done = Callable[[bool], None]


class Barrier:
    """Makes acknowledged writes durable, grouped."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, *, skip: bool) -> None:
        self._store = store
        self._loop = loop
        self._skip = skip
        self._waiting: list[Done] = []
        self._running: list[Done] = []
        self._queue: SimpleQueue[list[tuple[Namespace, Unsynced]] | None] = SimpleQueue()
        self._worker: threading.Thread | None = None
        self.rounds = 0

    def request(self, done: Done) -> None:
        """Call `done(True)` when all written so far is durable, `done(False)` if that failed. Never from within."""
        if self._skip:
            self._loop.call_soon(done, True)
            return
        self._waiting.append(done)
        if not self._running:
            self._begin()

    def _begin(self) -> None:
        self._running, self._waiting = self._waiting, []
        work: list[tuple[Namespace, Unsynced]] = []
        for namespace in self._store.namespaces.values():
            unsynced = namespace.segments.take_unsynced()
            if unsynced.files or unsynced.directories:
                work.append((namespace, unsynced))
        if not work:
            self._loop.call_soon(self._finished, [])
            return
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="zdb-fsync", daemon=True)
            self._worker.start()
        self._queue.put(work)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            failed = sync_round(work)
            self._loop.call_soon_threadsafe(self._flushed, work, failed)

    def _flushed(self, work: list[tuple[Namespace, Unsynced]], failed: list[tuple[Namespace, str]]) -> None:
        """A round is over in the thread: note what is whole on disk, then answer."""
        bad = {namespace.name for namespace, _ in failed}
        for namespace, unsynced in work:
            # What was emptied or read again meanwhile has other files than those that were flushed.
            if namespace.name not in bad and namespace.segments is unsynced.source:
                self._store.note_durable(namespace, unsynced.newest, unsynced.end)
        self._finished(failed)

    def _finished(self, failed: list[tuple[Namespace, str]]) -> None:
        self.rounds += 1
        for namespace, reason in failed:
            # The kernel may have thrown the pages away and says so once: what is in the file now is not known.
            namespace.broken = reason
            name = os.fsdecode(namespace.name)
            say(ERROR, "namespace.broken", f"takes no writes until a restart: {reason}", namespace=name)
        # A namespace that waits for room has acknowledged nothing that could be lost.
        whole = not any(one.broken and one.unfinished is None for one in self._store.namespaces.values())
        callbacks, self._running = self._running, []
        for done in callbacks:
            done(whole)
        if self._waiting and not self._running:
            self._begin()

    def stop(self) -> None:
        """End the worker thread and flush what is left, in this thread."""
        if self._worker is not None:
            self._queue.put(None)
            self._worker.join()
        if not self._skip:
            every = [(one, one.segments.take_unsynced()) for one in self._store.namespaces.values()]
            work = [(one, unsynced) for one, unsynced in every if unsynced.files or unsynced.directories]
            for namespace, reason in sync_round(work):
                namespace.broken = reason


def sync_round(work: list[tuple[Namespace, Unsynced]]) -> list[tuple[Namespace, str]]:
    """Flush files and directories; return the namespaces for which it failed, with the reason."""
    refused = flush_each(lambda one: one[1].sync(), work)
    return [(namespace, f"fsync failed: {error.strerror}") for (namespace, _), error in refused]
