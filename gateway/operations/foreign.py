"""Content that this network does not hold, fetched block by block from other trustless gateways. Off unless allowed.

Nothing of it is believed: every block is hashed before it is used, so the others can withhold but not lie. Only roots
that the operator names are fetched, or any if the operator says so, and within a budget of bytes and time.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

from fungistor import trail
from fungistor.cache.memory import MemoryCache
from fungistor.dag.cid import CID, verify
from fungistor.dag.source import BlockSource
from fungistor.errors import CorruptError, NotFoundError, UnavailableError
from fungistor.limits import BLOCK_BYTES_MAX, MIB
from fungistor.objects.access import Reader
from gateway.backend import Content
from gateway.operations.rules_file import OperatorRules

KEPT_BYTES = 32 * MIB
RAW = "application/vnd.ipld.raw"
_ABSENT = (404, 410, 412, 451)

own_only: ContextVar[bool] = ContextVar("gateway_own_only", default=False)
"""Set for requests that want what is held here or nothing."""

trace: ContextVar[str | None] = ContextVar("gateway_trace", default=None)
"""The W3C trace context of the request under way, which other gateways are told."""

log = logging.getLogger("gateway.foreign")


class ForeignContent:
    """Our own content first; for what is not there, other gateways."""

    def __init__(self, content: Content, rules: Callable[[], OperatorRules]) -> None:
        self._content = content
        self._rules = rules
        self._kept = MemoryCache(KEPT_BYTES)

    @contextmanager
    def open(self, root: CID, reader: Reader | None = None) -> Iterator[BlockSource]:
        """Open the blocks below `root`, ours or foreign. Raises as the content behind it."""
        rules = self._rules()
        try:
            opened = self._content.open(root, reader)
            source = opened.__enter__()
        except NotFoundError:
            if (
                own_only.get()
                or not rules.foreign_gateways
                or not (rules.foreign_any_root or root.multihash in rules.foreign_roots)
            ):
                raise
        else:
            try:
                yield source
            finally:
                opened.__exit__(None, None, None)
            return
        foreign = _ForeignSource(rules, self._kept)
        try:
            yield foreign
        finally:
            foreign.close()

    def hides(self, root: CID, reader: Reader | None = None) -> bool:
        """Only what is ours can be private."""
        return self._content.hides(root, reader)


class _ForeignSource:
    """Blocks of one request. One thread at a time."""

    def __init__(self, rules: OperatorRules, kept: MemoryCache) -> None:
        self._rules = rules
        self._kept = kept
        self._left = rules.foreign_bytes
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._lock = threading.Lock()

    def get(self, cid: CID) -> bytes:
        """A verified block.

        Raises:
            NotFoundError: every gateway says that it is not there.
            UnavailableError: one of them cannot tell, or the budget is used up.
        """
        known = self._kept.get(cid.multihash)
        if known is not None:
            return known
        with self._lock, trail.phase("foreign"):
            block = self._fetch(cid)
        self._kept.put(cid.multihash, block)
        return block

    def hint(self, cids: Sequence[CID]) -> None:
        """Nothing is fetched ahead: others' gateways are not ours to load."""

    def close(self) -> None:
        """Close connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _fetch(self, cid: CID) -> bytes:
        if self._left <= 0:
            raise UnavailableError("this request's budget for content of other gateways is used up", retry_after_s=60)
        reasons: dict[str, str] = {}
        for gateway in self._rules.foreign_gateways:
            try:
                status, block = self._ask(gateway, cid)
                if status == 200:
                    verify(cid, block)
                    self._left -= len(block)
                    return block
                reasons[gateway] = "absent" if status in _ABSENT else f"status {status}"
            except CorruptError:
                reasons[gateway] = "gave other bytes"
                log.warning("%s gave bytes that do not match %s", gateway, cid)
            except (OSError, http.client.HTTPException) as error:
                reasons[gateway] = str(error)[:100] or type(error).__name__
            trail.trouble(gateway, reasons[gateway])
        why = "; ".join(f"{gateway}: {reason}" for gateway, reason in reasons.items())
        if all(reason == "absent" for reason in reasons.values()):
            raise NotFoundError(f"{cid} is neither here nor with the gateways asked ({why})")
        raise UnavailableError(f"{cid} is not here, and other gateways do not give it now ({why})", retry_after_s=10)

    def _ask(self, gateway: str, cid: CID) -> tuple[int, bytes]:
        try:
            connection = self._connections.pop(gateway, None) or _connect(gateway, self._rules.foreign_timeout_s)
            base = urlsplit(gateway).path.rstrip("/")
            connection.request("GET", f"{base}/ipfs/{cid}?format=raw", headers=_fields())
            answer = connection.getresponse()
            block = answer.read(BLOCK_BYTES_MAX + 1)
        except BaseException:
            self._connections.pop(gateway, None)
            raise
        if answer.isclosed() and not answer.will_close:
            self._connections[gateway] = connection
        else:
            connection.close()
        return answer.status, block


def _fields() -> dict[str, str]:
    told = trace.get()
    return {"Accept": RAW} if told is None else {"Accept": RAW, "Traceparent": told}


def _connect(gateway: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(gateway)
    assert parts.hostname is not None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=timeout_s)
