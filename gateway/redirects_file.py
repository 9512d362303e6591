"""The `_redirects` file of a website: its grammar and which rule a path meets. No I/O.

Specification: https://specs.ipfs.tech/http-gateways/web-redirects-file/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode, urlsplit

from fungistor.errors import InvalidError
from gateway import paths

NAME = b"_redirects"
FILE_BYTES_MAX = 64 * 1024
REDIRECTS = frozenset((301, 302, 303, 307, 308))
PAGES = frozenset((404, 410, 451))
REWRITE = 200
DEFAULT_STATUS = 301

_STATUSES = REDIRECTS | PAGES | {REWRITE}
_PLACEHOLDER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_NOT_IN_URL = re.compile(r"[^!-~]|[<>\"\\^`{|}]")
_SPLAT = "splat"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: a pattern of decoded names, where it leads, and with which status."""

    segments: tuple[str, ...]
    has_splat: bool
    to: str
    status: int

    def match(self, names: Sequence[bytes]) -> dict[str, str] | None:
        """Return the placeholders' values, percent-encoded; None where the path is not of this rule."""
        fixed = len(self.segments)
        if len(names) < fixed or (len(names) > fixed and not self.has_splat):
            return None
        values = {}
        for pattern, name in zip(self.segments, names[:fixed], strict=True):
            if pattern.startswith(":"):
                values[pattern[1:]] = paths.encode_segment(name)
            elif unquote_to_bytes(pattern) != name:
                return None
        if self.has_splat:
            values[_SPLAT] = "/".join(paths.encode_segment(name) for name in names[fixed:])
        return values


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the file says about a path. `path` is percent-encoded and starts with ``/``, or is a whole URL."""

    status: int
    path: str
    query: str
    fragment: str

    @property
    def is_elsewhere(self) -> bool:
        return not self.path.startswith("/")

    def location(self, user_query: str) -> str:
        """Return the `Location`: what the user asked with is kept, and wins over the rule's own."""
        query = merge_queries(self.query, user_query)
        return self.path + (f"?{query}" if query else "") + (f"#{self.fragment}" if self.fragment else "")


def parse(text: str) -> tuple[Rule, ...]:
    """Read the file.

    Raises: InvalidError naming the line.
    """
    rules = []
    for number, line in enumerate(re.split(r"\r?\n", text), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rules.append(_rule(words))
        except ValueError as error:
            raise InvalidError(f"line {number}: {error}") from error
    return tuple(rules)


def evaluate(rules: Sequence[Rule], names: Sequence[bytes]) -> Outcome | None:
    """Return what the first rule that meets the path says."""
    for rule in rules:
        values = rule.match(names)
        if values is not None:
            return _expand(rule, values)
    return None


def merge_queries(static: str, user: str) -> str:
    """Join two query strings; of a key that both have, the user's values count."""
    if not static or not user:
        return static or user
    said = parse_qsl(user, keep_blank_values=True)
    keys = {key for key, _ in said}
    kept = [(key, value) for key, value in parse_qsl(static, keep_blank_values=True) if key not in keys]
    return urlencode([*kept, *said])


def _rule(words: Sequence[str]) -> Rule:
    if not 2 <= len(words) <= 3:
        raise ValueError("a rule is FROM TO [STATUS]")
    pattern, to = words[0], words[1]
    if not pattern.startswith("/"):
        raise ValueError(f"{pattern[:60]!r} does not begin with a slash")
    if "?" in pattern or "#" in pattern:
        raise ValueError("a rule's FROM is a path alone")
    segments = [part for part in pattern.split("/") if part]
    has_splat = bool(segments) and segments[-1] == "*"
    if has_splat:
        segments.pop()
    if any("*" in part for part in segments):
        raise ValueError("an asterisk may only stand at the end, after a slash")
    placeholders = [part[1:] for part in segments if part.startswith(":")]
    if len(set(placeholders)) != len(placeholders):
        raise ValueError("the same placeholder stands twice in FROM")
    status = _status(words[2]) if len(words) == 3 else DEFAULT_STATUS
    where = urlsplit(to)
    if not to.startswith("/") and (where.scheme not in ("http", "https") or not where.netloc):
        raise ValueError(f"{to[:60]!r} is neither a path nor a URL")
    if not to.startswith("/") and status not in REDIRECTS:
        raise ValueError(f"status {status} needs a path of this site, not a URL")
    return Rule(tuple(segments), has_splat, to, status)


def _status(word: str) -> int:
    if word.endswith("!"):
        raise ValueError(f"forced redirects ({word[:20]}) are not supported")
    if not word.isascii() or not word.isdigit() or int(word[:9]) not in _STATUSES:
        raise ValueError(f"{word[:20]!r} is no supported status: {', '.join(map(str, sorted(_STATUSES)))}")
    return int(word)


def _expand(rule: Rule, values: Mapping[str, str]) -> Outcome:
    filled = _PLACEHOLDER.sub(lambda found: values.get(found.group(1), found.group()), rule.to)
    safe = _NOT_IN_URL.sub(lambda found: paths.encode_segment(found.group().encode("utf-8", "replace")), filled)
    rest, _, fragment = safe.partition("#")
    path, _, query = rest.partition("?")
    if path.startswith("//"):
        path = "/" + path.lstrip("/")  # else it would name another host
    return Outcome(rule.status, path, query, fragment)
