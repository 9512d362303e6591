"""What DNS said, for as long as it said: fresh answers at once, stale ones while a new one is fetched behind them.

One question for one name is under way at a time. Failures are remembered briefly, so that a name whose servers are
dead costs one wait and not one a request. Time and threads come from outside.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from fungistor.errors import UnavailableError
from fungistor.names.dnslink import Dnslink, StaticMap, TxtLookup, find, normal
from fungistor.names.errors import NameTimeoutError

ENTRIES_MAX = 10_000
TTL_S_MIN = 1.0
"""A time to live of 0 would be a question a request."""
TTL_S_MAX = 86_400.0
NOTHING_TTL_S_MAX = 300.0
"""A name without a DNSLink is asked again after this at the latest: its owner may be setting it up."""
FAILURE_S = 10.0
STALE_S = 3600.0
"""How long after its end an answer is still better than none."""
ASKING_MAX = 16
"""Questions under way; the next one is refused rather than queued behind dead servers."""
WAIT_S = 12.0
"""For another request's question of the same name: longer than the resolvers' own time."""

Spawn = Callable[[Callable[[], None]], None]


@dataclass(slots=True)
class _Entry:
    link: Dnslink | None = None
    error: UnavailableError | None = None
    until_s: float = 0.0
    retry_s: float = 0.0
    """When a stale entry may be refreshed again, after a refresh of it failed."""


@dataclass(slots=True)
class _Question:
    done: threading.Event = field(default_factory=threading.Event)
    entry: _Entry | None = None


def in_thread(work: Callable[[], None]) -> None:
    """Run behind the caller's back; such a thread keeps no process alive."""
    threading.Thread(target=work, name="dnslink-refresh", daemon=True).start()


class DnslinkCache:
    """DNSLinks by name. Safe to use from several threads."""

    def __init__(
        self,
        lookup: TxtLookup,
        static: StaticMap,
        *,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = in_thread,
    ) -> None:
        self._lookup = lookup
        self._static = static
        self._clock = clock
        self._spawn = spawn
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._questions: dict[str, _Question] = {}

    def peek(self, name: str) -> Dnslink | None:
        """Return what is known without asking anybody, None where nothing is."""
        name = normal(name)
        fixed = self._static.get(name)
        if fixed is not None:
            return fixed
        with self._lock:
            entry = self._entries.get(name)
            return None if entry is None or entry.link is None else self._usable(name, entry)

    def get(self, name: str) -> Dnslink:
        """Return what a name means, with what is left of its time to live.

        Raises: NameTimeoutError, NameFailedError.
        """
        name = normal(name)
        fixed = self._static.get(name)
        if fixed is not None:
            return fixed
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                if entry.error is not None and self._clock() < entry.until_s:
                    raise entry.error
                usable = self._usable(name, entry)
                if usable is not None:
                    return usable
        return self._ask(name)

    def _usable(self, name: str, entry: _Entry) -> Dnslink | None:
        """Under the lock: a fresh answer, or a stale one with a refresh behind it."""
        if entry.link is None:
            return None
        left_s = entry.until_s - self._clock()
        if left_s > 0:
            self._entries.move_to_end(name)
            return Dnslink(entry.link.path, left_s)
        if left_s > -STALE_S:
            may_ask = self._clock() >= entry.retry_s and name not in self._questions
            if may_ask and len(self._questions) < ASKING_MAX:
                question = self._questions[name] = _Question()
                self._spawn(lambda: self._answer(name, question))
            return Dnslink(entry.link.path, 0.0)
        return None

    def _ask(self, name: str) -> Dnslink:
        with self._lock:
            question = self._questions.get(name)
            is_ours = question is None
            if question is None:
                if len(self._questions) >= ASKING_MAX:
                    raise NameTimeoutError(f"{ASKING_MAX} names are being looked up already", retry_after_s=5)
                question = self._questions[name] = _Question()
        if is_ours:
            self._answer(name, question)
        elif not question.done.wait(WAIT_S):
            raise NameTimeoutError(f"nobody said within {WAIT_S:g} s what {name} means")
        entry = question.entry
        assert entry is not None
        if entry.link is None:
            assert entry.error is not None
            raise entry.error
        return entry.link

    def _answer(self, name: str, question: _Question) -> None:
        now_s = self._clock()
        try:
            link = find(self._lookup, name)
            ttl_s = min(max(link.ttl_s, TTL_S_MIN), TTL_S_MAX if link.path is not None else NOTHING_TTL_S_MAX)
            entry = _Entry(Dnslink(link.path, min(link.ttl_s, ttl_s)), None, now_s + ttl_s)
        except UnavailableError as error:
            entry = _Entry(None, error, now_s + FAILURE_S)
        except BaseException as error:
            entry = _Entry(None, NameTimeoutError(f"looking up {name} failed: {error}"), now_s)
            raise
        finally:
            with self._lock:
                self._keep(name, entry)
                question.entry = entry
                del self._questions[name]
            question.done.set()

    def _keep(self, name: str, entry: _Entry) -> None:
        held = self._entries.get(name)
        is_known = held is not None and held.link is not None and self._clock() - held.until_s < STALE_S
        if entry.link is None and held is not None and is_known:
            held.retry_s = self._clock() + FAILURE_S
            return  # a stale answer outlives a server's bad hour
        self._entries[name] = entry
        self._entries.move_to_end(name)
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
