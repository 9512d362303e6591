"""What a request turned out to ask for."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.dag.cid import CID
from gateway import headers
from gateway.names import Lifetime
from gateway.negotiation import Choice
from gateway.paths import ContentPath
from gateway.requests import Request


@dataclass(frozen=True, slots=True)
class Target:
    """The asked path, the CID at its end, and one CID for each step on the way, the root first."""

    path: ContentPath
    cid: CID
    roots: tuple[CID, ...]
    choice: Choice
    lifetime: Lifetime | None = None
    """None: a CID was asked for, and what it names cannot change."""

    def headers(self, etag: str, cache_control: str) -> dict[str, str]:
        """Return the fields of every answer made of this target."""
        fields = {
            "Etag": etag,
            "Cache-Control": self.lifetime.cache_control(cache_control) if self.lifetime else cache_control,
            "X-Ipfs-Path": self.path.text,
            "X-Ipfs-Roots": ",".join(str(root) for root in self.roots),
        }
        if not self.choice.is_from_query:
            fields["Vary"] = "Accept"
        return fields

    def location(self, request: Request, query: str) -> str:
        """Return the URL on the request's Host that says by itself what ``Accept`` said."""
        return f"{request.mount.url_path(self.path.text)}?{query}"


def save_as(request: Request, target: Target, *, kind: str = "inline", filename: str = "") -> dict[str, str]:
    """Return ``Content-Disposition`` where ``?filename=``, ``?download=true`` or the format asks for one.

    `kind` and `filename` are what the format wants by itself; an inline answer without a name needs no field.
    """
    name = request.query.get("filename") or filename
    if request.is_download:
        kind = "attachment"
    if not name and kind == "inline":
        return {}
    return {"Content-Disposition": headers.disposition(kind, name or target.path.last_name or str(target.cid))}
