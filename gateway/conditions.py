"""Conditional requests (RFC 9110, section 13): entity tags, dates, and If-Range."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

_ETAG = re.compile(r'\s*((?:W/)?"[^"\x00-\x20\x7f]*")\s*(?:,|$)')


def matches_none(if_none_match: str, etag: str) -> bool:
    """Compare weakly: True when the client already has this body. A malformed list matches up to its fault."""
    if if_none_match.strip() == "*":
        return True
    position = 0
    ours = etag.removeprefix("W/")
    while (found := _ETAG.match(if_none_match, position)) is not None:
        if found.group(1).removeprefix("W/") == ours:
            return True
        position = found.end()
    return False


def is_unmodified_since(if_modified_since: str, modified_s: int) -> bool:
    """Tell whether content changed at `modified_s` (Unix seconds) is what the client saw at its date."""
    since = _unix_seconds(if_modified_since)
    return since is not None and modified_s <= since


def holds_if_range(if_range: str, etag: str, modified_s: int | None) -> bool:
    """Tell whether a Range still applies: only for the very same entity, compared strongly."""
    condition = if_range.strip()
    if condition.startswith('"'):
        return condition == etag
    return not condition.startswith("W/") and modified_s is not None and _unix_seconds(condition) == modified_s


def http_date(unix_s: int) -> str | None:
    """Format Unix seconds as an HTTP date; None for years that it cannot tell."""
    try:
        return format_datetime(datetime.fromtimestamp(unix_s, UTC), usegmt=True)
    except (ValueError, OverflowError, OSError):
        return None


def _unix_seconds(text: str) -> int | None:
    try:
        when = parsedate_to_datetime(text.strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return int(when.timestamp())
