"""Lose members of a world and read everything: `python -m simulations.lose_members --seed 7`.

Production placement, coding, publishing and reading run over members in memory. A layout promises that any four
members, and any whole domain of its policy's depth, may die; this plays it out. Every choice follows from the seed.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fungistor.coding.manifest import Slot
from fungistor.errors import NotEnoughShardsError
from fungistor.ids import MemberId, MemberNumber
from fungistor.limits import PARITY_SHARDS
from fungistor.objects.results import PublishOptions
from fungistor.placement import Member, Policy
from fungistor.testing.memory_network import MemoryNetwork

COUNTRIES = ("be", "de", "fr", "jp", "us")
SITES_A_COUNTRY = 3
MEMBERS_A_SITE = 4
SITE_DEPTH, COUNTRY_DEPTH = 2, 1

SIZES = (0, 1, 3_000, 16_384, 16_385, 70_000, 300_000, 1_500_000, 5_000_000)
"""Contents at each border of how an object is stored: inline, a few copies, a short stripe, several stripes."""

Draw = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is played: objects published, and random losses of members tried for each policy."""

    objects: int = 24
    losses: int = 30


@dataclass(slots=True)
class Report:
    """What happened, a line an event, and what broke a promise."""

    seed: int
    trace: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a sum."""
        self.counts[what] = self.counts.get(what, 0) + number

    @property
    def verdict(self) -> str:
        """Whether every promise held."""
        return "kept" if not self.broken else "BROKEN"

    def digest(self) -> str:
        """Equal for equal traces."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def world() -> list[Member]:
    """Sixty members in fifteen sites of five countries, two weights."""
    made: list[Member] = []
    for country in COUNTRIES:
        for site in range(SITES_A_COUNTRY):
            for host in range(MEMBERS_A_SITE):
                number = MemberNumber(len(made) + 1)
                zone = (country, f"{country}-{site}", f"host-{host}", "disk-0")
                made.append(Member(number, MemberId(f"m{number:02}"), zone, weight=1 + host % 2))
    return made


def domains(members: Sequence[Member], depth: int) -> dict[tuple[str, ...], list[MemberNumber]]:
    """Members by the zone of that depth in which they die together."""
    grouped: dict[tuple[str, ...], list[MemberNumber]] = {}
    for member in members:
        grouped.setdefault(member.zone[:depth], []).append(member.number)
    return grouped


class Scenario:
    """One network under one policy: publish, then lose and read."""

    def __init__(
        self, report: Report, network: MemoryNetwork, members: Sequence[Member], chance: random.Random
    ) -> None:
        self._report = report
        self._network = network
        self._members = members
        self._chance = chance
        self._objects: dict[str, bytes] = {}
        self._slots: dict[str, list[Slot]] = {}

    def publish(self, folder: Path, count: int) -> None:
        """Publish objects of all kinds of sizes."""
        for number in range(count):
            size = SIZES[number % len(SIZES)]
            path = folder / f"object-{number}"
            path.write_bytes(self._chance.randbytes(size))
            outcome = self._network.publish(str(path), PublishOptions(name=f"object {number}"))
            self._objects[outcome.cid] = path.read_bytes()
            self._slots[outcome.cid] = self._network.slots(outcome.cid)
            self._say(f"published {outcome.cid} size={size} stored={outcome.stored} survives={outcome.survives}")
            self._report.count("objects")
            self._report.count("stripes", len(self._slots[outcome.cid]))
            if outcome.survives != PARITY_SHARDS or outcome.owed:
                self._break(f"{outcome.cid} was published with survives={outcome.survives}, owed={outcome.owed}")

    def lose_any_four(self, times: int) -> None:
        """Any four members may die, wherever they are."""
        for _ in range(times):
            lost = self._chance.sample([member.number for member in self._members], PARITY_SHARDS)
            self._lose_and_read("members", lost)

    def lose_four_of_a_stripe(self, times: int) -> None:
        """The worst four: all of them in the window of one stripe."""
        for _ in range(times):
            _, slot = self._some_stripe()
            self._lose_and_read("holders", self._chance.sample(self._window(slot), PARITY_SHARDS))

    def lose_domains(self, depth: int) -> None:
        """Each domain of the promised depth dies whole, in turn."""
        for zone, lost in sorted(domains(self._members, depth).items()):
            self._lose_and_read("/".join(zone), lost)

    def lose_five_of_a_stripe(self, times: int) -> None:
        """One loss too many in one stripe: it fails loudly, with numbers and names, and not with other bytes."""
        for _ in range(times):
            cid, slot = self._some_stripe()
            lost = self._chance.sample(self._window(slot), PARITY_SHARDS + 1)
            self._network.forget()
            self._network.store.down(lost)
            try:
                if b"".join(self._network.read(cid)) != self._objects[cid]:
                    self._break(f"{cid} gave other bytes with {sorted(lost)} lost")
                else:
                    self._break(f"{cid} was read with {sorted(lost)} lost, which hold five of one stripe")
            except NotEnoughShardsError as error:
                named = {self._network.store.name(member) for member in lost}
                if error.found >= error.needed or not named <= set(error.by_member):
                    self._break(f"{cid} failed without saying who was missed: {error}")
                self._say(f"lost {sorted(lost)}: {cid} has {error.found} of {error.needed}")
                self._report.count("loud failures")
            self._network.store.heal()

    def _some_stripe(self) -> tuple[str, Slot]:
        """A stripe without which its object cannot be read: all but the stripe list's own."""
        cid = self._chance.choice(sorted(self._objects))
        reader = self._network.stripe_list(self._network.record(cid))
        needed = [*(listed.slot for listed in reader.list_slots()), reader.where.slot]
        return cid, self._chance.choice(needed)

    def _window(self, slot: Slot) -> tuple[MemberNumber, ...]:
        return self._network.store.window(slot.stripe_id, slot.layout, slot.k + slot.m)

    def _lose_and_read(self, what: str, lost: Sequence[MemberNumber]) -> None:
        self._network.forget()
        self._network.store.down(lost)
        asked = len(self._network.store.asked)
        for cid, data in sorted(self._objects.items()):
            try:
                if b"".join(self._network.read(cid)) != data:
                    self._break(f"{cid} gave other bytes with {what} {sorted(lost)} lost")
            except NotEnoughShardsError as error:
                self._break(f"{cid} cannot be read with {what} {sorted(lost)} lost: {error}")
            self._report.count("reads")
        asked = len(self._network.store.asked) - asked
        worst = min(
            slot.m - len(set(self._window(slot)) & set(lost)) for slots in self._slots.values() for slot in slots
        )
        self._say(f"lost {what} {sorted(lost)}: all read, {asked} shards asked for, the worst stripe survives {worst}")
        self._report.count("losses")
        self._network.store.heal()

    def _say(self, line: str) -> None:
        self._report.trace.append(line)

    def _break(self, line: str) -> None:
        self._report.broken.append(line)
        self._say(f"BROKEN {line}")


def run(seed: int, scale: Scale | None = None) -> Report:
    """Play it under a policy that promises sites and under one that promises whole countries."""
    scale = scale or Scale()
    report = Report(seed)
    members = world()
    for name, depth in (("site", SITE_DEPTH), ("country", COUNTRY_DEPTH)):
        chance = random.Random(f"{seed} {name}")
        report.trace.append(f"policy: any {PARITY_SHARDS} members and any {name}")
        with (
            tempfile.TemporaryDirectory(prefix="fungistor-simulation-") as folder,
            _network(folder, members, depth, chance.randbytes) as network,
        ):
            scenario = Scenario(report, network, members, chance)
            scenario.publish(Path(folder), scale.objects)
            scenario.lose_any_four(scale.losses)
            scenario.lose_four_of_a_stripe(scale.losses)
            scenario.lose_domains(depth)
            scenario.lose_five_of_a_stripe(scale.losses)
    return report


def _network(folder: str, members: Sequence[Member], depth: int, draw: Draw) -> MemoryNetwork:
    home = Path(folder) / "home"
    home.mkdir()
    return MemoryNetwork(str(home), members, Policy(survive_depth=depth), draw=draw, read_threads=1)


def lines(report: Report) -> Iterator[str]:
    """What a person is told."""
    yield f"seed {report.seed}: promises {report.verdict}"
    yield ", ".join(f"{what} {number}" for what, number in report.counts.items())
    yield f"trace {report.digest()}, {len(report.trace)} lines"
    yield from report.broken


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and give 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulations.lose_members", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="any number")
    parser.add_argument("--objects", type=int, default=Scale().objects, help="objects to publish")
    parser.add_argument("--losses", type=int, default=Scale().losses, help="losses of each kind to try")
    parser.add_argument("--trace", action="store_true", help="print every event")
    options = parser.parse_args(argv)
    report = run(options.seed, Scale(options.objects, options.losses))
    if options.trace:
        print("\n".join(report.trace))
    print("\n".join(lines(report)))
    return 0 if not report.broken else 1


if __name__ == "__main__":
    sys.exit(main())
