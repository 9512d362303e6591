"""Pack stripes anew that are mostly dead: sealed blocks are copied as they are, stripe lists follow, no key is needed.

A block keeps its number in its slot, and a slot its number in the list: those left out have length 0 from now on. So
block maps, which only readers can open, say the same as before.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.record import Record
from fungistor.catalog.removal import Repack
from fungistor.catalog.rules import Verdict
from fungistor.coding.compress import Compression
from fungistor.coding.manifest import ListSlot, Slot
from fungistor.coding.page_codec import decode_root, encode_root
from fungistor.coding.pages import SealedPage
from fungistor.errors import ConflictError, FungiStorError
from fungistor.ids import MemberNumber, ObjectId, Revision, StripeId
from fungistor.objects.condemned import Condemned, Partly
from fungistor.objects.lease import Lease
from fungistor.objects.manifest_reader import StripeListReader
from fungistor.objects.manifest_writer import rewrite_list
from fungistor.objects.mend import Mender
from fungistor.objects.placed_policy import PlacedPolicy, numbered_policy
from fungistor.objects.ports import ShardStore
from fungistor.objects.results import Progress
from fungistor.objects.root_pages import RootPlace, SharedRoots
from fungistor.objects.session import Session, WrittenStripe, value_bytes
from fungistor.objects.stripe_writer import StripeWriter
from fungistor.placement import policy_of

STRIPES_AT_ONCE = 64
"""So many stripes are packed before the objects that use them are given their new lists: 256 MiB, mostly."""


ROOT_STRIPES_AT_ONCE = 64
COMMANDS_AT_ONCE = 1000
"""Some 300 bytes each, and a few for each member that owes: well below the 1 MiB that an entry takes."""


@dataclass(frozen=True, slots=True)
class _MovedRoot:
    """An object's root pages, and where they lie now."""

    record: Record
    list_page: SealedPage
    map_page: SealedPage
    place: RootPlace


class Repacker:
    """Packs stripes anew, and commits a new manifest for each object that uses them."""

    def __init__(
        self,
        catalog: Catalog,
        store: ShardStore,
        open_list: Callable[[Record], StripeListReader],
        mender: Callable[[], Mender],
        journal: str,
        *,
        sync: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._open_list = open_list
        self._mender = mender
        self._journal = journal
        self._sync = sync
        self._clock = clock

    def repack(self, condemned: Condemned, progress: Progress) -> tuple[int, int]:
        """Pack those that are used too little; how many were, and how many could not be now."""
        partly = condemned.partly()
        done = total = 0
        while batch := list(itertools.islice(partly, STRIPES_AT_ONCE)):
            progress(done, None, "packing anew")
            total += len(batch)
            for number in sorted({policy_of(stripe.slot.layout) for stripe in batch}):
                part = [stripe for stripe in batch if policy_of(stripe.slot.layout) == number]
                done += self._batch(condemned, part, numbered_policy(self._catalog, number))
        return done, total - done

    def repack_roots(self, condemned: Condemned, progress: Progress) -> int:
        """Pack root pages anew whose stripes are used too little; how many stripes were."""
        partly = condemned.partly_roots()
        done = 0
        while batch := list(itertools.islice(partly, ROOT_STRIPES_AT_ONCE)):
            progress(done, None, "packing anew")
            for number in sorted({policy_of(slot.layout) for slot in batch}):
                part = [slot for slot in batch if policy_of(slot.layout) == number]
                done += self._batch_of_roots(condemned, part, numbered_policy(self._catalog, number))
        return done

    def _batch_of_roots(self, condemned: Condemned, batch: list[Slot], policy: PlacedPolicy) -> int:
        with (
            Lease(self._catalog) as lease,
            Session(self._journal, self._store, ids=lease, sync=self._sync, policy=policy) as session,
        ):
            began = lease.begin()
            lease.leftovers = True  # should this end in the middle
            roots = SharedRoots(self._store, session)
            moved: list[_MovedRoot] = []
            done = 0
            for slot in batch:
                # What cannot be read or written now stays as it is.
                with contextlib.suppress(FungiStorError):
                    moved += self._copied_roots(slot, condemned.users([slot.stripe_id]), roots)
                    done += 1
            roots.close()
            failed = session.flush()
            bodies = [self._root_moved(each, roots, session, failed, began) for each in moved]
            given = True
            most = min(COMMANDS_AT_ONCE, self._catalog.commands_at_once_max)
            for start in range(0, len(bodies), most):
                outcomes = lease.commit_all(bodies[start : start + most])
                given = given and all(outcome.verdict is Verdict.APPLIED for outcome in outcomes)
            # What an object did not take, since it was dropped or changed meanwhile, is collected with the session.
            lease.leftovers = session.in_vain or not given
        return done

    def _copied_roots(self, slot: Slot, users: Iterable[ObjectId], roots: SharedRoots) -> list[_MovedRoot]:
        """Append the root pages that objects have in a stripe to new ones, sealed as they are."""
        shards = self._mender().honest_shards(slot)
        data = b"".join(shards[: slot.k])
        moved: list[_MovedRoot] = []
        for record in map(self._catalog.record, users):
            where = None if record is None else decode_root(record.manifest, record.salt)
            if record is None or where is None or where.slot != slot:
                continue  # dropped or changed meanwhile
            pages = [
                SealedPage(
                    data[ref.offset : ref.offset + ref.sealed_bytes], ref.plain_bytes, Compression(ref.compression)
                )
                for ref in (where.list_root, where.map_root)
            ]
            moved.append(_MovedRoot(record, pages[0], pages[1], roots.add(pages[0], pages[1])))
        return moved

    def _root_moved(
        self,
        moved: _MovedRoot,
        roots: SharedRoots,
        session: Session,
        failed: Mapping[MemberNumber, str],
        began: Revision,
    ) -> Repack:
        record = moved.record
        owed = dict(record.owed)
        for member, shards in session.settlement([roots.number(moved.place)], failed).owed.items():
            owed[member] = owed.get(member, 0) + shards
        return Repack(
            record.object_id,
            record.manifest_id,
            int(self._clock()),
            encode_root(roots.root(moved.place, moved.list_page, moved.map_page, record.salt)),
            record.list_key,
            record.sizes.stored,
            tuple(sorted(owed.items())),
            began,
        )

    def _batch(self, condemned: Condemned, batch: list[Partly], policy: PlacedPolicy) -> int:
        with (
            Lease(self._catalog) as lease,
            Session(self._journal, self._store, ids=lease, sync=self._sync, policy=policy) as session,
        ):
            began = lease.begin()
            lease.leftovers = True  # should this end in the middle
            packed: dict[StripeId, ListSlot] = {}
            for stripe in batch:
                try:
                    packed[stripe.slot.stripe_id] = self._pack(stripe, session)
                except FungiStorError:
                    continue  # it cannot be read or written now: it stays as it is
            given = [
                record is not None and self._give_list(record, packed, lease, session, began)
                for record in map(self._catalog.record, condemned.users(list(packed)))
            ]
            # What an object did not take, since it was dropped or changed meanwhile, is collected with the session.
            lease.leftovers = session.in_vain or not all(given)
        return len(packed) if all(given) else 0

    def _pack(self, stripe: Partly, session: Session) -> ListSlot:
        """Write the blocks of a stripe that are used into a new one."""
        shards = self._mender().honest_shards(stripe.slot)
        data = b"".join(shards[: stripe.slot.k])
        written: list[WrittenStripe] = []
        writer = StripeWriter(self._store, session, itertools.count(), lambda _, one: written.append(one))
        offset = 0
        for length, used in zip(stripe.block_lengths, stripe.used, strict=True):
            if used:
                writer.append_sealed(data[offset : offset + length])
            offset += length
        writer.close_stripe()
        lengths = tuple(length if used else 0 for length, used in zip(stripe.block_lengths, stripe.used, strict=True))
        return ListSlot(written[0].slot, lengths, ())

    def _give_list(
        self,
        record: Record,
        packed: Mapping[StripeId, ListSlot],
        lease: Lease,
        session: Session,
        began: Revision,
    ) -> bool:
        """Write an object's stripe list anew and commit it; False where the object has changed meanwhile."""
        old = self._open_list(record)
        stored = 0
        changed = False

        def slots() -> Iterator[ListSlot]:
            nonlocal stored, changed
            for listed in old.list_slots():
                new = packed.get(listed.slot.stripe_id)
                if new is not None:
                    changed = True
                    listed = ListSlot(new.slot, new.block_lengths, listed.runs)
                stored += value_bytes(listed.slot)
                yield listed

        root, list_key = rewrite_list(old.where, self._map_root(old), slots(), self._store, session)
        if not changed:
            return False
        owed = dict(record.owed)
        for member, shards in session.settle().owed.items():
            owed[member] = owed.get(member, 0) + shards
        body = Repack(
            record.object_id,
            record.manifest_id,
            int(self._clock()),
            encode_root(root),
            list_key,
            stored + value_bytes(root.slot),
            tuple(sorted(owed.items())),
            began,
        )
        try:
            lease.commit(body)
        except ConflictError:
            return False
        return True

    def _map_root(self, old: StripeListReader) -> bytes:
        slot, ref = old.where.slot, old.where.map_root
        shards = self._mender().honest_shards(slot)
        return b"".join(shards[: slot.k])[ref.offset : ref.offset + ref.sealed_bytes]
