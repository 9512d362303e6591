"""Reading a few bytes of some data shards: one quick round of GETRANGE, which either brings all of them or none.

Nothing here hedges, replaces or decodes. Whoever is told False reads whole shards (`gather`), which does all of that
and can say by their tags who lied: bytes of a range prove nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import shard_key
from fungistor.ids import MemberNumber
from fungistor.placement.health import Trust, read_work
from fungistor.placement.read_plan import SPARE_LAYER
from fungistor.pool.ground import Ground
from fungistor.pool.round import Done, Event, Failed, Round, Silence
from fungistor.zdb.replies import ValueReply
from fungistor.zdb.resp import command

Piece = tuple[int, int, memoryview]
"""Data shard index, offset in its payload, and where as many bytes as that view is long should land."""

UNKNOWN_WORD = "answered: Command not supported"

ASK_AGAIN_S = 600.0
"""A member that did not know the word is asked again after this: it may have been upgraded meanwhile."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request under way. Two may go to one member, each on a connection of its own."""

    number: int
    member: MemberNumber
    until: float


class Ranges:
    """One fetch of pieces. Not reusable."""

    def __init__(self, ground: Ground, slot: Slot, pieces: Sequence[Piece]) -> None:
        self._ground = ground
        self._slot = slot
        self._pieces = pieces

    def run(self) -> bool:
        """Whether every piece has landed; where False, the views may hold anything."""
        homes = self._homes()
        if homes is None:
            return False
        ground, started = self._ground, self._ground.clock()
        replies = [ValueReply(view, b"") for _, _, view in self._pieces]
        with Round[_Asked](ground.stock, ground.clock) as asking:
            for number, (member, patience_s) in enumerate(homes):
                index, offset, view = self._pieces[number]
                key = shard_key(self._slot.stripe_id, index)
                words = command("GETRANGE", key, offset, offset + len(view) - 1)
                asking.ask(_Asked(number, member, started + patience_s), member, [words], replies[number])
            left = len(homes)
            while left:
                until = min((asked.until for asked in asking.outstanding()), default=started)
                for event in asking.wait(until):
                    landed = self._heard(event, replies, started)
                    if landed is False:
                        return False
                    left -= landed is True
                # Looked at after what came, since this thread may have been kept waiting itself.
                now = ground.clock()
                if any(now >= asked.until for asked in asking.outstanding()):
                    self._give_up(asking, now, now - started)
                    return False
        return True

    def _homes(self) -> list[tuple[MemberNumber, float]] | None:
        """Each piece's likeliest member and how long to wait for it; None unless all are trusted and know the word."""
        slot, ground = self._slot, self._ground
        first: dict[int, MemberNumber] = {}
        for place in ground.places.of(slot):
            if place.layer < SPARE_LAYER:
                first.setdefault(place.index, place.member)
        now = ground.clock()
        homes: list[tuple[MemberNumber, float]] = []
        with ground.lock:
            for index, _, view in self._pieces:
                member = first.get(index)
                if member is None or member not in ground.board or ground.knows_no_ranges(member, now):
                    return None
                health, work = ground.board[member], read_work(len(view))
                if health.trust is not Trust.GOOD:
                    return None
                homes.append((member, health.silent_after_s(work)))
        return homes

    def _heard(self, event: Event[_Asked], replies: Sequence[ValueReply], started: float) -> bool | None:
        """True when a piece has landed, False when it will not, None when that is not known yet."""
        match event:
            case Done(tag=asked):
                reply = replies[asked.number]
                if reply.found:
                    work = read_work(len(self._pieces[asked.number][2]))
                    self._ground.answered(asked.member, work, self._ground.clock() - started)
                elif reply.other.startswith(UNKNOWN_WORD):
                    self._ground.has_no_ranges(asked.member, ASK_AGAIN_S)
                return reply.found
            case Failed(tag=asked, reason=reason, demotes=demotes):
                if demotes:
                    self._ground.failed(asked.member, reason)
                return False
            case _:
                return None

    def _give_up(self, asking: Round[_Asked], now: float, waited: float) -> None:
        """Somebody is silent for too long: the whole shards will be read around it."""
        for asked in asking.outstanding():
            silence = asking.abandon(asked)
            if now >= asked.until and silence is not Silence.SPOKE:
                self._ground.silent(asked.member, waited, silence)
