"""Content paths: from the raw request target to names, each decoded once, and back.

The decoded path of the framework is never used: it cannot tell ``%2F`` inside a name from a separator, and decodes
``%25`` once too often for whoever decodes again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from fungistor.errors import InvalidError

NAMESPACES = ("ipfs", "ipns")

_SAFE = "$&+,:;=@"
"""Bare in a path beside the unreserved ones, exactly as Go's net/url leaves them: other gateways redirect alike."""

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE_FORM = re.compile(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


@dataclass(frozen=True, slots=True)
class ContentPath:
    """``/namespace/root/segment...``; `segments` are the names' bytes."""

    namespace: str
    root: str
    segments: tuple[bytes, ...]
    is_slashed: bool

    @property
    def text(self) -> str:
        """The path in its one percent-encoding, with the trailing slash it was asked with."""
        return join(self.namespace, self.root, self.segments) + ("/" if self.is_slashed else "")

    @property
    def last_name(self) -> str | None:
        """The last name for a person, None at the root."""
        return display(self.segments[-1]) if self.segments else None


def encode_segment(name: bytes) -> str:
    """Percent-encode one name with upper-case hex."""
    return quote(name, safe=_SAFE)


def join(namespace: str, root: str, segments: tuple[bytes, ...]) -> str:
    """Build ``/namespace/root/a/b`` without a trailing slash."""
    return "/".join(("", namespace, quote(root, safe=_SAFE), *(encode_segment(segment) for segment in segments)))


def display(name: bytes) -> str:
    """Text of a name for people; bytes that are not UTF-8 show as U+FFFD."""
    return name.decode("utf-8", "replace")


def origin_form(raw_path: bytes) -> bytes:
    """Strip ``scheme://authority`` from an absolute-form target, which proxies send."""
    return _ABSOLUTE_FORM.sub(b"", raw_path, count=1) or b"/"


def split_names(raw: bytes) -> tuple[tuple[bytes, ...], bool]:
    """Split a raw path into decoded names and whether it ends with a slash.

    Empty segments vanish; ``.`` and ``..`` are resolved as every browser does it, and never above the start.

    Raises:
        InvalidError: an escape is malformed, or ``..`` climbs out.
    """
    broken = _BROKEN_ESCAPE.search(raw)
    if broken is not None:
        raise InvalidError(
            f"malformed percent-escape at byte {broken.start()} of the path", hint="write a literal % as %25"
        )
    names: list[bytes] = []
    parts = raw.split(b"/")
    for part in parts:
        name = unquote_to_bytes(part)
        if name in (b"", b"."):
            continue
        if name != b"..":
            names.append(name)
        elif names:
            names.pop()
        else:
            raise InvalidError("the path climbs above its root")
    return tuple(names), unquote_to_bytes(parts[-1]) in (b"", b".", b"..")


def parse(raw_path: bytes) -> ContentPath:
    """Parse ``/ipfs/CID[/name...]`` or ``/ipns/NAME[/name...]``.

    Raises:
        InvalidError: no root after the namespace, or see `split_names`.
    """
    _, namespace, *rest = raw_path.split(b"/", 3)
    root = unquote_to_bytes(rest[0]) if rest else b""
    below = rest[1] if len(rest) > 1 else b""
    is_dotted = root in (b".", b"..")
    if not root or is_dotted or not root.isascii() or not root.decode("ascii").isprintable() or b"/" in root:
        raise InvalidError(
            "the path names no content", hint=f"ask for /{namespace.decode('ascii', 'replace')}/CID or a path below it"
        )
    segments, is_slashed = split_names(below)
    return ContentPath(namespace.decode("ascii"), root.decode("ascii"), segments, is_slashed and len(rest) > 1)
