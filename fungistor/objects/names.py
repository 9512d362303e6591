"""Names of the network's own: publish, roll back, remove, and keep a signed IPNS record of each at hand.

The order of values is the catalog's; the records are made from it by every node that holds the tenant, and are signed
again before they end.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command
from fungistor.catalog.names import KEY_REF_BYTES, NameRow, NameValue, RemoveName, SetName
from fungistor.catalog.rules import Verdict
from fungistor.dag.cid import CID
from fungistor.errors import ConflictError, CorruptError, FungiStorError, InvalidError, NotFoundError
from fungistor.ids import ObjectId, Revision, SessionId, TenantNumber
from fungistor.keys.ring import KEY_BYTES, NodeKeys, unwrap, wrap
from fungistor.names.key import parse_key
from fungistor.names.record import VALUE_BYTES_MAX, Record, parse
from fungistor.objects.name_value import NamedPath, NameKey, name_id, open_value, seal_value

TTL_S = 300
LIFETIME_S = 48 * 3600
"""As Kubo has them."""

TTL_S_MAX = 30 * 86400
LIFETIME_S_MIN = 60
LIFETIME_S_MAX = 366 * 86400
ATTEMPTS_MAX = 16
"""Of a publisher that others overtake each time by removing the name, or by making it."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

log = logging.getLogger(__name__)


class Keys(Protocol):
    """Wrapped keys by 32 bytes, those of names among them."""

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes: ...

    def get(self, object_id: ObjectId) -> bytes | None: ...

    def delete(self, object_ids: Iterable[ObjectId]) -> int: ...


class Records(Protocol):
    """Where a node keeps the records that it serves."""

    def put_own(self, name_id: bytes, alias: str, record: Record, renew_s: float, now_s: float) -> None:
        """Keep a record of a name of the network's own in place of the one before it.

        Raises: ConflictError where a newer one of the same key came from elsewhere.
        """

    def own(self, name_id: bytes) -> Record | None:
        """The record that is kept."""

    def drop_own(self, name_id: bytes) -> None:
        """Forget name and record."""

    def own_due(self, now_s: float) -> list[bytes]:
        """Names whose records are to be signed again."""

    def check_free(self, key: CID, sequence: int) -> None:
        """Raises: ConflictError where an imported record of the key is of a later sequence."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a name means now."""

    name: str
    key: CID
    value: NamedPath
    sequence: int
    revision: Revision
    is_new: bool
    changed: bool
    record: Record


@dataclass(frozen=True, slots=True)
class Past:
    """A value of a name's history."""

    sequence: int
    path: str
    at: int
    issuer: bytes
    revision: Revision


def check_name(name: str) -> str:
    """Give a name that can be one. Raises: InvalidError."""
    if "." in name:
        raise InvalidError(
            f"{name[:80]!r} has a dot, so it is a domain name", hint="domain names have DNSLinks, at their DNS"
        )
    if not _NAME.fullmatch(name) or parse_key(name) is not None:
        raise InvalidError(
            f"{name[:80]!r} cannot be a name", hint="1 to 63 of a-z, 0-9 and -, no - at the ends, and no key or CID"
        )
    return name


class OwnNames:
    """One tenant's names, as one node sees them. Thread-safe but for `follow`."""

    def __init__(
        self,
        catalog: Catalog,
        keys: NodeKeys,
        key_table: Keys,
        records: Records,
        tenant: TenantNumber,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._keys = keys
        self._key_table = key_table
        self._records = records
        self._tenant = tenant
        self._clock = clock
        self._seen = Revision(0)
        self._again: set[bytes] = set()

    # -- changing ---------------------------------------------------------------------------------------------

    def publish(
        self, name: str, path: str, *, ttl_s: int = TTL_S, lifetime_s: int = LIFETIME_S, against: int | None = None
    ) -> Published:
        """Let a name mean a content path. Durable, in the one order of all publishers, when this returns.

        `against`: only if the name's sequence still is this one.

        Raises:
            ConflictError: it is not; or a record of the name's key that others signed is newer.
            InvalidError: name, path or times cannot be.
            UnavailableError: the catalog cannot be had; it may have been committed.
        """
        value = NamedPath(check_name(name), path, ttl_s, lifetime_s)
        _check_value(value)
        self._catalog.check_writable()
        identity = self._id(name)
        for _ in range(ATTEMPTS_MAX):
            self._catalog.catch_up()
            row = self._catalog.name(identity)
            standing = row if row is not None and row.stands else None
            if against is not None and against != (standing.sequence if standing else 0):
                raise ConflictError(
                    f"the name {name} is at sequence {standing.sequence if standing else 0}, not {against}",
                    hint=f"`fungistor name history {name}` says what came meanwhile",
                )
            key_ref, name_key = self._drawn() if standing is None else (standing.key_ref, self._key_of(standing))
            if standing is not None:
                self._records.check_free(NameKey(name_key).ipns, standing.sequence)
            sealed, value_id = seal_value(name_key, value)
            body = SetName(
                identity, self._tenant, key_ref, standing is None, against, sealed, value_id, int(self._clock())
            )
            outcome = self._catalog.commit_all([Command(SessionId(os.urandom(16)), 0, body)])[0]
            if outcome.verdict is not Verdict.REFUSED:
                return self._acknowledged(name, name_key, outcome.revision, standing, outcome.verdict)
            if standing is None:
                self._key_table.delete([ObjectId(key_ref)])
            if self._catalog.name(identity) == row:
                # Nobody was quicker, so it is not the name that is in the way.
                raise ConflictError(outcome.reason, hint="`fungistor name history` says what the name means now")
        raise ConflictError(f"others change the name {name} all the time", hint="try again")

    def rollback(self, name: str, to: int | None = None) -> Published:
        """Let a name mean again what it meant under sequence `to`, or before its newest value.

        Raises:
            NotFoundError: there is no such name, or no such value of it.
            ConflictError: without `to`, where another value came meanwhile.
        """
        history = self.history(name)
        if to is None and len(history) < 2:
            raise NotFoundError(f"the name {name} has meant nothing else", hint="`name publish` gives it another value")
        wanted = history[1].sequence if to is None else to
        row, name_key = self._standing(name)
        for value in self._catalog.name_values(row.name_id):
            if value.sequence == wanted:
                old = open_value(name_key, value.sealed)
                against = history[0].sequence if to is None else None
                return self.publish(name, old.path, ttl_s=old.ttl_s, lifetime_s=old.lifetime_s, against=against)
        raise NotFoundError(
            f"the name {name} has no value of sequence {wanted}",
            hint=f"it has {history[-1].sequence} to {history[0].sequence}",
        )

    def remove(self, name: str) -> Revision:
        """Forget a name, its values and its key; what was signed lives on where it was taken until it ends.

        Raises: NotFoundError; ConflictError where it was published anew meanwhile; UnavailableError.
        """
        self._catalog.check_writable()
        row = self._row(name)
        body = RemoveName(row.name_id, self._tenant, row.key_ref)
        outcome = self._catalog.commit(Command(SessionId(os.urandom(16)), 0, body))
        self._key_table.delete([ObjectId(row.key_ref)])
        self._records.drop_own(row.name_id)
        return outcome.revision

    # -- looking ----------------------------------------------------------------------------------------------

    def history(self, name: str) -> list[Past]:
        """Every value that is kept, the newest first.

        Raises: NotFoundError.
        """
        row, name_key = self._standing(name)
        return [_past(name_key, value) for value in self._catalog.name_values(row.name_id)]

    def follow(self) -> bool:
        """Take up what changed in the catalog, and sign again what is due. Returns False: nothing more to do now."""
        self._catalog.catch_up()
        changed = self._catalog.names_after(self._seen)
        rows = {row.name_id: row for row in changed}
        for identity in [*self._again, *self._records.own_due(self._clock())]:
            row = rows.get(identity) or self._catalog.name(identity)
            if row is not None:
                rows[identity] = row
        failed: dict[bytes, FungiStorError] = {}
        for row in rows.values():
            if row.tenant != self._tenant:
                continue
            try:
                self._take_up(row)
            except FungiStorError as error:
                failed[row.name_id] = error
        if changed:
            self._seen = changed[-1].revision
        self._again = set(failed)
        if failed:
            raise next(iter(failed.values()))
        return False

    def _take_up(self, row: NameRow) -> None:
        if not row.stands:
            self._records.drop_own(row.name_id)
            return
        value = self._catalog.name_values(row.name_id)[:1]
        if value:
            self._keep_record(row.name_id, self._key_of(row), value[0])

    # -- parts ------------------------------------------------------------------------------------------------

    def _acknowledged(
        self, name: str, name_key: bytes, revision: Revision, standing: NameRow | None, verdict: Verdict
    ) -> Published:
        value = self._catalog.name_value_at(self._id(name), revision)
        if value is None:
            raise ConflictError(f"the name {name} was published, and removed by another since")
        record = self._keep_record(self._id(name), name_key, value)
        opened = open_value(name_key, value.sealed)
        return Published(
            name,
            record.name,
            opened,
            value.sequence,
            revision,
            is_new=standing is None,
            changed=verdict is Verdict.APPLIED,
            record=record,
        )

    def _keep_record(self, identity: bytes, name_key: bytes, value: NameValue) -> Record:
        """Sign a value's record, unless a record of it or of a later one is kept and not due."""
        now_s = int(self._clock())
        opened = open_value(name_key, value.sealed)
        held = self._records.own(identity)
        renew_s = now_s + opened.lifetime_s / 2
        key = NameKey(name_key)
        if held is not None and held.name == key.ipns:
            is_fresh = held.expires_s > renew_s and held.value == opened.path
            if held.sequence > value.sequence or (held.sequence == value.sequence and is_fresh):
                return held
        record = parse(key.ipns, key.sign(opened, value.sequence, now_s))
        self._records.put_own(identity, opened.name, record, renew_s, now_s)
        return record

    def _id(self, name: str) -> bytes:
        return name_id(self._keys.network_key, self._tenant, name)

    def _row(self, name: str) -> NameRow:
        self._catalog.catch_up()
        row = self._catalog.name(self._id(check_name(name)))
        if row is None or not row.stands:
            raise NotFoundError(f"there is no name {name}", hint=f"`fungistor name publish {name} CID` makes it")
        return row

    def _standing(self, name: str) -> tuple[NameRow, bytes]:
        row = self._row(name)
        return row, self._key_of(row)

    def _drawn(self) -> tuple[bytes, bytes]:
        """A new name's key, kept before anything names it."""
        key_ref, name_key = os.urandom(KEY_REF_BYTES), os.urandom(KEY_BYTES)
        self._key_table.put(ObjectId(key_ref), self._tenant, wrap(self._tenant_key(), name_key))
        return key_ref, name_key

    def _key_of(self, row: NameRow) -> bytes:
        wrapped = self._key_table.get(ObjectId(row.key_ref))
        if wrapped is None:
            raise CorruptError(
                "a name's key is not in the key table",
                hint="it is being removed just now; or the key table is older than the catalog: restore both together",
            )
        return unwrap(self._tenant_key(), wrapped, what="key of a name")

    def _tenant_key(self) -> bytes:
        return self._keys.tenant_key(self._tenant)


def _past(name_key: bytes, value: NameValue) -> Past:
    return Past(value.sequence, open_value(name_key, value.sealed).path, value.at, value.issuer, value.revision)


def _check_value(value: NamedPath) -> None:
    if len(value.path.encode()) > VALUE_BYTES_MAX:
        raise InvalidError(
            f"a content path of {len(value.path.encode())} bytes, at most {VALUE_BYTES_MAX} fit a record"
        )
    if not 0 <= value.ttl_s <= TTL_S_MAX:
        raise InvalidError(f"a record may be cached for 0 to {TTL_S_MAX} seconds, not {value.ttl_s}")
    if not LIFETIME_S_MIN <= value.lifetime_s <= LIFETIME_S_MAX:
        raise InvalidError(f"a record lives for {LIFETIME_S_MIN} to {LIFETIME_S_MAX} seconds, not {value.lifetime_s}")
