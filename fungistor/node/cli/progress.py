"""Progress on a terminal: how much, how fast, how long still. Silent elsewhere, and for whatever takes no second."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_S = 1.0
"""Most runs end sooner, and a bar that flashes tells nothing."""

EVERY_S = 0.1


class ProgressLine:
    """A `fungistor.objects.results.Progress` that draws on `stream` while used as a context. Thread-safe."""

    def __init__(self, stream: TextIO, *, enabled: bool) -> None:
        self._stream = stream
        self._enabled = enabled and stream.isatty()
        self._closed = False
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def __call__(self, done_bytes: int, total_bytes: int | None, label: str) -> None:
        if not self._enabled:
            return
        now = time.monotonic()
        # Looked at without the lock first: this is called for every block of a fast publish.
        if now - self._started < QUIET_S or now - self._drawn < EVERY_S:
            return
        with self._lock:
            if self._closed:
                return
            self._drawn = now
            if self._bar is None:
                self._open()
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=done_bytes, total=total_bytes, description=label)

    def _open(self) -> None:
        # Imported here: rich takes longer to load than most commands to run.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        with contextlib.suppress(OSError):
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
