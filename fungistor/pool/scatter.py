"""Writing: the shards of a stripe to all its members at once, and one flush barrier a member at the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fungistor.coding.shard import shard_key
from fungistor.errors import UnavailableError
from fungistor.ids import MemberNumber, StripeId
from fungistor.placement.health import Work
from fungistor.placement.write_plan import FLUSH_GIVE_UP_S, FlushPlan, Settled, Target, WritePlan
from fungistor.pool.ground import Ground
from fungistor.pool.members import BarrierResult, PutResult, Receipt
from fungistor.pool.round import Done, Event, Failed, Round, Silence
from fungistor.zdb.client import MemberError, run_id_of
from fungistor.zdb.replies import Replies
from fungistor.zdb.resp import CRLF, Buffer, ErrorReply, Reply, command, set_head

PUT_ONE_S = 5.0
PROBE_AFTER_S = 0.05
"""A write that takes longer has the members probed that it waits for."""

LOOK_S = 0.1
"""How often a write that takes long looks at what probes have found meanwhile."""

SPARE_COPIES = 2
"""A write has settled with k + 2 shards: two more members may die before what is owed is paid."""


Shard = tuple[Buffer, bytes]
"""A payload and its tag; together they are a member's value."""


class Scatter:
    """One put of one stripe. Not reusable."""

    def __init__(
        self, ground: Ground, stripe_id: StripeId, members: Sequence[MemberNumber], k: int, shards: Sequence[Shard]
    ) -> None:
        self._ground = ground
        self._stripe_id = stripe_id
        self._members = members
        self._need = min(k + SPARE_COPIES, len(shards))
        self._shards = shards
        self._replies = [Replies() for _ in shards]
        self._asked_at: dict[int, float] = {}
        self._receipts: set[Receipt] = set()

    def run(self) -> PutResult:
        """Raises: UnavailableError when fewer than k + 2 members take their shard."""
        ground = self._ground
        targets = self._targets()
        plan = WritePlan(targets, self._need)
        now = started = ground.clock()
        look_at, looked = started + PROBE_AFTER_S, False
        with Round[int](ground.stock, ground.clock) as asking:
            self._ask(asking, plan.start(now), now)
            while plan.outcome(now) is Settled.RUNNING:
                until = plan.next_deadline()
                self._handle(asking, plan, asking.wait(min(until, look_at)))
                now = ground.clock()
                if now >= look_at:
                    look_at = now + LOOK_S
                    self._look(asking, plan, first=not looked)
                    looked = True
                if now >= until:
                    # What came while this thread was kept waiting is not late.
                    self._handle(asking, plan, asking.wait(now))
            self._judge(asking, targets, now)
        if plan.outcome(now) is Settled.TOO_FEW:
            raise self._too_few(plan, now)
        return PutResult(plan.stored_indices, plan.owed(), frozenset(self._receipts))

    def _look(self, asking: Round[int], plan: WritePlan, *, first: bool) -> None:
        """It takes long: have those probed that have not answered, and hear what probes found."""
        ground = self._ground
        slow = {index: self._members[index] for index in asking.outstanding()}
        if first:
            ground.prober.ask(slow.values())
        with ground.lock:
            for index, member in slow.items():
                if member in ground.board and (reason := ground.known_bad(member)):
                    plan.doubted(index, reason)

    def _targets(self) -> list[Target]:
        ground = self._ground
        with ground.lock:
            return [
                Target(index, member, ground.board[member].late_write_s(), ground.known_bad(member))
                for index, member in enumerate(self._members)
            ]

    def _ask(self, asking: Round[int], indices: Sequence[int], now: float) -> None:
        for index in indices:
            payload, tag = self._shards[index]
            head = set_head(shard_key(self._stripe_id, index), len(payload) + len(tag))
            self._asked_at[index] = now
            request: list[Buffer] = [head, payload, tag, CRLF]
            asking.ask(index, self._members[index], request, self._replies[index], greet_first=True)

    def _handle(self, asking: Round[int], plan: WritePlan, events: list[Event[int]]) -> None:
        ground = self._ground
        for event in events:
            now = ground.clock()
            match event:
                case Done(tag=index, run_id=run_id):
                    refused = refusal(self._replies[index].values[0], shard_key(self._stripe_id, index))
                    if refused:
                        self._ask(asking, plan.failed(index, refused, now), now)
                        continue
                    member = self._members[index]
                    ground.answered(member, Work.WRITE, now - self._asked_at[index])
                    self._receipts.add(Receipt(member, run_id))
                    plan.stored(index, now)
                case Failed(tag=index, reason=reason, demotes=demotes):
                    if demotes:
                        ground.failed(self._members[index], reason)
                    self._ask(asking, plan.failed(index, reason, now), now)

    def _judge(self, asking: Round[int], targets: Sequence[Target], now: float) -> None:
        """Those left behind are demoted, unless the plan ended before they were late."""
        for index in asking.outstanding():
            silence = asking.abandon(index)
            waited = now - self._asked_at[index]
            if waited >= targets[index].late_s:
                # Whoever took the value and does not acknowledge it is as good as silent.
                self._ground.silent(self._members[index], waited, _unacknowledged(silence))

    def _too_few(self, plan: WritePlan, now: float) -> UnavailableError:
        owed = plan.owed()
        if not plan.gave_up(now):
            for index in plan.pending():
                del owed[index]
        reasons = "; ".join(f"{self._ground.name(self._members[index])}: {why}" for index, why in owed.items())
        return UnavailableError(
            f"only {len(self._shards) - len(owed)} of {len(self._shards)} members can take their shard, "
            f"{self._need} are needed ({reasons})",
            hint="start the members named, then publish again",
        )


def put_one(ground: Ground, member: MemberNumber, key: bytes, payload: Buffer, tag: bytes) -> Receipt:
    """Store one value on one member. Raises: MemberError."""
    replies = Replies()
    deadline = ground.clock() + PUT_ONE_S
    with Round[bytes](ground.stock, ground.clock) as asking:
        request: list[Buffer] = [set_head(key, len(payload) + len(tag)), payload, tag, CRLF]
        asking.ask(key, member, request, replies, greet_first=True)
        while ground.clock() < deadline:
            for event in asking.wait(deadline):
                match event:
                    case Done(run_id=run_id):
                        if refused := refusal(replies.values[0], key):
                            raise MemberError(f"{ground.name(member)} did not store a shard: {refused}")
                        return Receipt(member, run_id)
                    case Failed(reason=reason, demotes=demotes):
                        if demotes:
                            ground.failed(member, reason)
                        raise MemberError(f"{ground.name(member)} did not store a shard: {reason}")
        ground.silent(member, PUT_ONE_S, _unacknowledged(asking.abandon(key)))
    raise MemberError(f"{ground.name(member)} did not store a shard: no answer in {PUT_ONE_S:.0f} s")


class Barrier:
    """One flush of every member that acknowledged something."""

    def __init__(self, ground: Ground, receipts: Collection[Receipt]) -> None:
        self._ground = ground
        self._runs: dict[MemberNumber, set[bytes]] = {}
        for receipt in receipts:
            self._runs.setdefault(receipt.member, set()).add(receipt.run_id)

    def run(self) -> BarrierResult:
        """Wait until all have flushed or are left behind."""
        ground = self._ground
        failed, flushing = self._without_asking()
        now = ground.clock()
        with ground.lock:
            plan = FlushPlan({member: ground.known_bad(member) for member in flushing}, now)
        replies = {member: Replies() for member in flushing}
        with Round[MemberNumber](ground.stock, ground.clock) as asking:
            for member in flushing:
                words = command("WAITAOF", 1, 0, int(FLUSH_GIVE_UP_S * 1000))
                asking.ask(member, member, [words], replies[member])
            while not plan.done(ground.clock()):
                until = plan.next_deadline()
                events = asking.wait(until)
                if ground.clock() >= until:
                    events += asking.wait(until)
                self._note(plan, events, replies)
            for member in asking.outstanding():
                ground.silent(member, ground.clock() - now, _unacknowledged(asking.abandon(member)))
        return BarrierResult({**failed, **plan.failures})

    def _without_asking(self) -> tuple[dict[MemberNumber, str], list[MemberNumber]]:
        """Failures known already, and the members that have to flush."""
        failed: dict[MemberNumber, str] = {}
        flushing: list[MemberNumber] = []
        specs = self._ground.stock.specs()
        for member, runs in sorted(self._runs.items()):
            if member not in specs:
                failed[member] = "is no member any more"
            elif len(runs) > 1:
                failed[member] = "its daemon restarted during the publish"
            elif runs != {b""}:
                flushing.append(member)
            elif not specs[member].durable:
                failed[member] = "cannot flush on demand and is not marked durable"
        return failed, flushing

    def _note(
        self, plan: FlushPlan, events: list[Event[MemberNumber]], replies: Mapping[MemberNumber, Replies]
    ) -> None:
        for event in events:
            now = self._ground.clock()
            match event:
                case Done(tag=member):
                    problem = _unflushed(replies[member].values[0], next(iter(self._runs[member])))
                    if problem:
                        plan.failed(member, problem, now)
                    else:
                        plan.flushed(member, now)
                case Failed(tag=member, reason=reason, demotes=demotes):
                    if demotes:
                        self._ground.failed(member, reason)
                    plan.failed(member, reason, now)


def _unacknowledged(silence: Silence) -> Silence:
    return Silence.SILENT if silence is Silence.SPOKE else silence


def refusal(reply: Reply, key: bytes) -> str:
    """Why a SET did not store, "" when it did: nil says that the very value was there already."""
    match reply:
        case None:
            return ""
        case bytes() if reply == key:
            return ""
        case ErrorReply(message):
            return f"answered: {message}"
    return "talks nonsense: a SET was answered with something else"


def _unflushed(reply: Reply, run_id: bytes) -> str:
    """What is wrong with a WAITAOF reply, "" when all that this run acknowledged is on its disk."""
    if isinstance(reply, ErrorReply):
        return f"answered: {reply.message}"
    try:
        if run_id_of(reply) != run_id:
            return "its daemon restarted during the publish"
    except MemberError as error:
        return error.message
    if isinstance(reply, list) and reply and reply[0] == 1:
        return ""
    return "did not flush in time"
