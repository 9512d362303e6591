"""`/routing/v1`: what IPFS nodes are told of what can be fetched here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fungistor.dag.cid import CID
from fungistor.dag.multibase import encode_base58
from fungistor.errors import FungiStorError, InvalidError, UnavailableError
from fungistor.names import multiaddress
from fungistor.testing.memory_content import MemoryContent
from gateway.delegated import Announcement
from tests.unit.gateway.live import Live, serving
from tests.unit.gateway.naming import EXPIRED, KEY, NOWHERE, KnownRecords, TestDns
from tests.unit.names.signing import NOW_S, Signer

NODE = Signer(20)
ADDRESSES = ("/dns/gw.example.com/tcp/443/tls/http", "/ip4/127.0.0.1/tcp/8480/http")
ABSENT = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@dataclass(frozen=True, slots=True)
class Router:
    """A gateway that says where it is."""

    live: Live
    root: CID

    def records(self, target: str, **headers: str) -> list[dict[str, object]]:
        """Ask, and read the records of an answer."""
        answer = self.live.get(f"/routing/v1/{target}", **headers)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json().values()
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    from fungistor.names.dnslink import StaticMap
    from fungistor.names.dnslink_cache import DnslinkCache
    from fungistor.names.resolver import Resolver

    content = MemoryContent()
    root = content.add_tree({"hello.txt": b"hello"}).cid
    records = KnownRecords()
    records.add(KEY.record(f"/ipfs/{root}", ttl_s=600))
    records.add(EXPIRED.record(f"/ipfs/{root}", expires_s=NOW_S - 1))
    names = Resolver(records, DnslinkCache(TestDns(), StaticMap({})), clock=lambda: NOW_S)
    with serving(content, names=names, announcement=Announcement(NODE.name, ADDRESSES)) as live:
        yield Router(live, root)


def test_providers_of_what_is_held(router: Router) -> None:
    """What this network holds has this gateway as its provider, under any form of its CID; other things have none."""
    wanted = {
        "Schema": "peer",
        "ID": encode_base58(NODE.name.multihash),
        "Addrs": list(ADDRESSES),
        "Protocols": ["transport-ipfs-gateway-http"],
    }
    for text in (str(router.root), router.root.text("base36")):
        assert router.records(f"providers/{text}") == [wanted]
    assert router.records(f"providers/{ABSENT}") == []
    assert router.records("providers/bafkqaaa") == []


def test_header_fields(router: Router) -> None:
    """Answers may be cached, a nothing shorter than a something, and any page may read them."""
    for target, seconds in ((f"providers/{router.root}", 300), (f"providers/{ABSENT}", 15), (f"peers/{KEY.text}", 15)):
        answer = router.live.get(f"/routing/v1/{target}")
        stale = "stale-while-revalidate=172800, stale-if-error=172800"
        assert answer.headers["cache-control"] == f"public, max-age={seconds}, {stale}"
        assert (answer.headers["vary"], answer.headers["content-type"]) == ("Accept", "application/json")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["last-modified"].endswith("GMT")
    assert router.live.request("OPTIONS", f"/routing/v1/providers/{router.root}").status_code == 204
    head = router.live.request("HEAD", f"/routing/v1/providers/{router.root}")
    assert (head.status_code, head.content) == (200, b"")


def test_streams_are_given_where_they_are_asked_for(router: Router) -> None:
    """NDJSON is a record a line, and nothing for none."""
    kind = "application/x-ndjson"
    answer = router.live.get(f"/routing/v1/providers/{router.root}", Accept=kind)
    assert answer.headers["content-type"] == kind
    assert [json.loads(line)["Schema"] for line in answer.text.splitlines()] == ["peer"]
    assert router.live.get(f"/routing/v1/providers/{ABSENT}", Accept=kind).content == b""


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("filter-protocols=transport-ipfs-gateway-http", 2),
        ("filter-protocols=Transport-Bitswap,unknown", 0),
        ("filter-addrs=tls", 1),
        ("filter-addrs=!tls", 1),
        ("filter-addrs=http,unknown", 2),
        ("filter-addrs=quic-v1", 0),
        ("filter-addrs=!http", 0),
        ("filter-protocols=transport-ipfs-gateway-http&filter-addrs=ip4", 1),
    ],
)
def test_filters(router: Router, query: str, left: int) -> None:
    """Clients that speak few protocols are told only what they can use (IPIP-484)."""
    found = router.records(f"providers/{router.root}?{query}")
    addresses = found[0]["Addrs"] if found else []
    assert isinstance(addresses, list)
    assert len(addresses) == left


def test_peers(router: Router) -> None:
    """This node knows itself, by either form of its id, and nobody else."""
    for text in (encode_base58(NODE.name.multihash), NODE.text):
        assert [record["Addrs"] for record in router.records(f"peers/{text}")] == [list(ADDRESSES)]
    assert router.records(f"peers/{KEY.text}") == []


def test_records_of_names(router: Router) -> None:
    """A record is given as it was signed; nothing is no error, yet nothing that looks like a record."""
    target = f"/routing/v1/ipns/{KEY.text}"
    answer = router.live.get(target, Accept="application/vnd.ipfs.ipns-record")
    assert answer.headers["content-type"] == "application/vnd.ipfs.ipns-record"
    assert answer.headers["cache-control"].startswith("public, max-age=600, stale-while-revalidate=")
    assert answer.headers["expires"].endswith("GMT")
    assert router.live.get(target, If_None_Match=answer.headers["etag"]).status_code == 304
    nothing = router.live.get(f"/routing/v1/ipns/{NOWHERE.text}")
    assert (nothing.status_code, nothing.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert router.live.get(target, Accept="text/html").status_code == 406
    assert router.live.get(f"/routing/v1/ipns/{EXPIRED.text}").status_code == 502


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "providers/nonsense", 422),
        ("GET", "providers/" + "b" * 3000, 422),
        ("GET", "peers/example.org", 422),
        ("GET", "ipns/example.org", 422),
        ("GET", "providers", 400),
        ("GET", "providers/", 400),
        ("GET", f"providers/{ABSENT}/more", 400),
        ("GET", "elsewhere/x", 400),
        ("GET", "dht/closest/peers/x", 501),
        ("PUT", f"ipns/{KEY.text}", 405),
        ("POST", f"providers/{ABSENT}", 405),
    ],
)
def test_what_is_refused(router: Router, method: str, target: str, status: int) -> None:
    """Calls that are malformed, unknown, or would change something."""
    answer = router.live.request(method, f"/routing/v1/{target}")
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_what_cannot_be_known_now() -> None:
    """A catalog that is away is 503 with a time to try again, never `nobody has it`."""

    def away(_: CID) -> FungiStorError | None:
        return UnavailableError("still catching up", retry_after_s=7)

    content = MemoryContent()
    content.open_fault = away
    with serving(content, announcement=Announcement(NODE.name, ADDRESSES)) as live:
        answer = live.get(f"/routing/v1/providers/{ABSENT}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


def test_a_node_that_cannot_say_where_it_is() -> None:
    """Without an address there is no provider to tell."""
    content = MemoryContent()
    root = content.add_tree({"a": b"1"}).cid
    with serving(content, announcement=Announcement(NODE.name)) as live:
        assert live.get(f"/routing/v1/providers/{root}").json() == {"Providers": []}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://gw.Example.com", "/dns/gw.example.com/tcp/443/tls/http"),
        ("https://gw.example.com:8443/", "/dns/gw.example.com/tcp/8443/tls/http"),
        ("http://192.0.2.1:80", "/ip4/192.0.2.1/tcp/80/http"),
        ("http://[::1]:8480", "/ip6/::1/tcp/8480/http"),
        ("https://gw.example.com/below", None),
        ("https://user:word@gw.example.com", None),
        ("gw.example.com", None),
        ("https://", None),
        ("https://a:b:c", None),
        ("https://ex ample", None),
    ],
)
def test_multiaddresses(url: str, address: str | None) -> None:
    """A gateway's URL has one multiaddress; what is none is refused."""
    if address is None:
        with pytest.raises(InvalidError):
            multiaddress.of_url(url)
    else:
        assert multiaddress.of_url(url) == address
