"""The desk that every request passes on its way in and out: who it is, whether there is room, what came of it.

It stands around the whole application, so that what it promises holds for pages, names and content alike. What it goes
by can be changed while it serves: `refresh` looks whether files have changed, and runs in a thread every second.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from fungistor.errors import FungiStorError
from fungistor.limits import MIB
from fungistor.node.metrics import Numbers
from gateway.backend import Content
from gateway.content import Wanted
from gateway.denylist import guard
from gateway.denylist.files import Denylists
from gateway.endpoint import Exchange, Message, Receive, Scope, Send, send_problem
from gateway.errors import RefusedError
from gateway.forwarding import TrustedProxies
from gateway.gathering import Gathering
from gateway.hot import HotAnswers, Ready, is_plain
from gateway.operations import foreign
from gateway.operations.admission import Admission, Tenants
from gateway.operations.authorization import ForwardAuthorization
from gateway.operations.clients import client_address, client_key
from gateway.operations.identity import masked, request_id, trace_parent, without_signature
from gateway.operations.limits import Limits
from gateway.operations.measures import count_answer, kind_of
from gateway.operations.rules_file import OperatorRules, load_rules
from gateway.requests import Request
from gateway.settings import LOOPBACK, Settings

HOT_BYTES_MAX = 64 * MIB
LOGGED_CHARS_MAX = 2048

App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class DeskFiles:
    """What the desk looks at every second, and tells."""

    rules: str | None = None
    denylist_folders: tuple[str, ...] = ()
    changes: Callable[[], Hashable] = lambda: None
    """A token that differs when what was answered may be answered otherwise now: a purge, a new revision."""
    not_ready: Callable[[], str | None] = lambda: None
    save: Callable[[Numbers], None] = lambda _: None


@dataclass(slots=True)
class _Visit:
    """One request from the desk's side."""

    method: str
    target: str
    raw_target: bytes
    host: str
    client: str
    id: str
    fields: dict[str, str]
    started_s: float
    status: int = 0
    sent_bytes: int = 0
    first_s: float = 0.0
    kind: str = ""
    is_ended: bool = False
    gathering: Gathering | None = None


class Desk:
    """One worker's. Its requests run on the loop's thread; `refresh` in another."""

    def __init__(
        self, settings: Settings | None = None, files: DeskFiles | None = None, tenants: Tenants | None = None
    ) -> None:
        self._admission = None if tenants is None else Admission(tenants)
        self._settings = settings or Settings()
        self._files = files or DeskFiles()
        self.numbers = Numbers()
        self.hot = HotAnswers(HOT_BYTES_MAX)
        self.limits = Limits(self._settings.requests_max)
        self._rules = OperatorRules()
        self._rules_stamp: Hashable = None
        self._denylists = Denylists(self._files.denylist_folders)
        self._change = self._files.changes()
        self._authorization: ForwardAuthorization | None = None
        self.trusted = TrustedProxies(self._settings.trusted_proxies)
        self.on_reload: Callable[[], None] = lambda: None
        """Done on SIGHUP, beside what is looked at anyway. Raises FungiStorError where that cannot be."""
        self.why_not_ready: str | None = None
        self._is_stale = False
        self._refreshing = threading.Lock()
        self._load_rules(is_first=True)
        self._take_up()

    # -- what it goes by ----------------------------------------------------------------------------------------

    def refresh(self, *, reload: bool = False) -> None:
        """Look whether anything has changed. Runs in a thread; `take_up` then lets it hold."""
        with self._refreshing:
            if reload:
                self._reload()
            changed = self._load_rules() | self._denylists.refresh()
            change = self._files.changes()
            if changed or change != self._change or reload:
                self._change = change
                self._is_stale = True
            self.why_not_ready = self._files.not_ready()
            self._files.save(self.numbers)

    def take_up(self) -> None:
        """Let what `refresh` found hold. Runs on the loop's thread."""
        if self._is_stale:
            self._is_stale = False
            self._take_up()
        self.numbers.gauge("ipfs_http_gw_concurrent_requests", self.limits.under_way)
        self.numbers.gauge("fungistor_gateway_hot_bytes", self.hot.bytes)
        self._count_hot()

    def _take_up(self) -> None:
        rules = self._rules
        self.limits.rules = rules
        url = rules.authorization_url
        self._authorization = ForwardAuthorization(url, rules.authorization_timeout_s) if url else None
        self.hot.is_open = self._authorization is None and not self.limits.has_rates
        self.hot.clear()
        self.hot.on_answer = self._log_hot if self._logs else None

    def _reload(self) -> None:
        self._rules_stamp = None
        try:
            self.on_reload()
        except FungiStorError as error:
            log.error("not reloaded: %s", error)

    def _load_rules(self, *, is_first: bool = False) -> bool:
        path = self._files.rules
        if path is None:
            return False
        try:
            status = os.stat(path)
            stamp: Hashable = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            stamp = "none"
        if stamp == self._rules_stamp:
            return False
        self._rules_stamp = stamp
        try:
            self._rules = load_rules(path)
        except FungiStorError as error:
            if is_first:
                raise
            log.error("%s; the rules before it go on", error)
            return False
        folders = (*self._files.denylist_folders, *self._rules.denylist_folders)
        self._denylists.look_in(folders)
        proxies = tuple(str(network) for network in self._rules.trusted_proxies) or LOOPBACK
        self.trusted = TrustedProxies(proxies if self._rules.trusted_proxies else self._settings.trusted_proxies)
        return True

    # -- requests -----------------------------------------------------------------------------------------------

    async def serve(self, scope: Scope, receive: Receive, send: Send, app: App) -> None:
        """Let a request in, or say why not; whatever comes of it is counted."""
        visit = self._visit(scope)
        scope["fungistor.request_id"] = visit.id
        scope["fungistor.client"] = visit.client
        key = client_key(visit.client)
        relay = self._relay(visit, send)
        refusal = None if visit.raw_target.startswith(b"/-/") else self.limits.enter(key, visit.host, visit.started_s)
        try:
            if refusal is not None:
                self.numbers.count("fungistor_gateway_refused_total", reason="limit")
                exchange = Exchange(Request.from_scope(scope), scope, receive, relay)
                headers = {"Retry-After": str(refusal.retry_after_s)}
                await send_problem(exchange, RefusedError(429, refusal.why, headers=headers))
            else:
                await app(scope, receive, relay)
        finally:
            if refusal is None and not visit.raw_target.startswith(b"/-/"):
                self.limits.leave(key, visit.host)
            self._ended(visit)

    async def gate(self, request: Request, wanted: Wanted) -> None:
        """Let a content path through, before anything is fetched for it, and note for whom.

        Raises: RefusedError.
        """
        path = wanted.path
        guard.check_path(self._denylists.rules, path)
        request.forms = self._rules.forms
        foreign.own_only.set(request.is_only_if_cached)
        foreign.trace.set(trace_parent(request.headers.get("traceparent")))
        if self._authorization is not None:
            await self._authorization.check(
                method=request.method,
                target=path.text + without_signature(request.suffix),
                client=request.client,
                request_id=request.request_id,
                fields=request.headers,
            )
        if self._admission is not None:
            request.reader = await self._admission.reader(request, path, wanted.choice.format)

    def guarded(self, content: Content) -> Content:
        """Content as it may be served: ours and allowed foreign one, without what lists forbid."""
        with_foreign = foreign.ForeignContent(content, lambda: self._rules)
        return guard.GuardedContent(with_foreign, lambda: self._denylists.rules)

    def _visit(self, scope: Scope) -> _Visit:
        fields: dict[str, str] = {}
        raw_host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                raw_host = value
            key = name.decode("latin-1")
            fields[key] = f"{fields[key]}, {value.decode('latin-1')}" if key in fields else value.decode("latin-1")
        raw_target: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            raw_target += b"?" + scope["query_string"]
        peer = scope.get("client")
        visit = _Visit(
            method=scope["method"],
            target=raw_target.decode("latin-1"),
            raw_target=raw_target,
            host=raw_host.decode("latin-1").lower(),
            client=client_address(peer[0] if peer else "", fields.get("x-forwarded-for"), self.trusted),
            id=request_id(fields.get("x-request-id")),
            fields=fields,
            started_s=time.monotonic(),
        )
        if visit.method == "GET" and self.hot.is_open and is_plain(scope["headers"]):
            visit.gathering = Gathering(self.hot, raw_host, raw_target)
        return visit

    def _relay(self, visit: _Visit, send: Send) -> Send:
        gathering = visit.gathering

        async def relay(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._started(visit, message)
                if gathering is not None:
                    gathering.start(message["status"], message["headers"])
            elif message["type"] == "http.response.body":
                body = message.get("body", b"")
                visit.sent_bytes += len(body)
                visit.is_ended = not message.get("more_body", False)
                if gathering is not None:
                    gathering.add(body)
            await send(message)
            if visit.is_ended and gathering is not None:
                gathering.end()

        return relay

    def _started(self, visit: _Visit, message: Message) -> None:
        visit.status = message["status"]
        visit.first_s = time.monotonic() - visit.started_s
        fields = dict(message["headers"])
        visit.kind = kind_of(
            fields.get(b"content-type", b"").decode("latin-1"), fields.get(b"etag", b"").decode("latin-1")
        )

    def _ended(self, visit: _Visit) -> None:
        if visit.gathering is not None:
            visit.gathering.close()
        namespace = next((name for name in ("ipfs", "ipns") if visit.target.startswith(f"/{name}/")), "")
        count_answer(
            self.numbers,
            namespace=namespace,
            status=visit.status,
            kind=visit.kind,
            seconds=time.monotonic() - visit.started_s,
            sent_bytes=visit.sent_bytes,
            broken=visit.status != 0 and not visit.is_ended,
        )
        if self._logs:
            self._log(visit)

    # -- hot answers and the log --------------------------------------------------------------------------------

    @property
    def _logs(self) -> bool:
        said = self._rules.access_log
        return self._settings.access_log if said is None else said

    def _count_hot(self) -> None:
        hot = self.hot
        for status, count in hot.statuses.items():
            self.numbers.count("ipfs_http_gw_responses_total", count, code=str(status))
            self.numbers.count("fungistor_gateway_hot_answers_total", count)
        self.numbers.count("fungistor_gateway_sent_bytes_total", hot.sent_bytes)
        hot.statuses.clear()
        hot.sent_bytes = 0

    def _log_hot(self, ready: Ready, client: str) -> None:
        now, text, said_id = time.monotonic(), ready.target.decode("latin-1"), self.hot.id_of(ready)
        visit = _Visit(
            "GET", text, ready.target, "", client, said_id, {}, now, ready.status, len(ready.body), kind="hot"
        )
        self._log(visit)

    def _log(self, visit: _Visit) -> None:
        line: dict[str, object] = {
            "time": round(time.time(), 3),
            "request_id": visit.id,
            "client": visit.client,
            "method": visit.method,
            "host": visit.host[:256],
            "path": masked(visit.target)[:LOGGED_CHARS_MAX],
            "status": visit.status,
            "bytes": visit.sent_bytes,
            "seconds": round(time.monotonic() - visit.started_s, 6),
            "first_byte_s": round(visit.first_s, 6),
            "ended": visit.is_ended or visit.kind == "hot",
            "agent": visit.fields.get("user-agent", "")[:256],
        }
        trace = trace_parent(visit.fields.get("traceparent"))
        if trace is not None:
            line["trace"] = trace
        sys.stderr.write(json.dumps(line) + "\n")
