"""DNSLink: which TXT record counts, and for how long what DNS said is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fungistor.errors import InvalidError, UnavailableError
from fungistor.names.dnslink import Dnslink, StaticMap, TxtAnswer, choose, find, normal, parse_map, path_of
from fungistor.names.dnslink_cache import (
    ASKING_MAX,
    ENTRIES_MAX,
    FAILURE_S,
    NOTHING_TTL_S_MAX,
    STALE_S,
    DnslinkCache,
)
from fungistor.names.errors import NameFailedError, NameTimeoutError

A, B = "dnslink=/ipfs/bafkqaaa", "dnslink=/ipns/example.net/x"


@dataclass(slots=True)
class FixedDns:
    """TXT records by name; a name in `failing` fails."""

    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ttl_s: float = 60.0
    failing: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def lookup(self, name: str) -> TxtAnswer:
        """Answer, and remember the question."""
        self.asked.append(name)
        if name in self.failing:
            raise NameTimeoutError("nobody there")
        return TxtAnswer(self.texts.get(name, ()), self.ttl_s)


@dataclass(slots=True)
class Clock:
    """A clock that is set by hand."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True)
class Later:
    """Work that was to be done in another thread, done when the test says so."""

    work: list[Callable[[], None]] = field(default_factory=list)

    def __call__(self, work: Callable[[], None]) -> None:
        self.work.append(work)

    def run(self) -> None:
        """Do it all."""
        while self.work:
            self.work.pop(0)()


@dataclass(slots=True)
class World:
    """A cache whose outside is in the test's hands."""

    dns: FixedDns = field(default_factory=FixedDns)
    clock: Clock = field(default_factory=Clock)
    later: Later = field(default_factory=Later)
    static: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> DnslinkCache:
        return DnslinkCache(self.dns, StaticMap(self.static), clock=self.clock, spawn=self.later)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (A, "/ipfs/bafkqaaa"),
        (f" {B} ", "/ipns/example.net/x"),
        ("dnslink=/ipfs/", None),
        ("dnslink=/swarm/x", None),
        ("dnslink=ipfs/bafkqaaa", None),
        ("DNSLINK=/ipfs/bafkqaaa", None),
        ("v=spf1 -all", None),
        ("", None),
    ],
)
def test_texts(text: str, path: str | None) -> None:
    """Only dnslink= with a path of IPFS or IPNS counts."""
    assert path_of(text) == path


def test_of_several_the_first_in_the_alphabet_counts() -> None:
    """Servers shuffle their records, and the answer stays the same."""
    assert choose(["x", B, A]) == choose([A, B]) == "/ipfs/bafkqaaa"
    assert choose([]) is None


def test_the_prefixed_name_comes_first() -> None:
    """_dnslink.NAME is asked first, NAME only where that has none."""
    dns = FixedDns({"_dnslink.a.org": (A,), "a.org": (B,), "b.org": (B,)})
    assert find(dns, "a.org") == Dnslink("/ipfs/bafkqaaa", 60.0)
    assert dns.asked == ["_dnslink.a.org"]
    assert find(dns, "b.org").path == "/ipns/example.net/x"
    assert find(dns, "c.org").path is None


def test_an_answer_lives_as_long_as_dns_says() -> None:
    """Within its time to live nobody is asked again, and what is left of it is told."""
    world = World(FixedDns({"_dnslink.a.org": (A,)}))
    cache = world.cache
    assert cache.peek("a.org") is None
    assert cache.get("A.org.").ttl_s == 60.0
    world.clock.now_s += 45
    assert cache.get("a.org") == Dnslink("/ipfs/bafkqaaa", 15.0) == cache.peek("a.org")
    assert len(world.dns.asked) == 1


def test_a_stale_answer_is_given_while_a_new_one_is_fetched() -> None:
    """After its end an answer is given at once with nothing left to live, and one refresh runs behind it."""
    world = World(FixedDns({"_dnslink.a.org": (A,)}))
    cache = world.cache
    cache.get("a.org")
    world.clock.now_s += 61
    world.dns.texts["_dnslink.a.org"] = (B,)
    assert [cache.get("a.org") for _ in range(3)] == [Dnslink("/ipfs/bafkqaaa", 0.0)] * 3
    assert len(world.later.work) == 1
    world.later.run()
    assert cache.get("a.org") == Dnslink("/ipns/example.net/x", 60.0)


def test_a_stale_answer_outlives_a_dead_server_but_not_for_ever() -> None:
    """While its servers fail a name keeps its last meaning for an hour, then the failure is told."""
    world = World(FixedDns({"_dnslink.a.org": (A,)}))
    cache = world.cache
    cache.get("a.org")
    world.dns.failing = {"_dnslink.a.org"}
    world.clock.now_s += 61
    assert cache.get("a.org").path == "/ipfs/bafkqaaa"
    world.later.run()
    asked = len(world.dns.asked)
    assert [cache.get("a.org").path for _ in range(3)] == ["/ipfs/bafkqaaa"] * 3
    world.later.run()
    assert len(world.dns.asked) == asked
    world.clock.now_s += STALE_S
    with pytest.raises(NameTimeoutError):
        cache.get("a.org")


def test_nothing_is_remembered_too() -> None:
    """A name without a DNSLink is not asked again within its time, which has a bound."""
    world = World(FixedDns(ttl_s=1e6))
    cache = world.cache
    assert cache.get("a.org") == Dnslink(None, NOTHING_TTL_S_MAX)
    assert cache.get("a.org").path is None
    assert len(world.dns.asked) == 2
    world.clock.now_s += NOTHING_TTL_S_MAX + STALE_S
    cache.get("a.org")
    assert len(world.dns.asked) == 4


def test_a_failure_is_remembered_briefly() -> None:
    """A dead server costs one wait, not one a request."""
    world = World(FixedDns(failing={"_dnslink.a.org"}))
    cache = world.cache
    for _ in range(3):
        with pytest.raises(UnavailableError):
            cache.get("a.org")
    assert len(world.dns.asked) == 1
    world.dns.failing = set()
    world.clock.now_s += FAILURE_S
    assert cache.get("a.org").path is None


def test_a_time_to_live_of_nothing() -> None:
    """A record that may not be cached is told so, and still asked for at most once a second."""
    world = World(FixedDns({"_dnslink.a.org": (A,)}, ttl_s=0.0))
    cache = world.cache
    assert cache.get("a.org").ttl_s == 0.0
    cache.get("a.org")
    assert len(world.dns.asked) == 1


def test_bounds() -> None:
    """The cache holds so many names and no more; so many refreshes run and no more."""
    world = World()
    cache = world.cache
    for number in range(ENTRIES_MAX + 5):
        cache.get(f"n{number}.org")
    assert cache.peek("n0.org") is None
    assert cache.peek(f"n{ENTRIES_MAX}.org") is not None
    world.clock.now_s += 61
    for number in range(100, 100 + ASKING_MAX + 5):
        cache.get(f"n{number}.org")
    assert len(world.later.work) == ASKING_MAX
    with pytest.raises(NameTimeoutError, match="already"):
        cache.get("one-more.org")
    world.later.run()
    assert cache.get("one-more.org").path is None


def test_a_fixed_map_is_never_asked_for() -> None:
    """What IPFS_NS_MAP names needs no DNS."""
    world = World(static=parse_map("a.org:/ipfs/bafkqaaa, B.ORG:/ipns/c.org/x,"))
    assert world.cache.get("A.org").path == "/ipfs/bafkqaaa"
    assert world.cache.peek("b.org.") is not None
    assert world.dns.asked == []
    for bad in ("a.org", "a.org:/x", ":/ipfs/x", "a.org:ipfs"):
        with pytest.raises(InvalidError):
            parse_map(bad)


def test_names_have_one_form() -> None:
    """Case, the final dot and international letters make no difference."""
    assert normal("EXAMPLE.org.") == "example.org"
    assert normal("bücher.example") == "xn--bcher-kva.example"


def test_a_bug_in_the_lookup_leaves_nobody_waiting() -> None:
    """An error that is none of DNS's still ends the question, and the next one is asked anew."""

    class Broken(FixedDns):
        def lookup(self, name: str) -> TxtAnswer:
            raise RuntimeError("bug")

    cache = DnslinkCache(Broken(), StaticMap({}))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            cache.get("a.org")
    assert NameFailedError("x").retry_after_s > 0
