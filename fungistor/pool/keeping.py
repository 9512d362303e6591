"""Small values that the network keeps on a few of its members for itself, found by their names alone.

No layout says where they lie: a writer takes members by a hash, those that answer first, and a reader asks everybody.
A value is kept when it is durable on so many members that it is found with all but one of those gone that may be; see
`copies_needed`. All values of one call go to the same members, each in one flight with the flush behind it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from fungistor.errors import UnavailableError
from fungistor.ids import MemberNumber
from fungistor.placement.health import Work
from fungistor.pool.clearing import Deleted, delete_keys
from fungistor.pool.ground import Ground
from fungistor.pool.round import Done, Failed, Heard, Round, Silence
from fungistor.pool.scatter import refusal
from fungistor.zdb.replies import Replies
from fungistor.zdb.resp import CRLF, Buffer, ErrorReply, Reply, command, set_head

COPIES = 6
"""Four members may be gone and another be out of date, and one still has it."""

ALWAYS_DOWN = 2
"""In a small pool so many may be down while something is written, as with shards, and fewer copies then do."""

FLUSH_MS = 5000
KEEP_S = 12.0
SPARE_S = 0.3
"""Whoever has not answered by then gets a substitute, and one more each time it has passed again."""

READ_BYTES_MAX = 24 << 20
"""No member may answer one request with more; whoever reads asks for few enough names at once."""

READ_S = 10.0

FIRST_READ_S = 1.0
"""Who is asked before others is not waited for longer: all are asked in the end."""


def copies_needed(members: int) -> int:
    """How many of so many members must have a value before it counts as kept."""
    return max(1, min(COPIES, members - ALWAYS_DOWN))


def losses_survived(members: int) -> int:
    """How many of so many members may be gone, and one more have an old copy of its folder in its place, while every
    value that was kept is still found."""
    return max(0, copies_needed(members) - 2)


@dataclass(slots=True)
class Found:
    """What a search came to: names of which no sound value was found, and members that did not answer, with reasons."""

    missing: list[bytes] = field(default_factory=list)
    silent: dict[MemberNumber, str] = field(default_factory=dict)


def keep(
    ground: Ground, values: Sequence[tuple[bytes, bytes]], seed: bytes, *, everywhere: bool = False, ours: bool = False
) -> frozenset[MemberNumber]:
    """Keep values under their names durably; on whom they are. `seed` draws the members, `everywhere` takes all.

    `ours`: only members whose daemons can wipe what is deleted, so no original 0-db.
    Raises: UnavailableError: too few members have all of it.
    """
    return _Keeping(ground, values, seed, everywhere, ours).run()


def reach(ground: Ground, seed: bytes) -> int:
    """How many members could be given a value of that seed now; asked are only so many that it takes. Their connections
    wait for the value."""
    keeping = _Keeping(ground, [], seed, everywhere=False, ours=False)
    with contextlib.suppress(UnavailableError):
        keeping.run()
    return keeping.reached


class _Keeping:
    def __init__(
        self, ground: Ground, values: Sequence[tuple[bytes, bytes]], seed: bytes, everywhere: bool, ours: bool
    ) -> None:
        self._ground = ground
        self._values = values
        specs = ground.stock.specs()
        self._members = len(specs)
        self._durable = {number for number, spec in specs.items() if spec.durable}
        taken = wiping(ground) if ours else list(specs)
        doubted = _doubted(ground, taken)
        self._waiting = _ranked(ground, taken, doubted, seed)
        self._need = copies_needed(self._members)
        self._aim = len(taken) - len(doubted) if everywhere else min(COPIES, self._members)
        self._aim = max(self._need, self._aim)
        self._replies: dict[MemberNumber, Replies] = {}
        self._good: set[MemberNumber] = set()
        self._failed: dict[MemberNumber, str] = {}

    def run(self) -> frozenset[MemberNumber]:
        ground = self._ground
        started = now = ground.clock()
        spare_at = started + SPARE_S
        with Round[MemberNumber](ground.stock, ground.clock) as asking:
            for _ in range(self._aim):
                self._ask_next(asking)
            while len(self._good) < self._aim and now < started + KEEP_S and (asking.outstanding() or self._waiting):
                if not asking.outstanding():
                    self._ask_next(asking)
                self._handle(asking, min(spare_at, started + KEEP_S), started)
                now = ground.clock()
                if now >= spare_at:
                    if len(self._good) >= self._need:
                        break
                    spare_at = now + SPARE_S
                    self._ask_next(asking)
            for member in asking.outstanding():
                _give_up(ground, asking, member, now - started)
                self._failed[member] = "no answer in time"
        if len(self._good) < self._need:
            raise self._too_few()
        return frozenset(self._good)

    @property
    def reached(self) -> int:
        return len(self._good)

    def _ask_next(self, asking: Round[MemberNumber]) -> None:
        if not self._waiting:
            return
        member = self._waiting.pop(0)
        request: list[Buffer] = []
        for name, value in self._values:
            request += [set_head(name, len(value)), value, CRLF]
        # Without a value it is only asked whether it is there.
        request.append(command("WAITAOF", 1, 0, FLUSH_MS) if self._values else command("PING"))
        self._replies[member] = Replies(len(self._values) + 1)
        asking.ask(member, member, request, self._replies[member], greet_first=True)

    def _handle(self, asking: Round[MemberNumber], until: float, started: float) -> None:
        ground = self._ground
        for event in asking.wait(until):
            match event:
                case Done(tag=member):
                    problem = self._problem(member)
                    if not problem:
                        ground.answered(member, Work.WRITE, ground.clock() - started)
                        self._good.add(member)
                        continue
                    self._failed[member] = problem
                    self._ask_next(asking)
                case Failed(tag=member, reason=reason, demotes=demotes):
                    if demotes:
                        ground.failed(member, reason)
                    self._failed[member] = reason
                    self._ask_next(asking)
                case Heard():
                    pass

    def _problem(self, member: MemberNumber) -> str:
        *stored, flushed = self._replies[member].values
        for (name, _), reply in zip(self._values, stored, strict=True):
            if refused := refusal(reply, name):
                return refused
        if not self._values or member in self._durable or _is_flushed(flushed):
            return ""
        return "did not flush in time"

    def _too_few(self) -> UnavailableError:
        names = "; ".join(f"{self._ground.name(member)}: {why}" for member, why in list(self._failed.items())[:5])
        return UnavailableError(
            f"{len(self._good)} of {self._members} members have taken what the catalog keeps in the pool, "
            f"{self._need} are needed ({names or 'there are no others'})",
            hint="start the members named: `fungistor status`",
        )


def _give_up(ground: Ground, asking: Round[MemberNumber], member: MemberNumber, waited_s: float) -> None:
    """Wait for a member no longer. One that only greets is as good as silent: others are asked before it next time."""
    silence = asking.abandon(member)
    ground.silent(member, waited_s, Silence.SILENT if silence is Silence.SPOKE else silence)


def _doubted(ground: Ground, members: Collection[MemberNumber]) -> set[MemberNumber]:
    with ground.lock:
        return {number for number in members if number in ground.board and ground.known_bad(number)}


def _ranked(
    ground: Ground, members: Collection[MemberNumber], doubted: Collection[MemberNumber], seed: bytes
) -> list[MemberNumber]:
    """Members in the order in which they are given a value of that seed."""
    specs = ground.stock.specs()

    def rank(number: MemberNumber) -> tuple[bool, bytes]:
        return number in doubted, blake3(seed + specs[number].id.encode()).digest()

    return sorted(members, key=rank)


def _is_flushed(reply: Reply) -> bool:
    return not isinstance(reply, ErrorReply) and isinstance(reply, list) and bool(reply) and reply[0] == 1


def wiping(ground: Ground) -> list[MemberNumber]:
    """Members that can overwrite what was deleted. Only of one that is marked durable has it to be asked whether it is
    an original 0-db; while it does not answer it counts as one."""
    specs = ground.stock.specs()
    marked = [number for number, spec in specs.items() if spec.durable and number not in ground.originals]
    if marked:
        with Round[MemberNumber](ground.stock, ground.clock) as asking:
            for member in marked:
                asking.ask(member, member, [command("PING")], Replies())
            until = ground.clock() + SPARE_S
            while asking.outstanding() and ground.clock() < until:
                for event in asking.wait(until):
                    if isinstance(event, Done):
                        ground.originals[event.tag] = not event.run_id
    originals = {number for number, spec in specs.items() if spec.durable and ground.originals.get(number, True)}
    return sorted(set(specs) - originals)


def find(
    ground: Ground,
    names: Sequence[bytes],
    accept: Callable[[bytes, bytes], bool],
    members: Collection[MemberNumber],
    at_once: int,
) -> Found:
    """Ask members for values until `accept` has taken one of each name; every name not taken was asked of all.

    Each member begins elsewhere in the list, so that hardly any name is asked of many. `at_once`: names in a request,
    so few that their values fit into `READ_BYTES_MAX`.
    """
    found = Found()
    left = dict.fromkeys(names)
    order = list(left)
    cursors = {
        member: _Cursor(order, at * len(order) // max(1, len(members)), at_once) for at, member in enumerate(members)
    }
    while left and cursors:
        asked = {member: batch for member, cursor in cursors.items() if (batch := cursor.next(left))}
        cursors = {member: cursor for member, cursor in cursors.items() if member in asked}
        for member, values in read(ground, asked, found.silent).items():
            for name, value in zip(asked[member], values, strict=True):
                if name in left and value is not None and accept(name, value):
                    del left[name]
        for member in found.silent:
            cursors.pop(member, None)
    found.missing = list(left)
    return found


def find_by_seed(ground: Ground, seeds: Mapping[bytes, bytes], accept: Callable[[bytes, bytes], bool]) -> Found:
    """As `find` for values that were each kept by a seed of its own, from name to seed, and are some MiB in all: asked
    is first who was given it first, and the others only for what is left then."""
    found, left = Found(), dict(seeds)
    members = list(ground.stock.specs())
    doubted = _doubted(ground, members)
    orders = {name: _ranked(ground, members, doubted, seed) for name, seed in seeds.items()}
    for turn in range(min(COPIES, len(members))):
        asked: dict[MemberNumber, list[bytes]] = {}
        for name in left:
            member = orders[name][turn]
            if member not in found.silent:
                asked.setdefault(member, []).append(name)
        for member, values in read(ground, asked, found.silent, FIRST_READ_S).items():
            for name, value in zip(asked[member], values, strict=True):
                if value is not None and accept(name, value):
                    del left[name]
        if not left:
            return found
    everybody = find(ground, list(left), accept, members, max(1, len(left)))
    found.missing, found.silent = everybody.missing, everybody.silent
    return found


class _Cursor:
    """One member's way through a list of names, from somewhere in it round to the same place."""

    def __init__(self, names: Sequence[bytes], start: int, at_once: int) -> None:
        self._at_once = at_once
        self._names = names
        self._start = start
        self._done = 0

    def next(self, left: Collection[bytes]) -> list[bytes]:
        batch: list[bytes] = []
        while self._done < len(self._names) and len(batch) < self._at_once:
            name = self._names[(self._start + self._done) % len(self._names)]
            self._done += 1
            if name in left:
                batch.append(name)
        return batch


def read(
    ground: Ground,
    asked: Mapping[MemberNumber, Sequence[bytes]],
    silent: dict[MemberNumber, str],
    patience_s: float = READ_S,
) -> dict[MemberNumber, list[bytes | None]]:
    """The values under names on each member, None where it has none; those that did not answer go to `silent`."""
    replies = {member: Replies(len(names), READ_BYTES_MAX) for member, names in asked.items()}
    answers: dict[MemberNumber, list[bytes | None]] = {}
    started = ground.clock()
    with Round[MemberNumber](ground.stock, ground.clock) as asking:
        for member, names in asked.items():
            asking.ask(member, member, [command("GET", name) for name in names], replies[member])
        out = set(asked)
        while out and ground.clock() < started + patience_s:
            for event in asking.wait(started + patience_s):
                match event:
                    case Done(tag=member):
                        out.discard(member)
                        answers[member] = [
                            bytes(value) if isinstance(value, bytes) else None for value in replies[member].values
                        ]
                    case Failed(tag=member, reason=reason, demotes=demotes):
                        if demotes:
                            ground.failed(member, reason)
                        out.discard(member)
                        silent[member] = reason
        for member in asking.outstanding():
            _give_up(ground, asking, member, ground.clock() - started)
            silent[member] = "no answer in time"
    return answers


def forget(ground: Ground, names: Sequence[bytes], but: Collection[MemberNumber] = ()) -> Deleted:
    """Delete what is kept under names, durably, on every member `but` some; the bytes go with the next compaction."""
    return delete_keys(ground, {member: list(names) for member in ground.stock.specs() if member not in but})
