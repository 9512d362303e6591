"""The operator's program that is told what happens to files, with the original's events and arguments.

No hook holds up a client that did not ask for what it brings. Events are told one after the other, in the order in
which they happened; `missing-data` has a few places of its own, so that no upload delays a download. A run that takes
too long is ended with all that it started. What the program prints goes nowhere: it may say what no log should hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fungistor.zdb.daemon.log import DEBUG, ERROR, WARNING, say

RESTORES_MAX: Final = 4
"""Downloads at a time; more wait."""
CLOSINGS_MAX: Final = 8
"""Runs at a time when the daemon ends and each namespace is told of."""
QUEUE_MAX: Final = 4096
"""Events that wait for a slow program; beyond, the oldest are dropped and said to be."""
_KEPT_S: Final = 300.0
_KEPT_MAX: Final = 1024
_NEVER: Final = -1
_TERM_S: Final = 5.0
"""What a run that takes too long has from SIGTERM to SIGKILL."""

Exited = Callable[[int], None]


@dataclass(slots=True)
class HookRun:
    """One run of the program, for HOOKS. Times in unix seconds, 0 where it has not come to that."""

    event: str
    arguments: tuple[str, ...]
    pid: int = 0
    started: int = 0
    finished: int = 0
    code: int = 0
    exited: Exited | None = field(default=None, repr=False)


@dataclass(slots=True)
class HookStats:
    """Counters since start."""

    runs: int = 0
    failed: int = 0
    timed_out: int = 0
    dropped: int = 0


class Hooks:
    """Runs the program. With none given, nothing happens."""

    def __init__(self, program: str | None, instance: str, *, timeout_s: float = 0) -> None:
        self.program = program
        self.runs: deque[HookRun] = deque(maxlen=_KEPT_MAX)
        self.stats = HookStats()
        self.instance = instance
        self._timeout_s = timeout_s or None
        self._queue: deque[HookRun] = deque()
        self._teller: asyncio.Task[None] | None = None
        self._restores: dict[str, list[Exited]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(RESTORES_MAX)

    @property
    def waiting(self) -> int:
        """Events that are not told yet."""
        return len(self._queue)

    def before_start(self, *arguments: str) -> None:
        """Run `namespaces-init` and wait: files may be brought that a start needs, however long that takes."""
        if self.program is None:
            return
        run = HookRun("namespaces-init", arguments, started=int(time.time()))
        try:
            with subprocess.Popen(
                self._words(run), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as process:  # fmt: skip
                run.pid = process.pid
                run.code = process.wait()
        except OSError as error:
            self._cannot(run, error)
        run.finished = int(time.time())
        self._ended(run)
        self.runs.append(run)

    async def tell_closing(self, closings: Sequence[tuple[str, ...]], timeout_s: float) -> None:
        """Tell of each namespace that it closes, a few at a time; runs that are not over in time outlive the daemon."""
        if self.program is None:
            return
        left = deque(closings)

        async def tell_some() -> None:
            while left:
                await self._run(HookRun("namespace-closing", left.popleft()))

        tasks = [asyncio.get_running_loop().create_task(tell_some()) for _ in range(min(CLOSINGS_MAX, len(left)))]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        if left:
            say(ERROR, "hook.not-told", "no time is left to tell of closing namespaces", namespaces=len(left))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self, event: str, *arguments: str) -> int:
        """Run it after all that was told before, and return its exit code."""
        if self.program is None:
            return 0
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.tell(event, *arguments, exited=lambda found: None if code.done() else code.set_result(found))
        return await code

    def tell(self, event: str, *arguments: str, exited: Exited | None = None) -> None:
        """Run it when all that was told before is over."""
        if self.program is None:
            return
        if len(self._queue) >= QUEUE_MAX:
            dropped = self._queue.popleft()
            self.stats.dropped += 1
            said = " ".join((dropped.event, *dropped.arguments))
            say(ERROR, "hook.not-told", f"the hook is too slow, {said} is not told", waiting=QUEUE_MAX)
            if dropped.exited is not None:
                dropped.exited(_NEVER)
        self._queue.append(HookRun(event, arguments, exited=exited))
        if self._teller is None or self._teller.done():
            self._teller = self._start(self._tell_all())

    def restore(self, path: str, exited: Exited) -> None:
        """Have a data file brought back; all who ask for the same one meanwhile are answered by one run."""
        waiting = self._restores.setdefault(path, [])
        waiting.append(exited)
        if len(waiting) == 1:
            self._start(self._restore(path))

    async def stop(self, timeout_s: float) -> None:
        """Let what is queued be told, for a while; then give the rest up."""
        pending = list(self._tasks)
        if pending:
            await asyncio.wait(pending, timeout=timeout_s)
        if self._queue:
            say(ERROR, "hook.not-told", "no time is left to tell of all that happened", events=len(self._queue))
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def words(self, event: str, *arguments: str) -> list[str]:
        """Return the command line that tells of an event."""
        assert self.program is not None, "callers look first"
        return [self.program, event, self.instance, *arguments]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _tell_all(self) -> None:
        while self._queue:
            run = self._queue.popleft()
            await self._run(run)
            if run.exited is not None:
                run.exited(run.code)

    async def _restore(self, path: str) -> None:
        run = HookRun("missing-data", (path,), code=_NEVER)
        try:
            async with self._places:
                await self._run(run)
        finally:
            for exited in self._restores.pop(path):
                exited(run.code)

    async def _run(self, run: HookRun) -> None:
        self._forget_old()
        self.runs.append(run)
        run.started = int(time.time())
        null = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words(run), stdin=null, stdout=null, stderr=null, start_new_session=True
            )
        except OSError as error:
            self._cannot(run, error)
        else:
            run.pid = process.pid
            run.code = await self._exit_code(run, process)
        run.finished = int(time.time())
        self._ended(run)

    async def _exit_code(self, run: HookRun, process: asyncio.subprocess.Process) -> int:
        """Wait for its end, and bring that about where it takes too long."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), self._timeout_s)
        self.stats.timed_out += 1
        say(ERROR, "hook.timeout", f"{run.event} takes too long and is ended", pid=run.pid, seconds=self._timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), _TERM_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()

    def _ended(self, run: HookRun) -> None:
        self.stats.runs += 1
        level = DEBUG
        if run.code:
            self.stats.failed += 1
            level = WARNING
        arguments = list(run.arguments)
        say(level, "hook.ended", f"hook {run.event} ended", arguments=arguments, pid=run.pid, code=run.code)

    def _cannot(self, run: HookRun, error: OSError) -> None:
        run.code = _NEVER
        say(ERROR, "hook.not-run", f"{self.program} cannot be run for {run.event}: {error.strerror}")

    def _forget_old(self) -> None:
        limit = time.time() - _KEPT_S
        while self.runs and self.runs[0].finished and self.runs[0].finished < limit:
            self.runs.popleft()

    def _words(self, run: HookRun) -> list[str]:
        return self.words(run.event, *run.arguments)
