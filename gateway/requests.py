"""A request as the formats see it, and the answer they give; neither knows ASGI."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fungistor.objects.access import Reader
from fungistor.trail import Trail
from gateway import paths
from gateway.mounts import PATH_MOUNT, Mount

Buffer = bytes | memoryview

_QUERY_FIELDS_MAX = 64


@dataclass(frozen=True, slots=True)
class Forms:
    """What the operator lets content be beyond what every gateway gives."""

    follow_symlinks: bool = False
    """Symlinks in a path are followed within its root, as a web server would; other gateways give their text."""
    convert: bool = False
    """Documents are turned into each other's codec on request; otherwise 406, since the form has another hash."""


AS_EVERY_GATEWAY = Forms()


@dataclass(slots=True)
class Request:
    """One request. `phase` says what is being done for it, for the error that may end it."""

    method: str
    raw_path: bytes
    query_string: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    request_id: str
    started_s: float
    phase: str = "request"
    forms: Forms = AS_EVERY_GATEWAY
    trail: Trail = field(default_factory=Trail)
    reader: Reader | None = None
    """Whose token or link it came with; None: anybody's."""
    mount: Mount = PATH_MOUNT
    """Where the content path stands: `raw_path` is the whole one even where the Host says a part of it."""

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> Request:
        """Read an ASGI scope. Repeated fields are joined as RFC 9110 says; of a repeated query key the first counts."""
        headers: dict[str, str] = {}
        for name_bytes, value_bytes in scope["headers"]:
            name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        query_string = scope["query_string"].decode("latin-1")
        raw_path = scope.get("raw_path") or paths.encode_segment(scope["path"].encode()).replace("%2F", "/").encode()
        peer = scope.get("client")
        return cls(
            method=scope["method"],
            raw_path=paths.origin_form(raw_path),
            query_string=query_string,
            query=_query(query_string),
            headers=headers,
            client=scope.get("fungistor.client") or (peer[0] if peer else ""),
            request_id=scope.get("fungistor.request_id") or secrets.token_hex(8),
            started_s=time.monotonic(),
        )

    def header(self, name: str) -> str | None:
        """Return a field's value by its lower-case name."""
        return self.headers.get(name)

    @property
    def accept(self) -> str | None:
        return self.headers.get("accept")

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"

    @property
    def is_download(self) -> bool:
        return self.query.get("download", "").lower() == "true"

    @property
    def is_only_if_cached(self) -> bool:
        directives = (part.strip().lower() for part in self.headers.get("cache-control", "").split(","))
        return "only-if-cached" in directives

    @property
    def suffix(self) -> str:
        """``?query`` as it came, for redirects."""
        return f"?{self.query_string}" if self.query_string else ""


def _query(query_string: str) -> dict[str, str]:
    query: dict[str, str] = {}
    if query_string:
        # More fields than this have no meaning here, and refusing them all would be a stranger answer than none.
        limited = "&".join(query_string.split("&")[:_QUERY_FIELDS_MAX])
        for key, value in parse_qsl(limited, keep_blank_values=True, errors="replace"):
            query.setdefault(key, value)
    return query


@dataclass(slots=True)
class Answer:
    """Status, fields and body of an answer.

    `length` is the body's bytes where they are known before it is made; None only for pages made as they are sent.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterator[Buffer] = field(default_factory=lambda: iter(()))
    length: int | None = None
    first_bytes: int = 1

    @classmethod
    def of_bytes(cls, status: int, headers: dict[str, str], body: bytes) -> Answer:
        """Make an answer whose whole body is at hand."""
        return cls(status, headers, iter((body,) if body else ()), len(body))


def redirect(location: str, status: int = 301) -> Answer:
    """Send the client elsewhere; a person without redirects gets the link as text."""
    body = f"moved to {location}\n".encode()
    return Answer.of_bytes(status, {"Location": location, "Content-Type": "text/plain; charset=utf-8"}, body)
