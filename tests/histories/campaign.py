"""Eight publishers in two homes against three real etcd members, under kills and stops; what they were told."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.claims import ClaimCheckLog
from fungistor.catalog.commands import NO_MANIFEST, Command, Publish, decode_command, parts_of
from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.etcd_client import EtcdAddress
from fungistor.catalog.engines.etcd_keys import EtcdKeys
from fungistor.catalog.log import START, Log
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import State
from fungistor.errors import ConflictError, UnavailableError
from fungistor.ids import SessionId
from fungistor.keys.mirror import MirroredKeys
from fungistor.keys.ring import WRAPPED_KEY_BYTES
from fungistor.keys.table import KeyTable
from fungistor.testing.file_deposit import FileDeposit
from tests.contracts.etcd_world import EtcdCluster
from tests.histories.checker import NOTHING, Logged, Op, problems
from tests.unit.catalog.samples import record

PUBLISHERS = 8
HOMES = 2
REGISTERS = 4
SETTLE_S = 60.0
OUTCOMES = {
    Verdict.APPLIED: "applied",
    Verdict.MERGED: "stands",
    Verdict.UNCHANGED: "applied",
    Verdict.REFUSED: "refused",
}


@dataclass
class Node:
    """One home: its state, and its mirror of the keys."""

    home: Path
    address: EtcdAddress
    claims: bool
    """Whether every entry is put away, and etcd has its claim."""

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.state = State(str(self.home / "state.sqlite"))
        self.keys = MirroredKeys(KeyTable(str(self.home / "keys.sqlite")), EtcdKeys(self.address), b"histories-test!!")
        entries = FileDeposit(self.home.parent / "entries")
        self.log = ClaimCheckLog(EtcdLog(self.address), entries, lambda: self.claims, claimed_bytes=0)
        self.catalog = Catalog(self.log, self.state, is_remote=True, prepare=self.keys.follow)

    def close(self) -> None:
        self.catalog.close()
        self.keys.close()

    def held(self, register: int) -> bytes:
        found = self.catalog.record(record(register).object_id)
        return NO_MANIFEST if found is None else found.manifest_id


def publisher(node: Node, seed: int, told: int, until: float) -> None:
    """Publish and read at random until the time is over, and say of each call when it began and how it ended."""
    chance = random.Random(seed)
    number = 0
    while time.monotonic() < until:
        number += 1
        register = chance.randrange(REGISTERS)
        if chance.random() < 0.4:
            start = time.monotonic()
            with contextlib.suppress(UnavailableError):
                node.catalog._apply_all()
                say(told, ["read", register, node.held(register).hex(), start, time.monotonic()])
            continue
        seen = node.held(register)
        made = record(register, manifest=f"{seed} {number} {os.getpid()}")
        session = os.urandom(16)
        command = Command(SessionId(session), 0, Publish(made, seen))
        start = time.monotonic()
        say(told, ["begin", register, made.manifest_id.hex(), start, session.hex(), seen.hex()])
        while time.monotonic() < until:
            # In doubt it is repeated as it is.
            with contextlib.suppress(UnavailableError):
                node.keys.put(made.object_id, made.tenant, session.ljust(WRAPPED_KEY_BYTES, b"k"))
                try:
                    outcome = OUTCOMES[node.catalog.commit(command).verdict]
                except ConflictError:
                    outcome = "refused"
                say(told, ["end", session.hex(), outcome, time.monotonic()])
                break


def say(told: int, line: list[object]) -> None:
    os.write(told, json.dumps(line).encode() + b"\n")  # one write: what a killed publisher began to say is whole or not


@dataclass
class Run:
    """One history, its faults drawn from a seed."""

    etcd: EtcdCluster
    folder: Path
    seed: int
    seconds: float
    pids: dict[int, int] = field(default_factory=dict)
    started: int = 0

    @property
    def address(self) -> EtcdAddress:
        return self.etcd.address(f"history-{self.seed}")

    @property
    def claims(self) -> bool:
        """Every second run."""
        return self.seed % 2 == 1

    def run(self) -> tuple[list[Op], list[Logged], dict[str, str], int]:
        """Run it; the history, the order, and what the states hold. Raises: AssertionError where states differ."""
        self.folder.mkdir(parents=True)
        told = self.folder / "told"
        chance = random.Random(self.seed)
        until = time.monotonic() + self.seconds
        try:
            for place in range(PUBLISHERS):
                self.start(place, told, until)
            while time.monotonic() < until:
                self.hurt(chance, told, until)
        finally:
            for pid in self.pids.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    if time.monotonic() < until:
                        os.kill(pid, signal.SIGKILL)
            for pid in self.pids.values():
                os.waitpid(pid, 0)
        return (history(told), *self.outcome())

    def start(self, place: int, told: Path, until: float) -> None:
        self.started += 1
        pid = os.fork()
        if pid:
            self.pids[place] = pid
            return
        code = 1
        try:
            node = Node(self.folder / f"home-{place % HOMES}", self.address, self.claims)
            descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            publisher(node, self.seed * 1000 + self.started, descriptor, until)
            code = 0
        finally:
            os._exit(code)

    def hurt(self, chance: random.Random, told: Path, until: float) -> None:
        """One fault for a while. A stopped process is cut off: what it was sent waits, and it says nothing."""
        time.sleep(chance.uniform(0.0, 0.4))
        for_s = min(chance.uniform(0.1, 1.0), max(0.0, until - time.monotonic()))
        kind = chance.choice(("kill etcd", "stop etcd", "stop etcd", "stop quorum", "kill publisher", "stop publisher"))
        if kind == "kill etcd":
            member = chance.randrange(3)
            self.etcd.stop(member)
            time.sleep(for_s)
            self.etcd.start(member)
        elif kind == "kill publisher":
            place = chance.randrange(PUBLISHERS)
            os.kill(self.pids[place], signal.SIGKILL)
            os.waitpid(self.pids[place], 0)
            time.sleep(for_s / 4)
            self.start(place, told, until)
        else:
            members = chance.sample(range(3), 2 if kind == "stop quorum" else 1)
            pids = [self.etcd.processes[member].pid for member in members]
            if kind == "stop publisher":
                pids = [self.pids[chance.randrange(PUBLISHERS)]]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(for_s)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def outcome(self) -> tuple[list[Logged], dict[str, str], int]:
        """What the log and the states of both homes and of a fresh one hold when all is well again."""
        nodes = [Node(self.folder / name, self.address, self.claims) for name in ("home-0", "home-1", "fresh")]
        try:
            deadline = time.monotonic() + SETTLE_S
            for node in nodes:
                while True:
                    try:
                        node.catalog._apply_all()
                        node.keys.follow()
                        break
                    except UnavailableError:
                        assert time.monotonic() < deadline, "etcd did not come back"
            assert len({node.state.fingerprint() for node in nodes}) == 1, "states differ"
            final: dict[str, str] = {}
            for kept in nodes[0].catalog.records():
                final[kept.object_id.hex()] = kept.manifest_id.hex()
                keys = {node.keys.get(kept.object_id) for node in nodes}
                assert len(keys) == 1 and None not in keys, "half an object: a record without its key"
            return list(logged(nodes[0].log)), final, int(nodes[0].catalog.revision)
        finally:
            for node in nodes:
                node.close()


def logged(log: Log) -> Iterator[Logged]:
    for entry in log.read(START):
        for command in parts_of(decode_command(entry.payload)):
            assert isinstance(command.body, Publish)
            made = command.body.record
            yield Logged(
                command.session.hex(),
                made.object_id.hex(),
                made.manifest_id.hex(),
                command.body.against.hex() or NOTHING,
            )


def history(told: Path) -> list[Op]:
    """The calls as publishers told of them; those that were begun and not ended are in doubt."""
    begun: dict[str, Op] = {}
    reads: list[Op] = []
    registers = [record(number).object_id.hex() for number in range(REGISTERS)]
    for line in told.read_text().splitlines():
        kind, *words = json.loads(line)
        if kind == "read":
            reads.append(Op("", registers[words[0]], words[1], words[2], words[3]))
        elif kind == "begin":
            begun[words[3]] = Op(words[3], registers[words[0]], words[1], words[2], None, words[4])
        else:
            op = begun[words[0]]
            begun[op.name] = Op(op.name, op.register, op.value, op.start, words[2], op.seen, words[1])
    return [*begun.values(), *reads]


def checked(etcd: EtcdCluster, folder: Path, seed: int, seconds: float) -> tuple[int, int]:
    """One run and its judgement: how many publishes were acknowledged, and how many were left in doubt."""
    ops, order, final, effects = Run(etcd, folder, seed, seconds).run()
    found = problems(ops, order, final, effects)
    assert not found, f"seed {seed}: {found[:5]}"
    lost = next((op for op in ops if op.name and op.outcome == "applied"), None)
    # Each history also shows that the checker would have seen a loss, and a commit that took effect twice.
    if lost is not None:  # with few turns between faults it may be that nobody came to an end
        assert problems(ops, [entry for entry in order if entry.name != lost.name], final, effects)
    assert problems(ops, order, final, effects + 1)
    done = sum(op.end is not None for op in ops if op.name)
    sys.stderr.write(
        f"history {seed}: {done} publishes, {sum(not op.name for op in ops)} reads, {len(order)} entries\n"
    )
    return done, sum(op.end is None for op in ops)
