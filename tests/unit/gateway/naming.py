"""A gateway with names: Hosts, keys and DNSLinks over content in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fungistor.dag.cid import CID
from fungistor.names.dnslink import StaticMap, TxtAnswer
from fungistor.names.dnslink_cache import DnslinkCache
from fungistor.names.errors import NameFailedError, NameTimeoutError
from fungistor.names.record import Record
from fungistor.names.resolver import Resolver
from fungistor.testing.memory_content import MemoryContent
from gateway.hosts import parse_hosts
from gateway.settings import Settings
from tests.unit.gateway.live import WAIT_S, Live, serving
from tests.unit.names.signing import NOW_S, Signer

HOSTS = """{
  "example.com": {"UseSubdomains": true, "InlineDNSLink": true, "Paths": ["/ipfs", "/ipns"]},
  "plain.example": {"UseSubdomains": true},
  "blocks.example": {"DeserializedResponses": false},
  "blocks-by-name.example": {"DeserializedResponses": false, "UseSubdomains": true},
  "only-ipfs.example": {"Paths": ["/ipfs"], "NoDNSLink": true},
  "*.wild.example": {"UseSubdomains": true}
}"""

KEY, LOOP, EXPIRED, NOWHERE = Signer(1), Signer(2), Signer(3), Signer(4)


@dataclass(slots=True)
class KnownRecords:
    """Records in memory."""

    records: dict[bytes, Record] = field(default_factory=dict)

    def key_of(self, alias: str) -> CID | None:
        """No name of these is the network's own."""
        return None

    def newest(self, name: CID) -> Record | None:
        """Return the record of a name."""
        return self.records.get(name.multihash)

    def add(self, record: Record) -> None:
        """Take a record in."""
        self.records[record.name.multihash] = record


@dataclass(slots=True)
class TestDns:
    """TXT records; names that begin with `slow` time out, with `broken` fail, and `held` wait to be let go."""

    __test__ = False

    texts: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def lookup(self, name: str) -> TxtAnswer:
        """Answer as the name says."""
        self.asked.append(name)
        bare = name.removeprefix("_dnslink.")
        if bare.startswith("slow"):
            raise NameTimeoutError(f"no resolver said what {bare} is", retry_after_s=10)
        if bare.startswith("broken"):
            raise NameFailedError(f"SERVFAIL for {bare}")
        if bare.startswith("held"):
            assert self.let_go.wait(WAIT_S)
        text = self.texts.get(name)
        return TxtAnswer(() if text is None else (f"dnslink={text}",), 120.0)


@dataclass(frozen=True, slots=True)
class Named:
    """A running gateway, and what has which name."""

    live: Live
    dns: TestDns
    records: KnownRecords
    root: CID

    @property
    def subdomain(self) -> str:
        return f"{self.root}.ipfs.example.com"


@contextmanager
def serving_names(content: MemoryContent, root: CID, settings: Settings | None = None) -> Iterator[Named]:
    """Serve content whose root is `root` under several names."""
    records, dns = KnownRecords(), TestDns()
    records.add(KEY.record(f"/ipfs/{root}", ttl_s=1800))
    records.add(LOOP.record(f"/ipns/{LOOP.text}"))
    records.add(EXPIRED.record(f"/ipfs/{root}", expires_s=NOW_S - 60))
    dns.texts = {
        "_dnslink.site.example.org": f"/ipfs/{root}",
        "_dnslink.my-site.example.org": f"/ipns/{KEY.text}",
        "_dnslink.below.example.org": f"/ipfs/{root}/ą",
        "plain-txt.example.org": f"/ipfs/{root}",
    }
    static = StaticMap({"static.example.org": f"/ipfs/{root}"})
    resolver = Resolver(records, DnslinkCache(dns, static), clock=lambda: NOW_S)
    bounds = settings or Settings(drain_s=2)
    try:
        with serving(content, bounds, names=resolver, hosts=parse_hosts(HOSTS)) as live:
            yield Named(live, dns, records, root)
    finally:
        dns.let_go.set()
