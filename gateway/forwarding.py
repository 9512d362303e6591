"""What a proxy in front says of the request, believed only from proxies that the operator trusts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from fungistor.errors import InvalidError
from gateway.requests import Request

_SCHEMES = ("http", "https")


class TrustedProxies:
    """Networks whose `X-Forwarded-Host` and `X-Forwarded-Proto` count."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises: InvalidError for what is no network."""
        self._networks = []
        for text in networks:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError as error:
                raise InvalidError(f"{text!r} is no network of addresses", hint="write 10.0.0.0/8") from error

    def trusts(self, client: str) -> bool:
        """Tell whether what this client says of others counts. One without an address came over a local socket."""
        if not client:
            return True
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def host_and_scheme(self, request: Request, scheme: str) -> tuple[str, str]:
        """Return the Host and scheme that the client itself used, as far as it can be known."""
        host = request.header("host") or ""
        if self.trusts(request.client):
            # Several proxies add one each; the first is the nearest to the client.
            host = _first(request.header("x-forwarded-host")) or host
            said = _first(request.header("x-forwarded-proto")).lower()
            scheme = said if said in _SCHEMES else scheme
        return host, scheme


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
