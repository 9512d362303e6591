"""What the use cases ask of the world. The pool, the catalog's engine and the key table stand behind these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fungistor.coding.manifest import Slot
from fungistor.errors import InvalidError
from fungistor.ids import LayoutNumber, MemberNumber, ObjectId, PolicyNumber, StripeId, TenantNumber
from fungistor.placement import DEFAULT_NUMBER, policy_of

Buffer = bytes | bytearray | memoryview


class PutOutcome(Protocol):
    """What became of a stripe's shards."""

    @property
    def stored(self) -> frozenset[int]:
        """Indices acknowledged by their members."""

    @property
    def owed(self) -> Mapping[int, str]:
        """Indices not stored, with the reason."""

    @property
    def receipts(self) -> Collection[Any]:
        """What the members acknowledged and did not flush yet: hand them to `barrier`."""


class BarrierOutcome(Protocol):
    """What became of a flush."""

    @property
    def failed(self) -> Mapping[MemberNumber, str]:
        """Members on which nothing handed in may be counted on, with reasons."""


class Fetched(Protocol):
    """Shards of a stripe that arrived."""

    @property
    def shards(self) -> Mapping[int, memoryview]:
        """Payload by index, not yet checked against its tag. What lies outside `into` is the caller's to keep."""

    @property
    def tags(self) -> Mapping[int, bytes]:
        """The tag that came behind each payload."""

    @property
    def failures(self) -> Mapping[int, str]:
        """Why the others did not come."""


class Inspected(Protocol):
    """One shard after it was looked for everywhere it may lie."""

    @property
    def soundness(self) -> str:
        """``good``, ``missing``, ``corrupt`` or ``unknown``: its member does not answer."""

    @property
    def member(self) -> MemberNumber:
        """Who has it, or should have it."""

    @property
    def value(self) -> bytes | None:
        """Payload and tag, if good."""


class DeleteOutcome(Protocol):
    """Where shards are gone for good, and where they may not be."""

    @property
    def confirmed(self) -> frozenset[MemberNumber]:
        """Members that have deleted all, durably."""

    @property
    def failed(self) -> Mapping[MemberNumber, str]:
        """The others, with reasons."""


class CompactOutcome(Protocol):
    """What members gave back."""

    @property
    def freed(self) -> int:
        """Bytes."""

    @property
    def absent(self) -> Mapping[MemberNumber, str]:
        """Members that do not answer, with reasons."""

    @property
    def stuck(self) -> Mapping[MemberNumber, str]:
        """Members that cannot compact, with reasons."""


class Seats(Protocol):
    """Where new stripes of one policy may go."""

    @property
    def row_len(self) -> int:
        """How many shards a stripe may have."""

    @property
    def members(self) -> Collection[MemberNumber]:
        """Out of which its members are."""


class ShardStore(Protocol):
    """The members as one store of shards. Thread-safe; every call ends within its own deadlines."""

    def newest_layout(self, policy: PolicyNumber = DEFAULT_NUMBER) -> LayoutNumber:
        """The layout under which stripes of a policy are written, as slots name it.

        Raises:
            UnavailableError: this process has not heard of the policy.
        """

    def tracks(self) -> Sequence[LayoutNumber]:
        """The newest layout of each policy."""

    def seats(self, layout: LayoutNumber) -> Seats:
        """Where new stripes go of the policy that a layout's number names."""

    def members(self) -> Sequence[MemberNumber]:
        """All members of the newest layout."""

    def up_members(self) -> Sequence[MemberNumber]:
        """Those believed to answer now."""

    def name(self, number: MemberNumber) -> str:
        """A member's id, for messages."""

    def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
        """The member of each shard index."""

    def put(
        self, stripe_id: StripeId, layout: LayoutNumber, k: int, m: int, shards: Sequence[tuple[Buffer, bytes]]
    ) -> PutOutcome:
        """Store payload and tag of every shard, in parallel.

        Raises:
            UnavailableError: fewer than k + 2 were stored.
        """

    def receipt(self, member: MemberNumber, run_id: bytes) -> Hashable:
        """A receipt as an earlier process had it of a run of a member's daemon; see its `member` and `run_id`."""

    def barrier(self, receipts: Collection[Any]) -> BarrierOutcome:
        """Make durable all that these receipts stand for, one flush a member."""

    def fetch(
        self, slot: Slot, wanted: Collection[int] | None, into: Callable[[int], memoryview], *, exclude: Collection[int]
    ) -> Fetched:
        """Bring the wanted data shards, or any k where one of them cannot be had. A payload lands in ``into(index)``.

        Raises:
            NotEnoughShardsError: fewer than k shards can be had now.
        """

    def fetch_ranges(self, slot: Slot, pieces: Sequence[tuple[int, int, memoryview]]) -> bool:
        """Bring bytes of data shards, unchecked, into views: index, offset in the payload, view. False: not so, `fetch`
        whole shards."""

    def inspect(self, slot: Slot) -> Mapping[int, Inspected]:
        """Read and check every shard of a stripe."""

    def put_shard(self, slot: Slot, index: int, payload: Buffer, tag: bytes) -> Hashable:
        """Store one shard where the newest layout wants it; return its receipt.

        Raises:
            UnavailableError: its member does not take it.
        """

    def at_home(self, slots: Sequence[Slot]) -> Sequence[Mapping[int, bool | None]]:
        """For each stripe, whether each shard lies where the newest layout wants it; None where that member does not
        answer."""

    def check_home(self, slots: Sequence[Slot]) -> Sequence[Mapping[int, str]]:
        """For each stripe, what each shard is like where the newest layout wants it, in the words of `Inspected`: its
        member compares it with its own checksum, and sends nothing."""

    def inspect_home(self, slot: Slot, indices: Collection[int]) -> Mapping[int, Inspected]:
        """As `inspect`, of the copies alone that the newest layout wants."""

    def get_shard(self, slot: Slot, index: int) -> bytes | None:
        """One sound shard's payload and tag, from wherever it lies; None where it is nowhere, or damaged.

        Raises:
            UnavailableError: nobody could say.
        """

    def exists(self, slot: Slot) -> Mapping[int, bool | None]:
        """Whether each shard is there; None where its member does not answer."""

    def exists_all(self, slots: Sequence[Slot]) -> Sequence[Mapping[int, bool | None]]:
        """`exists` for many stripes at once."""

    def delete(self, slots: Sequence[Slot]) -> DeleteOutcome:
        """Delete every shard of these stripes wherever it may lie, and flush that."""

    def delete_stale(
        self, slots: Sequence[Slot], indices: Sequence[Collection[int]], layouts: Collection[LayoutNumber]
    ) -> DeleteOutcome:
        """Delete copies of each stripe's shards `indices` where only these retired layouts wanted them, and flush."""

    def compact(self, members: Collection[MemberNumber]) -> CompactOutcome:
        """Have members give back the space of what is deleted; returns when they have."""


class ReadCache(Protocol):
    """What was read before. It may hold nothing, or forget at any time."""

    @property
    def keeps_sealed(self) -> bool:
        """Tell whether spans are kept at all."""

    def block(self, multihash: bytes) -> bytes | None:
        """A verified block, from memory."""

    def has_block(self, multihash: bytes) -> bool:
        """Tell whether `block` would give it now."""

    def keep_block(self, multihash: bytes, data: bytes) -> None:
        """Keep a block that was verified."""

    def sealed(self, key: bytes) -> bytes | None:
        """A span of a stripe as members hold it; only its seal says whether it is what was kept."""

    def keep_sealed(self, spans: Mapping[bytes, bytes]) -> None:
        """Keep spans that were opened."""

    def damaged(self, key: bytes) -> None:
        """A kept span did not open."""

    @property
    def sealed_bytes_max(self) -> int:
        """How much of spans is kept at most."""

    def note_pass(self, stripe_id: StripeId) -> bool:
        """Tell whether an object was read from end to end before, and note that it is.

        `stripe_id`: where its manifest begins.
        """

    @property
    def landed(self) -> int:
        """How many flights have ended."""

    def flight(self, key: bytes, looked: int) -> AbstractContextManager[bool]:
        """Hold while the stripe `key` is fetched. True where somebody else was at it first, and may have kept it since
        `looked`, which is what `landed` was before the cache was asked."""


class KeyTable(Protocol):
    """Wrapped object keys, beside the log and never in it, by the `key_id` of their records."""

    def put(self, object_id: ObjectId, tenant: TenantNumber, wrapped: bytes) -> bytes:
        """Keep a wrapped key durably unless there is one; return the one that is kept."""

    def put_all(self, rows: Sequence[tuple[ObjectId, TenantNumber, bytes]]) -> None:
        """`put` for many, durable together."""

    def get(self, object_id: ObjectId) -> bytes | None:
        """The wrapped key."""

    def delete(self, object_ids: Iterable[ObjectId]) -> int:
        """Drop keys, overwriting them; how many there were."""

    def objects(self) -> list[ObjectId]:
        """All that have a key."""

    def sweep(self) -> bool:
        """Have no trace of dropped keys left; False where somebody reads them still."""


def wanted_at(store: ShardStore, slot: Slot) -> tuple[MemberNumber, ...]:
    """The members that the newest layout wants a stripe's shards at, whatever layout it was written under."""
    try:
        return store.window(slot.stripe_id, store.newest_layout(policy_of(slot.layout)), slot.k + slot.m)
    except InvalidError:
        # The pool has shrunk below this stripe's shards: they stay where they are.
        return store.window(slot.stripe_id, slot.layout, slot.k + slot.m)
