"""What the state says of what was taken away: for `unpublish`, `gc`, `pin`, and for the block index of every node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fungistor.catalog.database import Database
from fungistor.catalog.record import Record, decode_record
from fungistor.catalog.removal_effects import OVERDUE, SESSIONS_OVER, WINDOWS_OVER
from fungistor.ids import ObjectId, Revision, SessionId

ROWS_A_READ = 512


@dataclass(frozen=True, slots=True)
class Retired:
    """A manifest that no record names any more, as the record that named it."""

    record: Record
    revision: Revision
    since: int
    condemned: bool

    @property
    def manifest_id(self) -> bytes:
        """What `Collect` calls it."""
        return self.record.manifest_id


@dataclass(frozen=True, slots=True)
class PublishSession:
    """A publish session: what it stored has ids drawn from `secret` with counters below `limit`."""

    id: SessionId
    secret: bytes = field(repr=False)
    limit: int
    expires: int
    ended: bool
    since: int
    condemned: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeps an object; `locked` in Unix seconds, 0 for never."""

    object_id: ObjectId
    pinned: bool
    locked: int


class RemovalView:
    """Thread-safe. Errors as `fungistor.catalog.database.Database` gives them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def condemned_at(self) -> Revision:
        """The revision of the last condemnation: whoever began before it may rely on what is being deleted."""
        with self._database.read() as sql:
            return Revision(sql.execute("SELECT revision FROM condemned").fetchone()[0])

    def retired(self) -> Iterator[Retired]:
        """Every retired manifest, by manifest id."""
        after = b""
        while True:
            with self._database.read() as sql:
                rows = sql.execute(
                    "SELECT manifest_id, body, revision, since, condemned FROM retired_manifest WHERE manifest_id > ?"
                    " ORDER BY manifest_id LIMIT ?",
                    (after, ROWS_A_READ),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            for _, body, revision, since, condemned in rows:
                yield Retired(decode_record(body), Revision(revision), since, bool(condemned))

    def windows(self) -> Iterator[tuple[Record, int]]:
        """What can be brought back, with the time until which it can."""
        with self._database.read() as sql:
            rows = sql.execute("SELECT body, until FROM undelete ORDER BY manifest_id").fetchall()
        for body, until in rows:
            yield decode_record(body), until

    def window(self, object_id: ObjectId) -> tuple[Record, int] | None:
        """What can be brought back of one object."""
        with self._database.read() as sql:
            row = sql.execute(
                "SELECT body, until FROM undelete WHERE object_id = ? ORDER BY revision DESC LIMIT 1", (object_id,)
            ).fetchone()
        return (decode_record(row[0]), row[1]) if row else None

    def needs_key(self, object_id: ObjectId, key_id: ObjectId) -> bool:
        """Whether the object's record, or one that can be brought back, is sealed under this key."""
        with self._database.read() as sql:
            rows = sql.execute(
                "SELECT body FROM record WHERE object_id = ?1 UNION ALL SELECT body FROM undelete WHERE object_id = ?1",
                (object_id,),
            ).fetchall()
        return any(decode_record(body).key_id == key_id for (body,) in rows)

    def gone_after(self, revision: Revision) -> list[tuple[Revision, ObjectId]]:
        """Objects that lost a manifest after a revision; they may have another one by now."""
        with self._database.read() as sql:
            rows = sql.execute(
                "SELECT revision, object_id FROM retired_manifest WHERE revision > ?1"
                " UNION SELECT revision, object_id FROM undelete WHERE revision > ?1 ORDER BY 1",
                (revision,),
            ).fetchall()
        return [(Revision(at), ObjectId(object_id)) for at, object_id in rows]

    def sessions(self) -> list[PublishSession]:
        """Every session that is open or left something."""
        with self._database.read() as sql:
            rows = sql.execute(
                "SELECT id, secret, drawn_max, expires, ended, since, condemned FROM session ORDER BY id"
            ).fetchall()
        return [
            PublishSession(SessionId(row[0]), row[1], row[2], row[3], bool(row[4]), row[5], bool(row[6]))
            for row in rows
        ]

    def kept(self, object_id: ObjectId) -> Kept:
        """What keeps one object."""
        with self._database.read() as sql:
            row = sql.execute("SELECT pinned, locked FROM kept WHERE object_id = ?", (object_id,)).fetchone()
        return Kept(object_id, bool(row[0]), row[1]) if row else Kept(object_id, False, 0)

    def all_kept(self) -> list[Kept]:
        """All that is pinned or locked."""
        with self._database.read() as sql:
            rows = sql.execute("SELECT object_id, pinned, locked FROM kept ORDER BY object_id").fetchall()
        return [Kept(ObjectId(object_id), bool(pinned), locked) for object_id, pinned, locked in rows]

    def is_due(self, at: int) -> bool:
        """Whether an `Expire` of that time would do anything."""
        with self._database.read() as sql:
            return any(sql.execute(query, (at, 1)).fetchone() for query in (OVERDUE, WINDOWS_OVER, SESSIONS_OVER))
