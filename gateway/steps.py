"""Steps of a body: brought from a synchronous iterator by worker threads, taken on the loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from fungistor.limits import BLOCK_BYTES_MAX
from gateway.budget import Share
from gateway.settings import STEP_BYTES

Buffer = bytes | memoryview
T = TypeVar("T")
OnLoop = Callable[..., object]
"""Call something on the loop's thread."""


class SourceStack(ExitStack):
    """Holds the request's source open; knows whether there is anything left to close."""

    is_open = False

    def enter_context(self, cm: AbstractContextManager[T]) -> T:
        """Open, and close when the stack is."""
        entered = super().enter_context(cm)
        self.is_open = True
        return entered

    def close(self) -> None:
        """Close what is open; again is harmless."""
        self.is_open = False
        super().close()


@dataclass(slots=True)
class Step:
    """Bytes brought by one visit to a thread; `is_last` when the iterator has ended."""

    chunks: list[Buffer] = field(default_factory=list)
    size: int = 0
    is_last: bool = False


def take_step(chunks: Iterator[Buffer], stack: SourceStack, at_least: int = STEP_BYTES) -> Step:
    """Run in a worker thread: pull until `at_least` bytes; close the source at once when there is no more.

    An empty chunk says that the next one will take a while: what is there need not wait for it.
    """
    step = Step()
    while step.size < at_least:
        chunk = next(chunks, None)
        if chunk is None:
            step.is_last = True
            stack.close()
            break
        if not chunk and step.size:
            break
        step.chunks.append(chunk)
        step.size += len(chunk)
    return step


class Visits:
    """The visits of one body to worker threads: a thread stays as long as there is room for another step.

    To go to a thread for every step and back was measured to take longer than the steps of a fast body: each way
    waits for the interpreter's lock and for a processor. Where there is no room left the thread goes, so a slow reader
    holds none. Everything but `_stay` runs on the loop.
    """

    def __init__(
        self,
        chunks: Iterator[Buffer],
        stack: SourceStack,
        share: Share,
        threads: anyio.CapacityLimiter,
        ahead: int,
        needed: Callable[[], Awaitable[bool]],
    ) -> None:
        """`ahead`: steps that may wait behind the one being sent. `needed` is awaited before each is brought, and says
        whether the client is fast."""
        self._chunks = chunks
        self._stack = stack
        self._share = share
        self._threads = threads
        self._needed = needed
        self._room = anyio.Semaphore(ahead + 1)
        self._outbox, self._inbox = anyio.create_memory_object_stream[Step | Exception](math.inf)
        self._lock = threading.Lock()
        self._granted: deque[int] = deque()
        self._is_staying = False
        self._is_over = False

    async def run(self) -> None:
        """Bring steps until the last one came or the task is cancelled."""
        on_loop = _on_loop()
        async with anyio.create_task_group() as group:
            while not self._is_over:
                is_fast = await self._needed()
                await self._room.acquire()
                reserved = await self._share.reserve(is_fast=is_fast)
                with self._lock:
                    self._granted.append(reserved)
                    enter, self._is_staying = not self._is_staying, True
                if enter:
                    group.start_soon(self._visit, on_loop)

    async def next(self) -> Step:
        """Take the next step. Raises what the iterator raised, in its place."""
        step = await self._inbox.receive()
        self._room.release()
        if isinstance(step, Exception):
            raise step
        return step

    def stop(self) -> None:
        """Bring nothing more than the step that is being brought."""
        self._is_over = True
        with self._lock:
            self._granted.clear()
        self._outbox.close()
        self._inbox.close()

    async def _visit(self, on_loop: OnLoop) -> None:
        await anyio.to_thread.run_sync(self._stay, on_loop, limiter=self._threads)

    def _stay(self, on_loop: OnLoop) -> None:
        while reserved := self._next_grant():
            brought: Step | Exception
            try:
                brought = take_step(self._chunks, self._stack, reserved - BLOCK_BYTES_MAX)
            except Exception as error:  # noqa: BLE001  # raised in its place by `next`
                brought = error
            on_loop(self._deliver, reserved, brought)
            if isinstance(brought, Exception) or brought.is_last:
                return

    def _next_grant(self) -> int:
        """Take the bytes granted to the next step; 0 where there are none and the thread goes."""
        with self._lock:
            self._is_staying = bool(self._granted)
            return self._granted.popleft() if self._granted else 0

    def _deliver(self, reserved: int, brought: Step | Exception) -> None:
        if self._is_over:
            return
        if isinstance(brought, Step):
            self._share.settle(reserved, brought.size)
        self._is_over = isinstance(brought, Exception) or brought.is_last
        self._outbox.send_nowait(brought)


def _on_loop() -> OnLoop:
    """How a thread calls the running loop: without waiting for it where that is our own server's."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        return anyio.from_thread.run_sync
