"""Names kept, followed, and asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from fungistor.errors import ConflictError, CorruptError, InvalidError
from fungistor.names.dns_client import DohDns, NoDns, SystemDns, ZonedDns, make_lookup
from fungistor.names.dnslink import StaticMap, parse_map
from fungistor.names.dnslink_cache import DnslinkCache
from fungistor.names.errors import NameFailedError, NameNotFoundError, NameTimeoutError, NameUnknownError
from fungistor.names.resolver import DEPTH_MAX, Resolver
from fungistor.names.table import HISTORY_MAX, NameTable
from tests.unit.names.signing import DAY_S, NOW_S, Signer

FIRST, SECOND = Signer(1), Signer(2)
EMPTY = "/ipfs/bafkqaaa"
WAIT_S = 10.0


def _resolver(table: NameTable, static: str = "", now_s: float = NOW_S) -> Resolver:
    return Resolver(table, DnslinkCache(NoDns(), StaticMap(parse_map(static))), clock=lambda: now_s)


@pytest.fixture
def table(tmp_path: Path) -> NameTable:
    return NameTable(str(tmp_path / "names.sqlite"))


def test_the_newest_record_counts(table: NameTable) -> None:
    """A higher sequence replaces, the same record again changes nothing, an older one is a conflict."""
    assert table.newest(FIRST.name) is None
    assert table.put(FIRST.record(EMPTY, sequence=5), NOW_S)
    assert not table.put(FIRST.record(EMPTY, sequence=5), NOW_S)
    with pytest.raises(ConflictError, match="sequence 5"):
        table.put(FIRST.record(EMPTY, sequence=4), NOW_S)
    assert table.put(FIRST.record(EMPTY + "/x", sequence=2**63 + 1), NOW_S)
    newest = table.newest(FIRST.name)
    assert newest is not None
    assert (newest.value, newest.sequence) == (EMPTY + "/x", 2**63 + 1)
    assert [record.sequence for record, _ in table.history(FIRST.name)] == [2**63 + 1, 5]
    assert [record.name for record in table.all()] == [FIRST.name]


def test_expired_records_are_not_taken_in(table: NameTable) -> None:
    """A record that has ended is refused before it is written."""
    with pytest.raises(InvalidError, match="expired"):
        table.put(FIRST.record(EMPTY, expires_s=NOW_S), NOW_S)
    assert table.all() == []


def test_a_history_has_a_bound(table: NameTable) -> None:
    """Of a name that changes often the newest records are kept."""
    for sequence in range(HISTORY_MAX + 3):
        table.put(FIRST.record(EMPTY, sequence=sequence), NOW_S)
    kept = [record.sequence for record, _ in table.history(FIRST.name)]
    assert kept == list(range(HISTORY_MAX + 2, 2, -1))


def test_a_table_changed_by_other_hands(table: NameTable, tmp_path: Path) -> None:
    """A record is verified again when it is read: a changed file misleads nobody."""
    import sqlite3
    from contextlib import closing

    table.put(FIRST.record(EMPTY), NOW_S)
    with closing(sqlite3.connect(tmp_path / "names.sqlite")) as connection:
        connection.execute("UPDATE records SET record = ?", (SECOND.encode(EMPTY),))
        connection.commit()
    with pytest.raises(CorruptError):
        _resolver(table).resolve(FIRST.text)


def test_names_are_followed_to_content(table: NameTable) -> None:
    """DNSLink to key to key to content: paths add up in order, and the shortest time to live holds."""
    table.put(FIRST.record(f"/ipns/{SECOND.text}/b", ttl_s=1800), NOW_S)
    table.put(SECOND.record("/ipfs/bafkqaaa/a/%41", ttl_s=30), NOW_S)
    resolved = _resolver(table, f"site.org:/ipns/{FIRST.text}/c").resolve("site.org")
    assert str(resolved.root) == "bafkqaaa"
    assert resolved.segments == (b"a", b"%41", b"b", b"c")
    assert resolved.ttl_s == 30


def test_a_record_is_cached_no_longer_than_it_lives(table: NameTable) -> None:
    """What is left of a record bounds its time to live; after its end it is a failure, told with a retry."""
    table.put(FIRST.record(EMPTY, ttl_s=1800), NOW_S)
    assert _resolver(table, now_s=NOW_S + DAY_S - 7).resolve(FIRST.text).ttl_s == 7
    with pytest.raises(NameFailedError, match="expired 5 s ago"):
        _resolver(table, now_s=NOW_S + DAY_S + 5).resolve(FIRST.text)


def test_names_in_circles(table: NameTable) -> None:
    """Names that mean each other end in an error after a bounded number of steps."""
    table.put(FIRST.record(f"/ipns/{SECOND.text}"), NOW_S)
    table.put(SECOND.record(f"/ipns/{FIRST.text}"), NOW_S)
    with pytest.raises(NameFailedError, match=str(DEPTH_MAX)):
        _resolver(table).resolve(FIRST.text)


def test_names_that_mean_nothing(table: NameTable) -> None:
    """Unknown keys and names are not found, what is no name is invalid, a path to nowhere is a failure."""
    with pytest.raises(NameUnknownError):
        _resolver(table).resolve(FIRST.text)
    with pytest.raises(NameNotFoundError):
        _resolver(table).resolve("nothing.example")
    for name in ("localhost", "a..b", "-", "x" * 300 + ".org"):
        with pytest.raises(InvalidError):
            _resolver(table).resolve(name)
    table.put(FIRST.record("/ipfs/nonsense"), NOW_S)
    with pytest.raises(NameFailedError, match="no CID"):
        _resolver(table).resolve(FIRST.text)
    with pytest.raises(InvalidError, match="only keys"):
        _resolver(table).record("example.org")


def _answer(wire: bytes) -> bytes | None:
    """What the DNS server of these tests says: by the first label of what is asked."""
    query = dns.message.from_wire(wire)
    (question,) = query.question
    name = question.name.to_text()
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    if "silent" in name:
        return None
    if "broken" in name:
        response.set_rcode(dns.rcode.SERVFAIL)
    elif "alias" in name:
        response.answer.append(dns.rrset.from_text(name, 500, "IN", "CNAME", "target.test."))
        response.answer.append(dns.rrset.from_text("target.test.", 40, "IN", "TXT", '"dnslink=/ipfs/" "bafkqaaa"'))
    elif "real" in name:
        response.answer.append(dns.rrset.from_text(name, 120, "IN", "TXT", '"v=spf1"', f'"dnslink={EMPTY}/x"'))
    elif "empty" in name:
        response.authority.append(dns.rrset.from_text("test.", 77, "IN", "SOA", "a.test. b.test. 1 2 3 4 25"))
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("test.", 90, "IN", "SOA", "a.test. b.test. 1 2 3 4 33"))
    return response.to_wire()


@contextmanager
def _dns_server() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                wire, peer = server.recvfrom(4096)
                if not wire:
                    return
                answer = _answer(wire)
                if answer is not None:
                    server.sendto(answer, peer)

        thread = threading.Thread(target=serve, name="dns-under-test")
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", server.getsockname())
            thread.join(WAIT_S)


class _Doh(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        wire = self.rfile.read(int(self.headers["Content-Length"]))
        answer = _answer(wire)
        assert self.headers["Content-Type"] == "application/dns-message"
        self.send_response(200 if answer is not None else 500)
        self.send_header("Content-Length", str(len(answer or b"")))
        self.end_headers()
        self.wfile.write(answer or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


@contextmanager
def _doh_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Doh)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="doh-under-test")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dns-query"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT_S)


def _check(lookup: SystemDns | DohDns) -> None:
    real = lookup.lookup("real.test")
    assert (sorted(real.texts), real.ttl_s) == ([f"dnslink={EMPTY}/x", "v=spf1"], 120)
    alias = lookup.lookup("alias.test")
    assert (alias.texts, alias.ttl_s) == ((f"dnslink={EMPTY}",), 40)
    assert (lookup.lookup("none.test").texts, lookup.lookup("none.test").ttl_s) == ((), 33)
    assert (lookup.lookup("empty.test").texts, lookup.lookup("empty.test").ttl_s) == ((), 25)
    with pytest.raises(NameFailedError):
        lookup.lookup("broken.test")
    with pytest.raises(InvalidError):
        lookup.lookup("a" * 70 + ".test")


def test_dns_over_udp() -> None:
    """Texts, CNAMEs, nothing, failure and silence, as a real resolver tells them."""
    with _dns_server() as port:
        _check(SystemDns(("127.0.0.1",), port, lookup_s=5.0))
        with pytest.raises(NameTimeoutError):
            SystemDns(("127.0.0.1",), port, lookup_s=0.2).lookup("silent.test")


def test_dns_over_https() -> None:
    """The same over a URL; a resolver that errs or is not there is a failure that names it."""
    with _doh_server() as url:
        lookup = DohDns(url)
        _check(lookup)
        with pytest.raises(NameFailedError, match="status 500"):
            lookup.lookup("silent.test")
        lookup.close()
    gone = DohDns(url, lookup_s=1.0)
    with pytest.raises(NameFailedError):
        gone.lookup("real.test")
    gone.close()


def test_a_resolver_a_zone() -> None:
    """The longest zone that a name lies in decides who is asked; `off` asks nobody."""
    with _dns_server() as port:
        asked = SystemDns(("127.0.0.1",), port)
        zoned = ZonedDns({".": NoDns(), "test": asked, "real.test.": NoDns()})
        assert zoned.lookup("alias.test").texts
        assert zoned.lookup("x.real.test").texts == ()
        assert zoned.lookup("alias.other").texts == ()
    assert make_lookup({".": "off"}).lookup("real.test").texts == ()
    with pytest.raises(InvalidError):
        make_lookup({"x.": "ftp://resolver"})
