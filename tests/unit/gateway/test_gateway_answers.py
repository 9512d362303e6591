"""The gateway over real sockets: what it answers, with which status and header fields."""

from __future__ import annotations

import email
import json

import pytest

from fungistor.dag.cid import CID
from fungistor.errors import CorruptError, FungiStorError, NotEnoughShardsError, UnavailableError
from fungistor.testing.memory_content import MemoryContent
from tests.unit.gateway.conftest import Site
from tests.unit.gateway.live import serving

IMMUTABLE = "public, max-age=29030400, immutable"
ABSENT = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa4"


def test_file(site: Site) -> None:
    """A file is streamed whole, with its length, type, tag, path and the CIDs on the way."""
    answer = site.live.get(f"{site.path}/big.bin")
    assert (answer.status_code, answer.content) == (200, site.big)
    assert answer.headers["content-length"] == str(len(site.big))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == IMMUTABLE
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-ipfs-path"] == f"{site.path}/big.bin"
    root, cid = answer.headers["x-ipfs-roots"].split(",")
    assert root == str(site.root)
    assert answer.headers["etag"] == f'"{cid}"'
    assert "date" in answer.headers
    assert "server" not in answer.headers


def test_head(site: Site) -> None:
    """HEAD has the fields of GET and no body."""
    answer = site.live.request("HEAD", f"{site.path}/big.bin", Range="bytes=0-1")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(site.big))
    assert site.live.request("HEAD", f"{site.path}/data").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("field", "start", "stop"),
    [
        ("bytes=6-16", 6, 17),
        ("bytes=-3", -3, None),
        ("bytes=2300000-", 2300000, None),
        ("bytes=1048570-1048580", 1048570, 1048581),
        ("bytes=0-9999999", 0, None),
    ],
)
def test_range(site: Site, field: str, start: int, stop: int | None) -> None:
    """A range gives exactly its bytes, across blocks too."""
    answer = site.live.get(f"{site.path}/big.bin", Range=field)
    assert (answer.status_code, answer.content) == (206, site.big[start:stop])
    first = start % len(site.big)
    size = len(site.big)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{size}"


def test_ranges(site: Site) -> None:
    """Several ranges come as multipart/byteranges in the order asked for."""
    answer = site.live.get(f"{site.path}/hello.txt", Range="bytes=6-10,0-4")
    assert answer.status_code == 206
    assert answer.headers["content-length"] == str(len(answer.content))
    message = email.message_from_bytes(
        f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content
    )
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part.get_payload() for part in parts] == ["world", "hello"]
    assert [part["Content-Range"] for part in parts] == ["bytes 6-10/11", "bytes 0-4/11"]


def test_range_refused(site: Site) -> None:
    """A range outside the file is 416 with its size."""
    answer = site.live.get(f"{site.path}/hello.txt", Range="bytes=11-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */11")


def test_if_range(site: Site) -> None:
    """If-Range with another tag gives the whole file, with the same tag the part."""
    etag = site.live.get(f"{site.path}/hello.txt").headers["etag"]
    assert site.live.get(f"{site.path}/hello.txt", Range="bytes=0-0", If_Range=etag).status_code == 206
    assert site.live.get(f"{site.path}/hello.txt", Range="bytes=0-0", If_Range='"x"').status_code == 200
    assert site.live.get(f"{site.path}/hello.txt", Range="bytes=0-0", If_Range=f"W/{etag}").status_code == 200


@pytest.mark.parametrize("below", ["/hello.txt", "/", "/site/", "/bar", "/hello.txt?format=raw", "/ą/", "/?sort=size"])
def test_not_modified(site: Site, below: str) -> None:
    """Each answer's own tag, strong or weak or in a list, and *, give 304; another tag does not."""
    target = f"{site.path}{below.replace('ą', '%C4%85')}"
    etag = site.live.get(target).headers["etag"]
    for field in (etag, f"W/{etag}", f'"a", "b", {etag}', "*"):
        answer = site.live.get(target, If_None_Match=field)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert site.live.get(target, If_None_Match='"other"').status_code == 200


def test_modification_time(site: Site) -> None:
    """A UnixFS time is Last-Modified, and If-Modified-Since gives 304."""
    answer = site.live.get(f"/ipfs/{site.dated}")
    assert answer.headers["last-modified"] == "Wed, 21 Oct 2015 07:28:00 GMT"
    since = answer.headers["last-modified"]
    assert site.live.get(f"/ipfs/{site.dated}", If_Modified_Since=since).status_code == 304
    older = "Tue, 20 Oct 2015 07:28:00 GMT"
    assert site.live.get(f"/ipfs/{site.dated}", If_Modified_Since=older).status_code == 200


def test_directory_redirect(site: Site) -> None:
    """A directory without slash moves to its slash, escaped once in upper case, with its query."""
    answer = site.live.get(f"{site.path}/%c4%85/%C4%99?a=b%20c")
    assert (answer.status_code, answer.headers["location"]) == (301, f"{site.path}/%C4%85/%C4%99/?a=b%20c")
    assert site.live.get(f"{site.path}/links?go-get=1").status_code == 200


def test_listing(site: Site) -> None:
    """A listing holds the markup that IPFS tools look for."""
    base = f"{site.path}/%C4%85/%C4%99"
    answer = site.live.get(f"{base}/")
    text = answer.text
    assert '"DirIndex-' in answer.headers["etag"]
    assert answer.headers["x-ipfs-path"] == f"{base}/"
    assert answer.headers["cache-control"] == "public, max-age=604800, stale-while-revalidate=2678400"
    assert "Index of" in text
    crumb = f'/ipfs/<a href="{site.path}">{site.root}</a>/<a href="{site.path}/%C4%85">ą</a>/<a href="{base}">ę</a>'
    assert crumb in text
    assert f'<a href="{base}/..">..</a>' in text
    assert f'<a href="{base}/file-%C5%BA%C5%82.txt">file-źł.txt</a>' in text
    file_cid = site.live.get(f"{base}/file-%C5%BA%C5%82.txt").headers["x-ipfs-roots"].split(",")[-1]
    link = f'<a class="ipfs-hash" translate="no" href="/ipfs/{file_cid}?filename=file-%25C5%25BA%25C5%2582.txt">'
    assert link in text
    assert ">..</a>" not in site.live.get(f"{site.path}/").text
    symlinks = site.live.get(f"{site.path}/links/").text
    assert ">foo<" in symlinks
    assert ">bar<" in symlinks
    links = site.live.get(f"{site.path}/links?format=raw")
    (cid,) = {CID.parse(each) for each in links.headers["x-ipfs-roots"].split(",")[-1:]}
    assert links.content == site.live.content.blocks[cid.multihash]


def test_a_name_is_decoded_once(site: Site) -> None:
    """A literal %2C, plus, equals, space and ñ in a name are found by their one encoding."""
    answer = site.live.get(f"{site.path}/%C4%85/%C4%99/a%252Cb%20+=%C3%B1")
    assert (answer.status_code, answer.content) == (200, b"odd")


def test_index_file(site: Site) -> None:
    """index.html is served under the directory's tag and roots."""
    answer = site.live.get(f"{site.path}/site/")
    assert (answer.status_code, answer.text) == (200, "<h1>welcome</h1>")
    directory = answer.headers["x-ipfs-roots"].split(",")[-1]
    assert answer.headers["etag"] == f'"{directory}"'
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["cache-control"] == IMMUTABLE
    assert site.live.get(f"{site.path}/odd/").status_code == 422


def test_symlink(site: Site) -> None:
    """A symlink is its target as text."""
    answer = site.live.get(f"{site.path}/bar")
    assert (answer.status_code, answer.content) == (200, b"foo")
    assert answer.headers["content-type"] == "inode/symlink"


@pytest.mark.parametrize("by_accept", [False, True])
def test_raw(site: Site, by_accept: bool) -> None:
    """A block is given as it is, whole or in part, by query and by Accept."""
    block = site.live.content.blocks[site.root.multihash]
    query, accept = ("", "application/vnd.ipld.raw") if by_accept else ("?format=raw", "*/*")
    answer = site.live.get(f"{site.path}{query}", Accept=accept)
    assert (answer.status_code, answer.content) == (200, block)
    assert answer.headers["content-type"] == "application/vnd.ipld.raw"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == f'"{site.root}.raw"'
    assert answer.headers["cache-control"] == IMMUTABLE
    assert f'attachment; filename="{site.root}.bin"' in answer.headers["content-disposition"]
    assert answer.headers.get("content-location") == (f"{site.path}?format=raw" if by_accept else None)
    part = site.live.get(f"{site.path}{query}", Accept=accept, Range="bytes=6-16")
    assert (part.status_code, part.content) == (206, block[6:17])
    assert part.headers["content-range"] == f"bytes 6-16/{len(block)}"


def test_filename_and_download(site: Site) -> None:
    """?filename= names and types the file, ?download=true makes it an attachment, each alone too."""
    named = site.live.get(f"{site.path}/hello.txt?filename=z%C3%A9.svg").headers
    assert named["content-type"] == "image/svg+xml"
    assert named["content-disposition"] == "inline; filename=\"z_.svg\"; filename*=UTF-8''z%C3%A9.svg"
    download = site.live.get(f"{site.path}/hello.txt?download=true").headers["content-disposition"]
    assert download.startswith('attachment; filename="hello.txt"')
    assert "content-disposition" not in site.live.get(f"{site.path}/hello.txt").headers
    hostile = site.live.get(f"{site.path}/hello.txt?filename=a%0d%0aX:%22b%2fc").headers["content-disposition"]
    assert hostile.startswith('inline; filename="a__X:_b_c"')


def test_json_is_bare(site: Site) -> None:
    """JSON without a name is known by its content and has no charset, in each way of asking."""
    cid = site.live.get(f"{site.path}/data").headers["x-ipfs-roots"].split(",")[-1]
    for query, accept in (("", "*/*"), ("", "application/json"), ("?format=json", "application/vnd.ipld.raw")):
        answer = site.live.get(f"/ipfs/{cid}{query}", Accept=accept)
        assert (answer.headers["content-type"], answer.content) == ("application/json", b'{"a": 1}')
    assert site.live.get(f"{site.path}/hello.txt?format=json").status_code == 406


def test_only_if_cached(site: Site) -> None:
    """only-if-cached is 412 for what is not held here and 200 for what is."""
    for method in ("GET", "HEAD"):
        assert site.live.request(method, f"/ipfs/{ABSENT}", Cache_Control="only-if-cached").status_code == 412
        assert site.live.request(method, f"{site.path}/bar", Cache_Control="only-if-cached").status_code == 200


def test_identity(site: Site) -> None:
    """The probe bafkqaaa and other identity CIDs need no network, with a trailing slash or without."""
    assert site.live.get("/ipfs/bafkqaaa").status_code == 200
    assert site.live.get("/ipfs/bafkqabtimvwgy3yk/").content == b"hello\n"
    assert site.live.get("/ipfs/bafkqaaa?format=raw").content == b""


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD", "POST"])
@pytest.mark.parametrize("target", ["/ipfs/bafkqabtimvwgy3yk/", f"/ipfs/{ABSENT}", "/ipfs/nope", "/nope", "/-/health"])
def test_cors_on_every_answer(site: Site, method: str, target: str) -> None:
    """Any page may read any answer, errors too."""
    fields = site.live.request(method, target).headers
    assert fields["access-control-allow-origin"] == "*"
    assert fields["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert fields["access-control-allow-headers"] == "Content-Type, Range, User-Agent, X-Requested-With"
    exposed = {name.strip() for name in fields["access-control-expose-headers"].split(",")}
    assert exposed >= {"Content-Range", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots", "X-Chunked-Output"}


def test_methods(site: Site) -> None:
    """OPTIONS is answered, what changes things is 405 with Allow."""
    assert site.live.request("OPTIONS", site.path).status_code == 204
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = site.live.request(method, site.path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/ipfs/?uri=ipfs%3A%2F%2Fbafkqaaa%2Fa%20b%3Fx%3D1", "/ipfs/bafkqaaa/a%20b?x=1"),
        ("/ipfs/?uri=ipns%3A%2F%2Fexample.com", "/ipns/example.com"),
        ("/ipfs/?uri=bafkqaaa", "/ipfs/bafkqaaa"),
        ("/ipfs/ipfs/bafkqaaa/x?y=1", "/ipfs/bafkqaaa/x?y=1"),
        ("/ipfs/ipns/example.com", "/ipns/example.com"),
    ],
)
def test_redirects(site: Site, target: str, location: str) -> None:
    """ipfs:// addresses and doubled namespaces move to the path they mean."""
    answer = site.live.get(target)
    assert (answer.status_code, answer.headers["location"]) == (301, location)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/ipfs/?uri=https%3A%2F%2Fexample.com", 400),
        ("/ipfs/", 400),
        ("/ipfs", 400),
        ("/ipfs/notacid", 400),
        ("/ipfs/bafkqaaa/%zz", 400),
        ("/ipfs/bafkqaaa/../..", 400),
        ("/ipfs/bafkqaaa?format=nope", 400),
        ("/ipfs/bafkqaaa?format=dag-json", 406),
        ("/ipfs/bafkqaaa?format=ipns-record", 400),
        ("/ipns/example.com", 404),
        ("/routing/v1/providers/x", 422),
        ("/ipfs/bafkqaaa/below", 404),
        (f"/ipfs/{ABSENT}", 404),
        ("/favicon.ico", 404),
        ("/ipfsx", 404),
    ],
)
def test_refusals(site: Site, target: str, status: int) -> None:
    """What is wrong, missing or not built says so, is never stored, and has no other body."""
    answer = site.live.get(target)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith(str(status))


def test_accept_of_what_does_not_exist(site: Site) -> None:
    """A type that no answer has is 406 where nothing else is accepted."""
    assert site.live.get(site.path, Accept="application/vnd.ipld.nope").status_code == 406
    assert site.live.get(f"{site.path}/", Accept="application/cbor").status_code == 406


def test_service_worker(site: Site) -> None:
    """A service worker is refused for the scope of a whole CID, and allowed below."""
    assert site.live.get("/ipfs/bafkqaaa", Service_Worker="script").status_code == 400
    assert site.live.get(f"{site.path}/hello.txt", Service_Worker="script").status_code == 200


def test_error_forms(site: Site) -> None:
    """An error is JSON, a page or text, as the client asks."""
    told = site.live.get(f"{site.path}/nope", Accept="application/json")
    assert told.headers["content-type"] == "application/json"
    body = json.loads(told.content)
    assert (body["error"], body["phase"]) == ("not_found", "resolve")
    assert "'nope'" in body["detail"]
    assert body["request_id"] == told.headers["x-request-id"]
    page = site.live.get(f"{site.path}/%3Cscript%3E", Accept="text/html,*/*;q=0.8")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;script&gt;" in page.text
    assert "<script" not in page.text
    assert site.live.request("HEAD", f"{site.path}/nope").content == b""


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (NotEnoughShardsError(found=15, needed=16, by_member={"m07": "refused", "m11": "timed out"}), 503, "m07"),
        (NotEnoughShardsError(found=15, needed=16, by_member={"m07": "silent for 5 s"}, silent=True), 504, "m07"),
        (UnavailableError("the quorum is lost", retry_after_s=7), 503, "quorum"),
        (CorruptError("block lies"), 502, "block lies"),
        (FungiStorError("disk full"), 500, "disk full"),
    ],
)
def test_content_errors(error: FungiStorError, status: int, told: str) -> None:
    """An error before the first byte has its status, names members, and says when to come again."""
    content = MemoryContent(fault=lambda _: error)
    link = content.add_file(b"x")
    with serving(content) as live:
        answer = live.get(f"/ipfs/{link.cid}", Accept="application/json")
        assert answer.status_code == status
        assert told in json.loads(answer.content)["detail"]
        if isinstance(error, UnavailableError):
            assert answer.headers["retry-after"] == str(error.retry_after_s)
        assert content.opened == content.closed == 1


def test_a_bug_shows_nothing() -> None:
    """An error of no family is a 500 that tells the request id and nothing of itself."""

    def fault(_: CID) -> FungiStorError | None:
        raise RuntimeError("secret detail")

    content = MemoryContent(fault=fault)
    link = content.add_file(b"x")
    with serving(content) as live:
        answer = live.get(f"/ipfs/{link.cid}")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in answer.text


def test_missing_middle_block() -> None:
    """Ranges around a block that is gone are served, and ask for no other block than their own."""
    content = MemoryContent()
    data = bytes(3 << 20)
    data = b"a" * (1 << 20) + b"b" * (1 << 20) + b"c" * (1 << 20)
    link = content.add_file(data)
    middle = next(key for key, block in content.blocks.items() if block == data[1 << 20 : 2 << 20])
    del content.blocks[middle]
    with serving(content) as live:
        first = live.get(f"/ipfs/{link.cid}", Range="bytes=997-1000")
        assert (first.status_code, first.content) == (206, b"aaaa")
        last = live.get(f"/ipfs/{link.cid}", Range="bytes=2200000-2200001")
        assert (last.status_code, last.content) == (206, b"cc")
        assert middle not in {cid.multihash for cid in content.asked}
        assert live.get(f"/ipfs/{link.cid}", Range="bytes=1048576-1048577").status_code == 404


def test_service_paths(site: Site) -> None:
    """Health, readiness and the front page answer, and are not stored."""
    assert site.live.get("/-/health").json() == {"status": "ok"}
    assert site.live.get("/-/ready").json() == {"status": "ready"}
    front = site.live.get("/")
    assert "FungiStor gateway" in front.text
    assert front.headers["cache-control"] == "no-store"
