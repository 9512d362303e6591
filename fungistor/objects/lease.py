"""A publish session as the catalog knows it: what protects stored stripes until they are committed, or it expires.

Stripe ids are drawn from the session's secret and a counter, which the catalog bounds: whoever has to clear up after a
dead publisher can list every id it could have drawn. One session serves all objects of a run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Body, Command
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.removal import EndSession, OpenSession
from fungistor.catalog.rules import Verdict
from fungistor.errors import ConflictError, FungiStorError, NotPermittedError
from fungistor.ids import Revision, SessionId
from fungistor.objects.session import Draw, Session

DENIED_HINT = "`fungistor node list` tells who may what, `fungistor tenant show` what a quota is"

COUNTERS_AT_FIRST = 256
COUNTERS_A_TURN = 4096
"""So many ids are tried in vain, at most, when a dead session is cleared up. 16 GiB of full stripes, mostly."""

LEASE_S = 6 * 3600
RENEW_S = LEASE_S // 4
"""A publish that stores nothing for this long, and then goes on, renews in time. One that slept longer than a lease is
refused at its end and has to store again."""


class Lease:
    """Opened when it is first needed, renewed as it is used. Thread-safe. Use in `with`."""

    def __init__(self, catalog: Catalog, draw: Draw = os.urandom, clock: Callable[[], float] = time.time) -> None:
        self.id = SessionId(draw(16))
        self.secret = draw(32)
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._counter = 0
        self._limit = 0
        self._renew_at = 0.0
        self._sequence = 0
        self._ended = False
        self._opened = False
        self._kept = False
        self.leftovers = False
        """Whether something was stored that no record names."""

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        """End it. Where that cannot be committed now it expires, as where what it stored may be taken up."""
        if not self._opened or self._ended or self._kept:
            return
        try:
            self._catalog.commit(self._command(EndSession(int(self._clock()), self.leftovers)))
        except FungiStorError:
            return

    def begin(self) -> Revision:
        """See to it that the session is open; return the catalog's revision as this node has it now.

        Raises: as `Catalog.commit`.
        """
        with self._lock:
            self._renew_if_due()
        return self._catalog.revision

    def take(self) -> int:
        """The next counter to draw an id with."""
        with self._lock:
            self._renew_if_due()
            self._counter += 1
            return self._counter - 1

    @contextlib.contextmanager
    def counting(self, session: Session) -> Iterator[None]:
        """Note whether a session of one object leaves something."""
        try:
            yield
        except BaseException:
            self._kept |= session.is_journalled
            raise
        finally:
            self.leftovers |= session.left_something

    def _renew_if_due(self) -> None:
        now = self._clock()
        if self._counter < self._limit and now < self._renew_at:
            return
        limit = self._counter + (COUNTERS_A_TURN if self._opened else COUNTERS_AT_FIRST)
        self._catalog.commit(self._command(OpenSession(self.secret, limit, int(now) + LEASE_S)))
        self._limit, self._renew_at, self._opened = limit, now + RENEW_S, True

    def _command(self, body: Body) -> Command:
        self._sequence += 1
        return Command(self.id, self._sequence - 1, body)

    def commit(self, body: Body, *, last: bool = False) -> Outcome:
        """Commit under this session; `last` ends it in the same breath.

        Raises: as `Catalog.commit`.
        """
        [outcome] = self.commit_all([body], last=last)
        if outcome.verdict is Verdict.REFUSED:
            raise ConflictError(outcome.reason, hint="look at what is there now, and start the operation again")
        if outcome.verdict is Verdict.DENIED:
            raise NotPermittedError(outcome.reason, hint=DENIED_HINT)
        return outcome

    def commit_all(self, bodies: Sequence[Body], *, last: bool = False) -> list[Outcome]:
        """As `commit`, for many with one append; one that was refused is a value."""
        with self._lock:
            commands = [self._command(body) for body in bodies]
            if last:
                commands.append(self._command(EndSession(int(self._clock()), self.leftovers)))
        outcomes = self._catalog.commit_all(commands)
        self._ended = self._ended or last
        return outcomes[: len(bodies)]
