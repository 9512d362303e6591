"""Asking about shards one by one: which are there, which are sound. For `verify`, repair and the reuse of stripes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, check_shard, shard_key
from fungistor.errors import CorruptError
from fungistor.ids import MemberNumber
from fungistor.placement.health import Trust, Work, read_work
from fungistor.pool.ground import Ground
from fungistor.pool.places import Place
from fungistor.pool.round import Done, Failed, Round
from fungistor.zdb.replies import Replies, ValueReply
from fungistor.zdb.resp import command

EXISTS_PER_REQUEST = 512
EXISTS_S = 2.0
"""A member that has not said by then whether it holds a shard is not counted as holding it."""

EXISTS_S_UNTRUSTED = 0.2
CHECKS_A_FLIGHT = 64
CHECK_S = 15.0
"""A member reads so many shards from its disk meanwhile: 16 MiB, mostly."""

GREET_S = 1.0
INSPECT_S = 10.0


class Soundness(StrEnum):
    """What was found of one shard."""

    GOOD = "good"
    MISSING = "missing"
    CORRUPT = "corrupt"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Inspected:
    """One shard, and who has it or should have it. `value` (payload and tag) only when it is good."""

    soundness: Soundness
    member: MemberNumber
    reason: str = ""
    value: bytes | None = None


def greet(ground: Ground, members: Collection[MemberNumber]) -> None:
    """PING members; the connections of those that answer wait for the next request."""
    until = ground.clock() + GREET_S
    with Round[MemberNumber](ground.stock, ground.clock) as asking:
        for member in members:
            asking.ask(member, member, [command("PING")], Replies())
        while asking.outstanding() and ground.clock() < until:
            asking.wait(until)


def exists(
    ground: Ground, slots: Sequence[Slot], indices: Collection[int] | None, only_at_home: bool = False
) -> list[dict[int, bool | None]]:
    """For each slot: its shards' presence now, True if any place has it, None if nobody could say.

    `only_at_home`: only the places that the newest layout wants count.

    Members that are not trusted get a moment only; the questions to one member share a flight.
    """
    questions: dict[MemberNumber, list[tuple[int, int, bytes]]] = {}
    answers: list[dict[int, bool | None]] = []
    for order, slot in enumerate(slots):
        asked = range(slot.k + slot.m) if indices is None else indices
        answers.append(dict.fromkeys(asked))
        for place in ground.places.of(slot):
            if place.index in answers[order] and (place.layer == 0 or not only_at_home):
                key = shard_key(slot.stripe_id, place.index)
                questions.setdefault(place.member, []).append((order, place.index, key))
    trusts = ground.trusts(questions)
    unsure: set[tuple[int, int]] = set()
    for trusted, patience_s in ((True, EXISTS_S), (False, EXISTS_S_UNTRUSTED)):
        group = {
            member: asked
            for member, asked in questions.items()
            if member in trusts and (trusts[member] is not Trust.DEMOTED) is trusted
        }
        for (order, index), here in _ask_exists(ground, group, patience_s):
            if here is None:
                unsure.add((order, index))
            else:
                answers[order][index] = bool(answers[order][index]) or here
    for order, index in unsure:
        if not answers[order][index]:
            answers[order][index] = None
    return answers


def _ask_exists(
    ground: Ground, questions: Mapping[MemberNumber, list[tuple[int, int, bytes]]], patience_s: float
) -> Iterable[tuple[tuple[int, int], bool | None]]:
    for asked, value in _asked(ground, questions, "EXISTS", patience_s):
        yield asked, bool(value) if isinstance(value, int) else None


_NOTHING = object()
"""No reply came."""


def _asked(
    ground: Ground, questions: Mapping[MemberNumber, list[tuple[int, int, bytes]]], word: str, patience_s: float
) -> Iterable[tuple[tuple[int, int], object]]:
    """Ask members a word about keys; the reply to each, or `_NOTHING`."""
    batches = {
        (member, start): asked[start : start + EXISTS_PER_REQUEST]
        for member, asked in questions.items()
        for start in range(0, len(asked), EXISTS_PER_REQUEST)
    }
    replies = {tag: Replies(len(batch)) for tag, batch in batches.items()}
    heard: set[tuple[MemberNumber, int]] = set()
    started = ground.clock()
    with Round[tuple[MemberNumber, int]](ground.stock, ground.clock) as asking:
        for tag, batch in batches.items():
            asking.ask(tag, tag[0], [command(word, key) for _, _, key in batch], replies[tag])
        out = set(batches)
        while out and ground.clock() < started + patience_s:
            for event in asking.wait(started + patience_s):
                match event:
                    case Done(tag=tag):
                        out.discard(tag)
                        heard.add(tag)
                        ground.answered(tag[0], Work.SMALL_READ, ground.clock() - started)
                    case Failed(tag=tag, reason=reason, demotes=demotes):
                        out.discard(tag)
                        if demotes:
                            ground.failed(tag[0], reason)
        for tag in asking.outstanding():
            ground.silent(tag[0], ground.clock() - started, asking.abandon(tag))
    for tag, batch in batches.items():
        values: Sequence[object] = replies[tag].values if tag in heard else [_NOTHING] * len(batch)
        for (order, index, _), value in zip(batch, values, strict=True):
            yield (order, index), value


def check_home(ground: Ground, slots: Sequence[Slot]) -> list[dict[int, Soundness]]:
    """For each slot, what the member at home says of each shard, which it compares with its own checksum."""
    questions: dict[MemberNumber, list[tuple[int, int, bytes]]] = {}
    for order, slot in enumerate(slots):
        for place in ground.places.of(slot):
            if place.layer == 0:
                key = shard_key(slot.stripe_id, place.index)
                questions.setdefault(place.member, []).append((order, place.index, key))
    answers = [dict.fromkeys(range(slot.k + slot.m), Soundness.UNKNOWN) for slot in slots]
    trusts = ground.trusts(questions)
    asked = {member: group for member, group in questions.items() if trusts.get(member) not in (None, Trust.DEMOTED)}
    for (order, index), said in _ask_each(ground, asked, "CHECK", CHECK_S):
        answers[order][index] = said
    return answers


_CHECKED: Mapping[int, Soundness] = {1: Soundness.GOOD, 0: Soundness.CORRUPT, -1: Soundness.CORRUPT}
"""What a member says to CHECK: whole, damaged, not to be read."""


def _ask_each(
    ground: Ground, questions: Mapping[MemberNumber, list[tuple[int, int, bytes]]], word: str, patience_s: float
) -> Iterable[tuple[tuple[int, int], Soundness]]:
    for asked, value in _asked(ground, questions, word, patience_s):
        if value is _NOTHING:
            yield asked, Soundness.UNKNOWN
        elif value is None:
            yield asked, Soundness.MISSING
        else:
            yield asked, _CHECKED.get(value, Soundness.UNKNOWN) if isinstance(value, int) else Soundness.UNKNOWN


def inspect(
    ground: Ground, slot: Slot, indices: Collection[int] | None, only_at_home: bool = False
) -> dict[int, Inspected]:
    """Read and check shards wherever they may lie, all at once, then those not found at their next places."""
    wanted = set(range(slot.k + slot.m) if indices is None else indices)
    places: dict[int, list[Place]] = {index: [] for index in wanted}
    for place in ground.places.of(slot):
        if place.index in wanted and (place.layer == 0 or not only_at_home):
            places[place.index].append(place)
    found: dict[int, Inspected] = {}
    while turn := [waiting.pop(0) for waiting in places.values() if waiting]:
        for index, inspected in _inspect_once(ground, slot, turn).items():
            found[index] = _better(found.get(index), inspected)
            if inspected.soundness is Soundness.GOOD:
                places[index].clear()
    nobody = Inspected(Soundness.UNKNOWN, MemberNumber(0), "no layout places it")
    return {index: found.get(index, nobody) for index in sorted(wanted)}


def _better(old: Inspected | None, new: Inspected) -> Inspected:
    """Of two places of one shard, the one that says more; of two that say the same, the likelier place."""
    order = [Soundness.GOOD, Soundness.CORRUPT, Soundness.UNKNOWN, Soundness.MISSING]
    return new if old is None or order.index(new.soundness) < order.index(old.soundness) else old


def _inspect_once(ground: Ground, slot: Slot, places: Sequence[Place]) -> dict[int, Inspected]:
    work = read_work(slot.shard_bytes)
    values = {place: bytearray(slot.shard_bytes + SHARD_TAG_BYTES) for place in places}
    replies = {
        place: ValueReply(memoryview(value)[: slot.shard_bytes], memoryview(value)[slot.shard_bytes :])
        for place, value in values.items()
    }
    found: dict[int, Inspected] = {}
    started = ground.clock()
    trusts = ground.trusts({place.member for place in places})
    with Round[Place](ground.stock, ground.clock) as asking:
        for place in places:
            asking.ask(place, place.member, [command("GET", shard_key(slot.stripe_id, place.index))], replies[place])
        while left := [place for place in places if place.index not in found]:
            trusted = any(trusts.get(place.member) is not Trust.DEMOTED for place in left)
            until = started + (INSPECT_S if trusted else 1.0)
            if ground.clock() >= until:
                break
            for event in asking.wait(until):
                match event:
                    case Done(tag=place):
                        ground.answered(place.member, work, ground.clock() - started)
                        found[place.index] = _checked(slot, place, replies[place], values[place])
                    case Failed(tag=place, reason=reason, demotes=demotes):
                        if demotes:
                            ground.failed(place.member, reason)
                        state = Soundness.UNKNOWN if demotes else Soundness.CORRUPT
                        found[place.index] = Inspected(state, place.member, reason)
        for place in asking.outstanding():
            ground.silent(place.member, ground.clock() - started, asking.abandon(place))
            found[place.index] = Inspected(Soundness.UNKNOWN, place.member, "no answer in time")
    return found


def _checked(slot: Slot, place: Place, reply: ValueReply, value: bytearray) -> Inspected:
    if not reply.found:
        if reply.missing:
            return Inspected(Soundness.MISSING, place.member, reply.other)
        state = Soundness.CORRUPT if reply.wrong_length else Soundness.UNKNOWN
        return Inspected(state, place.member, reply.other)
    try:
        check_shard(slot.stripe_id, place.index, value)
    except CorruptError as error:
        return Inspected(Soundness.CORRUPT, place.member, error.message)
    return Inspected(Soundness.GOOD, place.member, value=bytes(value))
