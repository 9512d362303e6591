"""A bound on bytes a second, shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Lets as many bytes pass as the rate allows, each taker waiting its turn. No rate: no bound."""

    def __init__(
        self,
        bytes_a_second: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_a_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> None:
        """Wait until those before have had their time; then these bytes may go."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + count / self._rate
        if start > now:
            self._sleep(start - now)
