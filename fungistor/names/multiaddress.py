"""Multiaddresses of HTTP endpoints: the form in which IPFS tells where something can be fetched."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from fungistor.errors import InvalidError

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)


def of_url(url: str) -> str:
    """Write `https://HOST[:PORT]` as a multiaddress.

    Raises: InvalidError for anything else, a path included: a gateway is asked for at its top.
    """
    hint = "write https://gateway.example.com"
    try:
        where = urlsplit(url)
        host, port = where.hostname or "", where.port
    except ValueError as error:
        raise InvalidError(f"{url[:80]!r} is no URL: {error}", hint=hint) from error
    if where.scheme not in ("http", "https") or where.path.strip("/") or where.query or where.username:
        raise InvalidError(f"{url[:80]!r} is no URL of a gateway", hint=hint)
    if port is None:
        port = 443 if where.scheme == "https" else 80
    secure = "/tls/http" if where.scheme == "https" else "/http"
    return f"{_of_host(host, url)}/tcp/{port}{secure}"


def _of_host(host: str, url: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise InvalidError(f"{url[:80]!r} names no host", hint="write https://gateway.example.com") from None
        return f"/dns/{host.lower()}"
    return f"/ip{address.version}/{address}"


def protocols(address: str) -> frozenset[str]:
    """Return the names of a multiaddress's protocols, as filters ask for them."""
    return frozenset(address.lower().split("/")[1:])
