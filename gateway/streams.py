"""Bodies: from synchronous iterators in worker threads to the transport, under one budget of bytes.

A body is brought in *steps*, each one visit to a worker thread, so a slow reader holds memory (its step, and one more
ahead when there is room) but never a thread. A step's bytes are given back to the budget when the transport takes an
empty piece after them: it does that only once it holds next to nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread

from gateway.settings import PIECE_BYTES, STEP_BYTES, STEP_BYTES_MAX, Settings

Buffer = bytes | memoryview
Send = Callable[[Buffer], Awaitable[None]]
T = TypeVar("T")


class SlowReaderError(Exception):
    """The client took too long over one piece."""


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
class _Waiter:
    share: Share
    granted: anyio.Event


class ByteBudget:
    """Bytes read and not yet taken by clients. Used on the loop's thread only.

    A request that holds nothing goes before requests that want to read ahead, and those leave a quarter free: slow
    readers cannot keep the budget from those who come after them.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.free = total
        self._first: deque[_Waiter] = deque()
        self._ahead: deque[_Waiter] = deque()

    def share(self) -> Share:
        """Open an account for one request."""
        return Share(self)

    def _fits(self, share: Share) -> bool:
        spare = self._total // 4 if share.held else 0
        return self.free >= STEP_BYTES_MAX + spare

    async def _reserve(self, share: Share) -> None:
        if not (self._fits(share) and (share.held or not self._first)):
            waiter = _Waiter(share, anyio.Event())
            line = self._ahead if share.held else self._first
            line.append(waiter)
            try:
                await waiter.granted.wait()
            except BaseException:
                if waiter.granted.is_set():
                    self._give(share, STEP_BYTES_MAX)
                else:
                    self._forget(waiter)
                raise
            return
        self._take(share)

    def _take(self, share: Share) -> None:
        self.free -= STEP_BYTES_MAX
        share.held += STEP_BYTES_MAX

    def _give(self, share: Share, amount: int) -> None:
        share.held -= amount
        self.free += amount
        if not self._first and not self._ahead:
            return
        if not share.held:
            own = [waiter for waiter in self._ahead if waiter.share is share]
            for waiter in own:
                self._ahead.remove(waiter)
                self._first.append(waiter)
        for line in (self._first, self._ahead):
            while line and self._fits(line[0].share):
                waiter = line.popleft()
                self._take(waiter.share)
                waiter.granted.set()
            if line:
                return

    def _forget(self, waiter: _Waiter) -> None:
        for line in (self._first, self._ahead):
            if waiter in line:
                line.remove(waiter)


class Share:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    async def reserve(self) -> None:
        """Wait for room for one step of the longest kind."""
        await self._budget._reserve(self)  # noqa: SLF001  # the two are one mechanism

    def settle(self, actual: int) -> None:
        """Give back what a reserved step turned out not to need."""
        self.give(STEP_BYTES_MAX - actual)

    def give(self, amount: int) -> None:
        """Give back bytes that the client has taken."""
        self._budget._give(self, min(amount, self.held))  # noqa: SLF001

    def close(self) -> None:
        """Give back everything."""
        self.give(self.held)


@dataclass(slots=True)
class Step:
    """Bytes brought by one visit to a thread; `is_last` when the iterator has ended."""

    chunks: list[Buffer] = field(default_factory=list)
    size: int = 0
    is_last: bool = False


def take_step(chunks: Iterator[Buffer], stack: SourceStack, at_least: int = STEP_BYTES) -> Step:
    """Run in a worker thread: pull until `at_least` bytes; close the source at once when there is no more."""
    step = Step()
    while step.size < at_least:
        chunk = next(chunks, None)
        if chunk is None:
            step.is_last = True
            stack.close()
            break
        step.chunks.append(chunk)
        step.size += len(chunk)
    return step


@dataclass(frozen=True, slots=True)
class Streamer:
    """What all requests of a worker share."""

    settings: Settings
    budget: ByteBudget
    threads: anyio.CapacityLimiter

    @classmethod
    def create(cls, settings: Settings) -> Streamer:
        """Make the shared limits."""
        return cls(settings, ByteBudget(settings.buffered_bytes_max), anyio.CapacityLimiter(settings.threads_max))

    async def send_all(
        self, first: Step, chunks: Iterator[Buffer], stack: SourceStack, share: Share, send: Send
    ) -> None:
        """Send `first`, then the rest of `chunks`, reading ahead as far as the budget allows.

        Raises whatever the iterator raises, after the bytes before it were sent, and SlowReaderError.
        """
        outbox, inbox = anyio.create_memory_object_stream[Step](self.settings.look_ahead_steps)
        failure: list[Exception] = []

        async def produce() -> None:
            async with outbox:
                try:
                    is_last = False
                    while not is_last:
                        await share.reserve()
                        step = await anyio.to_thread.run_sync(take_step, chunks, stack, limiter=self.threads)
                        share.settle(step.size)
                        is_last = step.is_last
                        await outbox.send(step)
                except Exception as error:  # noqa: BLE001  # handed to the consumer, which raises it in its place
                    failure.append(error)

        async with anyio.create_task_group() as group, inbox:
            if first.is_last:
                outbox.close()
            else:
                group.start_soon(produce)
            try:
                await self._send_steps(first, inbox, share, send)
            except Exception as error:  # noqa: BLE001  # carried past the task group, which would wrap it
                failure.insert(0, error)
            group.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _send_steps(
        self, first: Step, inbox: anyio.abc.ObjectReceiveStream[Step], share: Share, send: Send
    ) -> None:
        await self._send_step(first, share, send)
        async for step in inbox:
            await self._send_step(step, share, send)

    async def _send_step(self, step: Step, share: Share, send: Send) -> None:
        for chunk in step.chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), PIECE_BYTES):
                await self._send_piece(view[start : start + PIECE_BYTES], send)
        step.chunks.clear()
        await self._send_piece(b"", send)
        share.give(step.size)

    async def _send_piece(self, piece: Buffer, send: Send) -> None:
        with anyio.move_on_after(self.settings.piece_s) as scope:
            await send(piece)
        if scope.cancelled_caught:
            raise SlowReaderError(f"a piece was not taken within {self.settings.piece_s:g} s")
