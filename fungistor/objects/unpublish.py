"""Take objects back: the record goes by one command, then the key that opens what it alone held, then what was cached.

The key is dropped after the command: should the node die in between, `shred_leftovers` drops it, which `up` and every
collection call. So no record ever stands without its key, and no key for long without a record or an open session.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from fungistor.cache.tiers import span_key
from fungistor.catalog.catalog import Catalog, refusal_of
from fungistor.catalog.commands import SESSION_BYTES, Body, Command
from fungistor.catalog.index import BlockIndex, Holder
from fungistor.catalog.outcomes import Outcome
from fungistor.catalog.record import Record
from fungistor.catalog.removal import Expire, Keep, KeepObject, Unpublish
from fungistor.coding.manifest import Entry, Stored
from fungistor.dag.cid import CID
from fungistor.errors import FungiStorError, NotFoundError, UnavailableError
from fungistor.ids import ObjectId, SessionId
from fungistor.keys.ring import NodeKeys, block_hash
from fungistor.objects.content import Content
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.ports import KeyTable
from fungistor.objects.results import Unpublished
from fungistor.objects.seen import SeenCids

BLOCKS_A_LOOK = 512
HOLDERS_LOOKED_AT = 64
"""A block may be held by objects that are gone and still in the index, or by other tenants', whose sealed blocks are
others; of these at most so many are looked past."""

SPANS_AT_ONCE = 100_000

SWEEP_TRIES = 20
SWEEP_PAUSE_S = 0.1
"""Readers of the key table hold its write-ahead log for microseconds."""


@dataclass(frozen=True, slots=True)
class RemovalPorts:
    """What taking back asks of the world."""

    catalog: Catalog
    content: Content
    index: BlockIndex
    keys: NodeKeys
    key_table: KeyTable
    drop_cached: Callable[[Iterable[bytes]], None]
    """Forget spans, and whatever else is held in memory, in every process of this home."""
    clock: Callable[[], float] = time.time


class Remover:
    """Unpublishes, brings back, and shreds."""

    def __init__(self, ports: RemovalPorts) -> None:
        self._ports = ports

    def unpublish(self, root: CID, object_id: ObjectId, *, grace_s: int = 0, dry_run: bool = False) -> Unpublished:
        """Take one object back; with `grace_s` it can be brought back for so long, and nothing is shredded yet.

        Raises:
            NotFoundError: it is not published.
            DeniedError: it is locked.
            ConflictError: it is pinned, or was published anew meanwhile.
        """
        (outcome,) = self.unpublish_all([(root, object_id)], grace_s=grace_s, dry_run=dry_run)
        if isinstance(outcome, FungiStorError):
            raise outcome
        return outcome

    def unpublish_all(
        self, asked: Sequence[tuple[CID, ObjectId]], *, grace_s: int = 0, dry_run: bool = False
    ) -> list[Unpublished | FungiStorError]:
        """Take several back by one commit and one pass over the key table. Each is judged on its own, as if they went
        one after the other; an error stands in its place.

        Raises: UnavailableError: the catalog cannot be had; none, or all of them, may be gone.
        """
        ports = self._ports
        ports.catalog.catch_up()
        now = int(ports.clock())
        until = now + grace_s if grace_s else None
        outcomes: dict[int, Unpublished | FungiStorError] = {}
        going: dict[int, Record] = {}
        for at, (root, object_id) in enumerate(asked):
            is_again = not dry_run and any(record.object_id == object_id for record in going.values())
            record = None if is_again else self._standing(object_id, grace_s)
            if record is None:
                outcomes[at] = NotFoundError(f"no object has the root {root}", hint="`fungistor objects` lists them")
            else:
                going[at] = record
        if dry_run:
            for at, record in going.items():
                shredded, still_readable, _ = self._look(record)
                outcomes[at] = Unpublished(str(asked[at][0]), shredded, still_readable, (), until, dry_run=True)
        elif going:
            self._take_back(asked, going, outcomes, now, until)
        return [outcomes[at] for at in range(len(asked))]

    def _standing(self, object_id: ObjectId, grace_s: int) -> Record | None:
        """What there is to take back: the record, or what can still be brought back, which then no longer can."""
        ports = self._ports
        record = ports.catalog.record(object_id)
        if record is not None or grace_s:
            return record
        window = ports.catalog.removal.window(object_id)
        return None if window is None else window[0]

    def _take_back(
        self,
        asked: Sequence[tuple[CID, ObjectId]],
        going: dict[int, Record],
        outcomes: dict[int, Unpublished | FungiStorError],
        now: int,
        until: int | None,
    ) -> None:
        ports, session = self._ports, SessionId(os.urandom(16))
        commands = [
            Command(session, number, Unpublish(record.object_id, record.manifest_id, now, until))
            for number, record in enumerate(going.values())
        ]
        for at, outcome in zip(list(going), ports.catalog.commit_all(commands), strict=True):
            if (refusal := refusal_of(outcome)) is not None:
                outcomes[at] = refusal
                del going[at]
        # Whatever of them shares a block is told with the last that has it.
        later = {record.object_id for record in going.values()}
        spans: list[bytes] = []
        for at, record in going.items():
            later.discard(record.object_id)
            shredded, still_readable, own_spans = self._look(record, later)
            spans += own_spans
            if len(spans) > SPANS_AT_ONCE:
                ports.drop_cached(spans)
                spans = []
            outcomes[at] = Unpublished(str(asked[at][0]), 0 if until else shredded, still_readable, (), until)
        for record in going.values():
            ports.index.drop(record.object_id)
        ports.drop_cached(spans)
        if until is None and going and not self._drop_keys([record.key_id for record in going.values()]):
            for at in going:
                outcomes[at] = replace(cast("Unpublished", outcomes[at]), pending=("key table",))

    def keep(self, root: CID, object_id: ObjectId, what: Keep, until: int | None = None) -> None:
        """Undo, pin, unpin or lock an object. Raises as `unpublish`."""
        catalog = self._ports.catalog
        catalog.catch_up()
        if what is not Keep.UNDO and catalog.record(object_id) is None:
            raise NotFoundError(f"no object has the root {root}", hint="`fungistor objects` lists them")
        self._commit(KeepObject(object_id, int(self._ports.clock()), what, until))

    def expire(self) -> bool:
        """Commit that time has passed, if that means anything now; shred what it ended. True if it ended something."""
        now = int(self._ports.clock())
        if not self._ports.catalog.removal.is_due(now):
            return False
        self._commit(Expire(now))
        self.shred_leftovers()
        return True

    def shred_leftovers(self) -> int:
        """Drop keys of objects that are gone, should whoever took them back have died first; how many there were."""
        removal, table = self._ports.catalog.removal, self._ports.key_table
        leftovers = {
            gone.record.key_id
            for gone in removal.retired()
            if table.get(gone.record.key_id) is not None
            and not removal.needs_key(gone.record.object_id, gone.record.key_id)
        }
        leftovers |= self._keys_of_dead_sessions()
        if leftovers:
            self._drop_keys(list(leftovers))
        return len(leftovers)

    def _keys_of_dead_sessions(self) -> set[ObjectId]:
        """Keys that a session drew whose publish never came about."""
        catalog = self._ports.catalog
        dead = {bytes(session.id) for session in catalog.removal.sessions() if session.ended}
        drawn = (
            {key_id for key_id in self._ports.key_table.objects() if key_id[:SESSION_BYTES] in dead} if dead else set()
        )
        if not drawn:
            return set()
        # What these sessions did publish has its keys from them, too. No more can be, now that they have ended.
        for record in itertools.chain((kept for kept, _ in catalog.removal.windows()), catalog.records()):
            drawn.discard(record.key_id)
        return {key_id for key_id in drawn if key_id not in {kept.key_id for kept, _ in catalog.removal.windows()}}

    def _commit(self, body: Body) -> Outcome:
        return self._ports.catalog.commit(Command(SessionId(os.urandom(16)), 0, body))

    def _drop_keys(self, key_ids: list[ObjectId]) -> bool:
        """Drop keys; whether no trace is left in the table's files."""
        self._ports.key_table.delete(key_ids)
        for _ in range(SWEEP_TRIES):
            if self._ports.key_table.sweep():
                return True
            time.sleep(SWEEP_PAUSE_S)
        return False

    # -- what it means for blocks -----------------------------------------------------------------------------

    def _look(self, record: Record, later: Collection[ObjectId] = ()) -> tuple[int, int, list[bytes]]:
        """Blocks that only this object holds, blocks that others hold, and the cached spans of the former. `later` are
        gone already, and count as others all the same.

        Of an object that cannot be read now none can be told: it is taken back all the same.
        """
        shredded = still_readable = 0
        spans: list[bytes] = []
        try:
            manifest = self._ports.content.manifest_of(record)
            for batch in _batches(_distinct(manifest)):
                others = self._held_by_others(record, [cid for cid, _ in batch], later)
                for cid, entry in batch:
                    if cid.multihash in others:
                        still_readable += 1
                        continue
                    shredded += 1
                    if isinstance(entry, Stored):
                        listed = manifest.slot(entry.slot)
                        spans.append(span_key(listed.slot.stripe_id, *listed.extent(entry.number)))
        except UnavailableError:
            pass
        return shredded, still_readable, spans

    def _held_by_others(self, record: Record, cids: list[CID], later: Collection[ObjectId]) -> set[bytes]:
        hashes = {block_hash(self._ports.keys.network_key, cid.multihash): cid.multihash for cid in cids}
        holders = self._ports.index.holders_of(list(hashes), HOLDERS_LOOKED_AT)
        return {
            hashes[key]
            for key, held_by in holders.items()
            if any(holder.object_id in later or self._holds(holder, record) for holder in held_by)
        }

    def _holds(self, holder: Holder, other_than: Record) -> bool:
        found = self._ports.catalog.record(holder.object_id)
        return found is not None and found.object_id != other_than.object_id and found.tenant == other_than.tenant


def _distinct(manifest: ManifestReader) -> Iterator[tuple[CID, Entry]]:
    seen = SeenCids()
    try:
        for cid, entry in manifest.placed():
            if seen.add(cid):
                yield cid, entry
    finally:
        seen.close()


def _batches(items: Iterable[tuple[CID, Entry]]) -> Iterator[list[tuple[CID, Entry]]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BLOCKS_A_LOOK)):
        yield batch


def drop_gone(index: BlockIndex, catalog: Catalog) -> int:
    """Have the block index forget objects that are no more; how many."""
    gone = [object_id for object_id, _ in index.indexed() if catalog.record(object_id) is None]
    for object_id in gone:
        index.drop(object_id)
    return len(gone)
