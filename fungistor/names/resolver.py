"""What a name means now: a name may mean another name, and a path below it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fungistor.dag.cid import CID
from fungistor.errors import InvalidError
from fungistor.names.dnslink import DOMAIN_NAME, Dnslink
from fungistor.names.errors import NameFailedError, NameNotFoundError, NameUnknownError
from fungistor.names.key import name_text, parse_key
from fungistor.names.record import Record

DEPTH_MAX = 32
"""Names that mean names, as deep as the other gateways go."""

SEGMENTS_MAX = 512

UNSAID_TTL_S = 60.0
"""Of a record that names no time to live, as the routing specification has it."""


class Records(Protocol):
    """IPNS records by name."""

    def newest(self, name: CID) -> Record | None: ...

    def key_of(self, alias: str) -> CID | None: ...


class Dnslinks(Protocol):
    """DNSLinks by domain name."""

    def peek(self, name: str) -> Dnslink | None: ...

    def get(self, name: str) -> Dnslink: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """The content a name means: a root, a path below it, and for how long."""

    root: CID
    segments: tuple[bytes, ...]
    ttl_s: float


class Resolver:
    """Follows names. It may wait for DNS, so it belongs into a worker thread."""

    def __init__(self, records: Records, dnslinks: Dnslinks, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._dnslinks = dnslinks
        self._clock = clock

    def resolve(self, name: str) -> Resolved:
        """Follow a key or a domain name to content.

        Raises:
            NameNotFoundError: DNS says that it means nothing.
            NameUnknownError: no record of the key is held here.
            NameFailedError, NameTimeoutError: DNS failed, a record has expired, or names go round in circles.
            CorruptError: a record here proves wrong.
        """
        segments: tuple[bytes, ...] = ()
        ttl_s = float("inf")
        asked = name
        for _ in range(DEPTH_MAX):
            path, hop_ttl_s = self._follow(name)
            ttl_s = min(ttl_s, hop_ttl_s)
            _, namespace, root, *below = (*path.split("/"), "", "")[: SEGMENTS_MAX + 3]
            segments = (*(part.encode() for part in below if part), *segments)
            if len(segments) > SEGMENTS_MAX:
                raise NameFailedError(f"{asked} means a path of more than {SEGMENTS_MAX} names")
            if namespace == "ipfs":
                return Resolved(_root(asked, root), segments, ttl_s)
            if namespace != "ipns" or not root:
                raise NameFailedError(f"{name} means {path[:80]!r}, which is no content path")
            name = root
        raise NameFailedError(
            f"{asked} means a name that means a name, more than {DEPTH_MAX} times", hint="they may go round in circles"
        )

    def record(self, name: str) -> Record:
        """Return the valid record of a key.

        Raises: as `resolve`; InvalidError where `name` is no key.
        """
        key = parse_key(name)
        if key is None:
            raise InvalidError(
                f"{name[:80]!r} is no key, and only keys have records", hint="domain names have DNSLinks"
            )
        return self._valid(key)

    def remaining_s(self, record: Record) -> float:
        """Return for how long a record may be cached: its time to live, but not beyond its end."""
        ttl_s = UNSAID_TTL_S if record.ttl_s is None else record.ttl_s
        return max(0.0, min(ttl_s, record.expires_s - self._clock()))

    def key_of_alias(self, name: str) -> CID | None:
        """Return the key that a name of the network's own stands for."""
        if "." in name or parse_key(name) is not None:
            return None
        link = self._dnslinks.peek(name)
        return None if link is not None and link.path is not None else self._records.key_of(name)

    def has_dnslink(self, name: str) -> bool:
        """Tell whether a domain name means anything. Waits for DNS.

        Raises: NameFailedError, NameTimeoutError.
        """
        return self._dnslinks.get(name).path is not None

    def peek_dnslink(self, name: str) -> bool | None:
        """Tell the same without asking anybody; None where it is not known."""
        link = self._dnslinks.peek(name)
        return None if link is None else link.path is not None

    def _follow(self, name: str) -> tuple[str, float]:
        key = parse_key(name)
        if key is not None:
            record = self._valid(key)
            return record.value, self.remaining_s(record)
        alias = self.key_of_alias(name)
        if alias is not None:
            return f"/ipns/{name_text(alias)}", UNSAID_TTL_S
        link = self._dnslinks.peek(name)
        if link is None:
            if "." not in name or not DOMAIN_NAME.fullmatch(name):
                raise InvalidError(f"{name[:80]!r} is neither a key, nor a name published here, nor a domain name")
            link = self._dnslinks.get(name)
        if link.path is None:
            raise NameNotFoundError(f"{name} has no DNSLink", hint=f"its owner can set a TXT record at _dnslink.{name}")
        return link.path, link.ttl_s

    def _valid(self, key: CID) -> Record:
        record = self._records.newest(key)
        if record is None:
            raise unknown_name(key)
        ago_s = self._clock() - record.expires_s
        if ago_s >= 0:
            raise NameFailedError(
                f"the record of {name_text(key)} expired {ago_s:.0f} s ago",
                hint="its owner has to sign a new one",
                retry_after_s=60,
            )
        return record


def unknown_name(key: CID) -> NameUnknownError:
    """The error for a key of which nothing is held here."""
    return NameUnknownError(
        f"no record of the name {name_text(key)} is held here",
        hint="`fungistor name import` takes one in",
        retry_after_s=60,
    )


def _root(asked: str, text: str) -> CID:
    try:
        return CID.parse(text)
    except InvalidError as error:
        raise NameFailedError(f"{asked} means /ipfs/{text[:80]}, which is no CID: {error.message}") from error
