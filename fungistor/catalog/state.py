"""What the log's commands add up to, in a SQLite file of this node. It may be deleted: replay brings it back.

Every node that applied the same entries holds the same rows (`fingerprint`), whatever its clock, locale or the number
of its processes. Whoever is behind applies, under the file's write lock; readers take a snapshot and wait for nobody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from blake3 import blake3

from fungistor.catalog import digest, outcomes
from fungistor.catalog.authority import Door, Issuer, authority_in, issuers_in
from fungistor.catalog.collector import at_rest
from fungistor.catalog.commands import (
    Command,
    CommandName,
    Publish,
    UnknownCommandError,
    decode_command,
    name_of,
    parts_of,
)
from fungistor.catalog.database import BUSY_TIMEOUT_S_MAX, Database, Schema
from fungistor.catalog.dump import Head, dump, head_in, load
from fungistor.catalog.effects import FINGERPRINTED, TABLES, carry_out
from fungistor.catalog.issuers import LEVEL, Report
from fungistor.catalog.layouts import SetLayout
from fungistor.catalog.log import START, Entry, Log, Position
from fungistor.catalog.name_rows import name_in, name_value_at, name_values_in, names_in
from fungistor.catalog.names import NameRow, NameValue
from fungistor.catalog.policies import Capacity
from fungistor.catalog.policy_rows import (
    LIVE,
    RETIRED,
    PolicyRow,
    capacities_in,
    left_in,
    mark_in,
    policies_in,
    tables_in,
)
from fungistor.catalog.record import Record, decode_record
from fungistor.catalog.removal_view import RemovalView
from fungistor.catalog.rows import Counters, as_layout, layout_in, note_absent, record_in, save_new
from fungistor.catalog.rules import Decision, Verdict
from fungistor.catalog.snapshot_rows import snapshots_in
from fungistor.catalog.snapshots import Snapshot
from fungistor.catalog.tenant_usage import recount
from fungistor.catalog.tenant_view import TenantView
from fungistor.errors import CorruptError
from fungistor.ids import LayoutNumber, MemberNumber, ObjectId, Revision

ROWS_A_READ = 512
"""How many records one snapshot brings when all are listed."""

_FINGERPRINTED = (
    *FINGERPRINTED,
    outcomes.FINGERPRINTED,
)

BATCH_BYTES = 512 << 10
"""So many bytes of entries at least end a turn of catching up. Of small objects they are two thousand, 0.2 s under the
write lock, and nobody sees one of them before."""

SCHEMA = Schema(
    what="catalog state",
    application_id=0x46537431,
    version=9,
    statements=(
        """CREATE TABLE progress (
            log BLOB NOT NULL,
            position BLOB NOT NULL,
            applied INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            objects INTEGER NOT NULL,
            highest_member INTEGER NOT NULL,
            stopped TEXT
        )""",
        "INSERT INTO progress VALUES (x'', x'', 0, 0, 0, 0, NULL)",
        *TABLES,
        *outcomes.TABLES,
        *digest.TABLES,
        *digest.triggers(_FINGERPRINTED),
    ),
    remedy="stop every process of this home and delete the file: it is rebuilt from the log",
    is_rebuilt=True,
    # The log is the truth: after a power cut the last transactions of the state may be missing, and are replayed.
    synchronous="NORMAL",
    cache_kib=8192,
    # Ids of objects are random, so in a large catalog each has a page of the index written: a thousand a batch, and
    # with SQLite's own 4 MiB once more by a checkpoint after every batch.
    wal_kib=64 << 10,
    prepare=digest.prepare,
    settle=digest.settle,
    forget=digest.forget,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a state has come. `applied` counts entries, `revision` those with effect; `stopped` says why no more
    are applied, if so. `log` is the identity of the log it follows, empty before the first turn."""

    log: bytes
    position: Position
    applied: int
    revision: Revision
    objects: int
    highest_member: int
    stopped: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """How many entries one turn of catching up applied, and whether it met the log's end, or what cannot be applied."""

    applied: int
    ended: bool


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node last said of itself. `agrees` is whether its state was as this one at that place, None where that can
    no longer be told; `told` is its clock."""

    issuer: bytes
    name: str
    level: int
    applied: int
    told: int | None
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Debt:
    """Shards of one object that a member has still to be given."""

    object_id: ObjectId
    member: MemberNumber
    shards: int


class State:
    """Thread-safe, several processes at once. Errors as `fungistor.catalog.database.Database` gives them."""

    def __init__(self, path: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S_MAX) -> None:
        self._path = path
        self._database = Database(path, SCHEMA, busy_timeout_s=busy_timeout_s)
        self.removal = RemovalView(self._database)
        self.tenants = TenantView(self._database)

    # --- reading

    def progress(self) -> Progress:
        """How far this state has come."""
        with self._database.read() as connection:
            log = connection.execute("SELECT log FROM progress").fetchone()[0]
            counters = _load(connection)
        return Progress(
            log,
            counters.position,
            counters.applied,
            Revision(counters.revision),
            counters.objects,
            counters.highest_member,
            counters.stopped,
        )

    @property
    def revision(self) -> Revision:
        """How many commands were applied with effect."""
        return self.progress().revision

    def record(self, object_id: ObjectId) -> Record | None:
        """An object's record."""
        with self._database.read() as connection:
            return record_in(connection, object_id)

    def records(self) -> Iterator[Record]:
        """Every record by rising object id. Each `ROWS_A_READ` are of one snapshot, not the whole."""
        after = b""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT object_id, body FROM record WHERE object_id > ? ORDER BY object_id LIMIT ?",
                    (after, ROWS_A_READ),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            for _, body in rows:
                yield decode_record(body)

    def records_after(self, revision: Revision) -> Iterator[tuple[Revision, Record]]:
        """Records that changed after a revision, by the revision of their last change. Snapshots as in `records`."""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT revision, body FROM record WHERE revision > ? ORDER BY revision LIMIT ?",
                    (revision, ROWS_A_READ),
                ).fetchall()
            for changed, body in rows:
                revision = Revision(changed)
                yield revision, decode_record(body)
            if len(rows) < ROWS_A_READ:
                return

    def layout(self, number: LayoutNumber | None = None) -> SetLayout | None:
        """A layout by its number, or the newest."""
        with self._database.read() as connection:
            return layout_in(connection, number)

    def layouts(self) -> list[SetLayout]:
        """Every layout by which shards may lie, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT command FROM layout WHERE is_live = 1 ORDER BY number").fetchall()
        return [as_layout(command) for (command,) in rows]

    def tables(self, *, left: bool = False) -> dict[LayoutNumber, bytes]:
        """Placement tables by which shards may lie, by the number that slots have; with `left` those of layouts that
        nobody reads by any more, whose copies may still be there."""
        with self._database.read() as connection:
            return tables_in(connection, RETIRED if left else LIVE)

    def left_layouts(self) -> list[tuple[LayoutNumber, int]]:
        """Layouts that are retired and not cleared, oldest first, with the time of that."""
        with self._database.read() as connection:
            return left_in(connection)

    def placement_mark(self) -> tuple[int, int]:
        """Another pair whenever there is a table that was not there before."""
        with self._database.read() as connection:
            return mark_in(connection)

    def policies(self, *, removed: bool = False) -> list[PolicyRow]:
        """Named policies."""
        with self._database.read() as connection:
            return policies_in(connection, removed=removed)

    def capacities(self) -> tuple[Capacity, ...]:
        """What members may hold, where that is known."""
        with self._database.read() as connection:
            return capacities_in(connection)

    def name(self, name_id: bytes) -> NameRow | None:
        """A name as it stands, removed or not."""
        with self._database.read() as connection:
            return name_in(connection, name_id)

    def names_after(self, revision: Revision) -> list[NameRow]:
        """Names that changed after a revision, removed ones among them, in the order of their changes."""
        with self._database.read() as connection:
            return names_in(connection, revision)

    def name_values(self, name_id: bytes) -> list[NameValue]:
        """What a name meant, the newest first."""
        with self._database.read() as connection:
            return name_values_in(connection, name_id)

    def name_value_at(self, name_id: bytes, revision: Revision) -> NameValue | None:
        """What a name meant at a revision."""
        with self._database.read() as connection:
            return name_value_at(connection, name_id, revision)

    def owed(self) -> list[Debt]:
        """Every debt, by object id and member."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT object_id, member, shards FROM owed ORDER BY 1, 2").fetchall()
        return [Debt(ObjectId(object_id), MemberNumber(member), shards) for object_id, member, shards in rows]

    def owed_shards(self) -> int:
        """The sum of all debts."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT coalesce(sum(shards), 0) FROM owed").fetchone()[0])

    def outcomes(self, commands: Sequence[Command]) -> list[tuple[outcomes.Outcome, bytes] | None]:
        """How commands ended, each with its digest; None for one that was not applied, or long ago."""
        with self._database.read() as connection:
            return outcomes.outcomes_in(connection, commands)

    def digest(self) -> bytes:
        """32 bytes over all rows but the log's own, as they are kept: equal on every node that applied the same."""
        with self._database.read() as connection:
            return digest.digest_in(connection)

    def fingerprint(self) -> bytes:
        """`digest` computed from every row, and the numbers of how far this state has come."""
        with self._database.read() as connection:
            numbers = connection.execute(
                "SELECT position, applied, revision, objects, highest_member FROM progress"
            ).fetchone()
            return blake3(repr(numbers).encode() + digest.digest_anew(connection, _FINGERPRINTED)).digest()

    def is_sound(self) -> bool:
        """Whether every row is as it was written, by their digest. Takes as long as reading all."""
        with self._database.read() as connection:
            return digest.digest_in(connection) == digest.digest_anew(connection, _FINGERPRINTED)

    def issuers(self) -> list[Issuer]:
        """Every issuer, also revoked ones."""
        with self._database.read() as connection:
            return issuers_in(connection)

    def authority(self) -> bytes | None:
        """The public key that says who may write; None before anybody was registered."""
        with self._database.read() as connection:
            return authority_in(connection)

    def reports(self) -> list[NodeReport]:
        """What nodes last said of themselves, held against this state."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT report.issuer, issuer.name, report.level, report.applied, report.told,"
                " report.digest = checkpoint.digest FROM report JOIN issuer ON issuer.id = report.issuer"
                " LEFT JOIN checkpoint ON checkpoint.applied = report.applied ORDER BY issuer.name"
            ).fetchall()
        return [
            NodeReport(issuer, name, level, applied, told, None if agrees is None else bool(agrees))
            for issuer, name, level, applied, told, agrees in rows
        ]

    def level(self) -> int:
        """What every registered node is known to apply. A node that never told has applied nothing yet."""
        return min((report.level for report in self.reports()), default=LEVEL)

    def checkpoint(self) -> tuple[int, bytes]:
        """The newest place at which this state's digest was kept, for others to compare; (0, empty) for none."""
        with self._database.read() as connection:
            row = connection.execute("SELECT applied, digest FROM checkpoint ORDER BY applied DESC LIMIT 1").fetchone()
        return (0, b"") if row is None else (int(row[0]), bytes(row[1]))

    def snapshots(self) -> list[Snapshot]:
        """Snapshots in the pool, oldest first."""
        with self._database.read() as connection:
            return snapshots_in(connection)

    @contextmanager
    def dump(self) -> Iterator[tuple[Head, Iterator[bytes]]]:
        """What a stream of this state is of, and the stream, while nothing changes it. The thread must not use this
        state for anything else meanwhile."""
        with self._database.read() as connection:
            yield head_in(connection), dump(connection)

    def restore(self, chunks: Iterable[bytes], identity: bytes, applied: int) -> None:
        """Take a stream's state in place of this one, unless this one has come as far, and follow that log from there.

        It may be of a log before that one, which goes on where it ended: whoever names a stream says so.
        Raises: CorruptError: it is not whole; this state stays as it was.
        """
        with self._database.write() as connection:
            if _load(connection).applied < applied:
                head = load(connection, chunks, _FINGERPRINTED)
                connection.execute("UPDATE progress SET log = ?", (identity,))
                if "usage" not in dict(head.tables):
                    recount(connection)

    def adopt(self, identity: bytes) -> None:
        """Follow a log that goes on where the one followed so far ended, under the same positions."""
        with self._database.write() as connection:
            connection.execute("UPDATE progress SET log = ?", (identity,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- applying

    def advance(self, log: Log, entries_max: int, prepare: Callable[[], None] | None = None) -> Turn:
        """Apply up to `entries_max` entries that follow. A command that this program does not know ends the turn
        (`progress().stopped`); after an update it goes on from there.

        The log is read before the state's write lock is taken: a log elsewhere may be slow, and nobody waits for it.
        `prepare` runs between the two, and is done when the entries that were read take effect.

        Raises:
            CorruptError: the state is not of this log, or ahead of it.
        """
        identity = log.identity()
        while True:
            after = self._followed(identity)
            batch, is_cut = _bounded(log.read(after), entries_max)
            if batch and prepare is not None:
                prepare()
            applied = self._apply_after(identity, after, batch) if batch or after == START else 0
            if applied is not None:
                return Turn(applied, not is_cut or not applied)

    def _followed(self, identity: bytes) -> Position:
        """The position to read on from. Raises: CorruptError: the state is of another log."""
        progress = self.progress()
        if progress.log != identity and (progress.log or progress.position != START):
            raise self._other_log(progress.log, identity)
        return progress.position

    def _apply_after(self, identity: bytes, after: Position, batch: Sequence[Entry]) -> int | None:
        """Apply a batch read after a position; None if the state is no longer there nor inside the batch."""
        with self._database.write() as connection:
            counters = _load(connection)
            self._check_log(connection, identity, counters)
            if counters.position != after:
                # Another process was quicker: what it left of the batch, if anything, is still to be done.
                at = next((at for at, entry in enumerate(batch, 1) if entry.position == counters.position), len(batch))
                batch = batch[at:]
                if not batch:
                    return None
            before = counters.applied
            stopped_before = counters.stopped
            for entry in batch:
                if not _apply(connection, counters, entry):
                    break
            count = counters.applied - before
            if count or counters.stopped != stopped_before:
                outcomes.forget_old(connection, counters.applied)
                _save(connection, counters)
            return count

    def apply(self, entries: Iterable[Entry]) -> int:
        """Apply entries that follow each other, from any source, in one transaction; return how many were."""
        with self._database.write() as connection:
            counters = _load(connection)
            before = counters.applied
            for entry in entries:
                if not _apply(connection, counters, entry):
                    break
            outcomes.forget_old(connection, counters.applied)
            _save(connection, counters)
            return counters.applied - before

    def _check_log(self, connection: sqlite3.Connection, identity: bytes, counters: Counters) -> None:
        known = connection.execute("SELECT log FROM progress").fetchone()[0]
        if not known and counters.position == START:
            connection.execute("UPDATE progress SET log = ?", (identity,))
        elif known != identity:
            raise self._other_log(known, identity)

    def _other_log(self, known: bytes, found: bytes) -> CorruptError:
        return CorruptError(
            f"{self._path} follows log {known.hex()}, this log is {found.hex()}",
            hint="bring the right log back; or, if this one is right, delete the state: it is rebuilt",
        )


def _bounded(entries: Iterator[Entry], entries_max: int) -> tuple[list[Entry], bool]:
    """The first entries, so many or until they reach `BATCH_BYTES`, and whether there may be more."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.payload)
        if len(batch) >= entries_max or size >= BATCH_BYTES:
            return batch, True
    return batch, False


def _load(connection: sqlite3.Connection) -> Counters:
    row = connection.execute(
        "SELECT position, applied, progress.revision, objects, highest_member, stopped, seen, condemned.revision"
        " FROM progress, retired, condemned"
    ).fetchone()
    return Counters(*row)


def _save(connection: sqlite3.Connection, counters: Counters) -> None:
    counters.ledger.save(connection)
    connection.execute(
        "UPDATE progress SET position = ?, applied = ?, revision = ?, objects = ?, highest_member = ?, stopped = ?",
        (
            counters.position,
            counters.applied,
            counters.revision,
            counters.objects,
            counters.highest_member,
            counters.stopped,
        ),
    )


@at_rest()
def _apply(connection: sqlite3.Connection, counters: Counters, entry: Entry) -> bool:
    """Apply one entry; False if it cannot be read by this program, which stops the state right before it."""
    try:
        command = decode_command(entry.payload)
    except UnknownCommandError as error:
        counters.stopped = error.message
        return False
    except CorruptError as error:
        # Skipping it would be a guess: another program, or an undamaged copy of the log, may see an effect.
        counters.stopped = f"an entry of the log is damaged ({error.message})"
        return False
    counters.stopped = None
    counters.position = entry.position
    door = Door(connection, command, entry.payload)
    ended: dict[CommandName, outcomes.Row] = {}
    parts = parts_of(command)
    before = outcomes.applied_in(connection, parts)
    published = [part.body.record.object_id if isinstance(part.body, Publish) else None for part in parts]
    note_absent(connection, counters, [object_id for object_id in published if object_id is not None])
    for part, object_id, told in zip(parts, published, outcomes.entry_digests(entry.payload), strict=True):
        if object_id not in counters.absent:
            save_new(connection, counters)
        if isinstance(part.body, Report):  # it tells a digest over all before it
            before |= dict.fromkeys(ended, counters.applied)
            outcomes.keep(connection, ended.values())
            ended.clear()
        counters.applied += 1
        name = name_of(part)
        kept = outcomes.OUTCOMES_KEPT
        if name not in ended and before.get(name, -kept) <= counters.applied - kept:
            refusal = door.refusal(part)
            decision = Decision(Verdict.DENIED, reason=refusal) if refusal else carry_out(connection, counters, part)
            ended[name] = outcomes.outcome_row(counters.applied, counters.revision, part, told, decision)
    save_new(connection, counters)
    outcomes.keep(connection, ended.values())
    return True
