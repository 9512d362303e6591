"""DNSLink: a domain name's TXT record ``dnslink=/ipfs/CID`` says what it means.

`find` knows what to ask and what to make of answers; who asks is a `TxtLookup`: DNS (`dns_client`), or a fixed map.
Specification: https://dnslink.dev and the gateways' own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fungistor.errors import InvalidError

STATIC_TTL_S = 60.0
"""Of an entry of a fixed map: it holds as long as the process, which nobody downstream can know."""

DOMAIN_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.IGNORECASE
)
PREFIX = "_dnslink."
_MARK = "dnslink="


@dataclass(frozen=True, slots=True)
class TxtAnswer:
    """The texts of a name, none where it has none or does not exist, and how long that may be believed."""

    texts: tuple[str, ...]
    ttl_s: float


class TxtLookup(Protocol):
    """Asks DNS."""

    def lookup(self, name: str) -> TxtAnswer:
        """Return the TXT records of `name`.

        Raises: NameTimeoutError, NameFailedError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Dnslink:
    """What a domain name means: a content path, or nothing."""

    path: str | None
    ttl_s: float


def find(lookup: TxtLookup, name: str) -> Dnslink:
    """Ask for ``_dnslink.NAME``, then for NAME itself. Nothing is an answer too, with a time to live.

    Raises: NameTimeoutError, NameFailedError.
    """
    first = lookup.lookup(PREFIX + name)
    path = choose(first.texts)
    if path is not None:
        return Dnslink(path, first.ttl_s)
    second = lookup.lookup(name)
    path = choose(second.texts)
    # A record may come to stand at either name: the sooner of both ends ends this answer.
    return Dnslink(path, min(first.ttl_s, second.ttl_s))


def choose(texts: Iterable[str]) -> str | None:
    """Return the path that counts: of several, the first in order of the alphabet, as servers shuffle theirs."""
    return min((path for text in texts if (path := path_of(text)) is not None), default=None)


def path_of(text: str) -> str | None:
    """Return the content path of one TXT record, None for one that is about something else."""
    stripped = text.strip()
    if not stripped.startswith(_MARK):
        return None
    path = stripped[len(_MARK) :].strip()
    _, namespace, root = (*path.split("/", 2), "", "", "")[:3]
    return path if path.startswith("/") and namespace in ("ipfs", "ipns") and root.strip("/") else None


def parse_map(text: str) -> dict[str, str]:
    """Read a fixed map as Kubo reads IPFS_NS_MAP: ``name:/ipfs/CID,name:/ipns/NAME``.

    Raises: InvalidError naming the entry.
    """
    entries: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, path = item.partition(":")
        if not name or path_of(_MARK + path) is None:
            raise InvalidError(f"IPFS_NS_MAP: {item[:80]!r} is no name:/ipfs/CID", hint="separate entries by commas")
        entries[normal(name)] = path
    return entries


def normal(name: str) -> str:
    """Write a domain name in its one form: lower case, without the final dot, international letters as punycode."""
    bare = name.strip().rstrip(".").lower()
    if bare.isascii():
        return bare
    try:
        return bare.encode("idna").decode("ascii")
    except UnicodeError:
        return bare


class StaticMap:
    """A fixed map in front of DNS: what it names is never asked for."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._entries = dict(entries)

    def get(self, name: str) -> Dnslink | None:
        """Return the entry of a name."""
        path = self._entries.get(normal(name))
        return None if path is None else Dnslink(path, STATIC_TTL_S)
