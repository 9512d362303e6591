"""The members as one shard store: each operation is a flight of requests to many members under one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import shard_key
from fungistor.errors import InvalidError, UnavailableError
from fungistor.ids import LayoutNumber, MemberNumber, PolicyNumber, StripeId
from fungistor.placement import DEFAULT_NUMBER
from fungistor.placement.health import MemberState, Standing
from fungistor.pool import clearing, keeping, survey
from fungistor.pool.clearing import Compacted, Deleted
from fungistor.pool.gather import Gather, Into, fresh_buffers
from fungistor.pool.ground import Ground
from fungistor.pool.keeping import Found
from fungistor.pool.members import IDENTITY_KEY, BarrierResult, Fetched, MemberSpec, PutResult, Receipt
from fungistor.pool.places import NO_TABLES, Seats, Tables
from fungistor.pool.prober import PROBE_S
from fungistor.pool.ranges import Piece, Ranges
from fungistor.pool.scatter import Barrier, Scatter, Shard, put_one
from fungistor.pool.survey import Inspected, Soundness
from fungistor.zdb.client import Client
from fungistor.zdb.resp import Buffer

FLUSH_MS = 5000


class Pool:
    """Thread-safe. Close it, or use it in `with`: it has connections, and a thread once a member is in trouble."""

    def __init__(
        self,
        members: Sequence[MemberSpec],
        layouts: Tables,
        *,
        left: Tables = NO_TABLES,
        here: tuple[float, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`left`: layouts by which copies may still lie that nobody reads. `here`: this machine's latitude and
        longitude, for the first guess of who is near."""
        self._ground = Ground(members, layouts, left, here, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. Operations under way end by themselves."""
        self._ground.prober.close()
        self._ground.stock.close()

    def replace(self, members: Sequence[MemberSpec], layouts: Tables, left: Tables = NO_TABLES) -> None:
        """The catalog moved on: these members and layouts from now on. What is known of members that stay is kept."""
        self._ground.replace(members, layouts, left)

    # members

    def window(self, stripe_id: StripeId, layout: LayoutNumber, shards: int) -> tuple[MemberNumber, ...]:
        """Who holds shards 0..shards-1. Raises: UnavailableError for an unknown layout, InvalidError for too many."""
        return self._ground.places.window(stripe_id, layout, shards)

    def newest_layout(self, policy: PolicyNumber = DEFAULT_NUMBER) -> LayoutNumber:
        """The layout under which stripes are written. Raises: UnavailableError where there is none yet."""
        return self._ground.places.newest(policy)

    def tracks(self) -> list[LayoutNumber]:
        """The newest layout of each policy."""
        return self._ground.places.tracks()

    def seats(self, layout: LayoutNumber) -> Seats:
        """Where new stripes of that layout's policy go. Raises: UnavailableError for an unknown policy."""
        return self._ground.places.seats(layout)

    def members(self) -> list[MemberNumber]:
        return sorted(self._ground.stock.specs())

    def name(self, number: MemberNumber) -> str:
        """The member's id, for messages."""
        return self._ground.name(number)

    def up_members(self) -> list[MemberNumber]:
        """Members believed up: trusted, or not heard of yet."""
        with self._ground.lock:
            return self._ground.board.up()

    def states(self) -> dict[MemberNumber, Standing]:
        """What is believed now, without asking."""
        with self._ground.lock:
            return self._ground.board.standings(self._ground.clock())

    def hint_states(self, states: Mapping[MemberNumber, MemberState], reason: str = "said to be so") -> None:
        """Believe this of members not heard of yet; those demoted so are probed at once, in the background."""
        ground = self._ground
        with ground.lock:
            now = ground.clock()
            for number, state in states.items():
                if number in ground.board:
                    ground.board[number].hinted(now, state, reason)
            ground.prober.nudge()

    def probe(self, numbers: Collection[MemberNumber] | None = None) -> dict[MemberNumber, Standing]:
        """Ask all members (or these) now, each on a new connection and so for its identity; at most about a second."""
        ground = self._ground
        asked = [number for number in self.members() if numbers is None or number in numbers]
        ground.prober.probe(asked)
        return self.states()

    def greet(self) -> None:
        """Have an idle connection to every member that answers within a moment."""
        survey.greet(self._ground, self.members())

    def read_identity(self, number: MemberNumber) -> bytes | None:
        """The identity value in the member's namespace, whatever it is. Raises: MemberError."""
        with self._client(number) as client:
            value = client.call("GET", IDENTITY_KEY)
        return value if isinstance(value, bytes) else None

    def write_identity(self, number: MemberNumber, value: bytes) -> None:
        """Set it and flush it, on whatever answers at that address. Raises: MemberError."""
        with self._client(number) as client:
            client.call("SET", IDENTITY_KEY, value)
            if client.run_id:
                client.call("WAITAOF", 1, 0, FLUSH_MS, timeout_s=FLUSH_MS / 1000 + 1)

    def _client(self, number: MemberNumber) -> Client:
        spec = self._ground.stock.specs().get(number)
        if spec is None:
            raise InvalidError(f"there is no member {number}")
        return Client(spec.address, spec.login(pinned=False), timeout_s=PROBE_S)

    # what the network keeps for itself

    def keep(
        self, values: Sequence[tuple[bytes, bytes]], seed: bytes, *, everywhere: bool = False, ours: bool = False
    ) -> frozenset[MemberNumber]:
        """Keep small values under names, durably, on some members or on all; see `fungistor.pool.keeping`."""
        return keeping.keep(self._ground, values, seed, everywhere=everywhere, ours=ours)

    def reach(self, seed: bytes) -> int:
        """How many members could be given such a value now, of so many as it takes."""
        return keeping.reach(self._ground, seed)

    def find(self, names: Sequence[bytes], accept: Callable[[bytes, bytes], bool], at_once: int) -> Found:
        """Ask all members for such values, `at_once` in a request, until `accept` has taken one of each name."""
        return keeping.find(self._ground, names, accept, self.members(), at_once)

    def find_by_seed(self, seeds: Mapping[bytes, bytes], accept: Callable[[bytes, bytes], bool]) -> Found:
        """As `find`, for values that were each kept by a seed of its own, from name to seed; some MiB in all."""
        return keeping.find_by_seed(self._ground, seeds, accept)

    def read_each(
        self, name: bytes, members: Collection[MemberNumber], patience_s: float = keeping.READ_S
    ) -> dict[MemberNumber, bytes | None]:
        """What each of some members has under a name, as far as they answer."""
        answers = keeping.read(self._ground, {number: [name] for number in members}, {}, patience_s)
        return {number: values[0] for number, values in answers.items()}

    def wiping_members(self) -> list[MemberNumber]:
        """Members that can overwrite what was deleted: all but those that are an original 0-db."""
        return keeping.wiping(self._ground)

    def forget(self, names: Sequence[bytes], but: Collection[MemberNumber] = ()) -> Deleted:
        """Delete such values on every member that answers, durably, `but` on some."""
        return keeping.forget(self._ground, names, but)

    # stripes

    def put(self, stripe_id: StripeId, layout: LayoutNumber, k: int, m: int, shards: Sequence[Shard]) -> PutResult:
        """Send the k + m shards (payload, tag) to their members and wait until that has settled.

        All that answer are waited for; those that do not are left owing once k + 2 are stored. What is stored is
        durable only after `barrier`. Raises: UnavailableError when k + 2 cannot be had.
        """
        if len(shards) != k + m:
            raise InvalidError(f"{len(shards)} shards were given for a stripe of {k} + {m}")
        return Scatter(self._ground, stripe_id, self.window(stripe_id, layout, k + m), k, shards).run()

    def receipt(self, member: MemberNumber, run_id: bytes) -> Receipt:
        """A receipt that an earlier process of this machine wrote down."""
        return Receipt(member, run_id)

    def barrier(self, receipts: Collection[Receipt]) -> BarrierResult:
        """Make all that these receipts stand for durable: one flush a member, however many shards it took.

        A member named in `failed` may have lost anything it acknowledged in this publish.
        """
        return Barrier(self._ground, receipts).run()

    def fetch(
        self,
        slot: Slot,
        wanted: Collection[int] | None = None,
        into: Into | None = None,
        *,
        exclude: Collection[int] = (),
        check: bool = False,
    ) -> Fetched:
        """Read any k shards of a stripe, or only the `wanted` data shards while those can be had quickly.

        `into(index)` gives the writable view in which that payload should land; views of indices that are not in the
        result may hold anything. The result has all `wanted` or at least k shards. Tags are returned, and compared only
        with `check`. `exclude`: shards not to be trusted again. Raises: NotEnoughShardsError.
        """
        return Gather(self._ground, slot, wanted, into or fresh_buffers(slot.shard_bytes), exclude, check).run()

    def fetch_ranges(self, slot: Slot, pieces: Sequence[Piece]) -> bool:
        """Bring bytes of data shards, unchecked, straight into views: (index, offset, view) each, in one quick round.

        False where a member of these is not trusted, does not answer at once, or does not know GETRANGE: then `fetch`.
        """
        return Ranges(self._ground, slot, pieces).run()

    # single shards

    def exists(self, slot: Slot, indices: Collection[int] | None = None) -> dict[int, bool | None]:
        """Whether each shard is there now; None where nobody could say."""
        return self.exists_all([slot], indices)[0]

    def at_home(self, slots: Sequence[Slot]) -> list[dict[int, bool | None]]:
        """For each slot, whether each shard is at the member that the newest layout wants it at."""
        flights = range(0, len(slots), survey.EXISTS_PER_REQUEST)
        return [
            answer
            for start in flights
            for answer in survey.exists(self._ground, slots[start : start + survey.EXISTS_PER_REQUEST], None, True)
        ]

    def check_home(self, slots: Sequence[Slot]) -> list[dict[int, Soundness]]:
        """Have members compare each shard with its checksum where the newest layout wants it."""
        flights = range(0, len(slots), survey.CHECKS_A_FLIGHT)
        return [
            answer
            for start in flights
            for answer in survey.check_home(self._ground, slots[start : start + survey.CHECKS_A_FLIGHT])
        ]

    def inspect_home(self, slot: Slot, indices: Collection[int]) -> dict[int, Inspected]:
        """As `inspect`, of the copies alone that the newest layout wants."""
        return survey.inspect(self._ground, slot, indices, only_at_home=True)

    def exists_all(self, slots: Sequence[Slot], indices: Collection[int] | None = None) -> list[dict[int, bool | None]]:
        """`exists` for many slots, hundreds in one flight."""
        flights = range(0, len(slots), survey.EXISTS_PER_REQUEST)
        return [
            answer
            for start in flights
            for answer in survey.exists(self._ground, slots[start : start + survey.EXISTS_PER_REQUEST], indices)
        ]

    def inspect(self, slot: Slot, indices: Collection[int] | None = None) -> dict[int, Inspected]:
        """Read and check shards wherever they lie: good, missing, corrupt or unknown."""
        return survey.inspect(self._ground, slot, indices)

    def get_shard(self, slot: Slot, index: int) -> bytes | None:
        """One shard's value, sound or not at all; None when its places do not have it. Raises: UnavailableError."""
        found = self.inspect(slot, [index])[index]
        if found.soundness is Soundness.UNKNOWN:
            raise UnavailableError(f"shard {index}: {self.name(found.member)}: {found.reason}")
        return found.value

    def delete(self, slots: Sequence[Slot]) -> Deleted:
        """Delete every shard of these stripes, durably, on the members that answer."""
        return clearing.delete(self._ground, slots)

    def delete_stale(
        self, slots: Sequence[Slot], indices: Sequence[Collection[int]], layouts: Collection[LayoutNumber]
    ) -> Deleted:
        """Delete copies of each stripe's shards where only these retired layouts wanted them, durably."""
        return clearing.delete_stale(self._ground, slots, indices, layouts)

    def compact(self, members: Collection[MemberNumber]) -> Compacted:
        """Have these members give back the space of what is dead; returns when they have."""

        def is_up(asked: Collection[MemberNumber]) -> set[MemberNumber]:
            self.probe(asked)
            return set(asked) & set(self.up_members())

        return clearing.compact(self._ground, members, is_up)

    def put_shard(self, slot: Slot, index: int, payload: Buffer, tag: bytes) -> Receipt:
        """Store one shard where the newest layout wants it. Raises: UnavailableError."""
        ground = self._ground
        place = next((p for p in ground.places.of(slot) if p.index == index), None)
        if place is None:
            raise InvalidError(f"no layout places shard {index} of a stripe of {slot.k} + {slot.m}")
        return put_one(ground, place.member, shard_key(slot.stripe_id, index), payload, tag)
