"""One budget of bytes for all bodies of a worker: read and not yet taken by clients."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from gateway.settings import LONG_STEP_BYTES_MAX, STEP_BYTES_MAX


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

    def share(self, client: str = "") -> Share:
        """Open an account for one request of a client."""
        return Share(self, client)

    def _fits(self, share: Share) -> bool:
        spare = self._total // 4 if share.held else 0
        return self.free >= STEP_BYTES_MAX + spare

    async def _reserve(self, share: Share, *, is_fast: bool) -> int:
        if is_fast and self.free - LONG_STEP_BYTES_MAX >= self._total // 2:
            self._take(share, LONG_STEP_BYTES_MAX)
            return LONG_STEP_BYTES_MAX
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
        else:
            self._take(share, STEP_BYTES_MAX)
        return STEP_BYTES_MAX

    def _park(self, share: Share, cut_off: Callable[[], None]) -> None:
        """Count what a stalled share holds apart.

        Where that is too much, the client for whom most is held is cut off, the first of its requests first: who opens
        many and takes nothing must not cost others that are merely slow.
        """
        self._stalled[share] = cut_off
        share.parked = share.held
        self.stalled += share.parked
        self._add_free(share.parked)
        while self.stalled > self._stalled_max:
            first = self._first_of_the_heaviest()
            cut = self._stalled[first]
            self._unpark(first)
            cut()

    def _first_of_the_heaviest(self) -> Share:
        held: Counter[str] = Counter()
        for share in self._stalled:
            held[share.client] += share.parked
        ((heaviest, _),) = held.most_common(1)
        return next(share for share in self._stalled if share.client == heaviest)

    def _unpark(self, share: Share) -> None:
        """Count it as all others again: for a moment more may be held than the budget allows."""
        if self._stalled.pop(share, None) is not None:
            self._count_again(share, share.parked)

    def _count_again(self, share: Share, amount: int) -> None:
        share.parked -= amount
        self.stalled -= amount
        self.free -= amount

    def _take(self, share: Share, amount: int) -> None:
        self.free -= amount
        share.held += amount

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
                self._take(waiter.share, STEP_BYTES_MAX)
                waiter.granted.set()
            if line:
                return

    def _forget(self, waiter: _Waiter) -> None:
        for line in (self._first, self._ahead):
            if waiter in line:
                line.remove(waiter)


class Share:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "client", "held", "parked")

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self._budget = budget
        self.client = client
        self.held = 0
        self.parked = 0

    def park(self, cut_off: Callable[[], None]) -> None:
        """The client has stalled: its bytes must not keep others waiting. `cut_off` ends it if there are too many."""
        self._budget._park(self, cut_off)  # noqa: SLF001

    def unpark(self) -> None:
        """The client goes on."""
        self._budget._unpark(self)  # noqa: SLF001

    async def reserve(self, *, is_fast: bool = False) -> int:
        """Wait for room for one step; how many bytes it may have. Who is fast has a long one while there is plenty."""
        return await self._budget._reserve(self, is_fast=is_fast)  # noqa: SLF001  # the two are one mechanism

    def settle(self, reserved: int, actual: int) -> None:
        """Give back what a reserved step turned out not to need."""
        self.give(reserved - actual)

    def give(self, amount: int) -> None:
        """Give back bytes that the client has taken."""
        self._budget._give(self, min(amount, self.held))  # noqa: SLF001

    def close(self) -> None:
        """Give back everything."""
        self.give(self.held)
