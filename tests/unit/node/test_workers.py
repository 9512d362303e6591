from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import pytest

from fungistor.errors import UnavailableError
from fungistor.node.workers import BACKOFF_S_MAX, Worker, run_workers


def failing(error: Exception) -> Callable[[], bool]:
    def step() -> bool:
        raise error

    return step


def test_a_step_with_more_to_do_is_called_again_at_once() -> None:
    """Work that is left is not made to wait; none left waits its time."""
    assert Worker("w", 3.0, lambda: True).run_once() == 0.0
    assert Worker("w", 3.0, lambda: False).run_once() == 3.0


def test_errors_are_counted_spaced_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A cause that lasts fills no log and is tried less and less, but never given up; recovery is told."""
    worker = Worker("paying", 1.0, failing(UnavailableError("m03 is down")))
    with caplog.at_level(logging.INFO):
        waits = [worker.run_once() for _ in range(20)]
        assert waits[:3] == [2.0, 4.0, 8.0]
        assert waits[-1] == BACKOFF_S_MAX
        assert worker.errors == 20
        assert [record.getMessage() for record in caplog.records] == ["paying failed: m03 is down"]
        worker.step = lambda: False
        assert worker.run_once() == 1.0
    assert worker.last_error == ""
    assert "works again" in caplog.messages[-1]


def test_a_bug_in_a_step_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An error of no family is logged with its traceback, and the others go on."""
    broken = Worker("broken", 0.0, failing(ZeroDivisionError("bug")))
    seen: list[int] = []

    def step() -> bool:
        seen.append(1)
        return False

    async def main() -> None:
        with anyio.move_on_after(5.0):
            async with anyio.create_task_group() as group:
                group.start_soon(run_workers, [broken, Worker("good", 0.0, step)])
                while len(seen) < 5 or broken.errors < 1:  # noqa: ASYNC110  # counted in threads, not in this loop
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()

    anyio.run(main)
    assert len(seen) >= 5
    assert "ZeroDivisionError" in caplog.text


def test_what_an_ended_worker_meets_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """A step under way while the network closes may fail for it, and says nothing."""
    worker = Worker("w", 1.0, failing(UnavailableError("closed")), ended=True)
    worker.run_once()
    assert not caplog.records
    assert worker.errors == 0
