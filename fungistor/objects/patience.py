"""Waiting for what cannot be had now: how long a caller is ready to, and how often it is tried."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from fungistor.errors import UnavailableError

PAUSE_S = 1.0
"""Between two tries: quorums and members come back in seconds, and each try says something to all of them."""

_Result = TypeVar("_Result")

log = logging.getLogger("fungistor")


class Patience:
    """So many seconds from now, over all that is tried with it. 0: nothing is tried twice."""

    def __init__(
        self,
        wait_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._until = clock() + wait_s
        self._clock = clock
        self._sleep = sleep
        self._told = ""

    @property
    def is_left(self) -> bool:
        """Whether what cannot be had now is tried again."""
        return self._clock() < self._until

    def until_available(self, attempt: Callable[[], _Result]) -> _Result:
        """Try until it can be had. Raises: UnavailableError of the last try; anything else at once."""
        while True:
            try:
                return attempt()
            except UnavailableError as error:
                left = self._until - self._clock()
                if left <= 0:
                    raise
                if error.message != self._told:  # a cause that lasts is told once
                    log.warning("waiting: %s", error.message)
                self._told = error.message
                self._sleep(min(PAUSE_S, left))
