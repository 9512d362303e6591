"""The embedded members as processes: which should run, which do, and what stands in the way of the others."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from fungistor.errors import ConflictError, FailedError, FungiStorError, NotFoundError
from fungistor.ids import MemberId, MemberNumber
from fungistor.node.children import Child, Children, wait_until
from fungistor.node.files import make_durable_folder
from fungistor.node.home import Home
from fungistor.node.layouts import PoolPlan
from fungistor.node.new_members import free_port, port_is_free
from fungistor.node.pool_file import PoolMember, save_pool
from fungistor.node.process import is_stopped
from fungistor.objects.results import MemberState

START_WAIT_S = 20.0
STOP_GRACE_S = 5.0
STATE_WAIT_S = 5.0
BACKOFF_S = 0.25
BACKOFF_S_MAX = 30.0
HEALTHY_AFTER_S = 30.0
STARTS_AT_ONCE = 4
"""More would only wait for each other's share of the machine."""


Condition = Literal["starting", "running", "paused", "stopped", "wiped", "failed"]

_STATES: Mapping[Condition, MemberState] = {"running": "up", "paused": "paused"}

log = logging.getLogger(__name__)


class MemberWipedError(ConflictError):
    """A member answers, but what the network left there is not there: its folder was wiped or swapped."""


class Claims(Protocol):
    """Whether a started daemon is the member that the network knows."""

    def claim(self, member: PoolMember, number: MemberNumber, admin: str) -> None:
        """Make a fresh member's namespace and leave its identity there. Safe to repeat."""

    def check(self, member: PoolMember, number: MemberNumber) -> None:
        """Raises: MemberWipedError where the namespace or the identity is not the one left there."""


class Roll(Protocol):
    """The members' numbers, as the newest layout has them."""

    def numbers(self) -> Mapping[MemberId, MemberNumber]: ...

    def next_number(self) -> MemberNumber:
        """Draw a number that was never used, for a member that is taken back empty."""

    def commit(self, members: Sequence[tuple[PoolMember, MemberNumber]]) -> None:
        """Make these members the newest layout."""

    def plan(self, members: Sequence[tuple[PoolMember, MemberNumber]]) -> PoolPlan:
        """What that would come to. Raises: InvalidError, ConflictError where it cannot be."""

    def holders(self) -> Collection[MemberNumber]:
        """The members that shards may lie at."""


@dataclass(slots=True)
class _Member:
    spec: PoolMember
    number: MemberNumber | None
    condition: Condition = "stopped"
    reason: str = "not started"
    child: Child | None = None
    started: float = 0.0
    failures: int = 0
    told: str = ""
    not_before: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.alive


class Fleet:
    """All embedded members of one home. Thread-safe: each member changes under its own lock."""

    def __init__(
        self,
        home: Home,
        children: Children,
        members: Sequence[PoolMember],
        *,
        claims: Claims,
        roll: Roll,
        daemon_options: Mapping[str, object],
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called after a member's address or number changed, with no lock held."""
        self._home = home
        self._children = children
        self._claims = claims
        self._roll = roll
        self._options = dict(daemon_options)
        self._on_change = on_change
        self._closing = False
        self._file_lock = threading.Lock()
        self._layout_lock = threading.Lock()
        numbers = roll.numbers()
        self._members = {member.id: _Member(member, numbers.get(member.id)) for member in members}

    def start_all(self) -> None:
        """Start every member, and make the first layout of those that are in none.

        A member that cannot be started is `down` with its reason, not an error; but a first layout needs all of them.

        Raises: FailedError where a fresh member does not come up.
        """
        fresh = [member for member in self._members.values() if member.number is None]
        last = max((member.number or 0 for member in self._members.values()), default=0)
        planned = {member.spec.id: MemberNumber(last + place) for place, member in enumerate(fresh, 1)}
        with ThreadPoolExecutor(STARTS_AT_ONCE, thread_name_prefix="start") as pool:
            list(pool.map(lambda member: self._launch(member, planned.get(member.spec.id)), self._members.values()))
        for member in fresh:
            if member.condition != "running":
                raise FailedError(
                    f"the new member {member.spec.id} did not start: {member.reason}",
                    hint=f"its words are in {self._home.member_log(member.spec.id)}",
                )
        self._save()
        if fresh:
            self._roll.commit([(m.spec, m.number or planned[m.spec.id]) for m in self._members.values()])
            for member in fresh:
                member.number = planned[member.spec.id]

    def lines(self) -> list[dict[str, object]]:
        """What is known of each member's process, in the contract's words and some more."""
        return [self._line(member) for member in self._members.values()]

    def specs(self) -> tuple[PoolMember, ...]:
        return tuple(member.spec for member in self._members.values())

    def ids(self) -> list[MemberId]:
        return list(self._members)

    def find(self, name: str) -> MemberId:
        """Raises: NotFoundError where no member has this id."""
        if name not in self._members:
            known = list(self._members)
            if not known:
                raise NotFoundError("this node runs no members", hint="ask the node that runs them")
            raise NotFoundError(f"no member is called {name}", hint=f"they are called {known[0]} to {known[-1]}")
        return MemberId(name)

    def stop(self, name: MemberId) -> dict[str, object]:
        """End a member's process. Returns when it is gone and its port refuses."""
        member = self._members[name]
        with member.lock:
            member.condition, member.reason = "stopped", "stopped by hand"
            if member.child is not None:
                member.child.stop(STOP_GRACE_S)
            if not wait_until(lambda: _refuses(member.spec.address), STATE_WAIT_S):
                raise FailedError(f"{name} ended, but something else answers at {member.spec.address}")
            return self._line(member)

    def start(self, name: MemberId, *, reset: bool = False) -> dict[str, object]:
        """Run a member again. Returns when it answers as itself.

        `reset` takes a member back whose folder was wiped: empty, under a new number.

        Raises: ConflictError where it is wiped and `reset` is not said, or the other way round.
        """
        member = self._members[name]
        with member.lock:
            before = member.spec.address, member.number
            if reset:
                self._reset(member)
            elif member.condition == "paused" and member.alive:
                self._resume(member)
            elif not (member.alive and member.condition == "running"):
                member.failures = 0
                self._launch(member, None)
                self._require_running(member)
            line = self._line(member)
            changed = before != (member.spec.address, member.number)
        if changed:
            self._save()
            self._on_change()
        return line

    def enlist(self, specs: Sequence[PoolMember], *, dry_run: bool) -> PoolPlan:
        """Take new members in: started, claimed, and in the newest layout when this returns.

        Raises: FailedError where one does not start (then none is taken in).
        """
        with self._layout_lock:
            first = self._roll.next_number()
            fresh = [_Member(spec, None) for spec in specs]
            numbers = [MemberNumber(first + place) for place in range(len(fresh))]
            plan = self._roll.plan([*self._numbered(), *zip(specs, numbers, strict=True)])
            if dry_run:
                return plan
            for member, number in zip(fresh, numbers, strict=True):
                self._launch(member, number)
            if bad := next((member for member in fresh if member.condition != "running"), None):
                for member in fresh:
                    self._end(member)
                raise FailedError(f"the new member {bad.spec.id} did not start: {bad.reason}", hint="nothing changed")
            # Into the pool file first: what is there and in no layout is taken in by the next start.
            self._members |= {member.spec.id: member for member in fresh}
            self._save()
            self._roll.commit([*self._numbered(), *((m.spec, n) for m, n in zip(fresh, numbers, strict=True))])
            for member, number in zip(fresh, numbers, strict=True):
                member.number = number
        self._on_change()
        return plan

    def relabel(
        self, names: Sequence[MemberId], change: Callable[[PoolMember], PoolMember], *, dry_run: bool
    ) -> PoolPlan:
        """Give members another weight, zone or capacity, and make that the newest layout."""
        with self._layout_lock:
            changed = {name: change(self._members[name].spec) for name in names}
            numbered = [(changed.get(spec.id, spec), number) for spec, number in self._numbered()]
            plan = self._roll.plan(numbered)
            if dry_run:
                return plan
            for name, spec in changed.items():
                self._members[name].spec = spec
            self._save()
            self._roll.commit(numbered)
        self._on_change()
        return plan

    def dismiss(self, names: Sequence[MemberId], *, lost: bool, dry_run: bool) -> PoolPlan:
        """Let members go that hold nothing any more; with `lost`, also such as are gone with all they held.

        Raises: ConflictError where a member may still hold shards, or is not gone.
        """
        with self._layout_lock:
            plan = self._roll.plan([(spec, number) for spec, number in self._numbered() if spec.id not in names])
            for name in names:
                self._require_empty(self._members[name], lost=lost)
            if dry_run:
                return plan
            self._roll.commit([(spec, number) for spec, number in self._numbered() if spec.id not in names])
            for name in names:
                member = self._members.pop(name)
                member.condition = "stopped"
                self._end(member)
            self._save()
        self._on_change()
        return plan

    def _require_empty(self, member: _Member, *, lost: bool) -> None:
        name = member.spec.id
        if lost:
            if member.alive:
                raise ConflictError(
                    f"{name} is not lost: it runs", hint=f"`fungistor pool drain {name}` moves its shards"
                )
        elif member.number in self._roll.holders():
            raise ConflictError(
                f"{name} may still hold shards",
                hint=f"`fungistor pool drain {name}`, then `fungistor repair`; `--lost` if it is gone for ever",
            )

    def _numbered(self) -> list[tuple[PoolMember, MemberNumber]]:
        return [(m.spec, m.number) for m in self._members.values() if m.number is not None]

    def pause(self, name: MemberId) -> dict[str, object]:
        """Stop a member's process where it stands: it accepts and never answers. Returns when all of it is stopped."""
        member = self._members[name]
        with member.lock:
            child = self._running_child(member, "paused")
            child.signal(signal.SIGSTOP)
            if not wait_until(lambda: is_stopped(child.pid), STATE_WAIT_S):
                raise FailedError(f"{name} (process {child.pid}) did not stop within {STATE_WAIT_S:g} s")
            member.condition, member.reason = "paused", "paused by hand"
            return self._line(member)

    def resume(self, name: MemberId) -> dict[str, object]:
        """Let a paused member go on. Returns when it answers."""
        member = self._members[name]
        with member.lock:
            self._running_child(member, "resumed")
            self._resume(member)
            return self._line(member)

    def mend(self) -> bool:
        """Start members again whose process ended by itself, each no sooner than its back-off allows."""
        changed = False
        for member in self._members.values():
            if self._closing:
                return False
            if member.condition not in ("running", "paused", "failed") or member.alive:
                continue
            with member.lock:
                if member.condition not in ("running", "paused", "failed") or member.alive:
                    continue
                if member.condition != "failed":
                    self._note_end(member)
                elif time.monotonic() >= member.not_before:
                    address = member.spec.address
                    self._launch(member, None)
                    changed |= address != member.spec.address
        if changed:
            self._save()
            self._on_change()
        return False

    def close(self) -> None:
        """End all members, at once and within a bound."""
        self._closing = True
        members = [member for member in self._members.values() if member.alive]
        with ThreadPoolExecutor(max(1, len(members)), thread_name_prefix="stop") as pool:
            for child in [member.child for member in members if member.child is not None]:
                pool.submit(child.stop, STOP_GRACE_S)

    def _line(self, member: _Member) -> dict[str, object]:
        spec = member.spec
        state: MemberState = _STATES.get(member.condition, "down") if member.alive else "down"
        reason = member.reason
        if state == "down" and member.condition in ("running", "paused"):
            reason = "its process ended"
        return {
            "id": spec.id,
            "address": spec.address,
            "zone": "/".join(spec.zone),
            "state": state,
            "reason": reason,
            "number": member.number,
            "folder": self._home.member_folder(spec.id),
            "pid": member.child.pid if member.child is not None and member.alive else None,
        }

    def _launch(self, member: _Member, planned: MemberNumber | None) -> None:
        """Start the process and see that it is the member. Never raises for what is wrong with this one member."""
        with member.lock:
            if self._closing:
                return
            member.condition, member.reason = "starting", "starting"
            try:
                admin = self._start_process(member)
                assert member.number is not None or planned is not None
                if planned is not None:
                    self._claims.claim(member.spec, planned, admin)
                self._claims.check(member.spec, planned or member.number or MemberNumber(0))
                member.condition, member.reason, member.told = "running", "", ""
                member.started = time.monotonic()
            except MemberWipedError as error:
                log.warning("%s: %s", member.spec.id, error)
                self._end(member)
                member.condition, member.reason = "wiped", "wiped"
            except (FungiStorError, OSError) as error:
                self._end(member)
                member.failures += 1
                wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(member.failures, 16))
                member.condition = "failed"
                member.reason = _say(error)
                member.not_before = time.monotonic() + wait_s
                if member.reason != member.told:  # a cause that lasts is told once
                    log.warning("%s is down: %s; it is tried again and again", member.spec.id, member.reason)
                member.told = member.reason

    def _start_process(self, member: _Member) -> str:
        """Run the daemon, on its old port if that is free. Gives the admin password of this run."""
        spec = member.spec
        port = int(spec.address.rpartition(":")[2])
        if not port_is_free(port):
            log.info("%s moves from port %d, which is taken", spec.id, port)
            port = free_port()
        folder = self._home.member_folder(spec.id)
        make_durable_folder(folder, 0o700)
        os.makedirs(os.path.dirname(self._home.member_log(spec.id)), mode=0o700, exist_ok=True)
        admin = secrets.token_hex(24)
        config = {
            "data": os.path.join(folder, "data"),
            "index": os.path.join(folder, "index"),
            "listen": "127.0.0.1",
            "port": port,
            "admin": admin,
            **self._options,
        }
        member.child = self._children.member(spec.id, self._home.member_log(spec.id), config)
        member.child.wait_ready(START_WAIT_S)
        member.spec = replace(spec, address=f"127.0.0.1:{port}")
        return admin

    def _reset(self, member: _Member) -> None:
        name = member.spec.id
        if member.condition == "stopped":
            self._launch(member, None)  # it may have been wiped while it was stopped: see
        if member.condition != "wiped":
            raise ConflictError(
                f"{name} is not wiped but {self._line(member)['state']}: a reset would throw its shards away",
                hint="stop it and delete its folder first, if that is what you want",
            )
        with self._layout_lock:  # one layout at a time: two resets at once would draw one number
            number = self._roll.next_number()
            shutil.rmtree(self._home.member_folder(name), ignore_errors=True)
            self._launch(member, number)
            self._require_running(member)
            self._roll.commit([(spec, number if spec.id == name else known) for spec, known in self._numbered()])
            member.number = number

    def _resume(self, member: _Member) -> None:
        child = self._running_child(member, "resumed")
        child.signal(signal.SIGCONT)
        if not wait_until(lambda: not is_stopped(child.pid), STATE_WAIT_S):
            raise FailedError(f"{member.spec.id} (process {child.pid}) did not go on within {STATE_WAIT_S:g} s")
        assert member.number is not None
        self._claims.check(member.spec, member.number)
        member.condition, member.reason = "running", ""

    def _running_child(self, member: _Member, what: str) -> Child:
        if member.child is None or not member.alive:
            raise FailedError(
                f"{member.spec.id} is not running, so it cannot be {what}",
                hint=f"`fungistor member start {member.spec.id}` starts it",
            )
        return member.child

    def _require_running(self, member: _Member) -> None:
        name = member.spec.id
        if member.condition == "wiped":
            raise MemberWipedError(
                f"{name} was wiped: its folder does not hold what the network left there",
                hint=f"`fungistor member start --reset {name}` takes it back, empty, under a new number",
            )
        if member.condition != "running":
            raise FailedError(f"{name} did not start: {member.reason}", hint=f"see {self._home.member_log(name)}")

    def _note_end(self, member: _Member) -> None:
        lived = time.monotonic() - member.started
        member.failures = 0 if lived >= HEALTHY_AFTER_S else member.failures + 1
        wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(member.failures, 16)) if member.failures else 0.0
        status = member.child.status if member.child is not None else None
        member.condition, member.reason = "failed", f"its process ended with status {status}"
        member.not_before = time.monotonic() + wait_s
        log.warning("%s ended with status %s; it is started again in %g s", member.spec.id, status, wait_s)

    def _end(self, member: _Member) -> None:
        if member.child is not None and member.alive:
            member.child.stop(STOP_GRACE_S)

    def _save(self) -> None:
        with self._file_lock:
            save_pool(self._home.pool_file, self.specs())


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def _say(error: FungiStorError | OSError) -> str:
    return error.message if isinstance(error, FungiStorError) else (error.strerror or str(error)).lower()
