"""Bodies: from synchronous iterators in worker threads to the transport, under one budget of bytes.

A body is brought in *steps*, each one visit to a worker thread, so a slow reader holds memory (its step, and one more
ahead when there is room) but never a thread. A step's bytes are given back to the budget when the transport takes an
empty piece after them: it does that only once it holds next to nothing any more.
"""

from __future__ import annotations

import asyncio
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


class StalledBodyError(Exception):
    """The next bytes of a body did not come in time."""


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

    def __init__(self, total: int, stalled_max: int) -> None:
        self._total = total
        self._stalled_max = stalled_max
        self.free = total
        self.stalled = 0
        self._stalled: dict[Share, Callable[[], None]] = {}
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

    def _park(self, share: Share, cut_off: Callable[[], None]) -> None:
        """Count what a stalled share holds apart; where that is too much, those that stalled first are cut off."""
        self._stalled[share] = cut_off
        share.parked = share.held
        self.stalled += share.parked
        self._add_free(share.parked)
        while self.stalled > self._stalled_max:
            oldest = next(iter(self._stalled))
            cut = self._stalled[oldest]
            self._unpark(oldest)
            cut()

    def _unpark(self, share: Share) -> None:
        """Count it as all others again: for a moment more may be held than the budget allows."""
        if self._stalled.pop(share, None) is not None:
            self._count_again(share, share.parked)

    def _count_again(self, share: Share, amount: int) -> None:
        share.parked -= amount
        self.stalled -= amount
        self.free -= amount

    def _take(self, share: Share) -> None:
        self.free -= STEP_BYTES_MAX
        share.held += STEP_BYTES_MAX

    def _give(self, share: Share, amount: int) -> None:
        share.held -= amount
        self._count_again(share, max(0, share.parked - share.held))
        if not share.held:
            own = [waiter for waiter in self._ahead if waiter.share is share]
            for waiter in own:
                self._ahead.remove(waiter)
                self._first.append(waiter)
        self._add_free(amount)

    def _add_free(self, amount: int) -> None:
        self.free += amount
        if not self._first and not self._ahead:
            return
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

    __slots__ = ("_budget", "held", "parked")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0
        self.parked = 0

    def park(self, cut_off: Callable[[], None]) -> None:
        """The client has stalled: its bytes must not keep others waiting. `cut_off` ends it if there are too many."""
        self._budget._park(self, cut_off)  # noqa: SLF001

    def unpark(self) -> None:
        """The client goes on."""
        self._budget._unpark(self)  # noqa: SLF001

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
        budget = ByteBudget(settings.buffered_bytes_max, settings.stalled_bytes_max)
        return cls(settings, budget, anyio.CapacityLimiter(settings.threads_max))

    async def send_all(
        self,
        first: Step,
        chunks: Iterator[Buffer],
        stack: SourceStack,
        share: Share,
        send: Send,
        break_off: Callable[[str], None],
    ) -> None:
        """Send `first`, then the rest of `chunks`, reading ahead as far as the budget allows.

        `break_off` is called as soon as the next bytes are late: the thread that waits for them may take a while yet.
        Raises whatever the iterator raises, after the bytes before it were sent, SlowReaderError and StalledBodyError.
        """
        body = _Body(self, chunks, stack, share, send, break_off)
        await body.run(first)


class _Body:
    """One body on its way: a producer that reads steps, and a consumer that sends them."""

    def __init__(
        self,
        streamer: Streamer,
        chunks: Iterator[Buffer],
        stack: SourceStack,
        share: Share,
        send: Send,
        break_off: Callable[[str], None],
    ) -> None:
        self._streamer = streamer
        self._settings = streamer.settings
        self._chunks = chunks
        self._stack = stack
        self._share = share
        self._send = send
        self._break_off = break_off
        self._failure: list[Exception] = []
        self._outbox, self._inbox = anyio.create_memory_object_stream[Step](self._settings.look_ahead_steps)
        self._taken = 0
        self._moved = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    async def run(self, first: Step) -> None:
        async with anyio.create_task_group() as group, self._inbox:
            if first.is_last:
                self._outbox.close()
            else:
                group.start_soon(self._produce)
            try:
                await self._consume(first)
            except Exception as error:  # noqa: BLE001  # carried past the task group, which would wrap it
                self._failure.insert(0, error)
            group.cancel_scope.cancel()
        if self._failure:
            raise self._failure[0]

    async def _produce(self) -> None:
        async with self._outbox:
            try:
                is_last = False
                read = 1
                while not is_last:
                    await self._wait_for_need(read)
                    await self._share.reserve()
                    step = await anyio.to_thread.run_sync(
                        take_step, self._chunks, self._stack, limiter=self._streamer.threads
                    )
                    self._share.settle(step.size)
                    is_last = step.is_last
                    read += 1
                    await self._outbox.send(step)
            except Exception as error:  # noqa: BLE001  # handed to the consumer, which raises it in its place
                self._failure.append(error)

    async def _wait_for_need(self, read: int) -> None:
        """Read ahead only for who has shown to read: a client that asks and takes nothing costs one step."""
        while read > self._taken and self._taken < self._settings.look_ahead_after_steps:
            self._moved = anyio.Event()
            await self._moved.wait()

    async def _consume(self, first: Step) -> None:
        await self._send_step(first)
        while True:
            step: Step | None = None
            with anyio.move_on_after(self._settings.step_s) as scope:
                try:
                    step = await self._inbox.receive()
                except anyio.EndOfStream:
                    return
            if scope.cancelled_caught or step is None:
                why = f"the next bytes did not come within {self._settings.step_s:g} s"
                self._break_off(why)
                raise StalledBodyError(why)
            await self._send_step(step)

    async def _send_step(self, step: Step) -> None:
        for chunk in step.chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), PIECE_BYTES):
                await self._send_piece(view[start : start + PIECE_BYTES])
        step.chunks.clear()
        await self._send_piece(b"")
        self._share.give(step.size)
        self._taken += 1
        self._moved.set()

    async def _send_piece(self, piece: Buffer) -> None:
        with anyio.move_on_after(self._settings.piece_s) as scope:
            self._scope = scope
            timer = _later(self._settings.stall_s, self._park)
            try:
                await self._send(piece)
            finally:
                if timer is not None:
                    timer.cancel()
                self._share.unpark()
        if scope.cancelled_caught:
            raise SlowReaderError("the client took too little for too long, or too many such clients were waited for")

    def _park(self) -> None:
        assert self._scope is not None
        self._share.park(self._scope.cancel)


def _later(after_s: float, act: Callable[[], None]) -> asyncio.TimerHandle | None:
    """Call later, under the event loop of our own server; under another one stalled clients are not told apart."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop.call_later(after_s, act)
