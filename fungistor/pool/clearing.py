"""Deleting shards and having members give their space back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import shard_key
from fungistor.ids import LayoutNumber, MemberNumber
from fungistor.placement.health import Work
from fungistor.pool.ground import Ground
from fungistor.pool.members import Receipt
from fungistor.pool.round import Done, Failed, Round
from fungistor.pool.scatter import Barrier
from fungistor.zdb.replies import Replies
from fungistor.zdb.resp import ErrorReply, Reply, command

DELETES_A_REQUEST = 256
DELETE_S = 10.0
COMPACT_PERCENT = 3
"""Files of which this share is dead are dropped, so that the space of what was deleted returns but for so much."""

COMPACT_LOOK_S = 5.0
"""A pass may take long. Whether the member still lives is asked on another connection, this often."""

BUSY_TRIES = 24
NO_SUCH_KEY = "Key not found"
BUSY = "a pass runs already"


@dataclass(frozen=True, slots=True)
class Deleted:
    """Members on which all is deleted, durably, and those on which it may not be, with reasons."""

    confirmed: frozenset[MemberNumber]
    failed: Mapping[MemberNumber, str]


@dataclass(slots=True)
class Compacted:
    """Bytes that members gave back; those that do not answer, and those that cannot compact, with reasons."""

    freed: int = 0
    absent: dict[MemberNumber, str] = field(default_factory=dict)
    stuck: dict[MemberNumber, str] = field(default_factory=dict)


def delete(ground: Ground, slots: Sequence[Slot]) -> Deleted:
    """Delete every shard of these stripes wherever it may lie, and flush that."""
    keys: dict[MemberNumber, list[bytes]] = {}
    for slot in slots:
        places = [*((place.index, place.member) for place in ground.places.of(slot)), *ground.places.stale(slot)]
        for index, member in places:
            keys.setdefault(member, []).append(shard_key(slot.stripe_id, index))
    return delete_keys(ground, keys)


def delete_stale(
    ground: Ground, slots: Sequence[Slot], indices: Sequence[Collection[int]], layouts: Collection[LayoutNumber]
) -> Deleted:
    """Delete copies of each stripe's shards where only these retired layouts wanted them, and flush that."""
    keys: dict[MemberNumber, list[bytes]] = {}
    for slot, sure in zip(slots, indices, strict=True):
        for index, member in ground.places.stale(slot, layouts):
            if index not in sure:
                continue
            keys.setdefault(member, []).append(shard_key(slot.stripe_id, index))
    return delete_keys(ground, keys)


def delete_keys(ground: Ground, keys: Mapping[MemberNumber, Sequence[bytes]]) -> Deleted:
    """Delete keys on members, whether they are there or not, and flush that."""
    specs = ground.stock.specs()
    keys = {member: wanted for member, wanted in keys.items() if member in specs}
    receipts: set[Receipt] = set()
    failed: dict[MemberNumber, str] = {}
    for start in range(0, max(map(len, keys.values()), default=0), DELETES_A_REQUEST):
        batch = {
            member: piece
            for member, wanted in keys.items()
            if member not in failed and (piece := wanted[start : start + DELETES_A_REQUEST])
        }
        _delete_batch(ground, batch, receipts, failed)
    flushed = Barrier(ground, receipts).run().failed if receipts else {}
    durable = {member: why for member, why in flushed.items() if not specs[member].durable}
    failed.update(durable)
    return Deleted(frozenset(keys) - frozenset(failed), failed)


def _delete_batch(
    ground: Ground,
    batch: Mapping[MemberNumber, Sequence[bytes]],
    receipts: set[Receipt],
    failed: dict[MemberNumber, str],
) -> None:
    replies = {member: Replies(len(keys)) for member, keys in batch.items()}
    started = ground.clock()
    with Round[MemberNumber](ground.stock, ground.clock) as asking:
        for member, keys in batch.items():
            asking.ask(member, member, [command("DEL", key) for key in keys], replies[member])
        while asking.outstanding() and ground.clock() < started + DELETE_S:
            for event in asking.wait(started + DELETE_S):
                match event:
                    case Done(tag=member, run_id=run_id):
                        ground.answered(member, Work.SMALL_READ, ground.clock() - started)
                        refused = _refusal(replies[member].values)
                        if refused:
                            failed[member] = refused
                        else:
                            receipts.add(Receipt(member, run_id))
                    case Failed(tag=member, reason=reason, demotes=demotes):
                        if demotes:
                            ground.failed(member, reason)
                        failed[member] = reason
        for member in asking.outstanding():
            ground.silent(member, ground.clock() - started, asking.abandon(member))
            failed[member] = "no answer in time"


def _refusal(replies: Sequence[Reply]) -> str:
    for reply in replies:
        if isinstance(reply, ErrorReply) and reply.message != NO_SUCH_KEY:
            return f"answered: {reply.message}"
    return ""


def compact(
    ground: Ground, members: Collection[MemberNumber], is_up: Callable[[Collection[MemberNumber]], set[MemberNumber]]
) -> Compacted:
    """Have members drop what is dead, and wait as long as they live. `is_up` asks them anew."""
    outcome = Compacted()
    left = {member for member in members if member in ground.stock.specs()}
    for _ in range(BUSY_TRIES):
        busy = _compact_once(ground, left, is_up, outcome)
        if not busy:
            return outcome
        left = busy
        is_up(busy)
    outcome.absent.update(dict.fromkeys(left, BUSY))
    return outcome


def _compact_once(
    ground: Ground,
    members: Collection[MemberNumber],
    is_up: Callable[[Collection[MemberNumber]], set[MemberNumber]],
    outcome: Compacted,
) -> set[MemberNumber]:
    busy: set[MemberNumber] = set()
    replies = {member: Replies() for member in members}
    with Round[MemberNumber](ground.stock, ground.clock) as asking:
        for member in members:
            asking.ask(member, member, [command("COMPACT", COMPACT_PERCENT, "WIPE")], replies[member])
        while asking.outstanding():
            events = asking.wait(ground.clock() + COMPACT_LOOK_S)
            for event in events:
                match event:
                    case Done(tag=member):
                        if _take_reply(outcome, member, replies[member].values[0]):
                            busy.add(member)
                    case Failed(tag=member, reason=reason):
                        outcome.absent[member] = reason
            if not events and (waiting := set(asking.outstanding())):
                for member in waiting - is_up(waiting):
                    asking.abandon(member)
                    outcome.absent[member] = "does not answer"
    return busy


def _take_reply(outcome: Compacted, member: MemberNumber, reply: Reply) -> bool:
    """Count a pass; True where another one runs."""
    match reply:
        case [int(), int(freed), int(copied)]:
            outcome.freed += freed - copied
        case ErrorReply(message) if BUSY in message:
            return True
        case ErrorReply(message):
            outcome.stuck[member] = message
        case _:
            outcome.stuck[member] = "talks nonsense"
    return False
