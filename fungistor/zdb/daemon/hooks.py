"""The operator's program that is told what happens to files, with the original's events and arguments.

No hook holds up a client that did not ask for what it brings. Events are told one after the other, in the order in
which they happened; `missing-data` has a few places of its own, so that no upload delays a download.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

RESTORES_MAX: Final = 4
"""Downloads at a time; more wait."""
QUEUE_MAX: Final = 4096
"""Events that wait for a slow program; beyond, the oldest are dropped and said to be."""
_KEPT_S: Final = 300.0
_KEPT_MAX: Final = 1024
_NEVER: Final = -1

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


class Hooks:
    """Runs the program. With none given, nothing happens."""

    def __init__(self, program: str | None, instance: str) -> None:
        self.program = program
        self.runs: deque[HookRun] = deque(maxlen=_KEPT_MAX)
        self.instance = instance
        self._queue: deque[HookRun] = deque()
        self._teller: asyncio.Task[None] | None = None
        self._restores: dict[str, list[Exited]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(RESTORES_MAX)

    def before_start(self, *arguments: str) -> None:
        """Run `namespaces-init` and wait: files may be brought that a start needs."""
        if self.program is None:
            return
        run = HookRun("namespaces-init", arguments, started=int(time.time()))
        try:
            run.code = subprocess.run(self._words(run), check=False, stdin=subprocess.DEVNULL).returncode
        except OSError as error:
            self._cannot(run, error)
        run.finished = int(time.time())
        self.runs.append(run)

    def detach(self, event: str, *arguments: str) -> None:
        """Run it and do not wait: it may outlive the daemon."""
        if self.program is not None:
            run = HookRun(event, arguments)
            try:
                subprocess.Popen(self._words(run), stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                self._cannot(run, error)

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
            sys.stderr.write(f"zdb: hook is too slow, {dropped.event} {' '.join(dropped.arguments)} is not told\n")
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
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

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
        try:
            process = await asyncio.create_subprocess_exec(*self._words(run), stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            self._cannot(run, error)
        else:
            run.pid = process.pid
            run.code = await process.wait()
        run.finished = int(time.time())

    def _cannot(self, run: HookRun, error: OSError) -> None:
        run.code = _NEVER
        sys.stderr.write(f"zdb: hook {self.program} cannot be run for {run.event}: {error.strerror}\n")

    def _forget_old(self) -> None:
        limit = time.time() - _KEPT_S
        while self.runs and self.runs[0].finished and self.runs[0].finished < limit:
            self.runs.popleft()

    def _words(self, run: HookRun) -> list[str]:
        assert self.program is not None, "callers look first"
        return [self.program, run.event, self.instance, *run.arguments]
