"""TXT records from DNS: over the system's resolvers, or over HTTPS (RFC 8484). A resolver a zone, as Kubo has it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver

from fungistor.errors import InvalidError
from fungistor.names.dnslink import TxtAnswer, TxtLookup
from fungistor.names.errors import NameFailedError, NameTimeoutError

LOOKUP_S = 5.0
"""For one question with its retries. Two are asked of a name without a DNSLink."""

UNSAID_TTL_S = 30.0
"""Of a nothing whose zone does not say how long it lasts."""

MESSAGE_BYTES_MAX = 65_535
_MEDIA_TYPE = "application/dns-message"
SYSTEM, OFF = "system", "off"


class NoDns:
    """Asks nobody: every name outside the fixed map means nothing."""

    def lookup(self, name: str) -> TxtAnswer:  # noqa: ARG002  # a port's signature
        """Return nothing."""
        return TxtAnswer((), UNSAID_TTL_S)


class SystemDns:
    """The resolvers of /etc/resolv.conf, or those given (`HOST` or `HOST:PORT` by address)."""

    def __init__(self, nameservers: tuple[str, ...] = (), port: int = 53, lookup_s: float = LOOKUP_S) -> None:
        self._nameservers = nameservers
        self._port = port
        self._lookup_s = lookup_s

    def lookup(self, name: str) -> TxtAnswer:
        """Ask over UDP, and over TCP where the answer is long.

        Raises: NameTimeoutError, NameFailedError.
        """
        try:
            resolver = dns.resolver.Resolver(configure=not self._nameservers)
        except dns.resolver.NoResolverConfiguration as error:
            raise NameFailedError(
                f"this machine has no resolver to ask for {name}", hint="see /etc/resolv.conf"
            ) from error
        if self._nameservers:
            resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
        try:
            answer = resolver.resolve(
                _name(name), "TXT", lifetime=self._lookup_s, raise_on_no_answer=False, search=False
            )
        except dns.resolver.NXDOMAIN as error:
            return read(list(error.kwargs["responses"].values())[-1])
        except dns.exception.Timeout as error:
            raise NameTimeoutError(
                f"no resolver said within {self._lookup_s:g} s what {name} is", retry_after_s=10
            ) from error
        except (dns.exception.DNSException, OSError) as error:
            raise NameFailedError(f"the resolvers failed for {name}: {error}", retry_after_s=10) from error
        return read(answer.response)


class DohDns:
    """A resolver behind a URL."""

    def __init__(self, url: str, lookup_s: float = LOOKUP_S) -> None:
        import httpx  # only for those who ask this way: it costs every worker a tenth of a second

        if urlsplit(url).scheme not in ("https", "http"):
            raise InvalidError(f"{url!r} is no URL of a resolver", hint="write https://HOST/dns-query")
        self._url = url
        self._lookup_s = lookup_s
        self._client = httpx.Client(timeout=lookup_s, follow_redirects=False)
        self._failures = (httpx.HTTPError, dns.exception.DNSException, ValueError)
        self._timeout = httpx.TimeoutException

    def lookup(self, name: str) -> TxtAnswer:
        """Ask over HTTPS.

        Raises: NameTimeoutError, NameFailedError.
        """
        query = dns.message.make_query(_name(name), dns.rdatatype.TXT)
        query.id = 0  # so that equal questions are one to HTTP caches
        where = urlsplit(self._url).netloc
        headers = {"Content-Type": _MEDIA_TYPE, "Accept": _MEDIA_TYPE}
        try:
            response = self._client.post(self._url, content=query.to_wire(), headers=headers)
            if response.status_code != 200 or len(response.content) > MESSAGE_BYTES_MAX:
                raise NameFailedError(f"the resolver {where} answered {name} with status {response.status_code}")
            return read(dns.message.from_wire(response.content))
        except self._timeout as error:
            raise NameTimeoutError(
                f"the resolver {where} did not say within {self._lookup_s:g} s what {name} is"
            ) from error
        except self._failures as error:
            raise NameFailedError(f"the resolver {where} failed for {name}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class ZonedDns:
    """A resolver for each zone; the longest zone that a name lies in wins, ``.`` is all others."""

    def __init__(self, zones: Mapping[str, TxtLookup]) -> None:
        self._zones = sorted(((_zone(zone), lookup) for zone, lookup in zones.items()), key=lambda item: -len(item[0]))

    def lookup(self, name: str) -> TxtAnswer:
        """Ask the zone's resolver."""
        whole = f".{name}."
        for zone, lookup in self._zones:
            if whole.endswith(zone):
                return lookup.lookup(name)
        return NoDns().lookup(name)


def make_lookup(zones: Mapping[str, str]) -> TxtLookup:
    """Make the resolvers of a configuration: zone to `system`, `off`, or a DoH URL.

    Raises: InvalidError.
    """
    made: dict[str, TxtLookup] = {}
    for zone, resolver in ({".": SYSTEM} | dict(zones)).items():
        made[zone] = SystemDns() if resolver == SYSTEM else NoDns() if resolver == OFF else DohDns(resolver)
    return ZonedDns(made)


def read(message: dns.message.Message) -> TxtAnswer:
    """Read an answer, along its CNAMEs; that a name does not exist is one, too.

    Raises: NameFailedError where the server said that it failed; dns.exception.DNSException.
    """
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise NameFailedError(f"a resolver answered {dns.rcode.to_text(code)}", retry_after_s=10)
    assert isinstance(message, dns.message.QueryMessage)
    chain = message.resolve_chaining()
    if chain.answer is None:
        says = any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)
        return TxtAnswer((), float(chain.minimum_ttl) if says else UNSAID_TTL_S)
    texts = tuple(b"".join(record.strings).decode("utf-8", "replace") for record in chain.answer)
    return TxtAnswer(texts, float(chain.minimum_ttl))


def _name(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise InvalidError(f"{name[:80]!r} is no domain name: {error}") from error


def _zone(zone: str) -> str:
    bare = zone.strip(".").lower()
    return f".{bare}." if bare else "."
