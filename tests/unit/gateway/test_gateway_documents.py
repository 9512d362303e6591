"""dag-json, dag-cbor, json and cbor: the bytes as they are, the types, the names, and what is refused."""

from __future__ import annotations

import email
from collections.abc import Iterator

import pytest

from fungistor.dag.cid import CID
from fungistor.dag.links import links
from gateway.operations.desk import DeskFiles
from tests.unit.gateway.formats_site import JSON_TEXT, PLAIN_CBOR, Site, formats_site

IMMUTABLE = "public, max-age=29030400, immutable"
DAG_TYPES = {"json": "application/vnd.ipld.dag-json", "cbor": "application/vnd.ipld.dag-cbor"}
PLAIN_TYPES = {"json": "application/json", "cbor": "application/cbor"}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


@pytest.fixture(scope="module")
def converting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rules = tmp_path_factory.mktemp("home") / "gateway.toml"
    rules.write_text("[forms]\nconvert = true\n")
    with formats_site(DeskFiles(str(rules))) as made:
        yield made


def parts_of(media_type: str, body: bytes) -> list[object]:
    """Return the parts of a multipart body, read by a stock reader."""
    message = email.message_from_bytes(f"Content-Type: {media_type}\r\n\r\n".encode() + body)
    return [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]


def test_json_by_content(site: Site) -> None:
    """A file without a name that holds JSON is JSON, with no charset, and ?format=json wins over Accept."""
    cid = site.at(site.tree, "api/noname")
    assert site.live.get(f"/ipfs/{cid}").headers["content-type"] == "application/json"
    assert site.live.get(f"/ipfs/{cid}", Accept="application/json").headers["content-type"] == "application/json"
    answer = site.live.get(f"/ipfs/{cid}?format=json", Accept="application/vnd.ipld.raw")
    assert (answer.headers["content-type"], answer.content) == ("application/json", JSON_TEXT)


@pytest.mark.parametrize(
    ("root", "path", "form"),
    [
        ("tree", "subdir/multi.bin", "dag-json"),
        ("tree", "subdir/multi.bin", "dag-cbor"),
        ("tree", "", "dag-json"),
        ("tree", "ascii.txt", "dag-cbor"),
        ("json", "", "dag-cbor"),
        ("json", "", "cbor"),
        ("cbor", "", "dag-json"),
        ("cbor", "", "json"),
        ("plain_json", "", "dag-json"),
        ("plain_json", "", "cbor"),
        ("plain_cbor", "", "dag-cbor"),
    ],
)
@pytest.mark.parametrize("by", ["query", "accept"])
def test_no_conversion(site: Site, by: str, root: str, path: str, form: str) -> None:
    """Another codec's form is 406 that says what there is: it would have another hash."""
    types = {"dag-json": DAG_TYPES["json"], "dag-cbor": DAG_TYPES["cbor"], **PLAIN_TYPES}
    target = f"/ipfs/{getattr(site, root)}/{path}"
    answer = site.live.get(f"{target}?format={form}") if by == "query" else site.live.get(target, Accept=types[form])
    assert answer.status_code == 406
    assert "not converted" in answer.text


@pytest.mark.parametrize("asked", ["default", "query", "accept"])
@pytest.mark.parametrize(("kind", "block"), [("json", JSON_TEXT), ("cbor", PLAIN_CBOR)])
def test_plain(site: Site, asked: str, kind: str, block: bytes) -> None:
    """Plain json and cbor come as they are, whole, in one range, and in two; their names end as their types do."""
    cid: CID = getattr(site, f"plain_{kind}")
    target = f"/ipfs/{cid}" + (f"?format={kind}" if asked == "query" else "")
    accept = PLAIN_TYPES[kind] if asked == "accept" else "*/*"
    whole = site.live.get(target, Accept=accept)
    assert (whole.status_code, whole.content) == (200, block)
    assert whole.headers["content-type"] == PLAIN_TYPES[kind]
    disposition = "inline" if kind == "json" else "attachment"
    assert whole.headers["content-disposition"].startswith(f'{disposition}; filename="{cid}.{kind}"')
    one = site.live.get(target, Accept=accept, Range="bytes=1-2")
    assert (one.status_code, one.content) == (206, block[1:3])
    assert one.headers["content-type"] == PLAIN_TYPES[kind]
    two = site.live.get(target, Accept=accept, Range="bytes=0-0,2-3")
    assert two.status_code == 206
    assert parts_of(two.headers["content-type"], two.content) == [block[0:1], block[2:4]]


@pytest.mark.parametrize("kind", ["json", "cbor"])
@pytest.mark.parametrize("asked", ["default", "dag", "accept-dag", "plain", "accept-plain"])
def test_native(site: Site, kind: str, asked: str) -> None:
    """A linked document gives the very block by each way of asking; the plain types are other names of it."""
    cid: CID = getattr(site, kind)
    is_plain = asked.endswith("plain")
    media_type = (PLAIN_TYPES if is_plain else DAG_TYPES)[kind]
    query = {"dag": f"?format=dag-{kind}", "plain": f"?format={kind}"}.get(asked, "")
    accept = media_type if asked.startswith("accept") else "*/*"
    answer = site.live.get(f"/ipfs/{cid}{query}", Accept=accept)
    assert (answer.status_code, answer.content) == (200, site.block(cid))
    fields = answer.headers
    assert fields["content-type"] == media_type
    assert fields["content-length"] == str(len(site.block(cid)))
    assert fields["etag"] == f'"{cid}.{"" if is_plain else "dag-"}{kind}"'
    assert fields["cache-control"] == IMMUTABLE
    assert fields["x-ipfs-path"] == f"/ipfs/{cid}"
    assert fields["x-ipfs-roots"] == str(cid)
    assert fields["x-content-type-options"] == "nosniff"
    assert ("content-location" in fields) == asked.startswith("accept")
    head = site.live.request("HEAD", f"/ipfs/{cid}{query}", Accept=accept)
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-type"], head.headers["content-length"]) == (media_type, fields["content-length"])
    again = site.live.get(f"/ipfs/{cid}{query}", Accept=accept, If_None_Match=fields["etag"])
    assert (again.status_code, again.content) == (304, b"")
    part = site.live.get(f"/ipfs/{cid}{query}", Accept=accept, Range="bytes=3-7")
    assert (part.status_code, part.content) == (206, site.block(cid)[3:8])
    assert part.headers["content-type"] == media_type
    several = site.live.get(f"/ipfs/{cid}{query}", Accept=accept, Range="bytes=7-9,1-3")
    assert several.status_code == 206
    bodies = parts_of(several.headers["content-type"], several.content)
    assert bodies == [site.block(cid)[7:10], site.block(cid)[1:4]]


@pytest.mark.parametrize("kind", ["json", "cbor"])
def test_names(site: Site, kind: str) -> None:
    """?filename= names the download and ?download=true makes it one."""
    cid: CID = getattr(site, kind)
    disposition = "inline" if kind == "json" else "attachment"
    own = site.live.get(f"/ipfs/{cid}?format=dag-{kind}&filename=foobar.{kind}").headers["content-disposition"]
    assert own.startswith(f'{disposition}; filename="foobar.{kind}"')
    kept = site.live.get(f"/ipfs/{cid}?format=dag-{kind}&download=true").headers["content-disposition"]
    assert kept.startswith(f'attachment; filename="{cid}.{kind}"')


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("json", "foo?format=dag-json", 501),
        ("json", "foo/link/bar?format=dag-json", 200),
        ("json", "nope?format=dag-json", 404),
        ("cbor", "foo?format=dag-cbor", 501),
        ("cbor", "foo/link?format=dag-cbor", 200),
        ("cbor", "nope?format=dag-cbor", 404),
        ("cbor", "files/multi", 200),
    ],
)
def test_paths(site: Site, root: str, path: str, status: int) -> None:
    """A path goes through links; one that ends inside a block is 501, one that leads nowhere 404."""
    assert site.live.get(f"/ipfs/{getattr(site, root)}/{path}").status_code == status


@pytest.mark.parametrize("kind", ["json", "cbor"])
def test_page(site: Site, kind: str) -> None:
    """A browser gets a page whose links lead on, under a tag of its own and for a week."""
    cid: CID = getattr(site, kind)
    moved = site.live.get(f"/ipfs/{cid}", Accept="text/html")
    assert (moved.status_code, moved.headers["location"]) == (301, f"/ipfs/{cid}/")
    answer = site.live.get(f"/ipfs/{cid}/", Accept="text/html,*/*;q=0.8")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["etag"].startswith('"DagIndex-')
    assert answer.headers["cache-control"] == "public, max-age=604800, stale-while-revalidate=2678400"
    assert "content-disposition" not in answer.headers
    path = "foo/link/bar" if kind == "json" else "foo/link"
    assert f'<a href="/ipfs/{site.at(cid, path)}">' in answer.text
    assert answer.text.endswith("</html>\n")
    again = site.live.get(f"/ipfs/{cid}/", Accept="text/html", If_None_Match=answer.headers["etag"])
    assert again.status_code == 304
    head = site.live.request("HEAD", f"/ipfs/{cid}/", Accept="text/html")
    assert (head.content, head.headers["content-length"]) == (b"", answer.headers["content-length"])


@pytest.mark.parametrize(
    ("root", "form", "body"),
    [
        ("plain_json", "dag-json", b'{"a":"one","b":[1,2.5]}'),
        ("plain_cbor", "dag-json", b'{"a":1}'),
        ("plain_cbor", "dag-cbor", PLAIN_CBOR),
        ("plain_json", "cbor", b"\xa2aacone" + b"ab\x82\x01\xfb\x40\x04\0\0\0\0\0\0"),
    ],
)
def test_conversion(converting: Site, root: str, form: str, body: bytes) -> None:
    """Where the operator allows it, a document is given in another codec's one canonical form."""
    answer = converting.live.get(f"/ipfs/{getattr(converting, root)}?format={form}")
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["etag"] == f'"{getattr(converting, root)}.{form}"'


def test_conversion_keeps_links_and_bytes(converting: Site) -> None:
    """Links stay links, bytes stay bytes, and a dag-pb node is told as its specification lays it out."""
    told = converting.live.get(f"/ipfs/{converting.cbor}?format=dag-json").json()
    multi = str(converting.at(converting.tree, "subdir/multi.bin"))
    assert told["files"]["multi"] == {"/": multi}
    assert told["raw"] == {"/": {"bytes": "AQI"}}
    node = converting.live.get(f"/ipfs/{multi}?format=dag-json").json()
    assert set(node) == {"Data", "Links"}
    first = links(CID.parse(multi), converting.block(CID.parse(multi)))[0]
    assert (node["Links"][0]["Hash"], node["Links"][0]["Name"]) == ({"/": str(first)}, "")


def test_absent_and_only_if_cached(site: Site) -> None:
    """What is not here is 412 under only-if-cached, for HEAD, too."""
    absent = "baguqeeraaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    for method in ("HEAD", "GET"):
        answer = site.live.request(method, f"/ipfs/{absent}?format=dag-json", Cache_Control="only-if-cached")
        assert answer.status_code == 412
