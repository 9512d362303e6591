"""One publish under way: its secret, the stripe ids drawn from it, and what its stripes reached.

The journal entry is written before the first shard. After a crash it is all that is needed to list every key that
the session could have written: ids are drawn from the secret and a counter.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES
from fungistor.coding.stripe import stripe_id
from fungistor.errors import FailedError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber, SessionId, StripeId
from fungistor.limits import SHARD_INDEX_MAX
from fungistor.objects.placed_policy import BY_DEFAULT, PlacedPolicy
from fungistor.objects.ports import ShardStore
from fungistor.objects.spool import StoredBlock
from fungistor.objects.upload_journal import (
    ENTRY_NAME,
    LeftUpload,
    StripeRecords,
    clear_scratch,
    left_uploads,
    wall_now,
)
from fungistor.placement.policy import SITE_DEPTH, level_name

ID_DRAWS_MAX = 1024
"""How many ids are drawn to find the best window. With 4 of 20 down and 18 shards one in 32 leaves out two of them, all
that it can, and a draw takes some 10 us."""

Draw = Callable[[int], bytes]
"""Draws that many random bytes. A session's id and secret come from here, and so all places of its shards."""


class StripeIds(Protocol):
    """Where a session's stripe ids come from."""

    @property
    def id(self) -> SessionId:
        """The session as the catalog knows it."""

    @property
    def secret(self) -> bytes:
        """What ids are drawn from, with a counter."""

    def take(self) -> int:
        """The next counter."""


class UnknownIds:
    """Ids of a session that the catalog does not know: of scratch files, which write no shard."""

    def __init__(self, draw: Draw) -> None:
        self.id = SessionId(draw(16))
        self.secret = draw(32)
        self._counter = itertools.count()

    def take(self) -> int:
        """The next counter."""
        return next(self._counter)


def value_bytes(slot: Slot) -> int:
    """Bytes of all values of a stripe on its members."""
    return (slot.k + slot.m) * (slot.shard_bytes + SHARD_TAG_BYTES)


@dataclass(frozen=True, slots=True)
class WrittenStripe:
    """A stripe of this session after its shards went out."""

    slot: Slot
    window: tuple[MemberNumber, ...]
    block_lengths: tuple[int, ...]
    owed: frozenset[int]
    receipts: Collection[Any]

    @property
    def stored_bytes(self) -> int:
        """Bytes of the values stored so far."""
        return value_bytes(self.slot) - len(self.owed) * (self.slot.shard_bytes + SHARD_TAG_BYTES)


@dataclass(slots=True)
class Settlement:
    """How well everything that a publish relies on is held: further losses of members and of whole zones that are
    survived, and who owes how many shards. Each is the least of all stripes; at first nothing bounds it."""

    survives: int = SHARD_INDEX_MAX
    owed: dict[MemberNumber, int] = field(default_factory=dict)
    survives_zones: int = SHARD_INDEX_MAX
    zone_level: str = level_name(SITE_DEPTH)

    @property
    def owed_shards(self) -> int:
        """All debts."""
        return sum(self.owed.values())


class Session:
    """Thread-safe. Use as a context manager: the journal entry goes with it, unless the process dies."""

    def __init__(
        self,
        journal: str,
        store: ShardStore,
        draw: Draw = os.urandom,
        *,
        ids: StripeIds | None = None,
        sync: bool = True,
        source: str | None = None,
        policy: PlacedPolicy = BY_DEFAULT,
    ) -> None:
        """`policy`: by which its stripes are cut and placed. `source`: what tells content that may be published again
        after an interruption, see `upload_journal`."""
        self._journal = journal
        self._source = source
        self.policy = policy
        self._left: LeftUpload | None = None
        self._ids = ids or UnknownIds(draw)
        self.id = self._ids.id
        self._store = store
        self._sync = sync
        self.folder = os.path.join(journal, self.id.hex())
        self._lock = threading.Lock()
        self._entry: int | None = None
        self._records = StripeRecords(sync=sync)
        self._stripes: list[tuple[Slot, frozenset[int], tuple[MemberNumber, ...]]] = []
        self.in_vain = False
        """Whether shards went out that no stripe of this session is made of."""
        self.committed = False
        self._receipts: set[Any] = set()
        self.new_bytes = 0
        self.value_bytes = 0

    @property
    def left_something(self) -> bool:
        """Whether shards went out that no record names."""
        return self.in_vain or (bool(self._stripes) and not self.committed)

    @property
    def is_journalled(self) -> bool:
        """Whether stripes are noted that another publish of the same source may take up."""
        return not self._records.is_empty

    @property
    def stripes(self) -> int:
        """How many stripes went out."""
        return len(self._stripes)

    def __enter__(self) -> Session:
        self._make_folder()
        entry = {"version": 0, "session": self._ids.id.hex(), "secret": self._ids.secret.hex(), "pid": os.getpid(),
                 "started": int(time.time())}  # fmt: skip
        if self._source is not None:
            entry["source"] = self._source
        path = os.path.join(self.folder, ENTRY_NAME)
        self._entry = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # Held as long as this process lives: whoever gets it knows that the publisher is dead.
        fcntl.flock(self._entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._entry, json.dumps(entry).encode())
        if self._sync:
            os.fsync(self._entry)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._records.close()
        left, self._left = self._left, None
        if kind is not None and not self._records.is_empty:
            clear_scratch(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if left is not None:
            left.forget() if kind is None else left.release()
        if self._entry is not None:
            os.close(self._entry)

    def left(self) -> LeftUpload | None:
        """What earlier sessions of the same source stored and did not come to commit."""
        if self._source is not None and self._left is None:
            self._left = left_uploads(self._journal, self._source, self._store, wall_now())
        return self._left

    def _make_folder(self) -> None:
        """One session of the catalog may serve several objects, and of one that failed something may be left."""
        name = self.folder
        for attempt in itertools.count(1):
            try:
                os.makedirs(self.folder, mode=0o700)
                return
            except FileExistsError:
                self.folder = f"{name}-{attempt}"

    def draw_id(self, layout: LayoutNumber, shards: int) -> tuple[StripeId, tuple[MemberNumber, ...]]:
        """Draw an id whose window leaves out as many down members as can be; return it with its window."""
        up = set(self._store.up_members())
        members = self._store.seats(layout).members
        unavoidable = max(0, shards - sum(member in up for member in members))
        best: tuple[int, StripeId, tuple[MemberNumber, ...]] | None = None
        for _ in range(1 if shards >= len(members) else ID_DRAWS_MAX):
            drawn = stripe_id(self._ids.secret, self._ids.take())
            window = self._store.window(drawn, layout, shards)
            down = sum(member not in up for member in window)
            if best is None or down < best[0]:
                best = (down, drawn, window)
            if down <= unavoidable:
                break
        assert best is not None
        return best[1], best[2]

    def wrote(self, stripe: WrittenStripe, blocks: Sequence[tuple[bytes, StoredBlock]] = ()) -> None:
        """Count a stripe whose shards went out, with the blocks that an interrupted publish would want to find again.

        Raises:
            FailedError: the journal cannot be written.
        """
        with self._lock:
            if blocks and self._source is not None:
                try:
                    self._records.add(self.folder, stripe.slot, stripe.block_lengths, stripe.receipts, blocks)
                except OSError as error:
                    raise FailedError(
                        f"{self.folder}: the journal cannot be written: {error.strerror}", hint="make room there"
                    ) from error
            self._receipts.update(stripe.receipts)
            self._stripes.append((stripe.slot, stripe.owed, stripe.window))
            self.new_bytes += stripe.stored_bytes
            self.value_bytes += value_bytes(stripe.slot)

    def settle(self) -> Settlement:
        """Flush every member that stored something, once, and tell how well the session's stripes are held.

        Raises:
            UnavailableError: some stripe is durable on fewer than k + 2 members.
        """
        failed = self.flush()
        return self.settlement(range(len(self._stripes)), failed)

    def flush(self) -> Mapping[MemberNumber, str]:
        """Flush every member that stored something, once; those that did not, with reasons."""
        return self._store.barrier(self._receipts).failed if self._receipts else {}

    def stored_bytes(self, numbers: Iterable[int]) -> int:
        """Value bytes of some of its stripes."""
        return sum(value_bytes(self._stripes[number][0]) for number in numbers)

    def settlement(self, numbers: Iterable[int], failed: Mapping[MemberNumber, str]) -> Settlement:
        """How well some of its stripes are held, numbered as they went out, where `failed` did not flush.

        Raises: as `settle`.
        """
        most = self.policy.policy.m
        settlement = Settlement(most, survives_zones=most, zone_level=self.policy.level)
        margin = self.policy.cut.margin
        for number in numbers:
            slot, owed, window = self._stripes[number]
            debtors = [m for index, m in enumerate(window) if index in owed or m in failed]
            spare = len(window) - len(debtors) - slot.k
            if spare < margin:
                reasons = "; ".join(f"{self._store.name(m)}: {why}" for m, why in sorted(failed.items()))
                raise UnavailableError(
                    f"a stripe is durable on {len(window) - len(debtors)} members, {slot.k + margin} are needed"
                    + (f" ({reasons})" if reasons else ""),
                    hint="nothing was published; see `fungistor status` and publish again when the members are back",
                )
            settlement.survives = min(settlement.survives, spare)
            zones = self.policy.zones_survived(window, debtors, slot.k)
            settlement.survives_zones = min(settlement.survives_zones, zones)
            for member in debtors:
                settlement.owed[member] = settlement.owed.get(member, 0) + 1
        return settlement
