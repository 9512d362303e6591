"""Reading a stripe: late-bound over its members, straight into the caller's buffers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fungistor import trail
from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, payload_root, shard_key, shard_tag
from fungistor.errors import NotEnoughShardsError
from fungistor.ids import MemberNumber
from fungistor.placement.health import read_work
from fungistor.placement.read_plan import Outcome, ReadPlan, Source
from fungistor.pool.ground import TROUBLE_S, Ground
from fungistor.pool.members import Fetched
from fungistor.pool.places import Place
from fungistor.pool.round import Done, Event, Failed, Heard, Round, Silence
from fungistor.zdb.replies import ValueReply
from fungistor.zdb.resp import command

LOOK_S = 0.1
"""How often a read that waits for silent members looks at what probes have found meanwhile."""

Into = Callable[[int], memoryview]
"""Where the payload of a shard should land: a writable view of the slot's shard length."""


def fresh_buffers(shard_bytes: int) -> Into:
    """Buffers of their own for callers who do not reuse any."""
    return lambda _index: memoryview(bytearray(shard_bytes))


@dataclass(slots=True)
class _Arrival:
    """A reply under way and where it lands."""

    payload: memoryview
    tag: bytearray
    reply: ValueReply
    asked_at: float


class Gather:
    """One fetch. Not reusable."""

    def __init__(
        self,
        ground: Ground,
        slot: Slot,
        wanted: Collection[int] | None,
        into: Into,
        exclude: Collection[int],
        check: bool,
    ) -> None:
        self._ground = ground
        self._slot = slot
        self._wanted = wanted
        self._into = into
        self._exclude = frozenset(exclude)
        self._check = check
        self._work = read_work(slot.shard_bytes)
        self._arrivals: dict[Source, _Arrival] = {}
        self._buffered: dict[int, memoryview] = {}
        self._failures: dict[Source, str] = {}
        self._won: dict[int, Source] = {}
        self._all: list[Source] = []
        self._probed: set[MemberNumber] = set()

    def run(self) -> Fetched:
        """Raises: NotEnoughShardsError."""
        ground = self._ground
        sources = self._all = self._sources()
        members = {source.member for source in sources}
        plan = ReadPlan(sources, self._slot.k, self._wanted, ground.trusts(members), ground.budget)
        now = ground.clock()
        look_at: float | None = now + TROUBLE_S
        with Round[Source](ground.stock, ground.clock) as asking:
            self._ask(asking, plan.start(now), now)
            while plan.outcome is Outcome.RUNNING:
                deadline = plan.next_deadline()
                until = min((at for at in (deadline, look_at) if at is not None), default=None)
                self._handle(asking, plan, asking.wait(until))
                now = ground.clock()
                if look_at is not None and now >= look_at:
                    look_at = self._look(asking, plan, now)
                if deadline is not None and now >= deadline:
                    # What came while this thread was kept waiting is not late.
                    self._handle(asking, plan, asking.wait(now))
                    plan.trust(ground.trusts(members))
                    self._ask(asking, plan.tick(now), now)
                    look_at = now + LOOK_S if look_at is None else look_at
            self._judge(asking, plan)
        if plan.outcome is not Outcome.DONE:
            raise self._not_enough(plan)
        return self._result(plan)

    def _look(self, asking: Round[Source], plan: ReadPlan, now: float) -> float | None:
        """It takes long: have members probed of whom too little is known, and hear what probes found. When to look
        again, None when there is no need."""
        ground = self._ground
        silent = {source.member for source in plan.silent()}
        for member in silent:
            trail.trouble(self._ground.name(member), "no answer yet")
        ground.in_trouble({source.member for source in asking.outstanding()})
        if silent - self._probed:
            ground.prober.ask(silent - self._probed)
            self._probed |= silent
        plan.trust(ground.trusts({source.member for source in self._all}))
        return now + LOOK_S if silent else None

    def _sources(self) -> list[Source]:
        slot, ground = self._slot, self._ground
        places = list(ground.places.of(slot))
        now = ground.clock()
        with ground.lock:
            return [
                self._source(place, now)
                for place in places
                if place.index not in self._exclude and place.member in ground.board
            ]

    def _source(self, place: Place, now: float) -> Source:
        health = self._ground.board[place.member]
        return Source(
            index=place.index,
            member=place.member,
            expected_s=health.expected_s(self._work, now),
            silent_s=health.silent_after_s(self._work),
            late_s=health.tail_s(self._work, 98),
            layer=place.layer,
        )

    def _ask(self, asking: Round[Source], sources: list[Source], now: float) -> None:
        for source in sources:
            tag = bytearray(SHARD_TAG_BYTES)
            # A second place of the same shard must not write where the first still may.
            payload = self._buffered.get(source.index)
            if payload is None:
                payload = self._buffered[source.index] = self._into(source.index)
            else:
                payload = memoryview(bytearray(len(payload)))
            reply = ValueReply(payload, tag)
            self._arrivals[source] = _Arrival(payload, tag, reply, now)
            asking.ask(source, source.member, [command("GET", shard_key(self._slot.stripe_id, source.index))], reply)

    def _handle(self, asking: Round[Source], plan: ReadPlan, events: list[Event[Source]]) -> None:
        for event in events:
            now = self._ground.clock()
            match event:
                case Done(tag=source):
                    arrival = self._arrivals[source]
                    self._ground.answered(source.member, self._work, now - arrival.asked_at)
                    problem = self._problem(source, arrival)
                    if problem:
                        self._fail(asking, plan, source, problem)
                    else:
                        trail.relieved(self._ground.name(source.member))
                        self._won.setdefault(source.index, source)
                        plan.arrived(source, now)
                case Failed(tag=source, reason=reason, demotes=demotes):
                    if demotes:
                        self._ground.failed(source.member, reason)
                    self._fail(asking, plan, source, reason)
                case Heard(tag=source):
                    plan.heard(source, now)

    def _problem(self, source: Source, arrival: _Arrival) -> str:
        """What is wrong with an answer, "" when it may be used."""
        if not arrival.reply.found:
            return arrival.reply.other
        if self._check:
            root = payload_root(arrival.payload)
            expected = shard_tag(self._slot.stripe_id, source.index, len(arrival.payload), root)
            if expected != arrival.tag:
                return "corrupt: its tag does not match"
        return ""

    def _fail(self, asking: Round[Source], plan: ReadPlan, source: Source, reason: str) -> None:
        self._failures[source] = reason
        trail.trouble(self._ground.name(source.member), reason)
        now = self._ground.clock()
        plan.trust(self._ground.trusts({other.member for other in self._all}))
        self._ask(asking, plan.failed(source, reason, now), now)

    def _judge(self, asking: Round[Source], plan: ReadPlan) -> None:
        """The shards are here, or cannot be had: what does that say of those who have not answered?"""
        now = self._ground.clock()
        silent = {*plan.silent(), *plan.failures()}
        for source in asking.outstanding():
            waited = now - self._arrivals[source].asked_at
            silence = asking.abandon(source)
            if source in silent and silence is not Silence.SPOKE:
                self._ground.silent(source.member, waited, silence)
                self._failures[source] = f"no answer in {waited * 1000:.0f} ms"
            elif source in silent or (source.late_s is not None and waited > source.late_s):
                self._ground.abandoned(source.member, self._work, waited)

    def _not_enough(self, plan: ReadPlan) -> NotEnoughShardsError:
        reasons: dict[str, str] = {}
        for source, reason in {**plan.failures(), **self._failures}.items():
            reasons.setdefault(self._ground.name(source.member), reason)
        excluded = set(self._exclude)
        for place in self._ground.places.of(self._slot):
            if place.index in excluded:
                excluded.remove(place.index)
                reasons.setdefault(self._ground.name(place.member), "excluded as corrupt")
        return NotEnoughShardsError(
            found=len(plan.arrived_indices),
            needed=self._slot.k,
            by_member=reasons,
            silent=plan.ran_out_of_patience,
        )

    def _result(self, plan: ReadPlan) -> Fetched:
        shards: dict[int, memoryview] = {}
        tags: dict[int, bytes] = {}
        for index, source in self._won.items():
            arrival = self._arrivals[source]
            own = self._buffered[index]
            if arrival.payload is not own:
                own[:] = arrival.payload
            shards[index], tags[index] = own, bytes(arrival.tag)
        return Fetched(
            shards=shards,
            tags=tags,
            served_by={index: source.member for index, source in self._won.items()},
            failures={source.index: reason for source, reason in self._failures.items() if source.index not in shards},
            asked=plan.asked,
        )
