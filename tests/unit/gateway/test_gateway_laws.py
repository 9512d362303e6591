"""What holds for every form of every kind of content alike: tags, conditions, HEAD, fields, methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from gateway.hosts import HostConfig, HostTable
from tests.unit.gateway.formats_site import Site, formats_site
from tests.unit.gateway.live import serving

TYPES = {
    "raw": "application/vnd.ipld.raw",
    "car": "application/vnd.ipld.car",
    "tar": "application/x-tar",
    "zip": "application/zip",
    "json": "application/json",
    "cbor": "application/cbor",
    "dag-json": "application/vnd.ipld.dag-json",
    "dag-cbor": "application/vnd.ipld.dag-cbor",
}
ANSWERED = [
    ("tree", "/subdir/multi.bin", ("", "raw", "car", "tar", "zip")),
    ("tree", "/subdir/", ("", "raw", "car", "tar", "zip", "json")),
    ("tree", "/api/data.json", ("", "raw", "json")),
    ("tree", "/link", ("", "raw", "car")),
    ("sharded", "/", ("", "raw", "car", "tar", "zip", "json")),
    ("sharded", "/003.txt", ("", "raw", "car", "tar")),
    ("cbor", "", ("", "raw", "car", "cbor", "dag-cbor")),
    ("json", "", ("", "raw", "car", "json", "dag-json")),
    ("plain_json", "", ("", "raw", "car", "json")),
    ("plain_cbor", "", ("", "raw", "car", "cbor")),
]
WEEK = "public, max-age=604800, stale-while-revalidate=2678400"
ALL = [(root, path, form) for root, path, forms in ANSWERED for form in forms]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


@pytest.fixture(scope="module")
def trustless() -> Iterator[Site]:
    table = HostTable({"trustless.example": HostConfig(deserialized=False)})
    with formats_site() as made, serving(made.content, hosts=table) as live:
        yield dataclasses.replace(made, live=live)


def target_of(site: Site, root: str, path: str) -> str:
    return f"/ipfs/{getattr(site, root)}{path}"


@pytest.mark.parametrize(("root", "path", "form"), ALL)
def test_every_answer(site: Site, root: str, path: str, form: str) -> None:
    """Each way of asking gives the same bytes under the same tag, and each condition on the tag holds."""
    target = target_of(site, root, path)
    asked = f"{target}?format={form}" if form else target
    answer = site.live.get(asked, Accept="text/plain;q=0.1, */*;q=0.5" if form else "*/*")
    assert answer.status_code == 200
    fields = answer.headers
    assert fields["x-ipfs-path"] == target
    assert fields["x-ipfs-roots"].split(",")[0] == str(getattr(site, root))
    assert "content-location" not in fields
    is_page = "Dir" in fields["etag"]
    expected = WEEK if is_page else "public, max-age=29030400, immutable"
    assert fields["cache-control"] == expected
    strong = fields["etag"].removeprefix("W/")
    for condition in (fields["etag"], strong, f"W/{strong}", "*", f'"a", W/"b", {strong}', f'"a",{strong},"c"'):
        again = site.live.get(asked, If_None_Match=condition)
        assert (again.status_code, again.content) == (304, b""), condition
        assert again.headers["etag"] == fields["etag"]
        assert again.headers["cache-control"] == expected
    assert site.live.get(asked, If_None_Match='"other"').status_code == 200
    assert site.live.get(asked, Cache_Control="only-if-cached").content == answer.content
    if form:
        by_accept = site.live.get(target, Accept=TYPES[form])
        assert by_accept.content == answer.content
        assert by_accept.headers["etag"] == fields["etag"]
        assert by_accept.headers["vary"] == "Accept"
        location = by_accept.headers.get("content-location")
        if form != "json" or path != "/api/data.json":  # a file of JSON is itself, whatever it was asked as
            assert location is not None
            assert site.live.get(location).content == answer.content


@pytest.mark.parametrize(("root", "path", "form"), ALL)
def test_head(site: Site, root: str, path: str, form: str) -> None:
    """HEAD has the fields of GET and no body, and asks for the blocks of the path and the end of it alone."""
    target = target_of(site, root, path) + (f"?format={form}" if form else "")
    whole = site.live.get(target)
    before = len(site.content.asked)
    head = site.live.request("HEAD", target)
    assert (head.status_code, head.content) == (200, b"")
    assert len(site.content.asked) - before <= 5
    for name in ("content-type", "etag", "cache-control", "content-disposition", "x-ipfs-roots", "accept-ranges"):
        assert head.headers.get(name) == whole.headers.get(name), name
    if "content-length" in head.headers:
        assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("form", ["", "raw", "car", "tar", "json"])
def test_cross_origin(site: Site, form: str) -> None:
    """Any page may read any answer and the fields that describe it, and may ask first."""
    target = f"{site.path}/api/data.json?format={form}"
    for answer in (
        site.live.get(target),
        site.live.request("OPTIONS", target),
        site.live.get(f"{site.path}/nope?format={form}"),
    ):
        fields = answer.headers
        assert fields["access-control-allow-origin"] == "*"
        allowed = set(fields["access-control-allow-methods"].split(", "))
        assert {"GET", "HEAD", "OPTIONS"} <= allowed
        asked = set(fields["access-control-allow-headers"].split(", "))
        assert {"Content-Type", "Range", "User-Agent", "X-Requested-With"} <= asked
        told = set(fields["access-control-expose-headers"].split(", "))
        seen = {"Content-Range", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots", "X-Chunked-Output", "X-Stream-Output"}
        assert seen <= told


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_methods(site: Site, method: str) -> None:
    """What would change something is 405, and Allow says what would not."""
    answer = site.live.request(method, f"{site.path}/ascii.txt?format=car")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("by", ["query", "accept"])
def test_block(site: Site, by: str) -> None:
    """A block is an attachment of its own type, never sniffed, named as asked, and given in ranges."""
    block = site.block(site.at(site.tree, "ascii.txt"))
    target = f"{site.path}/ascii.txt"
    query, accept = ("?format=raw", "*/*") if by == "query" else ("?", TYPES["raw"])
    answer = site.live.get(target + query, Accept=accept)
    assert answer.content == block
    assert answer.headers["content-type"] == TYPES["raw"]
    assert answer.headers["content-length"] == str(len(block))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    named = site.live.get(f"{target}{query}&filename=foobar.bin", Accept=accept)
    assert named.headers["content-disposition"].startswith('attachment; filename="foobar.bin"')
    part = site.live.get(target + query, Accept=accept, Range="bytes=6-16")
    assert (part.status_code, part.content) == (206, block[6:17])
    assert part.headers["content-range"] == f"bytes 6-16/{len(block)}"
    several = site.live.get(target + query, Accept=accept, Range="bytes=7-9,1-3")
    assert several.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert block[7:10] in several.content
    assert block[1:4] in several.content
    stale = site.live.get(target + query, Accept=accept, Range="bytes=6-16", If_Range='"other"')
    assert (stale.status_code, stale.content) == (200, block)


@pytest.mark.parametrize(("root", "path", "form"), ALL)
def test_hosts_that_need_no_trust(trustless: Site, root: str, path: str, form: str) -> None:
    """A trustless host gives blocks without a path and CARs; everything else is 406 and says what to ask for."""
    target = target_of(trustless, root, path) + (f"?format={form}" if form else "")
    answer = trustless.live.get(target, Host="trustless.example")
    if form == "car" or (form == "raw" and not path.strip("/")):
        assert answer.status_code == 200
    else:
        assert answer.status_code == 406
        assert "format=car" in answer.text
