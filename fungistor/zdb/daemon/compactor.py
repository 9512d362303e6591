"""Compaction beside the daemon's other work: one pass at a time, throttled, one reply when it is over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.compaction import Outcome, PassEnded, Step, compact
from fungistor.zdb.daemon.log import WARNING, say
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.store import Store

COPY_BYTES_PER_S: Final = 64 << 20
"""What a pass may write; what it reads is bounded by the pauses that this makes."""

Done = Callable[[Outcome | str], None]


class Compactor:
    """Runs passes in the daemon's loop."""

    def __init__(self, store: Store, barrier: Barrier, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._barrier = barrier
        self._loop = loop
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def start(self, namespace: Namespace, percent: int, done: Done, wiping: bool = False) -> bool:
        """Begin a pass; `done` gets its outcome, or why it ended early. False when one runs there already."""
        if namespace.name in self._tasks:
            return False
        task = self._loop.create_task(self._run(namespace, percent, done, wiping))
        self._tasks[namespace.name] = task
        return True

    def running(self, namespace: Namespace) -> bool:
        """Whether a pass runs, or waits for its turn, in that namespace."""
        return namespace.name in self._tasks

    async def stop(self) -> None:
        """End all passes where they are; the next ones go on from there."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, namespace: Namespace, percent: int, done: Done, wiping: bool) -> None:
        outcome = Outcome()
        try:
            async with self._turn:
                await self._steps(namespace, percent, outcome, wiping)
        except PassEnded as error:
            name = os.fsdecode(namespace.name)
            say(WARNING, "compaction.ended", f"compaction ended early: {error}", namespace=name)
            done(error.message)
        except OSError as error:
            # Files that were put in the place of others meanwhile, or that cannot be read.
            name = os.fsdecode(namespace.name)
            say(WARNING, "compaction.ended", f"compaction ended early: {error}", namespace=name)
            done(f"its files cannot be read: {error.strerror}")
        else:
            done(outcome)
        finally:
            del self._tasks[namespace.name]

    async def _steps(self, namespace: Namespace, percent: int, outcome: Outcome, wiping: bool) -> None:
        copied = 0
        for step in compact(self._store, namespace, outcome, percent=percent, wiping=wiping):
            if step is Step.BARRIER:
                await self._durable()
            pause, copied = (outcome.copied - copied) / COPY_BYTES_PER_S, outcome.copied
            await asyncio.sleep(pause)

    async def _durable(self) -> None:
        flushed: asyncio.Future[bool] = self._loop.create_future()

        def over(whole: bool) -> None:
            if not flushed.done():
                flushed.set_result(whole)

        self._barrier.request(over)
        if not await flushed:
            raise PassEnded("what was copied could not be flushed")
