"""The catalog as the use cases see it: commit a command, read the state, catch up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from fungistor.catalog.commands import Command, SetLayout, encode_command
from fungistor.catalog.log import Log
from fungistor.catalog.record import Record
from fungistor.catalog.rules import Verdict
from fungistor.catalog.state import Debt, Outcome, State, Turn, payload_digest
from fungistor.errors import ConflictError, FailedError, InvalidError, UnavailableError
from fungistor.ids import LayoutNumber, ObjectId, Revision

log = logging.getLogger(__name__)

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


class Catalog:
    """A log and the state of it on this node. Thread-safe, several processes at once.

    Of a log that is elsewhere (`is_remote`) readers need nothing: while it cannot be had they go on with the state.
    """

    def __init__(
        self, log: Log, state: State, *, is_remote: bool = False, prepare: Callable[[], None] | None = None
    ) -> None:
        """`prepare` is done each time before entries take effect, so that what they rely on is on this node first."""
        self._prepare = prepare
        self._log = log
        self._state = state
        self._is_remote = is_remote
        self._ask_again_at = 0.0

    # --- writing

    def fence(self) -> int:
        """The epoch to start a session under and to commit with."""
        return self._log.epoch()

    def commit(self, command: Command, *, fence: int | None = None) -> Outcome:
        """Append a command, apply up to it, and return how it ended. Durable when this returns.

        A commit that ended in doubt (UnavailableError, a crash) is repeated with the same command.

        Raises:
            ConflictError: its precondition does not hold where it came to stand, or the epoch is not `fence`.
            UnavailableError: the log or the state cannot be had now; it may have been committed.
            CatalogStoppedError: the log has a command that this program does not know.
            InvalidError: a field of the command is out of bounds.
        """
        outcome = self.commit_all([command], fence=fence)[0]
        if outcome.verdict is Verdict.REFUSED:
            raise ConflictError(outcome.reason, hint="look at what is there now, and start the operation again")
        return outcome

    def commit_all(self, commands: Sequence[Command], *, fence: int | None = None) -> list[Outcome]:
        """Commit up to `BATCH_ENTRIES_MAX` commands with one flush of the disk; a refused one is a value here.

        They stand next to each other in the log, all or none, but each is decided on its own. Raises as `commit`.
        """
        payloads = [encode_command(command) for command in commands]
        if len({(command.session, command.sequence) for command in commands}) != len(commands):
            raise InvalidError("two commands of one batch have the same session and sequence")
        # A command that cannot be applied here is better met before the append than after it, when it leaves doubt.
        if self._is_behind() and not self._apply_all():
            raise CatalogStoppedError(self._state.progress().stopped)
        known = self._outcomes(commands, payloads)
        # Appended before, in doubt: what was applied is not appended again.
        missing = [payload for outcome, payload in zip(known, payloads, strict=True) if outcome is None]
        if missing:
            self._log.append(self._log.epoch() if fence is None else fence, missing)
            known = self._outcomes(commands, payloads)
        # Often another process has applied these, too, by now. If not, this one does.
        while None in known:
            turn = self._advance()
            if turn.ended and not turn.applied:
                known = self._outcomes(commands, payloads)
                break
            known = self._outcomes(commands, payloads)
        outcomes = [outcome for outcome in known if outcome is not None]
        if len(outcomes) < len(commands):
            self._raise_unknown()
        return outcomes

    def _raise_unknown(self) -> NoReturn:
        stopped = self._state.progress().stopped
        if stopped is not None:
            raise CatalogStoppedError(stopped)
        raise UnavailableError(
            "the command was committed, but its outcome is no longer known here", hint="start the operation again"
        )

    def _outcomes(self, commands: Sequence[Command], payloads: Sequence[bytes]) -> list[Outcome | None]:
        return [self._outcome(command, payload) for command, payload in zip(commands, payloads, strict=True)]

    def _outcome(self, command: Command, payload: bytes) -> Outcome | None:
        found = self._state.outcome(command.session, command.sequence)
        if found is None:
            return None
        outcome, digest = found
        if digest != payload_digest(payload):
            raise ConflictError(
                f"session {command.session.hex()} committed another command as number {command.sequence}"
            )
        return outcome

    # --- following

    def catch_up(self) -> bool:
        """Apply all that the log has; False if a command that this program does not know stands in the way.

        Where a log elsewhere cannot be had, nothing is applied.
        """
        return self._unless_away(self._apply_all, lambda: self._state.progress().stopped is None)

    def behind(self) -> bool:
        """Whether the log has entries that the state has not. True as long as it stands still, and where the log is not
        the one that the state follows, which `catch_up` then tells. False where a log elsewhere cannot be had."""
        return self._unless_away(self._is_behind, lambda: False)

    def check_writable(self) -> None:
        """Meet a log that cannot be had before the work of a publish, not after it. Raises: UnavailableError."""
        if self._is_remote:
            self._log.epoch()

    def _apply_all(self) -> bool:
        # Until the end that was met: under a steady stream of appends there may always be one entry more.
        while not self._advance().ended:
            pass
        return self._state.progress().stopped is None

    def _advance(self) -> Turn:
        return self._state.advance(self._log, APPLY_ENTRIES, self._prepare)

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

    def highest_member(self) -> int:
        """The highest number that a member ever had."""
        return self._state.progress().highest_member

    def owed(self) -> list[Debt]:
        """Every debt."""
        return self._state.owed()

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
