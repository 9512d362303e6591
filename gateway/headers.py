"""Header fields that answers have in common."""

from __future__ import annotations

import re
from urllib.parse import quote

IMMUTABLE = "public, max-age=29030400, immutable"
"""48 weeks, as every IPFS gateway tells it: what a CID names cannot change."""

GENERATED = "public, max-age=604800, stale-while-revalidate=2678400"
"""A page made by this gateway: its look may change with the next release."""

NO_STORE = "no-store"

PRIVATE = "private, no-cache"
"""Of what not everybody may read: kept by its reader's browser alone, and asked for again each time, so that a token or
link that has ended ends what it opened."""

_EXPOSED = (
    "Content-Range",
    "Content-Length",
    "Retry-After",
    "Server-Timing",
    "X-Request-Id",
    "X-Ipfs-Path",
    "X-Ipfs-Roots",
    "X-Chunked-Output",
    "X-Stream-Output",
)

CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "Content-Type, Range, User-Agent, X-Requested-With"),
    ("Access-Control-Expose-Headers", ", ".join(_EXPOSED)),
)

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'"
"""For the gateway's own pages: no script, nothing from elsewhere. Publishers' pages are theirs and get none."""

SANDBOX = (
    "sandbox allow-scripts allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-downloads "
    "allow-pointer-lock allow-presentation allow-orientation-lock allow-top-navigation-by-user-activation"
)
"""For publishers' active content where all of it would share one origin: all but that origin."""

_NOT_PRINTABLE_ASCII = re.compile(r'[^\x20-\x7e]|["\\]')


def keep_private(fields: dict[str, str]) -> None:
    """Make an answer its reader's alone: no cache that others share keeps it, and no page tells its URL to others."""
    fields["Cache-Control"] = PRIVATE
    fields["Vary"] = ", ".join(filter(None, (fields.get("Vary"), "Authorization")))
    fields["Referrer-Policy"] = "no-referrer"
    fields.pop("Expires", None)


def disposition(kind: str, filename: str) -> str:
    """Format ``Content-Disposition`` with a name that old and new clients read.

    `kind` is ``inline`` or ``attachment``. Path separators are the saver's to strip, so none is left here.
    """
    name = filename.replace("/", "_")
    ascii_name = _NOT_PRINTABLE_ASCII.sub("_", name)
    return f"{kind}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
