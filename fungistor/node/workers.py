"""Background work of one shape: a step that runs in a thread, again and again, and can fail without harm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio
import anyio.to_thread

from fungistor.errors import FungiStorError

BACKOFF_S_MAX = 30.0
"""A step that keeps failing is tried this often at least, so that it goes on soon after its cause is gone."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """One kind of background work and how it fares.

    `step` does a bounded piece of blocking work and says whether more waits: then it is called again at once, else
    after `every_s`. What it raises is logged once per distinct message, counted, and ends nothing.
    """

    name: str
    every_s: float
    step: Callable[[], bool]
    runs: int = 0
    errors: int = 0
    last_error: str = ""
    last_good: float = 0.0
    failed_in_a_row: int = 0
    ended: bool = False
    """Set when the network is being closed: what a step under way then meets is no news."""

    def run_once(self) -> float:
        """Do one step, and give the seconds to wait before the next."""
        self.runs += 1
        try:
            more = self.step()
        except Exception as error:  # noqa: BLE001  # the supervision point: no background error may end `up`
            self._note(error)
            return min(BACKOFF_S_MAX, max(self.every_s, 0.1) * 2.0 ** min(self.failed_in_a_row, 16))
        if self.failed_in_a_row:
            log.info("%s works again after %d failures", self.name, self.failed_in_a_row)
        self.failed_in_a_row = 0
        self.last_error = ""
        self.last_good = time.time()
        return 0.0 if more else self.every_s

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "runs": self.runs,
            "errors": self.errors,
            "last_error": self.last_error,
            "last_good": round(self.last_good, 3),
        }

    def _note(self, error: Exception) -> None:
        if self.ended:
            return
        self.errors += 1
        self.failed_in_a_row += 1
        said = str(error) or type(error).__name__
        if said != self.last_error:
            expected = isinstance(error, FungiStorError | OSError)
            log.warning("%s failed: %s", self.name, said, exc_info=None if expected else error)
        self.last_error = said


async def run_worker(worker: Worker) -> None:
    """Run a worker until it is cancelled. A step under way is left to end by its own deadlines."""
    while not worker.ended:
        wait_s = await anyio.to_thread.run_sync(worker.run_once, abandon_on_cancel=True)
        await anyio.sleep(wait_s)


async def run_workers(workers: Iterable[Worker]) -> None:
    """Run several workers until cancelled."""
    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(run_worker, worker, name=worker.name)
