"""The bytes that all bodies may hold: who is cut off where clients that take nothing hold too many."""

from __future__ import annotations

import anyio

from gateway.budget import ByteBudget
from gateway.settings import LONG_STEP_BYTES_MAX, STEP_BYTES_MAX

ROOM = 100 * STEP_BYTES_MAX


def test_who_stalls_most_is_cut_off_first() -> None:
    """Beyond the bound the client for whom most is held loses requests, oldest first; one that is slow loses none."""

    async def run() -> None:
        budget = ByteBudget(ROOM, 4 * STEP_BYTES_MAX)
        cut: list[str] = []
        names = ["slow", *(f"greedy {number}" for number in range(6))]
        shares = {name: budget.share(name.split()[0]) for name in names}
        for name, share in shares.items():
            await share.reserve()
            share.park(lambda name=name: cut.append(name))  # type: ignore[misc]
        assert cut == ["greedy 0", "greedy 1", "greedy 2"]
        assert budget.stalled == 4 * STEP_BYTES_MAX
        for share in shares.values():
            share.unpark()
            share.close()
        assert (budget.free, budget.stalled) == (ROOM, 0)

    anyio.run(run)


def test_many_slow_clients_share_what_there_is() -> None:
    """Where each client has one stalled request, the first to stall is the first to go."""

    async def run() -> None:
        budget = ByteBudget(ROOM, 2 * STEP_BYTES_MAX)
        cut: list[int] = []
        for number in range(4):
            share = budget.share(f"client {number}")
            await share.reserve()
            share.park(lambda number=number: cut.append(number))  # type: ignore[misc]
        assert cut == [0, 1]

    anyio.run(run)


def test_long_steps_are_for_who_is_fast_while_there_is_plenty() -> None:
    """Half of the budget stays for others; who is not fast has short steps from the first."""

    async def run() -> None:
        room = 4 * LONG_STEP_BYTES_MAX
        budget = ByteBudget(room, STEP_BYTES_MAX)
        slow, fast = budget.share("slow"), budget.share("fast")
        reserved = [await fast.reserve(is_fast=True) for _ in range(3)]
        assert reserved == [LONG_STEP_BYTES_MAX, LONG_STEP_BYTES_MAX, STEP_BYTES_MAX]
        assert await slow.reserve() == STEP_BYTES_MAX
        fast.settle(reserved[0], 10)
        assert budget.free == room - sum(reserved[1:]) - 10 - STEP_BYTES_MAX
        fast.close()
        slow.close()
        assert budget.free == room

    anyio.run(run)
