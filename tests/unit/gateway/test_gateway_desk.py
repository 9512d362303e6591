"""What every request passes: lists, leave, limits, ids, the log, and the answers that never reach the framework."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fungistor.dag.cid import CID
from fungistor.testing.memory_content import MemoryContent
from gateway.gathering import Gathering
from gateway.headers import IMMUTABLE
from gateway.hot import SMALL_BODY_BYTES, HotAnswers
from gateway.operations.desk import DeskFiles
from gateway.operations.identity import masked, trace_parent
from gateway.operations.rules_file import load_rules
from gateway.settings import Settings
from tests.unit.gateway.live import Live, serving, wait_until

WAIT_S = 10.0
FILE = b"hot and small" * 100


def _raw(live: Live, target: str, *fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in ("Host: x", *fields, "Connection: close"))
    return live.exchange(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())


@contextmanager
def _service(answer: Callable[[http.server.BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """A small HTTP service on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Home:
    """Content and the files that a desk looks at."""

    def __init__(self, folder: Path) -> None:
        self.content = MemoryContent()
        self.cid = self.content.add_file(FILE).cid
        self.lists = folder / "denylists"
        self.lists.mkdir()
        self.rules = folder / "gateway.toml"
        self.token = 0
        self.files = DeskFiles(str(self.rules), (str(self.lists),), changes=lambda: self.token)

    @contextmanager
    def serving(self, access_log: bool = False) -> Iterator[Live]:
        with serving(self.content, Settings(drain_s=2, access_log=access_log), self.files) as live:
            yield live


@pytest.fixture
def home(tmp_path: Path) -> _Home:
    return _Home(tmp_path)


def _is_hot(answer: httpx.Response) -> bool:
    return "desc=hot" in answer.headers.get("server-timing", "")


# -- hot answers ------------------------------------------------------------------------------------------------


def test_hot_answers_are_the_same_as_the_others(home: _Home) -> None:
    """The second plain GET, a range, and an entity tag are answered below the framework, with the same fields."""
    with home.serving() as live, httpx.Client(base_url=live.url) as client:
        path = f"/ipfs/{home.cid}"
        cold = client.get(path)
        hot = client.get(path)
        assert (_is_hot(cold), _is_hot(hot)) == (False, True)
        own = {"date", "x-request-id", "server-timing"}
        assert {k: v for k, v in hot.headers.items() if k not in own} == {
            k: v for k, v in cold.headers.items() if k not in own
        }
        assert hot.content == cold.content == FILE
        assert hot.headers["x-request-id"] != cold.headers["x-request-id"]
        asked = len(home.content.asked)
        for fields in ({"Range": "bytes=5-9"}, {"Range": "bytes=1290-"}, {"If-None-Match": cold.headers["etag"]}):
            below = client.get(path, headers=fields)
            above = client.get(path, headers={**fields, "Accept": "*/*, x/y;q=0.1"})
            assert len(home.content.asked) > asked, "the second went the long way"
            assert (below.status_code, below.content) == (above.status_code, above.content)
            assert {k: v for k, v in below.headers.items() if k not in own} == {
                k: v for k, v in above.headers.items() if k not in own
            }


def test_an_answer_of_no_known_length_is_hot_with_one(home: _Home) -> None:
    """A CAR is sent as it is made; what came of it is kept, and the next client is told how long it is."""
    with home.serving() as live, httpx.Client(base_url=live.url) as client:
        path = f"/ipfs/{home.cid}?format=car"
        cold, hot = client.get(path), client.get(path)
        assert (_is_hot(cold), _is_hot(hot)) == (False, True)
        assert (hot.content, hot.headers["etag"]) == (cold.content, cold.headers["etag"])
        assert hot.headers["content-length"] == str(len(cold.content))
        long = home.content.add_file(os.urandom(SMALL_BODY_BYTES + 1)).cid
        for _ in range(3):
            assert not _is_hot(client.get(f"/ipfs/{long}?format=car")), "too long to be gathered"
        desk_hot = live.server.config.app.desk.hot  # type: ignore[union-attr]
        wait_until(lambda: desk_hot.gathered == 0, "what was gathered is let go")


@pytest.mark.parametrize(
    "fields",
    [
        ("Accept: application/json",),
        ("Range: bytes=0-1,3-4",),
        ("Range: bytes=0-1", "If-Range: x"),
        ("If-None-Match: *",),
        ("Cache-Control: only-if-cached",),
        ("X-Request-Id: mine",),
        ("X-Forwarded-Host: other.example",),
        ("ACCEPT : text/html",),
        ("Host: y",),
    ],
)
def test_what_means_something_goes_the_long_way(home: _Home, fields: tuple[str, ...]) -> None:
    """A request that says anything which may change the answer is never given the hot one."""
    with home.serving() as live:
        live.get(f"/ipfs/{home.cid}")
        live.get(f"/ipfs/{home.cid}")
        hot = live.server.config.app.desk.hot  # type: ignore[union-attr]
        before = hot.hits
        _raw(live, f"/ipfs/{home.cid}", *fields)
        assert hot.hits == before


def test_a_change_makes_hot_answers_cold(home: _Home) -> None:
    """When the catalog moves on or a cache is purged, what was hot is asked for again."""
    with home.serving() as live:
        live.get(f"/ipfs/{home.cid}")
        assert _is_hot(live.get(f"/ipfs/{home.cid}"))
        home.content.blocks.clear()
        assert live.get(f"/ipfs/{home.cid}").status_code == 200
        home.token += 1
        live.server.reload()
        wait_until(lambda: live.get(f"/ipfs/{home.cid}").status_code == 404, "it is gone")


# -- denylists --------------------------------------------------------------------------------------------------


def test_a_blocked_path_is_gone_at_once_and_fetches_nothing(home: _Home) -> None:
    """A rule that comes while the answer is hot holds within a second, on every way, and no block is asked for."""
    with home.serving() as live:
        path = f"/ipfs/{home.cid}"
        live.get(path)
        assert _is_hot(live.get(path))
        (home.lists / "own.deny").write_text(f"/ipfs/{home.cid} gateway_status:451\n")
        wait_until(lambda: live.get(path).status_code == 451, "it is blocked")
        asked = len(home.content.asked)
        told = live.get(path, Accept="application/json").json()
        assert (told["error"], "blocked" in told["detail"]) == ("blocked", True)
        for way in (f"{path}?format=raw", f"/ipfs/{home.cid.to_v1()}?download=true", f"{path}?filename=x"):
            assert live.get(way).status_code == 451
        assert live.request("HEAD", path).status_code == 451
        assert live.get(path).headers["cache-control"] == "no-store"
        assert len(home.content.asked) == asked


def test_a_blocked_block_is_not_served_by_another_way(home: _Home) -> None:
    """A file that is blocked by its CID is not reached through a folder, by its own or a double hash."""
    tree = home.content.add_tree({"bad": FILE, "good": b"fine", "site": {"index.html": FILE}})
    double = hashlib.sha256(f"{home.cid.to_v1()}/".encode()).hexdigest()
    for rule in (f"/ipfs/{home.cid}\n", f"//{double}\n"):
        (home.lists / "own.deny").write_text(rule)
        with home.serving() as live:
            assert live.get(f"/ipfs/{tree.cid}/bad").status_code == 410
            assert live.get(f"/ipfs/{tree.cid}/site/").status_code == 410
            assert live.get(f"/ipfs/{tree.cid}/good").content == b"fine"
            assert home.cid not in home.content.asked


def test_an_exception_opens_one_path(home: _Home) -> None:
    """Below a blocked root an allowed path is served, its neighbours are not."""
    tree = home.content.add_tree({"ok.txt": b"fine", "bad.txt": b"not"})
    (home.lists / "own.deny").write_text(f"/ipfs/{tree.cid}/*\n!/ipfs/{tree.cid}/ok.txt\n")
    with home.serving() as live:
        assert live.get(f"/ipfs/{tree.cid}/ok.txt").content == b"fine"
        assert live.get(f"/ipfs/{tree.cid}/bad.txt").status_code == 410
        assert live.get(f"/ipfs/{tree.cid}/").status_code == 410


# -- leave to serve ---------------------------------------------------------------------------------------------


def test_leave_is_asked_before_anything_is_fetched(home: _Home) -> None:
    """The service sees who asks for what; what it refuses fetches nothing, and no answer of it is no leave."""
    seen: list[dict[str, str]] = []
    verdict = [204]

    def answer(request: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return verdict[0], b""

    with _service(answer) as url:
        home.rules.write_text(f'[authorization]\nurl = "{url}/check"\n')
        with home.serving() as live:
            path = f"/ipfs/{home.cid}"
            for _ in range(3):
                assert live.get(path, Authorization="Bearer fst_1_secret").status_code == 200
            assert len(seen) == 3, "nothing is hot where leave is asked"
            assert seen[0]["authorization"] == "Bearer fst_1_secret"
            assert (seen[0]["x-forwarded-uri"], seen[0]["x-forwarded-method"]) == (path, "GET")
            asked = len(home.content.asked)
            for verdict[0], status in ((401, 401), (403, 403), (404, 404), (500, 503), (302, 503)):
                assert live.get(path).status_code == status
            assert len(home.content.asked) == asked
    with home.serving() as live:
        assert live.get(path).status_code == 503, "the service is gone"


# -- foreign content --------------------------------------------------------------------------------------------


def test_foreign_content_is_fetched_only_where_allowed_and_verified(home: _Home) -> None:
    """A root that the operator names is fetched block by block from another gateway; lies and other roots are not."""
    elsewhere = MemoryContent()
    data = bytes(range(256)) * 8000
    wanted, other = elsewhere.add_file(data).cid, elsewhere.add_file(b"other").cid
    lies: set[bytes] = set()
    traces: set[str | None] = set()

    def answer(request: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        traces.add(request.headers["Traceparent"])
        cid = CID.parse(request.path.removeprefix("/ipfs/").removesuffix("?format=raw"))
        block = elsewhere.blocks.get(cid.multihash)
        if block is None:
            return 404, b""
        return 200, block[:-1] + b"!" if cid.multihash in lies else block

    with _service(answer) as url:
        home.rules.write_text(f'[foreign]\ngateways = ["{url}"]\nroots = ["{wanted}"]\n')
        with home.serving() as live:
            assert live.get(f"/ipfs/{wanted}", Cache_Control="only-if-cached").status_code == 412
            assert live.get(f"/ipfs/{other}").status_code == 404
            assert live.get(f"/ipfs/{home.cid}").content == FILE
            lies.add(wanted.multihash)
            trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            refused = live.get(f"/ipfs/{wanted}", Traceparent=trace)
            assert refused.status_code == 503
            assert "gave other bytes" in refused.text
            lies.clear()
            assert live.get(f"/ipfs/{wanted}", Traceparent="broken").content == data
            assert traces == {trace, None}, "what is no trace is not passed on"


# -- limits, ids, log -------------------------------------------------------------------------------------------


def test_rates_are_counted_and_can_be_changed(home: _Home) -> None:
    """A client over its rate gets 429 and when to come again; without the limit it is served at once."""
    home.rules.write_text("[limits]\nclient_rate = 0.001\nclient_burst = 2\n")
    with home.serving() as live:
        path = f"/ipfs/{home.cid}"
        statuses = [live.get(path).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert int(live.get(path).headers["retry-after"]) > 100
        assert live.get("/-/health").status_code == 200
        assert live.get(path, X_Forwarded_For="192.0.2.7").status_code == 200, "another client, behind a trusted proxy"
        home.rules.write_text("")
        wait_until(lambda: live.get(path).status_code == 200, "the limit is lifted")


def test_a_bad_change_is_told_and_does_not_hold(home: _Home) -> None:
    """Rules that cannot be read leave those before them in force."""
    home.rules.write_text("[limits]\nclient_rate = 0.001\nclient_burst = 1\n")
    with home.serving() as live:
        assert live.get(f"/ipfs/{home.cid}").status_code == 200
        home.rules.write_text("[limits]\nclient_rate = 'much'\n")
        desk = live.server.config.app.desk  # type: ignore[union-attr]
        wait_until(lambda: desk._rules_stamp[1] == home.rules.stat().st_size, "the file was looked at")
        assert live.get(f"/ipfs/{home.cid}").status_code == 429


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limit]\n", "limit"),
        ("[limits]\nrequests = 0\n", "limits.requests"),
        ("[proxies]\ntrusted = ['nonsense']\n", "nonsense"),
        ("[authorization]\nurl = 'http://user:pass@x'\n", "password"),
        ("[foreign]\nroots = ['x']\n", "foreign.roots"),
        ("[log]\naccess = 1\n", "log.access"),
        ("x =", "TOML"),
    ],
)
def test_wrong_rules_name_the_key(tmp_path: Path, text: str, told: str) -> None:
    """Each fault in the file is told with the key that it is in."""
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(Exception, match=told):
        load_rules(str(path))


def test_ids_are_taken_over_only_if_sane(home: _Home) -> None:
    """An id that a proxy gave goes through to error and answer; one that could break a log line does not."""
    with home.serving() as live:
        answer = live.get("/ipfs/nonsense", X_Request_Id="trace-1:2", Accept="application/json")
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == "trace-1:2"
        assert live.get("/", X_Request_Id='a"b').headers["x-request-id"] != 'a"b'
        assert len(live.get("/", X_Request_Id="x" * 500).headers["x-request-id"]) == 16


def test_the_log_has_a_line_for_each_request_and_no_secret(home: _Home, capfd: pytest.CaptureFixture[str]) -> None:
    """Hot, cold and refused requests are logged as JSON; tokens and signatures are masked."""
    with home.serving(access_log=True) as live:
        path = f"/ipfs/{home.cid}"
        for target in (path, path, f"{path}?exp=99&sig=SECRET&filename=a.txt", f"{path}?token=fst_1_SECRET"):
            live.get(target)
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        live.get("/ipfs/nonsense", traceparent=trace)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines] == [200, 200, 200, 200, 400]
    assert [line["bytes"] for line in lines[:4]] == [len(FILE)] * 4
    assert "SECRET" not in json.dumps(lines)
    assert "filename=a.txt" in lines[2]["path"]
    assert lines[4]["trace"] == trace
    assert trace_parent("00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None
    assert masked("/x?a=1&Signature=abc") == "/x?a=1&Signature=***"


def test_answers_are_counted_under_bounded_labels(home: _Home) -> None:
    """Statuses, kinds and durations are counted; no label comes from a client."""
    with home.serving() as live:
        path = f"/ipfs/{home.cid}"
        for target in (path, path, f"{path}?format=raw", "/ipfs/nonsense", "/whatever/x"):
            live.get(target)
        numbers = live.server.config.app.desk.numbers  # type: ignore[union-attr]
        hot = ("fungistor_gateway_hot_answers_total", ())
        wait_until(lambda: numbers.counters.get(hot, 0) == 1, "hot answers are counted every second")
        counted = {(name, labels): value for (name, labels), value in numbers.counters.items()}
        assert counted["ipfs_http_gw_responses_total", (("code", "200"),)] == 3
        assert counted["ipfs_http_gw_request_types_total", (("gateway", "ipfs"), ("type", "raw_block_get"))] == 1
        assert ("ipfs_http_gw_raw_block_get_duration_seconds", (("gateway", "ipfs"),)) in numbers.histograms


def test_an_answer_that_was_under_way_does_not_cool_a_hot_one() -> None:
    """Of clients that ask at once for a long body one is gathered; whoever begins to be answered later leaves it."""
    hot, body = HotAnswers(8 * SMALL_BODY_BYTES), os.urandom(SMALL_BODY_BYTES + 1)
    fields = [(b"cache-control", IMMUTABLE.encode()), (b"etag", b'"x"'), (b"content-length", b"%d" % len(body))]
    host, target = b"x", b"/ipfs/long"
    for _ in range(3):  # asked for, asked for again and gathered, and one that was slow to begin
        gathering = Gathering(hot, host, target)
        gathering.start(200, list(fields))
        gathering.add(body)
        gathering.end()
    ready = hot.ready(b"GET /ipfs/long HTTP/1.1\r\nHost: x\r\n\r\n", b"now")
    assert ready is not None
    assert ready.body == body
