"""Members in memory as one shard store: what the use cases stand on in tests and simulations.

It keeps the port's promises over dicts, places by the production tables, asks in one fixed order and in no thread, so
that a run follows from its arguments. Held to the same contract as the real pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, check_shard, shard_key
from fungistor.errors import CorruptError, NotEnoughShardsError, UnavailableError
from fungistor.ids import LayoutNumber, MemberId, MemberNumber, PolicyNumber, StripeId
from fungistor.objects.ports import Buffer, wanted_at
from fungistor.placement import DEFAULT_NUMBER, PlacementTable
from fungistor.placement.read_plan import SPARE_LAYER
from fungistor.pool.places import Places, Seats

SPARE_COPIES = 2
"""As in the pool: a stripe that k + 2 members took is stored."""


@dataclass(slots=True)
class MemberFaults:
    """What one member does wrong. Reads and writes alike, unless said otherwise.

    down: it does not answer, and everybody knows. refuse: it does not answer, and the first who asks finds out.
    owes: a put is never acknowledged, everything else is. lose: it acknowledges what it does not keep. flip_payload,
    flip_tag: one bit of a value read is another. truncated: a value read lacks its last byte. unflushed: its barriers
    fail.
    """

    down: bool = False
    refuse: bool = False
    owes: bool = False
    lose: bool = False
    flip_payload: bool = False
    flip_tag: bool = False
    truncated: bool = False
    unflushed: bool = False


@dataclass(slots=True)
class MemoryMember:
    """One member: its values by key, its faults, and which run of its daemon this is."""

    number: MemberNumber
    id: MemberId
    values: dict[bytes, bytes] = field(default_factory=dict)
    faults: MemberFaults = field(default_factory=MemberFaults)
    run: int = 1
    believed_down: bool = False

    @property
    def answers(self) -> bool:
        """Whether a request to it is answered."""
        return not (self.faults.down or self.faults.refuse)

    def read(self, key: bytes) -> bytes | None:
        """A value as this member gives it."""
        value = self.values.get(key)
        if value is None:
            return None
        told = bytearray(value)
        if self.faults.flip_payload and len(told) > SHARD_TAG_BYTES:
            told[(len(told) - SHARD_TAG_BYTES) // 2] ^= 1
        if self.faults.flip_tag:
            told[-1] ^= 1
        return bytes(told[:-1] if self.faults.truncated else told)


@dataclass(frozen=True, slots=True)
class MemoryReceipt:
    """A run of a member acknowledged something."""

    member: MemberNumber
    run_id: bytes


@dataclass(frozen=True, slots=True)
class MemoryPut:
    """`ports.PutOutcome`."""

    stored: frozenset[int]
    owed: Mapping[int, str]
    receipts: frozenset[MemoryReceipt]


@dataclass(frozen=True, slots=True)
class MemoryBarrier:
    """`ports.BarrierOutcome`."""

    failed: Mapping[MemberNumber, str]


@dataclass(frozen=True, slots=True)
class MemoryFetched:
    """`ports.Fetched`."""

    shards: Mapping[int, memoryview]
    tags: Mapping[int, bytes]
    failures: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class MemoryInspected:
    """`ports.Inspected`."""

    soundness: str
    member: MemberNumber
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class MemoryDeleted:
    """`ports.DeleteOutcome`."""

    confirmed: frozenset[MemberNumber]
    failed: Mapping[MemberNumber, str]


@dataclass(frozen=True, slots=True)
class MemoryCompacted:
    """`ports.CompactOutcome`."""

    freed: int
    absent: Mapping[MemberNumber, str]
    stuck: Mapping[MemberNumber, str]


class MemoryStore:
    """`fungistor.objects.ports.ShardStore` in memory. Thread-safe.

    `asked` lists the (stripe id, index) of every shard that a fetch asked some member for, in order; `ranged_bytes`
    counts what ranges brought. Without `knows_ranges` all members are like an original 0-db.
    """

    def __init__(
        self, members: Mapping[MemberNumber, MemberId], layouts: Mapping[LayoutNumber, PlacementTable]
    ) -> None:
        self.all = {number: MemoryMember(number, name) for number, name in sorted(members.items())}
        self.layouts = dict(layouts)
        self.left: dict[LayoutNumber, PlacementTable] = {}
        self._placed: tuple[object, Places] = ((), Places({}))
        self.asked: list[tuple[StripeId, int]] = []
        self.puts = 0
        self.knows_ranges = True
        self.ranged_bytes = 0
        self._lock = threading.RLock()

    def join(self, members: Mapping[MemberNumber, MemberId], layout: LayoutNumber, table: PlacementTable) -> None:
        """Another layout is the newest from now on; members that nobody knew are empty."""
        for number, name in members.items():
            self.all.setdefault(number, MemoryMember(number, name))
        self.layouts[layout] = table

    # faults

    def __getitem__(self, number: MemberNumber) -> MemoryMember:
        return self.all[number]

    def down(self, numbers: Iterable[MemberNumber]) -> None:
        """These members are gone, and known to be."""
        for number in numbers:
            self.all[number].faults.down = True

    def heal(self) -> None:
        """No member has a fault any more, and all are believed up."""
        for member in self.all.values():
            member.faults, member.believed_down = MemberFaults(), False

    def restart(self, number: MemberNumber) -> None:
        """The member's daemon is another run now, with its values; its being gone has ended."""
        member = self.all[number]
        member.run += 1
        member.faults.down = member.faults.refuse = member.believed_down = False

    def values(self) -> dict[bytes, bytes]:
        """All keys and values of all members."""
        return {key: value for member in self.all.values() for key, value in member.values.items()}

    # members

    def newest_layout(self, policy: PolicyNumber = DEFAULT_NUMBER) -> LayoutNumber:
        return self._places.newest(policy)

    def tracks(self) -> list[LayoutNumber]:
        return self._places.tracks()

    def seats(self, layout: LayoutNumber) -> Seats:
        return self._places.seats(layout)

    @property
    def _places(self) -> Places:
        numbers = tuple(self.layouts), tuple(self.left)
        if numbers != self._placed[0]:
            self._placed = numbers, Places(self.layouts, self.left)
        return self._placed[1]

    def members(self) -> list[MemberNumber]:
        return list(self.all)

    def up_members(self) -> list[MemberNumber]:
        with self._lock:
            return [m.number for m in self.all.values() if not (m.faults.down or m.believed_down)]

    def name(self, number: MemberNumber) -> str:
        return self.all[number].id

    def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
        return self._places.window(stripe_id, layout, shards)

    def _reach(self, number: MemberNumber) -> str:
        """Why a member cannot be asked, "" when it can; asking teaches."""
        member = self.all[number]
        if member.answers:
            return ""
        member.believed_down = True
        return "is down" if member.faults.down else "refused the connection"

    # stripes

    def put(
        self, stripe_id: StripeId, layout: LayoutNumber, k: int, m: int, shards: Sequence[tuple[Buffer, bytes]]
    ) -> MemoryPut:
        with self._lock:
            members = self.window(stripe_id, layout, k + m)
            owed: dict[int, str] = {}
            receipts: set[MemoryReceipt] = set()
            for index, (number, (payload, tag)) in enumerate(zip(members, shards, strict=True)):
                problem = self._store(number, shard_key(stripe_id, index), payload, tag)
                if problem:
                    owed[index] = problem
                else:
                    receipts.add(MemoryReceipt(number, b"%d" % self.all[number].run))
            if len(members) - len(owed) < min(k + SPARE_COPIES, k + m):
                why = "; ".join(f"{self.name(members[index])}: {reason}" for index, reason in owed.items())
                raise UnavailableError(
                    f"only {len(members) - len(owed)} of {len(members)} members can take their shard, "
                    f"{k + SPARE_COPIES} are needed ({why})"
                )
            return MemoryPut(frozenset(set(range(k + m)) - set(owed)), owed, frozenset(receipts))

    def _store(self, number: MemberNumber, key: bytes, payload: Buffer, tag: bytes) -> str:
        """Keep a value; why it was not acknowledged, "" if it was."""
        self.puts += 1
        member = self.all[number]
        if problem := self._reach(number):
            return problem
        if member.faults.owes:
            return "no answer in time"
        if not member.faults.lose:
            member.values[key] = bytes(payload) + tag
        return ""

    def delete(self, slots: Sequence[Slot]) -> MemoryDeleted:
        """As `ports.ShardStore.delete`."""
        confirmed: set[MemberNumber] = set()
        failed: dict[MemberNumber, str] = {}
        for slot in slots:
            held = [(place.index, place.member) for place in self._places.of(slot) if place.layer != SPARE_LAYER]
            for index, number in [*held, *self._places.stale(slot)]:
                member = self.all[number]
                if not member.answers:
                    failed[number] = "down"
                    continue
                confirmed.add(number)
                member.values.pop(shard_key(slot.stripe_id, index), None)
        return MemoryDeleted(frozenset(confirmed - set(failed)), failed)

    def delete_stale(
        self, slots: Sequence[Slot], indices: Sequence[Collection[int]], layouts: Collection[LayoutNumber]
    ) -> MemoryDeleted:
        """As `ports.ShardStore.delete_stale`."""
        confirmed: set[MemberNumber] = set()
        failed: dict[MemberNumber, str] = {}
        for slot, sure in zip(slots, indices, strict=True):
            for index, number in self._places.stale(slot, layouts):
                if index not in sure:
                    continue
                if not self.all[number].answers:
                    failed[number] = "down"
                    continue
                confirmed.add(number)
                self.all[number].values.pop(shard_key(slot.stripe_id, index), None)
        return MemoryDeleted(frozenset(confirmed - set(failed)), failed)

    def compact(self, members: Collection[MemberNumber]) -> MemoryCompacted:
        """As `ports.ShardStore.compact`: what is deleted here is gone already."""
        absent = {number: "down" for number in members if not self.all[number].answers}
        return MemoryCompacted(0, absent, {})

    def put_shard(self, slot: Slot, index: int, payload: Buffer, tag: bytes) -> MemoryReceipt:
        with self._lock:
            number = wanted_at(self, slot)[index]
            if problem := self._store(number, shard_key(slot.stripe_id, index), payload, tag):
                raise UnavailableError(f"{self.name(number)} did not store a shard: {problem}")
            return MemoryReceipt(number, b"%d" % self.all[number].run)

    def get_shard(self, slot: Slot, index: int) -> bytes | None:
        found = self.inspect(slot)[index]
        if found.soundness == "unknown":
            raise UnavailableError(f"shard {index}: {self.name(found.member)} does not answer")
        return found.value

    def receipt(self, member: MemberNumber, run_id: bytes) -> MemoryReceipt:
        return MemoryReceipt(member, run_id)

    def barrier(self, receipts: Collection[MemoryReceipt]) -> MemoryBarrier:
        failed: dict[MemberNumber, str] = {}
        with self._lock:
            for receipt in receipts:
                member = self.all[receipt.member]
                if problem := self._reach(receipt.member):
                    failed[receipt.member] = problem
                elif b"%d" % member.run != receipt.run_id:
                    failed[receipt.member] = "its daemon restarted during the publish"
                elif member.faults.unflushed:
                    failed[receipt.member] = "did not flush in time"
        return MemoryBarrier(failed)

    # reading

    def fetch(
        self,
        slot: Slot,
        wanted: Collection[int] | None,
        into: Callable[[int], memoryview],
        *,
        exclude: Collection[int] = (),
    ) -> MemoryFetched:
        with self._lock:
            return _Reading(self, slot, into, exclude).run(wanted)

    def fetch_ranges(self, slot: Slot, pieces: Sequence[tuple[int, int, memoryview]]) -> bool:
        with self._lock:
            return all(self._fetch_range(slot, *piece) for piece in pieces)

    def _fetch_range(self, slot: Slot, index: int, offset: int, view: memoryview) -> bool:
        member = self.all[self.places(slot, index)[0]]
        if not self.knows_ranges or member.faults.down or member.believed_down:
            return False
        self.asked.append((slot.stripe_id, index))
        value = None if self._reach(member.number) else member.read(shard_key(slot.stripe_id, index))
        if value is None or len(value) < offset + len(view):
            return False
        view[:] = value[offset : offset + len(view)]
        self.ranged_bytes += len(view)
        return True

    def places(self, slot: Slot, index: int) -> list[MemberNumber]:
        """Where a shard may lie, by the newest layout first."""
        places = [place for place in self._places.of(slot) if place.layer != SPARE_LAYER]
        return [place.member for place in places if place.index == index]

    def inspect(self, slot: Slot) -> dict[int, MemoryInspected]:
        with self._lock:
            return {index: self._inspect(slot, index) for index in range(slot.k + slot.m)}

    def inspect_home(self, slot: Slot, indices: Collection[int]) -> dict[int, MemoryInspected]:
        """As `ports.ShardStore.inspect_home`."""
        with self._lock:
            return {index: self._inspect(slot, index, only_at_home=True) for index in indices}

    def check_home(self, slots: Sequence[Slot]) -> list[dict[int, str]]:
        """As `ports.ShardStore.check_home`. A member's checksum is that of the values it was given: faults of reading
        are past it, a value that was changed behind its back is not."""
        with self._lock:
            return [{index: self._checked(slot, index) for index in range(slot.k + slot.m)} for slot in slots]

    def _checked(self, slot: Slot, index: int) -> str:
        member = self.all[self.places(slot, index)[0]]
        value = member.values.get(shard_key(slot.stripe_id, index))
        if self._reach(member.number):
            return "unknown"
        if value is None:
            return "missing"
        try:
            check_shard(slot.stripe_id, index, value, slot.shard_bytes)
        except CorruptError:
            return "corrupt"
        return "good"

    def _inspect(self, slot: Slot, index: int, *, only_at_home: bool = False) -> MemoryInspected:
        found: list[MemoryInspected] = []
        for number in self.places(slot, index)[: 1 if only_at_home else None]:
            value = None if self._reach(number) else self.all[number].read(shard_key(slot.stripe_id, index))
            if not self.all[number].answers:
                found.append(MemoryInspected("unknown", number))
            elif value is None:
                found.append(MemoryInspected("missing", number))
            else:
                try:
                    check_shard(slot.stripe_id, index, value, slot.shard_bytes)
                except CorruptError:
                    found.append(MemoryInspected("corrupt", number))
                else:
                    return MemoryInspected("good", number, value)
        return min(found, key=lambda shard: ("corrupt", "unknown", "missing").index(shard.soundness))

    def exists_all(self, slots: Sequence[Slot]) -> list[dict[int, bool | None]]:
        """As `ports.ShardStore.exists_all`."""
        return [self.exists(slot) for slot in slots]

    def exists(self, slot: Slot) -> dict[int, bool | None]:
        with self._lock:
            return {index: self._exists(slot, index) for index in range(slot.k + slot.m)}

    def at_home(self, slots: Sequence[Slot]) -> list[dict[int, bool | None]]:
        with self._lock:
            return [
                {index: self._exists(slot, index, only_at_home=True) for index in range(slot.k + slot.m)}
                for slot in slots
            ]

    def _exists(self, slot: Slot, index: int, *, only_at_home: bool = False) -> bool | None:
        key = shard_key(slot.stripe_id, index)
        places = self.places(slot, index)[:1] if only_at_home else self.places(slot, index)
        said = [None if self._reach(number) else key in self.all[number].values for number in places]
        return True if True in said else None if None in said else False


class _Reading:
    """One fetch: the wanted data shards, then, if one of them does not come, any k in the order of their indices."""

    def __init__(
        self, store: MemoryStore, slot: Slot, into: Callable[[int], memoryview], exclude: Collection[int]
    ) -> None:
        self._store = store
        self._slot = slot
        self._into = into
        self._exclude = exclude
        self._shards: dict[int, memoryview] = {}
        self._tags: dict[int, bytes] = {}
        self._failures: dict[int, str] = {}
        self._by_member: dict[str, str] = {}

    def run(self, wanted: Collection[int] | None) -> MemoryFetched:
        slot = self._slot
        first = sorted(wanted) if wanted is not None else []
        if len(first) < slot.k and first and not set(first) & set(self._exclude):
            up = set(self._store.up_members())
            if all(self._store.places(slot, index)[0] in up for index in first):
                for index in first:
                    self._ask(index)
                if set(first) <= set(self._shards):
                    return self._fetched()
        for index in range(slot.k + slot.m):
            if len(self._shards) >= slot.k:
                break
            if index not in self._shards and index not in self._failures:
                self._ask(index)
        if len(self._shards) < slot.k:
            raise NotEnoughShardsError(found=len(self._shards), needed=slot.k, by_member=self._by_member)
        return self._fetched()

    def _fetched(self) -> MemoryFetched:
        return MemoryFetched(self._shards, self._tags, self._failures)

    def _ask(self, index: int) -> None:
        for number in self._store.places(self._slot, index):
            problem = self._try(index, number)
            if not problem:
                self._failures.pop(index, None)
                return
            self._failures.setdefault(index, problem)
            self._by_member.setdefault(self._store.name(number), problem)

    def _try(self, index: int, number: MemberNumber) -> str:
        """Bring a shard from one of its places; why it did not come, "" if it did."""
        slot, store = self._slot, self._store
        if index in self._exclude:
            return "excluded as corrupt"
        store.asked.append((slot.stripe_id, index))
        if problem := store._reach(number):  # noqa: SLF001 one class in two parts
            return problem
        value = store[number].read(shard_key(slot.stripe_id, index))
        if value is None:
            return "does not have it"
        if len(value) != slot.shard_bytes + SHARD_TAG_BYTES:
            return f"has a value of {len(value)} bytes, not of {slot.shard_bytes + SHARD_TAG_BYTES}"
        view = self._into(index)
        view[:] = value[: slot.shard_bytes]
        self._shards[index], self._tags[index] = view, value[slot.shard_bytes :]
        return ""
