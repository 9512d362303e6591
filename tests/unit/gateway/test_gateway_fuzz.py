"""Hostile requests and hostile DAGs: every one gets an answer with a cause, soon, and never a 500."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fungistor.dag import dag_pb, unixfs
from fungistor.dag.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB
from fungistor.dag.importer import Link
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.testing.memory_content import MemoryContent
from tests.unit.gateway.formats_site import Site, directory_of, formats_site, put
from tests.unit.gateway.live import serving

FORMATS = ("raw", "car", "tar", "zip", "json", "dag-json", "dag-cbor", "cbor", "ipns-record", "nope", "")
TYPES = (
    "application/vnd.ipld.raw", "application/vnd.ipld.car", "application/vnd.ipld.car; version=1; order=dfs; dups=y",
    "application/x-tar", "application/zip", "application/json", "application/cbor", "application/vnd.ipld.dag-json",
    "application/vnd.ipfs.ipns-record", "text/html", "*/*", "", ";;;", "a/b;q=nan", "*/*;q=0", "text/html;q=1e999",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["", "true", "0:*", "-5:9", "9:-9", "all", "entity", "block", "y", "n", "dfs", "unk", "1", "%00", "%0d%0aX: y"]
    ),
    st.text(max_size=12),
)
KEYS = (
    "format", "filename", "download", "dag-scope", "entity-bytes", "car-order", "car-dups", "car-version", "limit",
    "after", "sort", "order", "preview", "go-get", "uri",
)  # fmt: skip
NAMES = (
    "subdir", "multi.bin", "ascii.txt", "ą", "api", "link", "twice", "up", "..", ".", "%2e%2e", "%2F", "%00", "%",
    "%zz", "+", "foo", "link", "files", "0", "-1", "index.html", "_redirects", "\\", "a" * 300, "%FF%FE", "?", "#", ";",
    "//",
)  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


def status_of(site: Site, request: bytes) -> int:
    """Send a request on a connection of its own; its whole answer must come before the deadline."""
    received = site.live.exchange(request)
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    assert found is not None, received[:100]
    head = received.partition(b"\r\n\r\n")[0]
    assert b"\r\nX: y" not in head, "a request wrote a header field"
    return int(found.group(1))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, list[str], dict[str, str], dict[str, str], str]:
    """A method, a path, a query and header fields, most of them near to valid."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PUT", "BREW"]))
    names = draw(st.lists(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)), max_size=5))
    query = draw(st.dictionaries(st.sampled_from(KEYS), st.one_of(VALUES, st.sampled_from(FORMATS)), max_size=4))
    fields = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "Accept": st.one_of(st.sampled_from(TYPES), st.text(max_size=30)),
                "Range": st.one_of(
                    st.sampled_from(["bytes=0-3", "bytes=-1", "bytes=9-1", "bytes=", "bytes=0-0,2-2", "bytes=99999-"]),
                    st.text(max_size=20),
                ),
                "If-None-Match": st.one_of(st.sampled_from(["*", '"x"', 'W/"']), st.text(max_size=20)),
                "If-Modified-Since": st.text(max_size=30),
                "If-Range": st.text(max_size=20),
                "Cache-Control": st.sampled_from(["only-if-cached", "no-cache", ","]),
                "Service-Worker": st.just("script"),
                "X-Forwarded-Host": st.text(max_size=20),
            },
        )
    )
    root = draw(
        st.sampled_from(["tree", "sharded", "holed", "cbor", "json", "plain_json", "plain_cbor", "none", "text"])
    )
    return method, names, query, fields, root


Asked = tuple[str, list[str], dict[str, str], dict[str, str], str]


@given(requests())
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_requests(site: Site, request: Asked) -> None:
    """No request, however it is put together, is answered by 500 or not at all."""
    _check_request(site, request)


@pytest.mark.soak
@given(requests())
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_requests(site: Site, request: Asked) -> None:
    """The same for thousands of others each time."""
    _check_request(site, request)


def _check_request(site: Site, request: Asked) -> None:
    method, names, query, fields, root_name = request
    root = {"none": "", "text": "Q\u00e4"}.get(root_name) if root_name in ("none", "text") else getattr(site, root_name)
    path = "/ipfs/" + "/".join([str(root), *names])
    asked = path + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")
    lines = [f"{method} {_target(asked)} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {_field(value)}" for name, value in fields.items()]
    try:
        status = status_of(site, ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace"))
    except ConnectionResetError:
        assert root_name == "holed", "only a body whose blocks are missing is broken off"
        return
    assert status != 500, (asked, fields)
    assert status < 600


def _target(text: str) -> str:
    """A request line has no blanks and no controls in it; all else goes as it is."""
    return "".join(char for char in text if char > " " and char != "\x7f")


def _field(text: str) -> str:
    return "".join(char for char in text if char >= " " and char != "\x7f")


@given(st.sampled_from([DAG_PB, DAG_CBOR, DAG_JSON]), st.binary(max_size=60), st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_blocks(site: Site, codec: int, block: bytes, form: str) -> None:
    """No block, whatever its bytes, makes an error of the gateway's own."""
    _check_block(site, codec, block, form)


@pytest.mark.soak
@given(st.sampled_from([DAG_PB, DAG_CBOR, DAG_JSON]), st.binary(max_size=200), st.sampled_from(FORMATS))
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_blocks(site: Site, codec: int, block: bytes, form: str) -> None:
    """The same for thousands of others each time."""
    _check_block(site, codec, block, form)


def _check_block(site: Site, codec: int, block: bytes, form: str) -> None:
    cid = put(site.content, codec, block)
    for path in ("", "/a"):
        answer = site.live.get(f"/ipfs/{cid}{path}?format={form}", Accept="text/html")
        assert answer.status_code != 500, answer.text


def _shard(fanout: int, links: list[tuple[bytes, CID]], buckets: list[int]) -> bytes:
    field = sum(1 << bucket for bucket in buckets)
    message = UnixFS(
        DataType.HAMT_SHARD, field.to_bytes((field.bit_length() + 7) // 8, "big"), hash_type=0x22, fanout=fanout
    )
    return dag_pb.encode(
        dag_pb.PBNode(tuple(dag_pb.PBLink(cid, name, 1) for name, cid in links), unixfs.encode(message))
    )


@pytest.mark.parametrize("fanout", [0, 3, 7, 2048, 1 << 20, 1 << 40])
@pytest.mark.parametrize("query", ["", "?format=json", "?format=tar", "?format=car&dag-scope=entity"])
def test_fanout_bombs(fanout: int, query: str) -> None:
    """A shard that announces an absurd fanout is refused with a cause."""
    content = MemoryContent()
    root = put(content, DAG_PB, _shard(fanout, [], []))
    with serving(content) as live:
        assert live.get(f"/ipfs/{root}/{query}").status_code in (400, 502)
        assert live.get(f"/ipfs/{root}/name").status_code in (400, 502)


def test_depth_bomb() -> None:
    """Shards nested deeper than a hash has bits for end at that bound."""
    content = MemoryContent()
    leaf = content.add_file(b"x").cid
    cid = put(content, DAG_PB, _shard(8, [(b"0name", leaf)], [0]))
    for _ in range(60):
        cid = put(content, DAG_PB, _shard(8, [(b"0", cid)], [0]))
    with serving(content) as live:
        assert live.get(f"/ipfs/{cid}/?format=json").status_code == 502
        assert len(content.asked) < 80


def test_nested_folders() -> None:
    """Folders nested a thousand deep make no archive, and the worker's stack is not at stake."""
    content = MemoryContent()
    cid = content.add_file(b"x").cid
    for _ in range(1000):
        cid = directory_of(content, Link(b"d", cid, 1))
    with serving(content) as live:
        with pytest.raises(httpx.HTTPError):  # broken off where it is too deep
            live.get(f"/ipfs/{cid}?format=tar")
        assert live.get(f"/ipfs/{cid}?format=car").status_code == 200


def test_nested_documents() -> None:
    """A document nested without end is told from one that can be shown."""
    content = MemoryContent()
    deep = put(content, DAG_CBOR, b"\x81" * 5000 + b"\x00")
    text = put(content, DAG_JSON, b"[" * 5000 + b"]" * 5000)
    with serving(content) as live:
        for cid in (deep, text):
            assert live.get(f"/ipfs/{cid}/", Accept="text/html").status_code == 200
            assert live.get(f"/ipfs/{cid}/a").status_code == 502
            assert live.get(f"/ipfs/{cid}?format=car").status_code == 502


def test_same_file_a_million_times() -> None:
    """A few blocks that stand for a huge tree are given as a CAR of those few."""
    content = MemoryContent()
    cid = content.add_file(b"x").cid
    for _ in range(20):
        cid = directory_of(content, *(Link(f"{number:02d}".encode(), cid, 1) for number in range(10)))
    with serving(content) as live:
        body = live.get(f"/ipfs/{cid}?format=car").content
    assert len(body) < 20_000


@pytest.mark.parametrize(
    "name", ["a\r\nX-Evil: 1", 'a"; evil="1', "a\0b", "../../etc/passwd", "\u202egpj.exe", "é" * 500]
)
@pytest.mark.parametrize("form", ["raw", "car", "tar", ""])
def test_header_injection(name: str, form: str) -> None:
    """A file name from a query or a DAG never writes a field, ends a quoted string, or keeps a path."""
    content = MemoryContent()
    file = content.add_file(b"x").cid
    with serving(content) as live:
        quoted = "".join(f"%{byte:02X}" for byte in name.encode())
        answer = live.get(f"/ipfs/{file}?filename={quoted}&format={form}&download=true")
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    told = re.fullmatch(
        r"attachment; filename=\"[\x20-\x21\x23-\x5b\x5d-\x7e]*\"; filename\*=UTF-8''[A-Za-z0-9%._~-]*",
        answer.headers["content-disposition"],
    )
    assert told is not None
    assert "/" not in answer.headers["content-disposition"].partition("filename*")[0]
