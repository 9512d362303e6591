"""Where content stands under its Host: what of a content path the URL says, and what the Host says already."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from html import escape


class Standing(Enum):
    """How a Host gives content; the value is its name for people."""

    PATH = "path gateway"
    SUBDOMAIN = "subdomain of a gateway"
    DNSLINK = "DNSLink website"


@dataclass(frozen=True, slots=True)
class Mount:
    """Turns content paths into URLs of one Host."""

    standing: Standing = Standing.PATH
    prefix: str = ""
    """``/ipfs/CID`` or ``/ipns/NAME`` where the Host says it, so that no URL of this Host repeats it."""
    host: str = ""
    """The authority as the client wrote it, with its port."""
    gateway: str = ""
    """Of a subdomain: the authority of the gateway above it, on which any CID can be asked for by path."""
    is_trustless: bool = False
    """Nothing is deserialized: blocks, CARs and IPNS records only."""

    @property
    def is_isolated(self) -> bool:
        """True if this root has an origin of its own: only there may the publisher's `_redirects` decide."""
        return self.standing is not Standing.PATH

    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """Header fields of every answer: browsers should isolate the origin in a process of its own, too."""
        return _ISOLATED if self.is_isolated else ()

    def url_path(self, content_path: str) -> str:
        """Return the path of a URL on this Host that gives `content_path`, both percent-encoded."""
        return content_path.removeprefix(self.prefix) or "/"

    def crumb(self, content_path: str) -> str:
        """Return the link of one step of a page's breadcrumb, not escaped."""
        if self.standing is Standing.SUBDOMAIN:
            return f"//{self.gateway}{content_path}"
        if self.standing is Standing.DNSLINK:
            return f"//{self.host}{self.url_path(content_path)}"
        return content_path

    def cid_link(self, cid: str, filename: str) -> str:
        """Return the HTML attribute(s) of a link to an entry by its own CID. `filename` is encoded for a query.

        A DNSLink website has no gateway for other CIDs beside it, so its entries link to a page about the CID.
        """
        if self.standing is Standing.DNSLINK:
            return f'href="https://cid.ipfs.tech/#{cid}" target="_blank" rel="noreferrer noopener"'
        origin = f"//{escape(self.gateway)}" if self.standing is Standing.SUBDOMAIN else ""
        return f'href="{origin}/ipfs/{cid}?filename={filename}"'


_ISOLATED = ((b"origin-agent-cluster", b"?1"),)
PATH_MOUNT = Mount()
