"""The catalog as the use cases see it: commit a command, read the state, catch up."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NoReturn

from fungistor.catalog.authority import Issuer
from fungistor.catalog.collector import at_rest
from fungistor.catalog.commands import (
    GROUP_MAX,
    SESSION_BYTES,
    SHORT_LEVEL,
    Command,
    CommandName,
    Group,
    decode_command,
    encode_command,
    encode_signed,
    level_of,
    name_of,
    parts_of,
    signed_bytes,
)
from fungistor.catalog.copies import Copied, Copies, copied_when
from fungistor.catalog.dump import Head
from fungistor.catalog.issuers import LEVEL, Report, Scope, Signer, issuer_id
from fungistor.catalog.layouts import SetLayout
from fungistor.catalog.log import BATCH_ENTRIES_MAX, Log, LogTrimmedError, after_entry, entry_number
from fungistor.catalog.names import NameRow, NameValue
from fungistor.catalog.outcomes import Outcome, command_digest, entry_digests
from fungistor.catalog.policies import Capacity
from fungistor.catalog.policy_rows import PolicyRow
from fungistor.catalog.record import Record
from fungistor.catalog.removal_view import RemovalView
from fungistor.catalog.rules import Verdict
from fungistor.catalog.snapshots import Snapshot
from fungistor.catalog.state import Debt, NodeReport, State, Turn
from fungistor.catalog.tenant_view import TenantView
from fungistor.errors import (
    ConflictError,
    CorruptError,
    FailedError,
    FungiStorError,
    InvalidError,
    NotPermittedError,
    UnavailableError,
)
from fungistor.ids import LayoutNumber, ObjectId, Revision, SessionId

log = logging.getLogger(__name__)

KEY_PAGES_LEVEL = 3
"""Of nodes that read pages of keys as they are written now: those of level 2 know others."""

REST_S = 3.0
"""A log elsewhere that could not be had is left alone by readers for so long."""

APPLY_ENTRIES = 512
"""One transaction of catching up: some 30 ms under the state's write lock, and then others may have it."""


class CatalogStoppedError(FailedError):
    """The log has a command that this program cannot apply, so it commits nothing; reads go on."""

    def __init__(self, why: str | None) -> None:
        super().__init__(
            f"this node's catalog stands still: {why or 'a command is not known to this program'}",
            hint="update fungistor on this machine; reads go on meanwhile",
        )


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """What `status` tells of the catalog. `stopped` is why commands are no longer applied, None while they are."""

    revision: Revision
    applied: int
    objects: int
    owed_shards: int
    behind: bool
    stopped: str | None


@dataclass(frozen=True, slots=True)
class LoggedCommand:
    """A command where it stands in the log. `bytes` are those of its entry, which it may share with others; `outcome`
    None: not applied here, or too long ago."""

    number: int
    issuer: bytes
    when: int | None
    bytes: int
    command: Command
    outcome: Outcome | None


def refusal_of(outcome: Outcome) -> FungiStorError | None:
    """The error of a command that was not carried out."""
    if outcome.verdict is Verdict.DENIED:
        return NotPermittedError(
            outcome.reason, hint="`fungistor node list` tells who may what; `node add` lets a machine in"
        )
    if outcome.verdict is Verdict.REFUSED:
        return ConflictError(outcome.reason, hint="look at what is there now, and start the operation again")
    return None


def sign(command: Command, signer: Signer, when: int, *, short: bool = False) -> Command:
    """The command as its issuer's, in the form that it is going to be written in."""
    named = _named(command, signer, when)
    return replace(named, signature=signer.sign(signed_bytes(named, short=short)))


def _named(command: Command, signer: Signer, when: int) -> Command:
    return replace(command, issuer=issuer_id(signer.issuer), when=when)


class Catalog:
    """A log and the state of it on this node. Thread-safe, several processes at once.

    Of a log that is elsewhere (`is_remote`) readers need nothing: while it cannot be had they go on with the state.
    """

    def __init__(
        self,
        log: Log,
        state: State,
        *,
        is_remote: bool = False,
        prepare: Callable[[], None] | None = None,
        signer: Signer | None = None,
        bridge: Callable[[Snapshot], Generator[bytes]] | None = None,
        copies: Copies | None = None,
    ) -> None:
        """`prepare` is done each time before entries take effect, so that what they rely on is on this node first.
        Without a `signer` commands go unsigned, which a network takes until its first issuer is registered. `bridge`
        brings a snapshot where the log was trimmed before this node came there. Without `copies` what is committed is
        in the log alone."""
        self._bridge = bridge
        self._copies = copies
        self._prepare = prepare
        self._log = log
        self._state = state
        self._signer = signer
        self._is_remote = is_remote
        self._ask_again_at = 0.0
        self._reported: Revision | None = None
        self._away: UnavailableError | None = None

    # --- writing

    def fence(self) -> int:
        """The epoch to start a session under and to commit with."""
        return self._log.epoch()

    def commit(self, command: Command, *, fence: int | None = None) -> Outcome:
        """Append a command, apply up to it, and return how it ended. Durable when this returns.

        A commit that ended in doubt (UnavailableError, a crash) is repeated with the same command.

        Raises:
            ConflictError: its precondition does not hold where it came to stand, or the epoch is not `fence`.
            NotPermittedError: this node may not do that.
            UnavailableError: the log or the state cannot be had now; it may have been committed.
            CatalogStoppedError: the log has a command that this program does not know.
            InvalidError: a field of the command is out of bounds.
        """
        outcome = self.commit_all([command], fence=fence)[0]
        if (refusal := refusal_of(outcome)) is not None:
            raise refusal
        return outcome

    @property
    def commands_at_once_max(self) -> int:
        """How many commands `commit_all` takes: fewer while some node does not know groups."""
        return GROUP_MAX if self._state.level() >= level_of(Group(())) else BATCH_ENTRIES_MAX

    @property
    def knows_short_names(self) -> bool:
        """Whether every node opens names that are sealed under the salts of their manifests."""
        return self._state.level() >= SHORT_LEVEL

    @property
    def knows_key_pages(self) -> bool:
        """Whether every node finds keys that share a value of the key table, as runs of ids that count up."""
        return self._state.level() >= KEY_PAGES_LEVEL

    def commit_all(self, commands: Sequence[Command], *, fence: int | None = None) -> list[Outcome]:
        """Commit commands of 1 MiB in all with one flush of the disk and one signature; a refused one is a value here.

        They stand next to each other in the log, all or none, but each is decided on its own. Raises as `commit`.
        """
        if len({(command.session, command.sequence) for command in commands}) != len(commands):
            raise InvalidError("two commands of one batch have the same session and sequence")
        # A command that cannot be applied here is better met before the append than after it, when it leaves doubt.
        if self._is_behind() and not self._apply_all():
            raise CatalogStoppedError(self._state.progress().stopped)
        self._check_levels(commands)
        known = self._outcomes(commands)
        # Appended before, in doubt: what was applied is not appended again.
        missing = [command for outcome, command in zip(known, commands, strict=True) if outcome is None]
        digests: dict[CommandName, bytes] = {}
        if missing:
            batch = self._entries(missing)
            digests = dict(zip(map(name_of, missing), itertools.chain(*map(entry_digests, batch)), strict=True))
            if self._copies is not None and copied_when(commands) is Copied.BEFORE:
                self._copies.check()
            position = self._log.append(self._log.epoch() if fence is None else fence, batch)
            if self._copies is not None:
                self._copies.appended(position, batch)
        while None in known:
            turn = self._advance()
            known = self._outcomes(commands, digests)
            if turn.ended and not turn.applied:  # another process has applied these, or nobody can
                break
        outcomes = [outcome for outcome in known if outcome is not None]
        if len(outcomes) < len(commands):
            self._raise_unknown()
        self._copy(copied_when(commands))
        return outcomes

    def _copy(self, when: Copied) -> None:
        """Have the pool take what was committed. Raises: UnavailableError where it has to, and cannot now."""
        if self._copies is None or when is Copied.LATER:
            return
        try:
            self._copies.cover(self._state.progress().position)
        except UnavailableError as error:
            if when is Copied.BEFORE:
                raise UnavailableError(
                    f"it stands in the catalog's log, but not yet in the pool: {error.message}", hint=error.hint
                ) from error
            log.info("what was committed comes into the pool later: %s", error.message)

    def _raise_unknown(self) -> NoReturn:
        stopped = self._state.progress().stopped
        if stopped is not None:
            raise CatalogStoppedError(stopped)
        raise UnavailableError(
            "the command was committed, but its outcome is no longer known here", hint="start the operation again"
        )

    @at_rest()
    def _entries(self, commands: Sequence[Command]) -> list[bytes]:
        """Commands as entries of the log: one for all, where every node knows groups."""
        level = self._state.level()
        short = level >= SHORT_LEVEL
        if len(commands) == 1 or level < level_of(Group(tuple(commands))):
            return [self._encoded(command, short) for command in commands]
        bare = tuple(
            replace(command, issuer=b"", signature=b"", when=None) if command.issuer or command.when else command
            for command in commands
        )
        group = Command(bare[0].session, bare[0].sequence, Group(bare))
        return [self._encoded(group, short)]

    def _encoded(self, command: Command, short: bool) -> bytes:
        """The command as this node's. One that has a signature, as those of the authority, stays as it is."""
        if self._signer is None or command.signature:
            return encode_command(command, short=short)
        return encode_signed(_named(command, self._signer, int(time.time())), self._signer.sign, short=short)

    def _check_levels(self, commands: Sequence[Command]) -> None:
        wanted = max(level_of(command.body) for command in commands) if commands else 0
        if wanted <= self._state.level():
            return
        behind = [report.name for report in self._state.reports() if report.level < wanted]
        raise UnavailableError(
            f"this needs a newer fungistor on every node of the network: {', '.join(behind)} would stand still",
            hint="update fungistor there and start it once; or `fungistor node revoke NAME` a machine that is gone",
        )

    def _outcomes(
        self, commands: Sequence[Command], digests: Mapping[CommandName, bytes] = MappingProxyType({})
    ) -> list[Outcome | None]:
        """How commands ended, as far as they were applied. `digests`: of those that are known from their entries."""
        outcomes: list[Outcome | None] = []
        for command, found in zip(commands, self._state.outcomes(commands), strict=True):
            if found is not None and found[1] != (digests.get(name_of(command)) or command_digest(command)):
                raise ConflictError(
                    f"session {command.session.hex()} committed another command as number {command.sequence}"
                )
            outcomes.append(None if found is None else found[0])
        return outcomes

    # --- following

    def catch_up(self) -> bool:
        """Apply all that the log has; False if a command that this program does not know stands in the way.

        Where a log elsewhere cannot be had, nothing is applied.
        """

        def follow() -> bool:
            complete = self._apply_all()
            if self._is_remote and self._prepare is not None:
                self._prepare()  # what others took away needs no entry to be followed
            return complete

        return self._unless_away(follow, lambda: self._state.progress().stopped is None)

    def behind(self) -> bool:
        """Whether the log has entries that the state has not. True as long as it stands still, and where the log is not
        the one that the state follows, which `catch_up` then tells. False where a log elsewhere cannot be had."""
        return self._unless_away(self._is_behind, lambda: False)

    def check_writable(self) -> None:
        """Meet a log that cannot be had before the work of a publish, not after it. Raises: UnavailableError."""
        if not self._is_remote:
            return
        if self._away is not None and time.monotonic() < self._ask_again_at:
            raise self._away
        self._log.epoch()

    def _apply_all(self) -> bool:
        # Until the end that was met: under a steady stream of appends there may always be one entry more.
        while not self._advance().ended:
            pass
        return self._state.progress().stopped is None

    def _advance(self) -> Turn:
        try:
            return self._state.advance(self._log, APPLY_ENTRIES, self._prepare)
        except LogTrimmedError:
            if self._bridge is None:
                raise
        self._cross(self._bridge)
        return Turn(0, ended=False)

    def _cross(self, bridge: Callable[[Snapshot], Generator[bytes]]) -> None:
        """Take the newest snapshot that the log's tail names."""
        newest: Snapshot | None = None
        for entry in self._log.read(self._log.trimmed()):
            with suppress(CorruptError):  # what this program does not know cannot be passed over here, only later
                for part in parts_of(decode_command(entry.payload)):
                    if isinstance(part.body, Snapshot):
                        newest = part.body
        if newest is None:
            raise CorruptError(
                "the log was trimmed, and names no snapshot of what it held",
                hint="`fungistor doctor`; bring a node's catalog/state.sqlite that is ahead of it",
            )
        if self._prepare is not None:
            self._prepare()
        log.info("the log was trimmed: taking the snapshot after %d commands", newest.applied)
        with closing(bridge(newest)) as chunks:
            self._state.restore(chunks, self._log.identity(), newest.applied)
        if self._state.progress().applied < newest.applied:
            raise CorruptError("the snapshot that the log names is not the one that lies in the pool")

    def snapshots(self) -> list[Snapshot]:
        """Snapshots in the pool, oldest first."""
        return self._state.snapshots()

    def dump(self) -> AbstractContextManager[tuple[Head, Iterator[bytes]]]:
        """What a stream of the state is of, and the stream. The thread must not use the catalog meanwhile."""
        return self._state.dump()

    def trim(self, snapshot: Snapshot) -> None:
        """Forget the log's entries before the place of a snapshot that was committed."""
        self._log.trim(snapshot.position)

    @property
    def objects(self) -> int:
        """How many objects there are."""
        return self._state.progress().objects

    def may(self, scopes: Scope) -> bool:
        """Whether this node has one of some scopes; every node as long as none is registered."""
        if self._state.authority() is None:
            return True
        mine = None if self._signer is None else issuer_id(self._signer.issuer)
        return any(issuer.id == mine and issuer.scopes & scopes and not issuer.revoked for issuer in self.issuers())

    def tail(self) -> int:
        """How many commands were applied since the newest snapshot."""
        snapshots = self._state.snapshots()
        return self._state.progress().applied - (snapshots[-1].applied if snapshots else 0)

    def _is_behind(self) -> bool:
        progress = self._state.progress()
        return progress.log != self._log.identity() or progress.position != self._log.last()

    def _unless_away(self, ask: Callable[[], bool], otherwise: Callable[[], bool]) -> bool:
        if not self._is_remote:
            return ask()
        if time.monotonic() < self._ask_again_at:
            return otherwise()
        try:
            return ask()
        except UnavailableError as error:
            log.warning("the catalog goes on with what it has: %s", error.message)
            self._away = error
            self._ask_again_at = time.monotonic() + REST_S
            return otherwise()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the log has something new, and apply it; False when the time passed."""
        progress = self._state.progress()
        # A state that stands still has entries before it for good: only a new one is news.
        after = progress.position if progress.stopped is None else self._log.last()
        if not self._log.watch(after, timeout_s):
            return False
        self.catch_up()
        return True

    def first_entry(self) -> int:
        """The number of the oldest entry that the log still has."""
        return entry_number(self._log.trimmed()) + 1

    def logged(self, after: int) -> Iterator[LoggedCommand]:
        """The commands in the log behind an entry's number, as far as they are still there.

        Raises: UnavailableError where the log cannot be had; UnknownCommandError at one this program does not know.
        """
        start = max(after, entry_number(self._log.trimmed()))
        for entry in self._log.read(after_entry(start)):
            command = decode_command(entry.payload)
            parts = parts_of(command)
            for part, found in zip(parts, self._state.outcomes(parts), strict=True):
                yield LoggedCommand(
                    entry_number(entry.position),
                    command.issuer,
                    command.when,
                    len(entry.payload),
                    part,
                    None if found is None else found[0],
                )

    # --- reading: the state as it is, without catching up

    def record(self, object_id: ObjectId) -> Record | None:
        """An object's record."""
        return self._state.record(object_id)

    def records(self) -> Iterator[Record]:
        """Every record, by rising object id."""
        return self._state.records()

    def records_after(self, revision: Revision) -> Iterator[tuple[Revision, Record]]:
        """Records that changed after a revision, by the revision of their last change."""
        return self._state.records_after(revision)

    def layout(self, number: LayoutNumber | None = None) -> SetLayout | None:
        """A layout by its number, or the newest; None if there is none."""
        return self._state.layout(number)

    def layouts(self) -> list[SetLayout]:
        """Every layout by which shards may lie, oldest first: the newest, and those not yet drained."""
        return self._state.layouts()

    def tables(self, *, left: bool = False) -> dict[LayoutNumber, bytes]:
        """Placement tables by which shards may lie, by the number that slots have; with `left` those of layouts that
        nobody reads by any more, whose copies may still be there."""
        return self._state.tables(left=left)

    def left_layouts(self) -> list[tuple[LayoutNumber, int]]:
        """Layouts that are retired and not cleared, oldest first, with the time (Unix seconds) of their retirement."""
        return self._state.left_layouts()

    def placement_mark(self) -> tuple[int, int]:
        """Another pair whenever there is a table that was not there before."""
        return self._state.placement_mark()

    def policies(self, *, removed: bool = False) -> list[PolicyRow]:
        """Named policies by rising number; with `removed` also those that were."""
        return self._state.policies(removed=removed)

    def capacities(self) -> tuple[Capacity, ...]:
        """What members may hold, where that is known."""
        return self._state.capacities()

    def highest_member(self) -> int:
        """The highest number that a member ever had."""
        return self._state.progress().highest_member

    def name(self, name_id: bytes) -> NameRow | None:
        """A name as it stands, removed or not."""
        return self._state.name(name_id)

    def names_after(self, revision: Revision) -> list[NameRow]:
        """Names that changed after a revision, removed ones among them, in the order of their changes."""
        return self._state.names_after(revision)

    def name_values(self, name_id: bytes) -> list[NameValue]:
        """What a name meant, the newest first."""
        return self._state.name_values(name_id)

    def name_value_at(self, name_id: bytes, revision: Revision) -> NameValue | None:
        """What a name meant at a revision."""
        return self._state.name_value_at(name_id, revision)

    def owed(self) -> list[Debt]:
        """Every debt."""
        return self._state.owed()

    def issuers(self) -> list[Issuer]:
        """Every issuer that was registered, also revoked ones."""
        return self._state.issuers()

    def authority(self) -> bytes | None:
        """The public key that says who may write; None before anybody was registered."""
        return self._state.authority()

    def reports(self) -> list[NodeReport]:
        """What nodes last said of themselves, held against this state."""
        return self._state.reports()

    def report(self) -> bool:
        """Tell the other nodes what this one can and has; False where that is no news.

        Raises: as `commit`; ConflictError where this node is not registered.
        """
        if self._signer is None or self._state.authority() is None:
            return False
        revision = self._state.revision
        if revision == self._reported:
            return False
        applied, digest = self._state.checkpoint()
        self.commit(Command(SessionId(os.urandom(SESSION_BYTES)), 0, Report(LEVEL, applied, digest)))
        self._reported = revision
        return True

    @property
    def removal(self) -> RemovalView:
        """What was taken away, what keeps objects, and who is publishing."""
        return self._state.removal

    @property
    def tenants(self) -> TenantView:
        """Who there is, how much each has and may have, and the tokens that speak for them."""
        return self._state.tenants

    @property
    def revision(self) -> Revision:
        """How many commands were applied with effect."""
        return self._state.revision

    def status(self) -> CatalogStatus:
        """What a person should know of the catalog."""
        progress = self._state.progress()
        return CatalogStatus(
            revision=progress.revision,
            applied=progress.applied,
            objects=progress.objects,
            owed_shards=self._state.owed_shards(),
            behind=self.behind(),
            stopped=progress.stopped,
        )

    def close(self) -> None:
        """Close log and state."""
        self._log.close()
        self._state.close()
