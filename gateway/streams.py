"""Bodies: from synchronous iterators in worker threads to the transport, under one budget of bytes.

A body is brought in *steps*, so a slow reader holds memory (its step, and one more ahead when there is room) but never
a thread. A step's bytes are given back to the budget when the transport takes an empty piece after them: it does that
only once it holds next to nothing any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import anyio

from gateway.budget import ByteBudget, Share
from gateway.settings import PIECE_BYTES, Settings
from gateway.steps import Buffer, SourceStack, Step, Visits

Send = Callable[[Buffer], Awaitable[None]]


class SlowReaderError(Exception):
    """The client took too long over one piece."""


class StalledBodyError(Exception):
    """The next bytes of a body did not come in time."""


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
    """One body on its way: threads that bring steps, and the loop that sends them."""

    def __init__(
        self,
        streamer: Streamer,
        chunks: Iterator[Buffer],
        stack: SourceStack,
        share: Share,
        send: Send,
        break_off: Callable[[str], None],
    ) -> None:
        self._settings = streamer.settings
        self._share = share
        self._send = send
        self._break_off = break_off
        self._visits = Visits(
            chunks, stack, share, streamer.threads, self._settings.look_ahead_steps, self._wait_for_need
        )
        self._asked = 1
        self._taken = 0
        self._is_fast = False
        self._moved = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    async def run(self, first: Step) -> None:
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            if not first.is_last:
                group.start_soon(self._visits.run)
            try:
                await self._consume(first)
            except Exception as error:  # noqa: BLE001  # carried past the task group, which would wrap it
                failure = error
            finally:
                self._visits.stop()
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _wait_for_need(self) -> bool:
        """Read ahead only for who has shown to read: a client that asks and takes nothing costs one step.

        True where it has shown to be fast, too.
        """
        while self._asked > self._taken and self._taken < self._settings.look_ahead_after_steps:
            self._moved = anyio.Event()
            await self._moved.wait()
        self._asked += 1
        return self._is_fast and self._taken >= self._settings.look_ahead_after_steps

    async def _consume(self, step: Step) -> None:
        await self._send_step(step)
        while not step.is_last:
            with anyio.move_on_after(self._settings.step_s) as scope:
                step = await self._visits.next()
            if scope.cancelled_caught:
                why = f"the next bytes did not come within {self._settings.step_s:g} s"
                self._break_off(why)
                raise StalledBodyError(why)
            await self._send_step(step)

    async def _send_step(self, step: Step) -> None:
        """Send a step's chunks, each whole: a call for every small piece was measured to cost more than the copying."""
        pieces = max(1.0, step.size / PIECE_BYTES)
        began = anyio.current_time()
        with anyio.move_on_after(self._settings.piece_s * pieces) as scope:
            self._scope = scope
            timer = _later(self._settings.stall_s * pieces, self._park)
            try:
                for chunk in step.chunks:
                    await self._send(chunk)
                step.chunks.clear()
                await self._send(b"")
            finally:
                if timer is not None:
                    timer.cancel()
                self._share.unpark()
        if scope.cancelled_caught:
            raise SlowReaderError("the client took too little for too long, or too many such clients were waited for")
        self._share.give(step.size)
        self._is_fast = anyio.current_time() - began < self._settings.fast_step_s
        self._taken += 1
        self._moved.set()

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
