"""Brings what was committed into the pool before it is acknowledged: entries of the log, and the wrapped keys to them.

One process of a home writes at a time, for all that wait: it brings every entry since the last, so that publishers at
once share a round, and what one left behind that died is brought by the next. Nothing here is needed to read.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.claims import encode_claim
from fungistor.catalog.commands import Publish, decode_command, parts_of
from fungistor.catalog.log import Log, Position, after_entry, entry_number
from fungistor.catalog.names import SetName
from fungistor.catalog.snapshots import Snapshot
from fungistor.errors import ConflictError, CorruptError, FungiStorError, UnavailableError
from fungistor.ids import MemberNumber, ObjectId, TenantNumber
from fungistor.keys.store import KeyRow, KeyStore
from fungistor.node.copies.deposit import Claimed, EntryDeposit
from fungistor.node.copies.dropped import dropped_keys
from fungistor.node.copies.erasures import Erasures
from fungistor.node.copies.formats import Anchor, CopyFormats, Segment, link_to
from fungistor.node.copies.mark import Mark, MarkFile
from fungistor.node.copies.reading import CopyReader
from fungistor.node.home import Home
from fungistor.pool.keeping import copies_needed
from fungistor.pool.pool import Pool

FLIGHT_BYTES = 2 << 20
FLIGHT_VALUES = 256
"""One flight to a member: what it sends and what it answers stay small in memory."""

ENTRIES_A_PLACE = 256
"""So many entries in a row lie on the same members; then others take their turn."""

SEED_AT_ONCE = 1024
"""A catalog of so many entries and keys is brought whole by whoever commits first; a larger one in the background."""

KEYS_A_FLIGHT = 128
DROPS_A_FLIGHT = 512
LOOK_S = 2.0
RETRY_S = 30.0
"""What absent members still have to delete is tried again so often."""

log = logging.getLogger(__name__)


class Copier:
    """The copies that one home's processes keep. Thread-safe."""

    def __init__(
        self,
        home: Home,
        network_key: bytes,
        catalog_log: Log,
        keys: KeyStore,
        snapshots: Callable[[], list[Snapshot]],
        claimed: Claimed | None = None,
    ) -> None:
        """`keys` is the key table itself; `snapshots` are those that the catalog knows, oldest first. `claimed`: where
        entries lie that `catalog_log` gives whole, and claims stand for in the engine."""
        self._formats = CopyFormats(network_key)
        self._log = catalog_log
        self._keys = keys
        self._snapshots = snapshots
        self._claimed = claimed
        self._file = MarkFile(home)
        self._erasures = Erasures(home.path("catalog", "erasures.sqlite"))
        self._pool: Pool | None = None
        self._fresh_lock = threading.Lock()
        self._fresh: dict[ObjectId, KeyRow] = {}
        self._appended: dict[int, bytes] = {}
        self._anchored: Anchor | None = None
        self._supersedes = b""
        self._known_identity = b""
        self._anchor_is_old = False
        self._was_compared = False
        self._retry_at = 0.0
        self._unconfirmed: tuple[str, ...] = ()

    def attach(self, pool: Pool) -> None:
        """These are the members. Without any nothing is brought, and the next who has them does it."""
        self._pool = pool
        if self._claimed is not None:
            self._claimed.deposit.attach(pool)

    def supersede(self, log: bytes) -> None:
        """This home's log goes on where that one ended, which no home writes to any more."""
        self._supersedes = log

    def close(self) -> None:
        self._erasures.close()

    # --- for a commit

    def check(self) -> None:
        """Meet a pool that could not take a copy before anything is appended. Raises: UnavailableError."""
        pool = self._members()
        if pool is None:
            return
        needed = copies_needed(len(pool.members()))
        mark = self._file.read(self._identity())
        reached = pool.reach(_seed_of(self._identity(), 0 if mark is None else mark.covered + 1))
        if reached < needed:
            raise UnavailableError(
                f"{reached} of {len(pool.members())} members answer, and {needed} have to keep what is committed",
                hint="start the members that are down: `fungistor status` shows them",
            )

    def fresh(self, row: KeyRow) -> None:
        """A key was put that what is committed next may need."""
        with self._fresh_lock:
            self._fresh[row[0]] = row

    def tenants_changed(self) -> None:
        """A tenant was given a key, which the anchor has to tell before anything of it is acknowledged."""
        self._anchor_is_old = True

    def appended(self, position: Position, batch: Sequence[bytes]) -> None:
        """This process has just appended these, and need not read them again."""
        last = entry_number(position)
        with self._fresh_lock:
            for number, payload in enumerate(batch, last - len(batch) + 1):
                self._appended[number] = payload

    def cover(self, position: Position) -> None:
        """See that all entries up to a position, and the keys to them, are in the pool.

        Raises:
            UnavailableError: too few members take them; the entries stand in the log all the same.
            ConflictError: the pool has a later catalog than this home.
        """
        pool, wanted = self._members(), entry_number(position)
        if pool is None:
            return
        with self._file.held():
            mark = self._mark(wanted)
            if mark.covered < wanted:
                mark = self._bring(pool, mark, wanted)
            if not mark.is_seeded and self._is_small(mark):
                mark = self._seed_whole(pool, mark)
            if self._anchor_is_old and mark.is_seeded:
                self._anchor(pool)
                self._anchor_is_old = False

    def _is_small(self, mark: Mark) -> bool:
        return (
            mark.covered - self._first() <= SEED_AT_ONCE
            and len(self._keys.rows(ObjectId(b""), SEED_AT_ONCE)) < SEED_AT_ONCE
        )

    def _seed_whole(self, pool: Pool, mark: Mark) -> Mark:
        while True:
            mark = self._seed(pool, mark)
            if mark.is_seeded:
                self._anchor_is_old = True
                return mark

    def _identity(self) -> bytes:
        if not self._known_identity:
            self._known_identity = self._log.identity()
        return self._known_identity

    def _members(self) -> Pool | None:
        return self._pool if self._pool is not None and self._pool.members() else None

    def _first(self) -> int:
        """Entries up to this one are in no segment: the log has them no more."""
        return entry_number(self._log.trimmed())

    def _mark(self, wanted: int) -> Mark:
        identity = self._identity()
        mark = self._file.read(identity)
        if mark is not None:
            return mark
        first = self._first()
        with self._fresh_lock:
            own = min((number for number in self._appended), default=wanted + 1)
        base = first if wanted - first <= SEED_AT_ONCE else max(first, min(own, wanted + 1) - 1)
        return Mark(identity.hex(), base, "", base, dropped=first)

    def _bring(self, pool: Pool, mark: Mark, wanted: int, *, anew: bool = False) -> Mark:
        """Bring entries after those that are covered, in flights. `anew`: they lay there, on other members maybe."""
        identity = bytes.fromhex(mark.log)
        link = bytes.fromhex(mark.link)
        values: list[tuple[bytes, bytes]] = []
        rows: dict[ObjectId, KeyRow] = {}
        size, foreign = 0, False
        with self._fresh_lock:
            rows.update(self._fresh)
        for number, payload, is_own in self._entries(mark.covered, wanted):
            keys = {key_id: tenant for key_id, tenant in _keys_of(payload).items() if key_id not in rows}
            rows.update((row[0], row) for row in self._rows_of(keys))
            foreign |= not is_own and bool(keys)
            stands = self._standing(number, payload, anew)
            value = self._formats.seal_segment(identity, Segment(number, link, stands))
            values.append((self._formats.segment_name(identity, number), value))
            link, size = link_to(payload), size + len(value)
            is_last_there = number == wanted or (number + 1) % ENTRIES_A_PLACE == 0
            if is_last_there or size >= FLIGHT_BYTES or len(values) + len(rows) >= FLIGHT_VALUES:
                self._keep(pool, values, list(rows.values()), _seed_of(identity, number))
                if foreign:
                    self._look_again(pool, list(rows))
                mark = replace(mark, covered=number, link=link.hex())
                self._file.write(mark)
                with self._fresh_lock:
                    self._fresh = {key_id: row for key_id, row in self._fresh.items() if key_id not in rows}
                    self._appended = {at: kept for at, kept in self._appended.items() if at > number}
                values, rows, size, foreign = [], {}, 0, False
        return mark

    def _standing(self, number: int, payload: bytes, anew: bool) -> bytes:
        """What stands in the engine for an entry. A claim stands there once what it is for is in the pool."""
        if self._claimed is None or (claim := self._claimed.log.claim_at(number)) is None:
            return payload
        if anew:
            self._claimed.deposit.put_again(claim, payload)
        return encode_claim(claim)

    def _entries(self, after: int, until: int) -> Iterator[tuple[int, bytes, bool]]:
        """Entries by number, and whether this process has appended them."""
        with self._fresh_lock:
            own = dict(self._appended)
        if all(number in own for number in range(after + 1, until + 1)):
            yield from ((number, own[number], True) for number in range(after + 1, until + 1))
            return
        for entry in self._log.read(after_entry(after)):
            number = entry_number(entry.position)
            yield number, entry.payload, number in own
            if number == until:
                return

    def _rows_of(self, keys: Mapping[ObjectId, TenantNumber]) -> Iterator[KeyRow]:
        """Those that are still there: what was dropped meanwhile must not come into the pool."""
        for key_id, tenant in keys.items():
            if (wrapped := self._keys.get(key_id)) is not None:
                yield key_id, tenant, wrapped

    def _keep(
        self, pool: Pool, values: Sequence[tuple[bytes, bytes]], rows: Sequence[KeyRow], seed: bytes
    ) -> frozenset[MemberNumber]:
        keys = [(self._formats.key_name(row[0]), self._formats.seal_key(row)) for row in rows]
        if not self.keeps_keys():
            keys = []
        if not keys or len(pool.wiping_members()) == len(pool.members()):
            return pool.keep([*keys, *values], seed) if keys or values else frozenset()
        kept = pool.keep(keys, seed, ours=True)
        return pool.keep(values, seed) if values else kept

    def keeps_keys(self) -> bool:
        """Whether enough members can wipe what is deleted: keys that could not be shredded are not brought there."""
        pool = self._members()
        return pool is not None and len(pool.wiping_members()) >= copies_needed(len(pool.members()))

    def _look_again(self, pool: Pool, key_ids: Sequence[ObjectId]) -> None:
        """Another node may have dropped a key while it was brought: then it has looked for it here in vain."""
        self._keys.follow()
        gone = [key_id for key_id in key_ids if self._keys.get(key_id) is None]
        if gone:
            self.want_erased(gone)
            pool.forget([self._formats.key_name(key_id) for key_id in gone])

    # --- in the background

    def tend(self) -> bool:
        """Bring what is missing, erase what is to go; True while there is more to do now."""
        pool = self._members()
        if pool is None:
            return False
        with self._file.held():
            mark = self._mark(entry_number(self._log.last()))
            self._compare(pool, mark)
            last = entry_number(self._log.last())
            if mark.covered < last:
                mark = self._bring(pool, mark, last)
            if not mark.is_seeded:
                self._seed(pool, mark)
                return True
            self._anchor(pool)
            mark = self._drop_old(pool, mark)
        self.erase()
        return False

    def _compare(self, pool: Pool, mark: Mark) -> None:
        """Refuse to write where the pool has more than the log: an older copy of the log was put in its place."""
        if self._was_compared:
            return
        identity, last = bytes.fromhex(mark.log), entry_number(self._log.last())
        self._check_anchor(self._newest(pool), identity)
        names = [self._formats.segment_name(identity, last + ahead) for ahead in range(1, 9)]

        def accept(_: bytes, value: bytes) -> bool:
            with contextlib.suppress(CorruptError):
                self._formats.open_segment(identity, value)
                return True
            return False

        if len(pool.find(names, accept, len(names)).missing) < len(names):
            if entry_number(self._log.last()) == last:
                raise ConflictError(
                    f"the log of this home ends at entry {last}, but later ones lie in the pool",
                    hint="an older copy of it was put in its place: bring the newest one back, or move the home away "
                    "and `fungistor catalog rebuild`",
                )
            return  # somebody committed meanwhile; the next look tells
        self._was_compared = True

    def _check_anchor(self, found: Anchor | None, identity: bytes) -> None:
        if found is not None and found.log not in (identity, self._supersedes):
            raise ConflictError(
                "the catalog of this network was rebuilt in another home, which is the one that counts now",
                hint="join that one: `fungistor up --pool FILE --catalog URL` with another --home",
            )

    def _seed(self, pool: Pool, mark: Mark) -> Mark:
        """Bring some of what was there before copies were kept, or before the pool or the keys changed."""
        rows = self._keys.rows(ObjectId(bytes.fromhex(mark.seeded_to)), KEYS_A_FLIGHT)
        if rows:
            kept = self._keep(pool, [], rows, _seed_of(b"keys", rows[0][0][0] * ENTRIES_A_PLACE))
            if mark.is_rewrapped and kept:
                pool.forget([self._formats.key_name(row[0]) for row in rows], kept)
            mark = replace(mark, seeded_to=rows[-1][0].hex())
        else:
            first = self._first()
            if mark.base > first:
                again = replace(mark, covered=first, link="")
                self._bring(pool, again, mark.base, anew=True)
            mark = replace(mark, base=first, is_seeded=True, seeded_to="", is_rewrapped=False)
        self._file.write(mark)
        return mark

    def _anchor(self, pool: Pool) -> None:
        """Have every member that answers name the newest snapshot, the tenants' keys, and who the members are."""
        identity = self._identity()
        snapshots = tuple(self._snapshots())
        wanted = Anchor(
            serial=1,
            log=identity,
            first=entry_number(snapshots[-1].position) if snapshots else 0,
            snapshots=snapshots,
            tenants=tuple(self._keys.tenant_rows()),
            members=tuple(sorted(pool.name(member) for member in pool.members())),
            when=int(time.time()),
        )
        if self._anchored is not None and self._anchored.says_the_same_as(wanted):
            return
        found = self._newest(pool)
        self._check_anchor(found, identity)
        if found is not None and found.says_the_same_as(wanted):
            self._anchored = found
            return
        if found is not None:
            wanted = replace(wanted, serial=found.serial + 1)
            self._note_changes(found, wanted)
        pool.keep([(self._formats.anchor_name(), self._formats.seal_anchor(wanted))], b"anchor", everywhere=True)
        self._anchored = wanted

    def _newest(self, pool: Pool) -> Anchor | None:
        values = pool.read_each(self._formats.anchor_name(), pool.up_members(), LOOK_S)
        return self._formats.newest_anchor(values.values())

    def _note_changes(self, found: Anchor, wanted: Anchor) -> None:
        """Where members came or went all is brought once more, and so are all keys where a tenant's changed."""
        before, now = dict(found.tenants), dict(wanted.tenants)
        is_rewrapped = any(tenant in before and before[tenant] != wrapped for tenant, wrapped in now.items())
        if is_rewrapped:
            self._erasures.want_wipe()
        if not is_rewrapped and set(found.members) == set(wanted.members):
            return
        mark = self._file.read(wanted.log)
        if mark is not None:
            self._file.write(
                replace(
                    mark,
                    base=mark.covered,
                    is_seeded=False,
                    seeded_to="",
                    is_rewrapped=mark.is_rewrapped or is_rewrapped,
                )
            )

    def _drop_old(self, pool: Pool, mark: Mark) -> Mark:
        """Delete segments of which the newest snapshot, which the anchor names by now, has all."""
        if self._anchored is None or time.monotonic() < self._retry_at:
            return mark
        identity, end = bytes.fromhex(mark.log), self._anchored.first
        if self._claimed is not None:
            end = min(end, self._first())  # what the engine still has a claim for is needed
            self._want_left_behind(self._claimed.deposit)
        while mark.dropped < end:
            numbers = range(mark.dropped + 1, min(end, mark.dropped + DROPS_A_FLIGHT) + 1)
            names = [self._formats.segment_name(identity, number) for number in numbers]
            # Entries before the segments that tell where they are.
            entries = CopyReader(pool, self._formats).claimed_names(identity, numbers) if self._claimed else []
            if (entries and pool.forget(entries).failed) or pool.forget(names).failed:
                self._retry_at = time.monotonic() + RETRY_S
                return mark
            # Only who compacts gives the space of them back; `gc` has nothing of its own to do where all objects stay.
            self._erasures.want_wipe()
            mark = replace(mark, dropped=numbers[-1])
            self._file.write(mark)
        return mark

    def _want_left_behind(self, deposit: EntryDeposit) -> None:
        for names in deposit.left_behind(entry_number(self._log.last()), self._first()):
            if names:
                self._erasures.want(names)

    # --- what is to go

    def want_erased(self, key_ids: Iterable[ObjectId]) -> None:
        """Note durably that copies of these keys must go: before the keys themselves do."""
        ids = list(key_ids)
        with self._fresh_lock:
            for key_id in ids:
                self._fresh.pop(key_id, None)
        self._erasures.want(self._formats.key_name(key_id) for key_id in ids)

    def want_dropped_erased(self, catalog: Catalog) -> None:
        """Note anew what has to go, where the note of it was lost with a home."""
        dropped = dropped_keys(catalog, self._log)
        while ids := list(itertools.islice(dropped, DROPS_A_FLIGHT)):
            self.want_erased(ids)

    def erase(self) -> tuple[str, ...]:
        """Delete copies of keys that are to go; who has not confirmed."""
        pool = self._members()
        unconfirmed: dict[str, None] = {}
        after = b""
        while names := self._erasures.wanted(after):
            if pool is None:
                return ("pool",)
            with self._file.held():
                failed = pool.forget(names).failed
            unconfirmed.update((pool.name(member), None) for member in failed)
            if not failed:
                self._erasures.done(names)
            after = names[-1]
        self._unconfirmed = tuple(unconfirmed)
        return self._unconfirmed

    def wipe(self) -> tuple[tuple[str, ...], int]:
        """Have members overwrite what was deleted, where anything was, and give its space back; who has not, or cannot,
        and how many bytes the others gave."""
        pool = self._members()
        unconfirmed = self.erase()
        if pool is None or not self._erasures.wipe_is_due():
            return unconfirmed, 0
        compacted = pool.compact(pool.members())
        left = {pool.name(member) for member in compacted.absent} | set(unconfirmed)
        left |= {pool.name(member) for member in compacted.stuck if member in pool.wiping_members()}
        if not left:
            self._erasures.wiped()
        return tuple(sorted(left)), compacted.freed

    # --- for people

    def lag(self) -> int | None:
        """How many entries the pool lacks as far as this home knows; None while it is still being filled."""
        mark = self._file.read(self._identity())
        if mark is None or not mark.is_seeded:
            return None
        return max(0, entry_number(self._log.last()) - mark.covered)

    def copies_of_newest(self) -> tuple[int, int]:
        """On how many members the newest entry lies that this home has brought, and on how many it has to."""
        pool = self._members()
        mark = self._file.read(self._identity())
        if pool is None or mark is None or mark.covered <= max(self._first(), mark.dropped):
            return 0, 0  # the snapshot has all
        identity = bytes.fromhex(mark.log)
        sound = 0
        for value in pool.read_each(
            self._formats.segment_name(identity, mark.covered), pool.up_members(), LOOK_S
        ).values():
            with contextlib.suppress(CorruptError):
                sound += value is not None and self._formats.open_segment(identity, value).number == mark.covered
        return sound, copies_needed(len(pool.members()))


def _keys_of(payload: bytes) -> dict[ObjectId, TenantNumber]:
    """The keys without which what an entry commits cannot be read."""
    keys: dict[ObjectId, TenantNumber] = {}
    with contextlib.suppress(FungiStorError):  # of what this program does not know, those who wrote it brought the keys
        for part in parts_of(decode_command(payload)):
            if isinstance(part.body, Publish):
                keys[part.body.record.key_id] = part.body.record.tenant
            elif isinstance(part.body, SetName):
                keys[ObjectId(part.body.key_ref)] = part.body.tenant
    return keys


def _seed_of(identity: bytes, number: int) -> bytes:
    return identity + (number // ENTRIES_A_PLACE).to_bytes(8, "big")
