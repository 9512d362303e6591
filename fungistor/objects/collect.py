"""Give back the space of what nobody needs any more, as restic prunes: mark without keys, delete, pack anew, compact.

Two phases make it safe beside publishers. A command condemns the manifests and sessions that nobody has needed for the
grace; whoever reuses blocks and began to look before that command is refused when it commits, and looks again. Then the
stripes are marked that something uses which stands, or stood at that command. What is left, no later publish can name.

Whatever ends a run, the next one goes on: what is condemned stays so until a last command says that it was swept.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Command
from fungistor.catalog.record import Record
from fungistor.catalog.removal import SWEPT_MAX, Collect, EndSession
from fungistor.catalog.removal_view import PublishSession, Retired
from fungistor.coding.manifest import Slot
from fungistor.coding.page_codec import decode_root
from fungistor.coding.stripe import stripe_id
from fungistor.errors import FungiStorError, UnavailableError
from fungistor.ids import MemberNumber, SessionId
from fungistor.objects.condemned import Condemned, Level
from fungistor.objects.manifest_reader import StripeListReader
from fungistor.objects.ports import ShardStore
from fungistor.objects.repack import Repacker
from fungistor.objects.results import Collected, Progress, no_progress
from fungistor.objects.session import value_bytes
from fungistor.objects.upload_journal import ENTRY_NAME

log = logging.getLogger(__name__)

LISTS_AT_ONCE = 4
IDS_A_LOOK = 256
STRIPES_A_DELETE = 256
ROUNDS_MAX = 3
"""What packing anew leaves behind is collected in the same run, if its grace allows that."""

Item = TypeVar("Item")
OpenList = Callable[[Record], StripeListReader]


@dataclass(slots=True)
class _Run:
    """What a run has found and done so far."""

    manifests: list[Retired] = field(default_factory=list)
    sessions: list[PublishSession] = field(default_factory=list)
    swept: list[bytes] = field(default_factory=list)
    pending: dict[MemberNumber, str] = field(default_factory=dict)
    touched: set[MemberNumber] = field(default_factory=set)
    deleted: int = 0
    repacked: int = 0
    kept: int = 0
    freed: int = 0


class Collector:
    """Collects for a whole network, from one node. Several at once do no harm."""

    def __init__(
        self,
        catalog: Catalog,
        store: ShardStore,
        open_list: OpenList,
        repacker: Repacker,
        journal: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._open_list = open_list
        self._repacker = repacker
        self._journal = journal
        self._clock = clock

    def collect(self, *, grace_s: int, dry_run: bool = False, progress: Progress = no_progress) -> Collected:
        """Delete what nobody has needed for `grace_s`; returns when members have given the space back.

        Raises:
            UnavailableError: something that stands cannot be read now, so that nothing can be told to be unneeded; or
                the catalog cannot be had.
        """
        total = _Run()
        stuck: dict[MemberNumber, str] = {}
        for _ in range(1 if dry_run else ROUNDS_MAX):
            run = self._round(grace_s, dry_run, progress)
            total.deleted += run.deleted
            total.repacked += run.repacked
            total.kept = run.kept or total.kept
            total.freed += run.freed
            total.pending |= run.pending
            if not dry_run and (run.manifests or run.sessions):
                progress(0, None, "compacting members")
                compacted = self._store.compact(sorted(run.touched))
                total.freed += compacted.freed
                stuck |= compacted.stuck
                total.pending |= compacted.absent
                if not compacted.absent:
                    self._forget(run.swept)
            if not run.repacked or total.pending:
                break
        waiting = sum(1 for _ in self._catalog.removal.retired())
        return Collected(
            max(0, total.freed), total.deleted, total.repacked, total.kept,
            tuple(sorted(self._store.name(member) for member in total.pending)),
            tuple(sorted(self._store.name(member) for member in stuck)), waiting, dry_run,
        )  # fmt: skip

    def _round(self, grace_s: int, dry_run: bool, progress: Progress) -> _Run:
        self._catalog.catch_up()
        before = int(self._clock()) - grace_s
        if not dry_run:
            self._end_dead_sessions(before)
            self._commit(Collect(before))
        run = _Run(
            [gone for gone in self._catalog.removal.retired() if gone.condemned or (dry_run and gone.since <= before)],
            [
                session
                for session in self._catalog.removal.sessions()
                if session.condemned or (dry_run and session.ended and session.since <= before)
            ],
        )
        if not run.manifests and not run.sessions:
            return run
        with closing(Condemned()) as condemned:
            self._gather(run, condemned, progress)
            self._mark(run, condemned, progress)
            _, run.kept = condemned.counts()
            if dry_run:
                self._foretell(run, condemned)
            else:
                self._sweep(run, condemned, progress)
        return run

    # -- what may be gone -------------------------------------------------------------------------------------

    def _gather(self, run: _Run, condemned: Condemned, progress: Progress) -> None:
        for number, gone in enumerate(run.manifests):
            progress(number, len(run.manifests), "reading what was dropped")
            where = decode_root(gone.record.manifest, gone.record.salt)
            try:
                listed = self._open_list(gone.record)
                for item in listed.list_slots():
                    condemned.add(Level.CONTENT, item.slot, item.block_lengths)
                for slot in listed.page_slots():
                    condemned.add(Level.LIST_PAGES, slot)
            except FungiStorError as error:
                if any(there is not False for there in self._store.exists(where.slot).values()):
                    # It may be readable another day. An object of which too much is lost stays here.
                    log.warning("a dropped object's stripe list cannot be read now: %s", error.message)
                    continue
                # A run before this one deleted it last of all, and ended before it said so.
            condemned.add_root(where)
            run.swept.append(gone.manifest_id)
        for session in run.sessions:
            progress(0, None, "looking for what dead publishers stored")
            for slot in self._stored_by(session, run.pending):
                condemned.add(Level.CONTENT, slot)
            run.swept.append(bytes(session.id))

    def _stored_by(self, session: PublishSession, pending: dict[MemberNumber, str]) -> Iterator[Slot]:
        """The stripes under a session's ids of which any shard is there, in the widest shape they may have."""
        widest = [(layout, self._store.seats(layout).row_len) for layout in self._store.tracks()]
        up = set(self._store.up_members())
        pending.update((member, "down") for member in self._store.members() if member not in up)
        for start in range(0, session.limit, IDS_A_LOOK):
            ids = [
                stripe_id(session.secret, counter) for counter in range(start, min(start + IDS_A_LOOK, session.limit))
            ]
            # Which policy it published by, nobody knows any more.
            slots = [Slot(drawn, shards - 1, 1, 0, bytes(32), layout) for drawn in ids for layout, shards in widest]
            for slot, there in zip(slots, self._store.exists_all(slots), strict=True):
                if any(there.values()):
                    yield slot

    # -- what is used -----------------------------------------------------------------------------------------

    def _mark(self, run: _Run, condemned: Condemned, progress: Progress) -> None:
        """Mark what stands, or stood when the condemnation was committed.

        Raises:
            UnavailableError: a stripe list cannot be read now.
        """
        removal = self._catalog.removal
        gone = {manifest.manifest_id for manifest in run.manifests}
        # An object may go from one of these to the next while they are read, and so is met at least once.
        standing = itertools.chain(
            (record for record, _ in removal.windows()),
            self._catalog.records(),
            (record for record, _ in _later(removal.windows)),
            (retired.record for retired in _later(removal.retired) if retired.manifest_id not in gone),
        )
        total = self._catalog.status().objects
        for number, (record, listed) in enumerate(self._opened(standing)):
            progress(number, max(total, number), "marking what is used")
            try:
                for item in listed.result().list_slots():
                    condemned.use(item, record.object_id)
                for slot in listed.result().page_slots():
                    condemned.hold(slot)
                condemned.use_root(listed.result().where, record.object_id)
            except FungiStorError as error:
                raise UnavailableError(
                    f"an object's stripe list cannot be read now, so nothing was deleted: {error.message}",
                    hint="`fungistor objects` shows what is unreadable; start its members, or unpublish it",
                ) from error

    def _opened(self, records: Iterable[Record]) -> Iterator[tuple[Record, Future[StripeListReader]]]:
        with ThreadPoolExecutor(LISTS_AT_ONCE, thread_name_prefix="marking") as pool:
            ahead: list[tuple[Record, Future[StripeListReader]]] = []
            for record in records:
                ahead.append((record, pool.submit(self._open_list, record)))
                if len(ahead) > 2 * LISTS_AT_ONCE:
                    yield ahead.pop(0)
            yield from ahead

    # -- doing it ---------------------------------------------------------------------------------------------

    def _foretell(self, run: _Run, condemned: Condemned) -> None:
        for level in Level:
            for slot in condemned.dead(level):
                run.deleted += 1
                run.freed += value_bytes(slot) if slot.shard_bytes else 0
        run.repacked = sum(1 for _ in condemned.partly()) + sum(1 for _ in condemned.partly_roots())

    def _sweep(self, run: _Run, condemned: Condemned, progress: Progress) -> None:
        for level in Level:
            slots = list(condemned.dead(level))
            for start in range(0, len(slots), STRIPES_A_DELETE):
                progress(start, len(slots), "deleting")
                outcome = self._store.delete(slots[start : start + STRIPES_A_DELETE])
                run.touched |= outcome.confirmed
                run.pending |= outcome.failed
                run.deleted += len(slots[start : start + STRIPES_A_DELETE])
            left_out = 0
            if level is Level.CONTENT:
                run.repacked, left_out = self._repacker.repack(condemned, progress)
            if run.pending or left_out:
                # What names the stripes that are not done with must stay: absent members have to delete theirs, too,
                # and what could not be packed anew is to be found again.
                run.swept.clear()
                return
        run.repacked += self._repacker.repack_roots(condemned, progress)

    def _forget(self, swept: Sequence[bytes]) -> None:
        for start in range(0, len(swept), SWEPT_MAX):
            self._commit(Collect(None, tuple(swept[start : start + SWEPT_MAX])))

    def _commit(self, body: Collect) -> None:
        self._catalog.commit(Command(SessionId(os.urandom(16)), 0, body))

    # -- publishers of this machine that died -----------------------------------------------------------------

    def _end_dead_sessions(self, before: int) -> None:
        """End sessions whose process is dead, and remove what they left in the journal: block keys are among it."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._journal):
                self._end_if_dead(os.path.join(self._journal, name), before)

    def _end_if_dead(self, folder: str, before: int) -> None:
        path = os.path.join(folder, ENTRY_NAME)
        try:
            entry = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.flock(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
            died = int(os.fstat(entry).st_mtime)
            if died > before:
                return
            with suppress(ValueError, KeyError):
                session = SessionId(bytes.fromhex(json.loads(os.read(entry, 4096))["session"]))
                sequence = int.from_bytes(os.urandom(6), "big")
                self._catalog.commit(Command(session, sequence, EndSession(died, leftovers=True)))
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            return  # its publisher lives
        finally:
            os.close(entry)


def _later(read: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Begin to read only when it is this one's turn."""
    yield from read()
