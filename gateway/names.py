"""The gateway's port for names that can come to mean something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fungistor.dag.cid import CID
from fungistor.errors import InvalidError
from fungistor.names.errors import NameNotFoundError
from fungistor.names.record import Record
from fungistor.names.resolver import Resolved, unknown_name
from fungistor.objects.access import Reader
from gateway.backend import Content


class Names(Protocol):
    """What IPNS keys and DNSLinks mean now. All but `peek_dnslink` may wait, so they are asked in worker threads."""

    def resolve(self, name: str) -> Resolved:
        """Follow a name to content.

        Raises: NotFoundError, UnavailableError (NameFailedError, NameTimeoutError), CorruptError, InvalidError.
        """
        ...

    def record(self, name: str) -> Record:
        """Return the valid record of a key; raises as `resolve`."""
        ...

    def remaining_s(self, record: Record) -> float:
        """Return for how long a record may be cached."""
        ...

    def key_of_alias(self, name: str) -> CID | None:
        """Return the key that a name of the network's own stands for."""
        ...

    def has_dnslink(self, name: str) -> bool:
        """Tell whether a domain name means anything; raises as `resolve`."""
        ...

    def peek_dnslink(self, name: str) -> bool | None:
        """Tell the same without waiting; None where it is not known."""
        ...


class NoNames:
    """A gateway to content alone: no name means anything."""

    def resolve(self, name: str) -> Resolved:
        """Raise NameNotFoundError."""
        raise NameNotFoundError(f"{name} means nothing here: this gateway serves no names")

    def record(self, name: str) -> Record:
        """Raise NameNotFoundError."""
        raise NameNotFoundError(f"there is no record of {name} here: this gateway serves no names")

    def remaining_s(self, record: Record) -> float:  # noqa: ARG002  # a port's signature
        """Return nothing left."""
        return 0.0

    def key_of_alias(self, name: str) -> CID | None:  # noqa: ARG002
        """Return None."""
        return None

    def has_dnslink(self, name: str) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    def peek_dnslink(self, name: str) -> bool | None:  # noqa: ARG002
        """Return False."""
        return False


def record_for(names: Names, content: Content, name: str, reader: Reader | None) -> Record:
    """Return the valid record of a key. One that says the CID of a private object is none for whom that object is not.

    Raises: as `Names.record`.
    """
    record = names.record(name)
    _, namespace, root, *_ = (*record.value.split("/"), "", "")
    try:
        private = CID.parse(root) if namespace == "ipfs" and content.hides(CID.parse(root)) else None
    except InvalidError:
        private = None
    if private is not None:
        if reader is None or content.hides(private, reader):
            raise unknown_name(record.name)
        reader.met_private = True
    return record


@dataclass(frozen=True, slots=True)
class Lifetime:
    """For how long what a name means may be cached."""

    ttl_s: float

    def cache_control(self, immutable: str) -> str:
        """Return `Cache-Control` in place of what would hold if a CID had been asked for.

        A page that this gateway makes may still be shown while a new one is fetched.
        """
        fields = f"public, max-age={int(self.ttl_s)}"
        _, sep, stale = immutable.partition("stale-while-revalidate=")
        return f"{fields}, stale-while-revalidate={stale}" if sep else fields
