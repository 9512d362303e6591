"""Small objects published together: their manifests share stripes, their keys a transaction, their commands an entry.

One by one, each would cost a stripe of five copies, a flush of every member, two of the catalog's disk and a signature.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from fungistor.catalog.commands import Publish
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.record import Record, Sizes, own_list_key
from fungistor.catalog.rules import Verdict
from fungistor.coding.page_codec import encode_root
from fungistor.errors import FungiStorError, NotPermittedError
from fungistor.ids import MemberNumber, ObjectId, Revision, TenantNumber
from fungistor.keys.ring import object_id
from fungistor.limits import INLINE_BYTES_MAX, MIB
from fungistor.objects.assemble import Assembled
from fungistor.objects.lease import DENIED_HINT, Lease
from fungistor.objects.manifest_writer import SALT_BYTES, SealedManifest, seal_manifest
from fungistor.objects.naming import ObjectName
from fungistor.objects.object_keys import ObjectKeys
from fungistor.objects.placed_policy import BY_DEFAULT, PlacedPolicy
from fungistor.objects.reading import Reading
from fungistor.objects.results import PublishOutcome
from fungistor.objects.root_pages import RootPlace, SharedRoots
from fungistor.objects.sealer import ChunkReader
from fungistor.objects.session import Session
from fungistor.objects.spool import Spool
from fungistor.objects.storing import Committed, ObjectFacts, PublishPorts, record_of

OBJECTS_MAX: Final = 1000
"""Their commands are 700 KiB at most, where an entry takes 1 MiB."""

SEALED_BYTES_MAX: Final = 4 * MIB

NUMBER_BYTES: Final = 8
"""Salts of a batch end in a number, each one more than the one before: so the keys of a batch are kept in few bytes."""

WAIT_S_MAX: Final = 1.0
"""No object waits longer for its acknowledgement than this and the commit."""


@dataclass(frozen=True, slots=True)
class _Small:
    """An object whose root pages are on their way."""

    reading: Reading
    assembled: Assembled
    facts: ObjectFacts
    identity: ObjectId
    key: bytes = field(repr=False)
    row: tuple[ObjectId, TenantNumber, bytes]
    manifest: SealedManifest
    place: RootPlace
    pages: range
    """Of the session's stripes, those that only this object's pages lie in."""


class SmallBatch:
    """Takes objects whose content lies in their manifests, one after the other, and commits them at once.

    Use in `with`; not thread-safe. What is not committed is left to the lease's end, as with any publish.
    """

    def __init__(
        self,
        ports: PublishPorts,
        lease: Lease,
        policy: PlacedPolicy = BY_DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ports = ports
        self._policy = policy
        self._keys = ObjectKeys(ports)
        self._lease = lease
        self._clock = clock
        self._stack = contextlib.ExitStack()
        self._taken: dict[ObjectId, _Small] = {}
        self._sealed_bytes = 0
        self._salts = lease.id + ports.draw(SALT_BYTES - NUMBER_BYTES - len(lease.id))
        self._numbers = itertools.count()
        self._stored: tuple[Session, SharedRoots] | None = None
        self._began = Revision(0)
        self._full_at = math.inf
        self._most = 1

    def __enter__(self) -> Self:
        self._spool = self._stack.enter_context(contextlib.closing(Spool(":memory:")))
        self._reader = self._stack.enter_context(contextlib.closing(ChunkReader()))
        self._ports.catalog.catch_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        full = len(self._taken) >= self._most or self._sealed_bytes >= SEALED_BYTES_MAX
        return full or self._clock() > self._full_at

    def add(self, reading: Reading) -> bool:
        """Take an object; False where it is not small or not new, and has to go its own way.

        Raises:
            FungiStorError: its paths cannot be read; or members cannot be had.
        """
        size = reading.size_ahead()
        if size is None or size > INLINE_BYTES_MAX:
            return False
        self._spool.clear()
        assembled = reading.into(self._spool, self._reader)
        facts = reading.facts(assembled)
        ports = self._ports
        identity = object_id(ports.keys.network_key, ports.tenant, facts.root.codec, facts.root.multihash)
        if identity in self._taken or ports.catalog.record(identity) is not None:
            return False
        session, roots = self._stored or self._begin()
        salt = self._salts + next(self._numbers).to_bytes(NUMBER_BYTES, "big")
        key, row = self._keys.draw(salt, ports.tenant)
        first = session.stripes
        list_key = own_list_key(identity, salt)
        manifest = seal_manifest(
            self._spool, facts.root, ports.store, session, itertools.count(), key, salt=salt, list_key=list_key
        )
        pages = range(first, session.stripes)
        place = roots.add(manifest.list_page, manifest.map_page)
        self._sealed_bytes += place.bytes
        self._taken[identity] = _Small(reading, assembled, facts, identity, key, row, manifest, place, pages)
        return True

    def _begin(self) -> tuple[Session, SharedRoots]:
        ports = self._ports
        session = Session(ports.journal, ports.store, ports.draw, ids=self._lease, sync=ports.sync, policy=self._policy)
        self._stack.enter_context(session)
        self._stack.enter_context(self._lease.counting(session))
        self._began = self._lease.begin()
        self._full_at = self._clock() + WAIT_S_MAX
        self._most = min(OBJECTS_MAX, ports.catalog.commands_at_once_max - 1)  # and the session's end
        self._stored = session, SharedRoots(ports.store, session)
        return self._stored

    def commit(self, *, last: bool) -> list[PublishOutcome | FungiStorError | None]:
        """Make all durable and append one entry; what became of each object, in order. None: it has to be published
        again by itself, as what it met is not what it was.

        `last`: the lease has no other object to store.

        Raises:
            UnavailableError, ConflictError: nothing was published, or it is not known.
        """
        assert self._stored is not None
        ports, (session, roots), small = self._ports, self._stored, list(self._taken.values())
        roots.close()
        failed = session.flush()
        committed = [_committed(session, roots, each, self._sealed_name(each), failed) for each in small]
        if ports.catalog.knows_key_pages:
            ports.key_table.put_all([each.row for each in small])
        else:
            for each in small:
                ports.key_table.put(*each.row)
        self._lease.leftovers |= session.in_vain
        ports.catalog.catch_up()
        # Nothing here reuses what others stored, so a condemnation since it began takes nothing from it.
        seen = ports.catalog.revision if ports.catalog.removal.condemned_at() > self._began else None
        outcomes = self._lease.commit_all(
            [Publish(one.record, began=self._began, reused_at=seen) for one in committed], last=last
        )
        session.committed = True
        return [self._result(*each) for each in zip(small, committed, outcomes, strict=True)]

    def _sealed_name(self, small: _Small) -> bytes:
        name = ObjectName(small.facts.root, small.facts.name)
        return self._keys.seal_first_name(small.key, name, small.manifest.salt)

    def _result(self, small: _Small, committed: Committed, outcome: Outcome) -> PublishOutcome | FungiStorError | None:
        if outcome.verdict is Verdict.DENIED:
            return NotPermittedError(outcome.reason, hint=DENIED_HINT)
        if outcome.verdict is Verdict.REFUSED:
            return None
        standing: Record | None = committed.record
        if outcome.verdict is Verdict.MERGED:
            standing = self._ports.current(small.identity)
            if standing is not None:
                self._keys.keep_one(None, committed.record, standing, ObjectName(small.facts.root, small.facts.name))
        told = Committed(
            standing or committed.record, committed.name, committed.settlement, committed.new_bytes, outcome.revision
        )
        return small.reading.outcome(small.assembled, told)


def _committed(
    session: Session, roots: SharedRoots, small: _Small, sealed_name: bytes, failed: Mapping[MemberNumber, str]
) -> Committed:
    """An object as it is going to be committed."""
    manifest, facts = small.manifest, small.facts
    stored, new = roots.parts(small.place)
    settlement = session.settlement([*small.pages, roots.number(small.place)], failed)
    pages = session.stored_bytes(small.pages)
    sizes = Sizes(facts.size, manifest.sealed_bytes, stored + pages, manifest.blocks, len(small.pages) + 1)
    root = roots.root(small.place, manifest.list_page, manifest.map_page, manifest.salt)
    record = record_of(
        small.identity,
        small.row[1],
        facts,
        sizes,
        (encode_root(root), manifest.salt, manifest.list_key),
        sealed_name,
        settlement,
    )
    return Committed(record, facts.name, settlement, new + pages, 0)
