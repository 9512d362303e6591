"""Hot answers: whole, prebuilt, and sent by the protocol itself before a framework sees the request.

Only what cannot change is kept: an answer of 200 to a plain GET under ``/ipfs/``, or one that calls itself immutable,
of at most BODY_BYTES_MAX; where its length is known only at its end, SMALL_BODY_BYTES. It is found by Host and target,
byte for byte; whatever else a request says but for a few harmless fields sends it the long way. All is forgotten when a
list, a limit or the catalog changes.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fungistor.limits import KIB, MIB
from gateway import headers

BODY_BYTES_MAX = 16 * MIB
SMALL_BODY_BYTES = 1 * MIB
"""A larger body is kept when it is asked for a second time: a pass over many large files must not be copied."""

GATHERED_BYTES_MAX = 32 * MIB
"""Bodies that are being gathered at one time, all requests together."""

ENTRY_BYTES = 4 * KIB
"""What an entry costs beside its body: its head, its key, and the objects around them."""

AGE_S_MAX = 60.0
"""An entry is made anew after this, so that the clients' many identical requests are seen by the rest now and then."""

TARGET_BYTES_MAX = 4 * KIB
HEARD_MAX = 1024
HEARD_BYTES_MAX = 2 * KIB
"""Requests, byte for byte, whose answer is known: a client that repeats itself is not read again. About 3 MiB at most,
then all are forgotten at once."""

USED_S = 1.0
"""An answer counts as used again after this: putting it at the end of the line each time would cost more."""

JOINED_BYTES_MAX = 64 * KIB
"""Head and body up to this are sent as one piece: a copy is cheaper than a second system call."""

_TELLING_NAMES = (
    rb"accept|authorization|cache-control|connection|content-length|cookie2|expect|forwarded|if-[a-z-]+|max-forwards"
    rb"|origin-agent-cluster|pragma|proxy-[a-z-]+|range|service-worker|te|trailer|traceparent|tracestate"
    rb"|transfer-encoding|upgrade|want-digest|x-forwarded-[a-z-]+|x-real-ip|x-request-id"
)
"""Fields that mean something for the answer. All others are the client's own affair."""

_TELLING_NAME = re.compile(_TELLING_NAMES)
_TELLING = re.compile(
    rb"\r\n(?!(?i:accept):[ \t]*\*/\*\r)(?!(?i:connection):[ \t]*(?i:keep-alive)\r)"
    rb"((?i:" + _TELLING_NAMES + rb"))[ \t]*:[ \t]*([^\r]*)\r"
)

_HOST = re.compile(rb"\r\n[Hh][Oo][Ss][Tt]:[ \t]*([^\r \t]*)[ \t]*\r")
_HOST_AGAIN = re.compile(rb"\r\n[Hh][Oo][Ss][Tt][ \t]*:")
_RANGE = re.compile(rb"bytes=(\d{1,15})-(\d{0,15})$")
_ETAG = re.compile(rb'"[^"\x00-\x20]*"$')

RawFields = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class HotAnswer:
    """One prebuilt answer. Heads lack what each answer has of its own: date, request id, and the end of the head."""

    body: bytes | None
    """None: only entity tags can be answered."""
    head: bytes
    part_head: bytes
    """Of 206; empty where the answer takes no ranges."""
    same_head: bytes
    """Of 304."""
    etag: bytes
    made_at: float
    used_at: float
    heard: list[bytes] = field(default_factory=list)
    """The requests that are known to ask for it."""


class Ready(NamedTuple):
    """What to write for one request."""

    status: int
    head: bytes
    body: bytes | memoryview
    target: bytes
    number: int
    """Of the request; `HotAnswers.id_of` makes its id of it."""


class _Heard(NamedTuple):
    """What a request asks for: an answer, and what of it is sent."""

    key: tuple[bytes, bytes]
    answer: HotAnswer
    status: int
    head: bytes
    body: bytes | memoryview


class HotAnswers:
    """A worker's hot answers, bounded in bytes. Used on the loop's thread only."""

    def __init__(self, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_max = bytes_max
        self._clock = clock
        self._answers: OrderedDict[tuple[bytes, bytes], HotAnswer] = OrderedDict()
        self._heard: dict[bytes, _Heard] = {}
        self.bytes = 0
        self.generation = 0
        self.is_open = True
        """False while each request must be looked at: leave to serve is asked, or single requests are counted."""
        self.hits = 0
        self.gathered = 0
        self.statuses: Counter[int] = Counter()
        self.sent_bytes = 0
        """Both since somebody last took them; counted here, where it costs least."""
        self.on_answer: Callable[[Ready, str], None] | None = None
        """Told of every answer, and the client's address, where somebody wants to know."""
        self._id_prefix = secrets.token_hex(4)
        self._id_head = b"\r\nx-request-id: " + self._id_prefix.encode()

    def clear(self) -> None:
        """Forget everything, and what is being made at this moment, too."""
        self._answers.clear()
        self._heard.clear()
        self.bytes = 0
        self.generation += 1

    def wants(self, host: bytes, target: bytes, length: int) -> bool:
        """Tell whether the body of an answer should be gathered and kept."""
        if self.gathered + length > GATHERED_BYTES_MAX:
            return False
        if length <= SMALL_BODY_BYTES:
            return True
        known = self._answers.get((host, target))
        fits = length <= min(BODY_BYTES_MAX, self._bytes_max // 2)
        return fits and known is not None and known.body is None

    def keep(self, host: bytes, target: bytes, fields: RawFields, body: bytes | None, generation: int) -> None:
        """Keep an answer of 200 that was made since `generation`; without its body where that is long."""
        if generation != self.generation or not self.is_open:
            return
        known = self._answers.get((host, target))
        if body is None and known is not None and known.body is not None:
            return  # answered on its way while another gathered the body
        answer = _prebuilt(fields, body, self._clock())
        if answer is None:
            return
        self._drop((host, target))
        self._answers[host, target] = answer
        self.bytes += _cost(answer)
        while self.bytes > self._bytes_max and self._answers:
            self._drop(next(iter(self._answers)))

    def ready(self, data: bytes, date: bytes) -> Ready | None:
        """The answer to the one request that `data` is; None for one to go the long way."""
        heard = self._heard.get(data)
        if heard is None:
            heard = self._hear(data) if self.is_open else None
            if heard is None:
                return None
        key, answer, status, head, body = heard
        now = self._clock()
        if now - answer.used_at > USED_S:
            if now - answer.made_at > AGE_S_MAX:
                self._drop(key)
                return None
            answer.used_at = now
            self._answers.move_to_end(key)
        self.hits = number = self.hits + 1
        self.statuses[status] += 1
        self.sent_bytes += len(body)
        head = b"%sdate: %s%s%08x\r\n\r\n" % (head, date, self._id_head, number)
        return Ready(status, head, body, key[1], number)

    def id_of(self, ready: Ready) -> str:
        """The request's id, as the answer tells it."""
        return f"{self._id_prefix}{ready.number:08x}"

    def _hear(self, data: bytes) -> _Heard | None:
        """Read a request, and remember what it asks for."""
        if not data.startswith(b"GET /") or not data.endswith(b"\r\n\r\n"):
            return None
        end = data.find(b" HTTP/1.1\r\n", 4, TARGET_BYTES_MAX)
        host = _HOST.search(data)
        if end < 0 or host is None:
            return None
        key = (host[1], data[4:end])
        answer = self._answers.get(key)
        if answer is None or data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        if _HOST_AGAIN.search(data, host.end() - 1) is not None:
            return None
        telling = _TELLING.search(data, end)
        if telling is not None:
            chosen = _particular(answer, telling, data)
        else:
            chosen = None if answer.body is None else (200, answer.head, answer.body)
        if chosen is None:
            return None
        heard = _Heard(key, answer, *chosen)
        if len(data) <= HEARD_BYTES_MAX:
            self._remember(data, heard)
        return heard

    def _remember(self, data: bytes, heard: _Heard) -> None:
        if len(self._heard) >= HEARD_MAX:
            self._heard.clear()
            for answer in self._answers.values():
                answer.heard.clear()
        self._heard[data] = heard
        heard.answer.heard.append(data)

    def _drop(self, key: tuple[bytes, bytes]) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self.bytes -= _cost(answer)
            for data in answer.heard:
                self._heard.pop(data, None)


def _particular(
    answer: HotAnswer, telling: re.Match[bytes], data: bytes
) -> tuple[int, bytes, bytes | memoryview] | None:
    """Answer a request with one range, or one entity tag, and nothing else that means something."""
    if _TELLING.search(data, telling.end() - 1) is not None:
        return None
    name, value = telling[1].lower(), telling[2].rstrip()
    if name == b"if-none-match":
        return (304, answer.same_head, b"") if _ETAG.match(value) and value == answer.etag else None
    found = _RANGE.match(value) if name == b"range" and answer.part_head else None
    if found is None or answer.body is None:
        return None
    size = len(answer.body)
    start, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if start >= size or last < start:
        return None
    stop = min(size, last + 1)
    head = b"%scontent-range: bytes %d-%d/%d\r\ncontent-length: %d\r\n" % (
        answer.part_head, start, stop - 1, size, stop - start,
    )  # fmt: skip
    return 206, head, memoryview(answer.body)[start:stop]


def is_plain(raw: RawFields) -> bool:
    """Tell whether a request says nothing that means something: its answer is the one that all such get."""
    return not any(
        _TELLING_NAME.fullmatch(name) and (name, value.strip().lower()) not in _HARMLESS for name, value in raw
    )


_HARMLESS = frozenset(((b"accept", b"*/*"), (b"connection", b"keep-alive")))
_NOT_PREBUILT = frozenset((b"date", b"x-request-id", b"server-timing", b"connection", b"transfer-encoding"))
_OF_THE_BODY = frozenset((b"content-length", b"content-type", b"accept-ranges"))


def is_lasting(target: bytes, fields: dict[bytes, bytes]) -> bool:
    """Tell whether an answer stays right for as long as what it is made from is served."""
    said = fields.get(b"cache-control", b"")
    if b"set-cookie" in fields or b"content-encoding" in fields:
        return False
    return said == headers.IMMUTABLE.encode() or (said == headers.GENERATED.encode() and target.startswith(b"/ipfs/"))


def _cost(answer: HotAnswer) -> int:
    return ENTRY_BYTES + len(answer.body or b"")


def _prebuilt(raw: RawFields, body: bytes | None, now: float) -> HotAnswer | None:
    fields = [(name.lower(), value) for name, value in raw if name.lower() not in _NOT_PREBUILT]
    known = dict(fields)
    if body is not None:
        length = b"%d" % len(body)
        if b"content-length" not in known:
            known[b"content-length"] = length
            fields.append((b"content-length", length))
        if known[b"content-length"] != length:
            return None
    head = b"HTTP/1.1 200 OK\r\n" + _lines(fields, frozenset()) + b"server-timing: cache;desc=hot\r\n"
    part_head = b""
    if known.get(b"accept-ranges") == b"bytes":
        part_head = b"HTTP/1.1 206 Partial Content\r\n" + _lines(fields, frozenset((b"content-length",)))
    same_head = b"HTTP/1.1 304 Not Modified\r\n" + _lines(fields, _OF_THE_BODY)
    return HotAnswer(body, head, part_head, same_head, known.get(b"etag", b""), now, now)


def _lines(fields: RawFields, without: frozenset[bytes]) -> bytes:
    return b"".join(b"%s: %s\r\n" % field for field in fields if field[0] not in without)
