"""Who asks: the address that a request came from, or the one that proxies we trust say it came from."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from gateway.forwarding import TrustedProxies

IPV6_CLIENT_BITS = 64
"""One subscriber has at least so many addresses of IPv6: counting single ones would count nobody."""

HOPS_MAX = 32
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def client_address(peer: str, forwarded_for: str | None, trusted: TrustedProxies) -> str:
    """The client's address. ``X-Forwarded-For`` counts from its end, as far as the hops are proxies that we trust."""
    if forwarded_for is None or not trusted.trusts(peer):
        return peer
    known = peer
    for hop in reversed(forwarded_for.split(",")[-HOPS_MAX:]):
        address = _address(hop)
        if address is None:
            break
        known = str(address)
        if not trusted.trusts(known):
            break
    return known


@lru_cache(maxsize=4096)
def client_key(address: str) -> str:
    """What requests of one client are counted under."""
    parsed = _address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_CLIENT_BITS), strict=False))
    return address
