"""Commands that take away: unpublish, what keeps objects, publish sessions, expiry, and the steps of a collection.

Their times are those that the command carries: no node's clock is asked when it is applied. What they do to the state
is in `fungistor.catalog.removal_effects`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from fungistor.catalog.fields import UINT_MAX, Fields
from fungistor.catalog.record import (
    DEBTORS_MAX,
    LIST_KEY_BYTES,
    MANIFEST_BYTES_MAX,
    MANIFEST_ID_BYTES,
    OBJECT_ID_BYTES,
    take_owed,
)
from fungistor.ids import MemberNumber, ObjectId, Revision

SECRET_BYTES = 32
SWEPT_MAX = 4096
"""Manifests and sessions that one command forgets: some 70 KiB."""

GARBAGE_ID_BYTES = 16


class Keep(IntEnum):
    """What keeps an object. Numbers are never reused."""

    UNDO = 0
    """Bring an unpublished object back while its window is open."""
    PIN = 1
    UNPIN = 2
    LOCK = 3
    """Nobody takes it away before `until`; a later lock may only be longer."""


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Take an object back. With `until` it can be brought back before that time, else it is gone at once.

    `manifest_id` is of the record that was seen. Times in Unix seconds; `at` is when it was said.
    """

    object_id: ObjectId
    manifest_id: bytes
    at: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class KeepObject:
    """Undo an unpublish, pin, unpin, or lock until a time."""

    object_id: ObjectId
    at: int
    what: Keep
    until: int | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Begin or renew a publish session, named by the envelope: it draws stripe ids from `secret`, below `limit`."""

    secret: bytes = field(repr=False)
    limit: int
    expires: int


@dataclass(frozen=True, slots=True)
class EndSession:
    """End a session; `leftovers`: what it stored and did not commit is to be collected."""

    at: int
    leftovers: bool


@dataclass(frozen=True, slots=True)
class Expire:
    """It is `at` now: objects, undelete windows and sessions whose time has come are over."""

    at: int


@dataclass(frozen=True, slots=True)
class Collect:
    """A step of a collection: condemn what nobody has needed since `before`, or forget what was swept.

    `before` null condemns nothing. `swept` are manifest ids and session ids.
    """

    before: int | None
    swept: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Repack:
    """Give an object a manifest that says the same of other stripes. Content, keys and name stay.

    `began` as in `Publish`.
    """

    object_id: ObjectId
    against: bytes
    at: int
    manifest: bytes
    list_key: bytes = field(repr=False)
    stored: int
    owed: tuple[tuple[MemberNumber, int], ...]
    began: Revision


RemovalBody = Unpublish | KeepObject | OpenSession | EndSession | Expire | Collect | Repack


def unpublish_fields(body: Unpublish) -> list[object]:
    """The body as it stands in a command."""
    return [body.object_id, body.manifest_id, body.at, body.until]


def take_unpublish(fields: Fields) -> Unpublish:
    """Read it again. Raises: CorruptError, as all of these."""
    body = Unpublish(
        _object_id(fields), _manifest_id(fields), fields.uint("at"), fields.optional_int("until", 0, UINT_MAX)
    )
    fields.end()
    return body


def keep_fields(body: KeepObject) -> list[object]:
    """The body as it stands in a command."""
    return [body.object_id, body.at, int(body.what), body.until]


def take_keep(fields: Fields) -> KeepObject:
    """Read it again."""
    object_id, at, what = _object_id(fields), fields.uint("at"), Keep(fields.uint("what", max(Keep)))
    until = fields.optional_int("until", 0, UINT_MAX)
    if (until is not None) != (what is Keep.LOCK):
        raise fields.wrong("until", "stands with a lock, and only there")
    fields.end()
    return KeepObject(object_id, at, what, until)


def open_session_fields(body: OpenSession) -> list[object]:
    """The body as it stands in a command."""
    return [body.secret, body.limit, body.expires]


def take_open_session(fields: Fields) -> OpenSession:
    """Read it again."""
    body = OpenSession(fields.bytes("secret", SECRET_BYTES, SECRET_BYTES), fields.uint("limit"), fields.uint("expires"))
    fields.end()
    return body


def end_session_fields(body: EndSession) -> list[object]:
    """The body as it stands in a command."""
    return [body.at, int(body.leftovers)]


def take_end_session(fields: Fields) -> EndSession:
    """Read it again."""
    body = EndSession(fields.uint("at"), fields.flag("leftovers"))
    fields.end()
    return body


def expire_fields(body: Expire) -> list[object]:
    """The body as it stands in a command."""
    return [body.at]


def take_expire(fields: Fields) -> Expire:
    """Read it again."""
    body = Expire(fields.uint("at"))
    fields.end()
    return body


def collect_fields(body: Collect) -> list[object]:
    """The body as it stands in a command."""
    return [body.before, list(body.swept)]


def take_collect(fields: Fields) -> Collect:
    """Read it again."""
    before = fields.optional_int("before", 0, UINT_MAX)
    ids = fields.array("swept", SWEPT_MAX)
    swept: list[bytes] = []
    while ids.more():
        swept.append(ids.bytes("id", GARBAGE_ID_BYTES, GARBAGE_ID_BYTES))
    fields.end()
    return Collect(before, tuple(swept))


def repack_fields(body: Repack) -> list[object]:
    """The body as it stands in a command."""
    owed = [number for debt in body.owed for number in debt]
    return [body.object_id, body.against, body.at, body.manifest, body.list_key, body.stored, owed, body.began]


def take_repack(fields: Fields) -> Repack:
    """Read it again."""
    body = Repack(
        _object_id(fields),
        _manifest_id(fields),
        fields.uint("at"),
        fields.bytes("manifest", 1, MANIFEST_BYTES_MAX),
        fields.bytes("list key", LIST_KEY_BYTES, LIST_KEY_BYTES),
        fields.uint("stored"),
        take_owed(fields.array("owed", 2 * DEBTORS_MAX)),
        Revision(fields.uint("began")),
    )
    fields.end()
    return body


def _object_id(fields: Fields) -> ObjectId:
    return ObjectId(fields.bytes("object id", OBJECT_ID_BYTES, OBJECT_ID_BYTES))


def _manifest_id(fields: Fields) -> bytes:
    return fields.bytes("manifest id", MANIFEST_ID_BYTES, MANIFEST_ID_BYTES)
