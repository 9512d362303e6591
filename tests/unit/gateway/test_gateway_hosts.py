"""What each Host gives: subdomains, DNSLink websites, redirects between them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fungistor.dag.cid import CID, DAG_PB, LIBP2P_KEY
from fungistor.dag.multibase import encode_base58
from fungistor.errors import InvalidError
from fungistor.names.dnslink import StaticMap
from fungistor.names.dnslink_cache import DnslinkCache
from fungistor.names.protobuf import Fields, encode_bytes, encode_number
from fungistor.names.resolver import Resolver
from fungistor.names.table import NameTable
from fungistor.testing.memory_content import MemoryContent, Tree
from gateway.hosts import PlaceKind, may_have_dnslink, parse_hosts
from gateway.requests import Answer
from gateway.settings import Settings
from gateway.virtual_hosts import Asked, decide, inline, uninline
from tests.unit.gateway.live import serving
from tests.unit.gateway.naming import EXPIRED, HOSTS, KEY, LOOP, NOWHERE, Named, TestDns, serving_names
from tests.unit.names.signing import NOW_S

SEED = 20_261_121
LONG = CID(1, DAG_PB, bytes((0x13, 64)) + bytes(64))
"""A sha2-512, which no base writes in 63 letters."""


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    content = MemoryContent()
    tree: Tree = {
        "hello.txt": b"hello",
        "ą": {"ę": {"file-źł.txt": b"x"}, "name%2C+=ñ b": b"odd"},
        "ipfs": {"file.txt": b"a file in a folder ipfs", "ipns": {"bar": b"deep"}},
        "api": {"x": b"1"},
        "cid": b"self",
    }
    with serving_names(content, content.add_tree(tree).cid) as served:
        yield served


def _location(named: Named, host: str, target: str, **headers: str) -> tuple[int, str]:
    answer = named.live.get(target, Host=host, **headers)
    return answer.status_code, answer.headers.get("location", "")


def test_a_path_is_sent_to_its_own_origin(named: Named) -> None:
    """On a Host with subdomains a root has an origin of its own; path, query and port are kept."""
    root = named.root
    cases = {
        f"/ipfs/{root}": f"http://{root}.ipfs.example.com:8080/",
        f"/ipfs/{root}/?a=b&c": f"http://{root}.ipfs.example.com:8080/?a=b&c",
        f"/ipfs/{root}/%C4%85/name%252C+=%C3%B1%20b": (
            f"http://{root}.ipfs.example.com:8080/%C4%85/name%252C+=%C3%B1%20b"
        ),
        f"/ipfs/{CID(0, DAG_PB, root.multihash)}/x/": f"http://{root}.ipfs.example.com:8080/x/",
        f"/ipfs/{root.text('base58btc')}": f"http://{root}.ipfs.example.com:8080/",
        f"/ipns/{KEY.text}/x": f"http://{KEY.text}.ipns.example.com:8080/x",
        f"/ipns/{encode_base58(KEY.name.multihash)}": f"http://{KEY.text}.ipns.example.com:8080/",
        "/ipns/my-site.example.org/wiki/": "http://my--site-example-org.ipns.example.com:8080/wiki/",
    }
    for target, wanted in cases.items():
        assert _location(named, "example.com:8080", target) == (301, wanted)
    answer = named.live.get(f"/ipfs/{root}", Host="example.com")
    assert answer.headers["clear-site-data"] == '"cookies", "storage"'


def test_what_can_be_verified_needs_no_origin(named: Named) -> None:
    """Other nodes follow no redirects, and browsers run no blocks and records: they are given at once."""
    block = named.live.content.blocks[named.root.multihash]
    for target, accept in (
        (f"/ipfs/{named.root}?format=raw", "*/*"),
        (f"/ipfs/{named.root}", "application/vnd.ipld.raw"),
        (f"/ipfs/{named.root}", "application/vnd.ipld.raw, application/vnd.ipld.car;q=0.5"),
    ):
        answer = named.live.get(target, Host="example.com", Accept=accept)
        assert (answer.status_code, answer.content) == (200, block)
    assert named.live.get(f"/ipns/{KEY.text}?format=ipns-record", Host="example.com").status_code == 200
    for accept in (
        "text/html, application/vnd.ipld.raw",
        "*/*, application/vnd.ipld.car",
        "application/vnd.ipld.raw;q=0",
    ):
        assert named.live.get(f"/ipfs/{named.root}", Host="example.com", Accept=accept).status_code == 301


def test_localhost_has_subdomains_and_addresses_have_none(named: Named) -> None:
    """Without a table `localhost` isolates origins, and an address is a plain path gateway."""
    assert _location(named, "localhost:8480", f"/ipfs/{named.root}/x") == (
        301,
        f"http://{named.root}.ipfs.localhost:8480/x",
    )
    for host in ("127.0.0.1:8480", "[::1]:8480", "10.0.0.7", "fake.domain.com", ""):
        assert named.live.get(f"/ipfs/{named.root}/hello.txt", Host=host).text == "hello"


def test_a_subdomain_gives_its_root(named: Named) -> None:
    """The Host says the root, and every path is the publisher's: also /ipfs, /ipns, /api and the gateway's own."""
    bodies = {
        "/hello.txt": (200, "hello"),
        "/ipfs/file.txt": (200, "a file in a folder ipfs"),
        "/ipfs/ipns/bar": (200, "deep"),
        "/api/x": (200, "1"),
    }
    for target, wanted in bodies.items():
        answer = named.live.get(target, Host=named.subdomain)
        assert (answer.status_code, answer.text) == wanted
        assert answer.headers["x-ipfs-path"] == f"/ipfs/{named.root}{target}"
        assert answer.headers["origin-agent-cluster"] == "?1"
    for target in (f"/ipfs/{named.root}/hello.txt", "/-/health", "/routing/v1/providers/x"):
        assert named.live.get(target, Host=named.subdomain).status_code == 404
    assert named.live.get("/hello.txt", Host=named.subdomain.upper()).status_code in (200, 301)


def test_links_of_a_listing_stay_on_the_origin(named: Named) -> None:
    """Names link below the Host, breadcrumbs and CIDs to the gateway above it."""
    root = named.root
    assert _location(named, named.subdomain, "/%C4%85/%C4%99?a=1") == (301, "/%C4%85/%C4%99/?a=1")
    page = named.live.get("/%C4%85/%C4%99/", Host=f"{named.subdomain}:99").text
    above = f"//example.com:99/ipfs/{root}"
    assert '<a href="/%C4%85/%C4%99/..">..</a>' in page
    assert '<a href="/%C4%85/%C4%99/file-%C5%BA%C5%82.txt">' in page
    assert f'/ipfs/<a href="{above}">{root}</a>/<a href="{above}/%C4%85">ą</a>' in page
    assert 'href="//example.com:99/ipfs/' in page
    for host in (named.subdomain, "site.example.org"):
        answer = named.live.get("/", Host=host)
        assert '<a href="/hello.txt">' in answer.text
        assert ">..</a>" not in answer.text
        assert answer.headers["etag"].startswith('"DirIndex-')


def test_one_origin_a_root(named: Named) -> None:
    """A root in another base, or a key with a wrong codec, is sent to the one label that it has."""
    root = named.root
    assert _location(named, f"{root.text('base36')}.ipfs.example.com", "/x?y") == (
        301,
        f"http://{root}.ipfs.example.com/x?y",
    )
    wrong = CID(1, DAG_PB, KEY.name.multihash).text("base36")
    assert _location(named, f"{wrong}.ipns.example.com", "/") == (301, f"http://{KEY.text}.ipns.example.com/")
    base32 = CID(1, LIBP2P_KEY, KEY.name.multihash).text("base32")
    assert _location(named, f"{base32}.ipns.example.com", "/")[1] == f"http://{KEY.text}.ipns.example.com/"


def test_what_no_label_can_say(named: Named) -> None:
    """A CID of more than 63 letters, and what is no CID, are 400 by path and by Host, with what was asked."""
    for host, target in (("example.com", f"/ipfs/{LONG}/"), (f"{LONG}.ipfs.example.com", "/")):
        answer = named.live.get(target, Host=host)
        assert answer.status_code == 400
        assert "CID incompatible with DNS label length limit of 63" in answer.text
    answer = named.live.get("/ipfs/QmInvalidCID", Host="example.com")
    assert (answer.status_code, 'invalid path "/ipfs/QmInvalidCID"' in answer.text) == (400, True)
    assert named.live.get("/", Host="nonsense.ipfs.example.com").status_code == 400
    assert named.live.get("/ipns/" + "a." * 40 + "org", Host="example.com").status_code == 400
    assert named.live.get("/", Host="-.ipns.example.com").status_code == 400


def test_uri_and_superfluous_namespaces_on_a_gateway_with_subdomains(named: Named) -> None:
    """?uri= and /ipfs/ipns/ are mended by path first."""
    assert _location(named, "example.com", f"/ipfs/?uri=ipfs%3A%2F%2F{named.root}%2Fx") == (
        301,
        f"/ipfs/{named.root}/x",
    )
    assert _location(named, "example.com", "/ipns/?uri=ipns%3A%2F%2Fsite.example.org")[1] == "/ipns/site.example.org"
    assert _location(named, "example.com", f"/ipfs/ipfs/{named.root}/x")[1] == f"/ipfs/{named.root}/x"


def test_keys_and_names_below_a_gateway(named: Named) -> None:
    """A key or a DNSLink, written whole or as one label, gives what it means now."""
    for label in (
        KEY.text,
        "site.example.org",
        "site-example-org",
        "my-site.example.org",
        "my--site-example-org",
        "plain-txt.example.org",
    ):
        answer = named.live.get("/hello.txt", Host=f"{label}.ipns.example.com")
        assert (answer.status_code, answer.text) == (200, "hello"), label
    assert _location(named, "site.example.org.ipns.example.com", "/a", X_Forwarded_Proto="https") == (
        301,
        "https://site-example-org.ipns.example.com/a",
    )
    assert _location(named, "plain.example", "/ipns/site.example.org/a")[1] == (
        "http://site.example.org.ipns.plain.example/a"
    )
    assert _location(named, "plain.example", "/ipns/site.example.org/a", X_Forwarded_Proto="https")[1] == (
        "https://site-example-org.ipns.plain.example/a"
    )


def test_what_a_trusted_proxy_says(named: Named) -> None:
    """Host and scheme of a proxy on this machine count, the first of several, and only schemes of the web."""
    target = f"/ipfs/{named.root}"
    wanted = f"https://{named.root}.ipfs.example.com/"
    assert _location(
        named, "fake.domain.com", target, X_Forwarded_Host="example.com, b.org", X_Forwarded_Proto="https"
    ) == (301, wanted)
    assert _location(named, "example.com", target, X_Forwarded_Proto="javascript")[1].startswith("http://")


def test_what_others_say() -> None:
    """Whom the operator does not trust cannot choose Host or scheme."""
    content = MemoryContent()
    root = content.add_tree({"hello.txt": b"hello"}).cid
    with serving_names(content, root, Settings(drain_s=2, trusted_proxies=("192.0.2.0/24",))) as named:
        fields = {"X_Forwarded_Host": "example.com", "X_Forwarded_Proto": "https"}
        assert named.live.get(f"/ipfs/{root}/hello.txt", Host="fake.domain.com", **fields).text == "hello"
        assert _location(named, "example.com", f"/ipfs/{root}", **fields)[1].startswith("http://")


def test_a_dnslink_website(named: Named) -> None:
    """A Host with a DNSLink is a website: its root is its own, its listings have no gateway beside them."""
    host = "site.example.org"
    assert named.live.get("/hello.txt", Host=host).text == "hello"
    assert named.live.get("/hello.txt", Host="static.example.org").text == "hello"
    assert named.live.get("/%C4%99/file-%C5%BA%C5%82.txt", Host="below.example.org").text == "x"
    assert named.live.get("/hello.txt", Host=f"{host}:8080").headers["x-ipfs-path"] == f"/ipns/{host}/hello.txt"
    assert _location(named, host, "/%C4%85/%C4%99") == (301, "/%C4%85/%C4%99/")
    page = named.live.get("/%C4%85/%C4%99/", Host=host).text
    assert f'/ipns/<a href="//{host}/">{host}</a>/<a href="//{host}/%C4%85">ą</a>' in page
    assert 'href="https://cid.ipfs.tech/#' in page
    assert 'target="_blank" rel="noreferrer noopener">' in page
    for target in (f"/ipfs/{named.root}", "/-/health"):
        assert named.live.get(target, Host=host).status_code == 404


def test_hosts_that_are_nothing_here(named: Named) -> None:
    """A Host that is no gateway and no website says so; content by CID and health are to be had all the same."""
    answer = named.live.get("/", Host="stranger.example.net")
    assert (answer.status_code, "no gateway of this node and has no DNSLink" in answer.text) == (404, True)
    assert named.live.get("/-/health", Host="stranger.example.net").status_code == 200
    assert named.live.get(f"/ipfs/{named.root}/hello.txt", Host="stranger.example.net").status_code == 200
    for bad in ("a b", "x/y", "<script>", "a@b", "x" * 2000):
        assert named.live.get("/", Host=bad).status_code == 400
    assert named.live.get("/ipns/x.org", Host="only-ipfs.example").status_code == 404


def test_dns_that_fails(named: Named) -> None:
    """Without DNS content by CID is still served; a website is 504 or 502, with the phase and a Retry-After."""
    assert named.live.get(f"/ipfs/{named.root}/hello.txt", Host="slow.example.net").text == "hello"
    for host, status in (("slow.example.net", 504), ("broken.example.net", 502)):
        answer = named.live.get("/", Host=host, Accept="application/json")
        assert (answer.status_code, answer.json()["phase"]) == (status, "host")
        assert int(answer.headers["retry-after"]) > 0
        answer = named.live.get(f"/ipns/{host}/", Accept="application/json")
        assert (answer.status_code, answer.json()["phase"]) == (status, "resolve")


def test_dns_that_is_slow() -> None:
    """A Host that DNS does not explain in time is 504; content by CID waits no longer than that and is given."""
    content = MemoryContent()
    root = content.add_tree({"hello.txt": b"hello"}).cid
    with serving_names(content, root, Settings(drain_s=2, dns_s=0.05)) as named:
        answer = named.live.get("/", Host="held.example.net", Accept="application/json")
        assert (answer.status_code, answer.json()["phase"]) == (504, "host")
        assert named.live.get(f"/ipfs/{root}/hello.txt", Host="held.example.net").text == "hello"
        named.dns.let_go.set()


def test_a_hot_answer_is_of_its_host(named: Named) -> None:
    """However often an answer was given, another Host, or a proxy that says one, still decides anew."""
    target = f"/ipfs/{named.root}/hello.txt"
    for _ in range(3):
        assert named.live.get(target, Host="fake.domain.com").text == "hello"
    assert named.live.get(target, Host="fake.domain.com", X_Forwarded_Host="example.com").status_code == 301
    assert named.live.get(target, Host="example.com").status_code == 301
    assert named.live.get(target, Host=named.subdomain).status_code == 404


def test_hosts_that_give_blocks_alone(named: Named) -> None:
    """A trustless Host gives what can be verified and refuses the rest, below its subdomains, too."""
    root = named.root
    for host, base in (("blocks.example", f"/ipfs/{root}"), (f"{root}.ipfs.blocks-by-name.example", "/")):
        assert named.live.get(base, Host=host).status_code == 406
        assert named.live.get(f"{base}?format=tar", Host=host).status_code == 406
        answer = named.live.get(f"{base}?format=raw", Host=host)
        assert (answer.status_code, answer.content) == (200, named.live.content.blocks[root.multihash])


def test_preflights_are_answered_everywhere(named: Named) -> None:
    """OPTIONS is never redirected: browsers would refuse the page what it asks for."""
    for host in ("example.com", named.subdomain, "site.example.org"):
        answer = named.live.request("OPTIONS", f"/ipfs/{named.root}", Host=host)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert named.live.request("POST", f"/ipfs/{named.root}", Host="example.com").status_code == 405


def test_names_by_path(named: Named) -> None:
    """Below /ipns/ a key or DNSLink gives its content, cached as long as it says; base58 is sent to base36."""
    base58 = encode_base58(KEY.name.multihash)
    assert _location(named, "127.0.0.1", f"/ipns/{base58}/a/?b") == (302, f"/ipns/{KEY.text}/a/?b")
    answer = named.live.get(f"/ipns/{KEY.text}/hello.txt")
    assert (answer.text, answer.headers["cache-control"]) == ("hello", "public, max-age=1800")
    assert answer.headers["x-ipfs-roots"].split(",")[0] == str(named.root)
    assert answer.headers["x-ipfs-path"] == f"/ipns/{KEY.text}/hello.txt"
    again = named.live.get(f"/ipns/{KEY.text}/hello.txt", If_None_Match=answer.headers["etag"])
    assert (again.status_code, again.headers["cache-control"]) == (304, "public, max-age=1800")
    listing = named.live.get("/ipns/my-site.example.org/").headers["cache-control"]
    seconds = int(listing.removeprefix("public, max-age=").partition(",")[0])
    assert 0 < seconds <= 120
    assert listing.endswith(", stale-while-revalidate=2678400")
    for name, status in ((NOWHERE.text, 502), ("nothing.example.org", 404), (LOOP.text, 502), (EXPIRED.text, 502)):
        answer = named.live.get(f"/ipns/{name}/", Accept="application/json")
        assert (answer.status_code, answer.json()["phase"]) == (status, "resolve"), name
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("field", "value"), [(8, b""), (8, bytes(64)), (1, b"/ipfs/bafkqaab")])
def test_records_that_prove_nothing(tmp_path: Path, field: int, value: bytes) -> None:
    """A record without a signature of version 2, with a broken one, or one of two tongues, is 502 and never served."""
    content = MemoryContent()
    root = content.add_tree({"hello.txt": b"hello"}).cid
    table = NameTable(str(tmp_path / "names.sqlite"))
    table.put(KEY.record(f"/ipfs/{root}"), NOW_S)
    spoilt = Fields.read(KEY.encode(f"/ipfs/{root}")).values | {field: value}
    encoded = b"".join(
        encode_bytes(number, item) if isinstance(item, bytes) else encode_number(number, item)
        for number, item in spoilt.items()
    )
    with closing(sqlite3.connect(tmp_path / "names.sqlite")) as connection:
        connection.execute("UPDATE records SET record = ?", (encoded,))
        connection.commit()
    names = Resolver(table, DnslinkCache(TestDns(), StaticMap({})), clock=lambda: NOW_S)
    with serving(content, names=names) as live:
        for target in (f"/ipns/{KEY.text}/hello.txt", f"/ipns/{KEY.text}?format=ipns-record"):
            answer = live.get(target, Accept="application/json")
            assert (answer.status_code, answer.json()["error"], answer.json()["phase"]) == (502, "corrupt", "resolve")


def test_records_by_path(named: Named) -> None:
    """?format=ipns-record gives the signed record, cached as long as it says, under either way to ask."""
    record = named.records.newest(KEY.name)
    assert record is not None
    kind = "application/vnd.ipfs.ipns-record"
    for answer in (
        named.live.get(f"/ipns/{KEY.text}?format=ipns-record"),
        named.live.get(f"/ipns/{KEY.text}", Accept=kind),
    ):
        assert (answer.content, answer.headers["content-type"]) == (record.encoded, kind)
        assert answer.headers["cache-control"] == "public, max-age=1800"
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert answer.headers["etag"].startswith('"')
    tag = {"If_None_Match": answer.headers["etag"]}
    assert named.live.get(f"/ipns/{KEY.text}?format=ipns-record", **tag).status_code == 304
    head = named.live.request("HEAD", f"/ipns/{KEY.text}?format=ipns-record")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(record.encoded)))
    for target, status in (
        (f"/ipns/{KEY.text}/x?format=ipns-record", 400),
        ("/ipns/site.example.org?format=ipns-record", 400),
        (f"/ipns/{NOWHERE.text}?format=ipns-record", 502),
        (f"/ipns/{EXPIRED.text}?format=ipns-record", 502),
    ):
        assert named.live.get(target).status_code == status


def test_a_storm_for_one_website_asks_dns_once(named: Named) -> None:
    """Many requests for a name that nobody knows yet wait for one question."""
    import threading

    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(named.live.get("/", Host="held.example.net").status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    named.dns.let_go.set()
    for thread in threads:
        thread.join()
    assert statuses == [404] * 6
    assert named.dns.asked.count("_dnslink.held.example.net") == 1


@pytest.mark.parametrize(
    ("name", "label"),
    [("en.wiki-on-ipfs.org", "en-wiki--on--ipfs-org"), ("a--b.c", "a----b-c"), ("x", "x"), ("a-b.c-d", "a--b-c--d")],
)
def test_inlining(name: str, label: str) -> None:
    """A DNS name is one label and back."""
    assert (inline(name), uninline(label)) == (label, name)


def test_the_table_of_hosts() -> None:
    """Exact names win over wildcards, ports are optional, null takes a default away, a whole Gateway is read."""
    table = parse_hosts(HOSTS)
    assert table.place("EXAMPLE.com:80").kind is PlaceKind.GATEWAY
    assert table.place("a.wild.example").kind is PlaceKind.GATEWAY
    assert table.place("a.b.wild.example").kind is PlaceKind.UNKNOWN
    assert table.place("k.ipfs.a.wild.example").gateway == "a.wild.example"
    assert table.place("x.ipfs.y.ipns.example.com").label == "x.ipfs.y"
    assert table.place("x.ipfs.blocks.example").kind is PlaceKind.UNKNOWN
    whole = parse_hosts('{"NoDNSLink": true, "DeserializedResponses": false, "PublicGateways": {"localhost": null}}')
    assert whole.place("localhost").kind is PlaceKind.UNKNOWN
    assert whole.unknown.no_dnslink
    assert parse_hosts('{"a.org:81": {}}').place("a.org:82").kind is PlaceKind.UNKNOWN
    for host, may in (
        ("a.org", True),
        ("localhost", False),
        ("x.localhost:1", False),
        ("1.2.3.4", False),
        ("[::1]:1", False),
    ):
        assert may_have_dnslink(host) is may


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"a b": {}}',
        '{"a.org": 1}',
        '{"a.org": {"Typo": true}}',
        '{"a.org": {"UseSubdomains": "yes"}}',
        '{"a.org": {"Paths": "ipfs"}}',
        '{"127.0.0.1": {"UseSubdomains": true}}',
    ],
)
def test_tables_that_are_refused(text: str) -> None:
    """A table with a mistake is refused before anything is served."""
    with pytest.raises(InvalidError):
        parse_hosts(text)


def test_no_host_and_no_path_is_a_surprise() -> None:
    """Whatever Host and path come, it is decided or refused, and no redirect holds what could end a header."""
    rng = random.Random(SEED)
    table = parse_hosts(HOSTS)
    words = [
        *("example.com", "ipfs", "ipns", "bafkqaaa", "a-b", "..", "%2F", "%", "%0d%0a", ":80", "é", "/", ".", "-", "@"),
        *("site.example.org", "x" * 70, "plain.example", "\r\n", "localhost", "[::1]", "QmX", str(LONG), KEY.text),
    ]
    for _ in range(4000):
        host = ".".join(rng.choices(words, k=rng.randrange(1, 5)))
        path = "/" + "/".join(rng.choices(words, k=rng.randrange(0, 5)))
        asked = Asked(host, rng.choice(("http", "https")), path.encode(), "?q" if rng.random() < 0.3 else "")
        known = rng.random() < 0.5
        try:
            decided = decide(table, asked, lambda _, known=known: known)  # type: ignore[misc]
        except InvalidError:
            continue
        if isinstance(decided, Answer):
            location = decided.headers["Location"]
            assert location.isascii(), location
            assert location.isprintable(), location
            assert urlsplit(location).hostname is not None
