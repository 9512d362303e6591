"""Who reads: public objects are anybody's by CID, private ones their tenant's."""

from __future__ import annotations

from fungistor.catalog.record import Record
from fungistor.ids import TenantNumber


class Reader:
    """One request or command that reads, for some tenants; for none it is anybody.

    `met_private` becomes true when it is given a private object, so that nobody else is given what was made for it.
    """

    __slots__ = ("met_private", "tenants")

    def __init__(self, *tenants: TenantNumber) -> None:
        self.tenants = frozenset(tenants)
        self.met_private = False

    def may_read(self, record: Record) -> bool:
        """Whether an object is this reader's to read. Asked before anything of it is fetched or opened."""
        return not record.private or record.tenant in self.tenants

    def given(self, record: Record) -> None:
        """Note that an object was given."""
        self.met_private |= record.private


def nobody() -> Reader:
    """A reader of public objects alone."""
    return Reader()
