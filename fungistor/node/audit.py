"""The log as people read it: who did what, when, in the one order that every node applies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fungistor.catalog.authority import words_of
from fungistor.catalog.catalog import Catalog, LoggedCommand
from fungistor.catalog.commands import Publish, kind_of
from fungistor.catalog.issuers import issuer_id
from fungistor.catalog.record import Record
from fungistor.errors import FungiStorError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import NodeKeys, unwrap
from fungistor.keys.store import KeyStore
from fungistor.objects.naming import ObjectName, open_name
from fungistor.objects.results import Json


@dataclass(frozen=True, slots=True)
class LogLine:
    """One command. `who` and `when` are None where nobody signed it; `verdict` where it is no longer known."""

    number: int
    when: int | None
    who: str | None
    issuer: str | None
    kind: str
    verdict: str | None
    reason: str
    revision: int | None
    bytes: int
    cid: str | None
    name: str | None
    session: str
    tenant: int | None = None
    """Whose object, name, quota or token it is about."""

    def to_json(self) -> Json:
        """The keys of `--json`."""
        return {key: getattr(self, key) for key in self.__slots__}


class Audit:
    """Reads a catalog's log. What is named in it is opened where this home has the key."""

    def __init__(self, catalog: Catalog, keys: NodeKeys, table: KeyStore) -> None:
        self._catalog = catalog
        self._keys = keys
        self._table = table

    def lines(self, after: int = 0, tenant: TenantNumber | None = None) -> Iterator[LogLine]:
        """Commands of the entries behind number `after`, in their order, as far as the log still has them; with a
        `tenant` those about it alone."""
        names = {issuer.id: issuer.name for issuer in self._catalog.issuers()}
        if (authority := self._catalog.authority()) is not None:
            names[issuer_id(authority)] = "root key"
        for logged in self._catalog.logged(after):
            line = self._line(logged, names)
            if tenant is None or line.tenant == tenant:
                yield line

    def _line(self, logged: LoggedCommand, names: dict[bytes, str]) -> LogLine:
        command, outcome, issuer = logged.command, logged.outcome, logged.issuer
        record = self._record(logged)
        named = None if record is None else self._named(record)
        return LogLine(
            number=logged.number,
            when=logged.when,
            who=names.get(issuer, "unknown") if issuer else None,
            issuer=issuer.hex() if issuer else None,
            kind=words_of(kind_of(command.body)),
            verdict=None if outcome is None else outcome.verdict.name.lower(),
            reason="" if outcome is None else outcome.reason,
            revision=None if outcome is None else int(outcome.revision),
            bytes=logged.bytes,
            cid=None if named is None else str(named.cid),
            name=None if named is None else named.name,
            session=command.session.hex(),
            tenant=getattr(command.body, "tenant", None) if record is None else record.tenant,
        )

    def _record(self, logged: LoggedCommand) -> Record | None:
        """The record that a command is about, as it says or as it stands."""
        body = logged.command.body
        if isinstance(body, Publish):
            return body.record
        object_id: ObjectId | None = getattr(body, "object_id", None)
        return None if object_id is None else self._catalog.record(object_id)

    def _named(self, record: Record) -> ObjectName | None:
        if record.tenant not in self._keys.tenant_keys:
            return None
        try:
            wrapped = self._table.get(record.key_id)
            if wrapped is None:
                return None
            return open_name(unwrap(self._keys.tenant_keys[record.tenant], wrapped), record.sealed_name, record.salt)
        except FungiStorError:  # shredded, or sealed under a key that was dropped since
            return None
