"""The ids that a request goes by, and what of it may stand in a log."""

from __future__ import annotations

import re
import secrets

_SANE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}$")
_TRACE_PARENT = re.compile(r"^[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_SECRET_QUERY = re.compile(
    r"(?i)((?:^|[?&;])(?:[^=&;]*(?:token|secret|passw|signature|api[_-]?key|auth)[^=&;]*|sig|key|exp)=)[^&;]*"
)
_SIGNATURE = re.compile(r"(?<=[?&])sig=[A-Za-z0-9_-]{50}(?=&|$)")
_TOKEN = re.compile(r"fst_[A-Za-z0-9]+_[A-Za-z0-9_-]+")


def request_id(said: str | None) -> str:
    """The id that the client or a proxy gave, if it is sane, else a new one."""
    return said if said is not None and _SANE_ID.match(said) else secrets.token_hex(8)


def trace_parent(said: str | None) -> str | None:
    """The W3C trace context, if it is well formed."""
    return said if said is not None and said[:2] != "ff" and _TRACE_PARENT.match(said) else None


def masked(target: str) -> str:
    """A request target as it may be logged: without what opens doors."""
    return _TOKEN.sub("fst_***", _SECRET_QUERY.sub(r"\1***", target))


def without_signature(suffix: str) -> str:
    """A query as it may be told to another service, which has its own logs: all but a link's signature."""
    return _SIGNATURE.sub("sig=***", suffix)
