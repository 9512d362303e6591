"""Every write to the catalog, as a frozen command with versioned bytes. The bytes stand in docs/formats/catalog.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from fungistor.catalog.fields import UINT_MAX, Fields, Shape, decode_array, encode_array
from fungistor.catalog.issuers import (
    ANY_SCOPE,
    ISSUER_ID_BYTES,
    SIGNATURE_BYTES,
    ChangeAuthority,
    RegisterIssuer,
    Report,
    RevokeIssuer,
    Scope,
    change_fields,
    register_fields,
    report_fields,
    revoke_fields,
    take_change,
    take_register,
    take_report,
    take_revoke,
)
from fungistor.catalog.layouts import PlacePool, SetLayout, layout_fields, pool_fields, take_layout, take_pool
from fungistor.catalog.names import (
    RemoveName,
    SetName,
    remove_name_fields,
    set_name_fields,
    take_remove_name,
    take_set_name,
)
from fungistor.catalog.policies import (
    AddPolicy,
    ClearLayouts,
    RemovePolicy,
    add_policy_fields,
    clear_fields,
    remove_policy_fields,
    take_add_policy,
    take_clear,
    take_remove_policy,
)
from fungistor.catalog.record import (
    DEBTORS_MAX,
    MANIFEST_ID_BYTES,
    MEMBER_NUMBER_MAX,
    OBJECT_ID_BYTES,
    Record,
    record_fields,
    short_fields,
    take_record,
    take_short,
)
from fungistor.catalog.removal import (
    Collect,
    EndSession,
    Expire,
    KeepObject,
    OpenSession,
    RemovalBody,
    Repack,
    Unpublish,
    collect_fields,
    end_session_fields,
    expire_fields,
    keep_fields,
    open_session_fields,
    repack_fields,
    take_collect,
    take_end_session,
    take_expire,
    take_keep,
    take_open_session,
    take_repack,
    take_unpublish,
    unpublish_fields,
)
from fungistor.catalog.snapshots import Snapshot, snapshot_fields, take_snapshot
from fungistor.catalog.tenants import TENANT_FORMS, TenantBody
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import LayoutNumber, MemberNumber, ObjectId, Revision, SessionId
from fungistor.limits import COMMAND_BYTES_MAX

VERSION = 0

SESSION_BYTES = 16

BODY_FIELDS_MAX = 8
GROUP_MAX = 8192
"""Of commands in one entry: its bytes end it before, unless they are no longer than their envelopes."""

SHORT_LEVEL = 2
"""Of nodes that read short publishes, and names sealed under the salts of their manifests."""

READ_KEPT = 4
"""Entries read last, of 1 MiB at most and some four times that as commands."""

PRIVATE_LEVEL = 2
"""Of a publish of a private object: nodes of an earlier level would serve it to anybody."""

NO_REVISION = Revision(0)

_NO_BYTES = b"\x40"
"""An empty byte string."""

NO_MANIFEST = b""
"""`Publish.against` of a publisher that found no record."""


class Kind(IntEnum):
    """What a command does. Numbers are never reused."""

    SET_LAYOUT = 0
    PUBLISH = 1
    PAY_OWED = 2
    UNPUBLISH = 3
    KEEP = 4
    OPEN_SESSION = 5
    END_SESSION = 6
    EXPIRE = 7
    COLLECT = 8
    REPACK = 9
    SET_NAME = 10
    REMOVE_NAME = 11
    CHANGE_AUTHORITY = 12
    REGISTER_ISSUER = 15
    SNAPSHOT = 16
    REVOKE_ISSUER = 17
    REPORT = 18
    GROUP = 19
    RETIRE_LAYOUTS = 35
    ADD_TENANT = 40
    CHANGE_TENANT = 41
    REMOVE_TENANT = 42
    ADD_TOKEN = 43
    REVOKE_TOKEN = 44
    ADD_POLICY = 50
    REMOVE_POLICY = 51
    PLACE_POOL = 52
    CLEAR_LAYOUTS = 53
    SHORT_PUBLISH = 55
    """A publish in fewer bytes; read as one, it is a PUBLISH."""


class UnknownCommandError(CorruptError):
    """A command of a version or kind that this program does not know: it must not guess the effect."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not known to this program", hint="update fungistor on this machine; reads go on meanwhile"
        )


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an object, or publish it again.

    `against` is the `manifest_id` of the record that the publisher saw when it started, or `NO_MANIFEST`. `began` is
    the revision at which it began to look for what is stored already, and to store: on what a later one takes away,
    such as a layout or a stripe, it may have relied.
    `reused_at`: a later revision at which all that it reuses was found in live objects once more, if it looked again.
    `fungistor.catalog.rules` says what follows when another publisher came first.
    """

    record: Record
    against: bytes = NO_MANIFEST
    began: Revision = NO_REVISION
    reused_at: Revision | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """One member's debt for one object, as the payer saw it and as it is now: 0 <= after < before."""

    member: MemberNumber
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class PayOwed:
    """Lower an object's debts. Each payment counts only if the debt is still what the payer saw, so that two payers
    of the same shards cannot pay twice."""

    object_id: ObjectId
    manifest_id: bytes
    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True)
class RetireLayouts:
    """Let readers look for shards by the newest layout alone, and no more by those before it.

    `newest` is its number; `seen` the revision up to which every record's shards were found where it wants them.
    """

    newest: LayoutNumber
    seen: Revision


@dataclass(frozen=True, slots=True)
class Group:
    """Commands that were committed together: one entry and one signature for all, each decided on its own.

    They have no issuer, signature or time of their own, and no group is among them.
    """

    commands: tuple[Command, ...]


Body = (
    SetLayout
    | Publish
    | PayOwed
    | RetireLayouts
    | RegisterIssuer
    | RevokeIssuer
    | ChangeAuthority
    | Report
    | Snapshot
    | Group
    | RemovalBody
    | SetName
    | RemoveName
    | TenantBody
    | AddPolicy
    | RemovePolicy
    | PlacePool
    | ClearLayouts
)
"""Every body. A new one has a kind, a form in `_FORMS`, and an effect in `fungistor.catalog.effects`."""


@dataclass(frozen=True, slots=True)
class Command:
    """A body in its envelope. (session, sequence) names it: appended twice, it takes effect once.

    `issuer` is the id of who signed it, and empty with `signature` where nobody did; the signature is over
    `signed_bytes`. `when` is the issuer's clock in Unix seconds: for people, nothing is decided by it.
    """

    session: SessionId
    sequence: int
    body: Body
    issuer: bytes = b""
    signature: bytes = b""
    when: int | None = None


CommandName = tuple[SessionId, int]


def name_of(command: Command) -> CommandName:
    """What names it: its session and sequence."""
    return command.session, command.sequence


def runs_of(names: Iterable[CommandName]) -> Iterator[tuple[SessionId, int, int]]:
    """Sessions with the sequences that follow each other."""
    run: tuple[SessionId, int, int] | None = None
    for session, sequence in names:
        if run is not None and run[0] == session and run[2] + 1 == sequence:
            run = session, run[1], sequence
            continue
        if run is not None:
            yield run
        run = session, sequence, sequence
    if run is not None:
        yield run


def kind_of(body: Body) -> Kind:
    """The kind of a body."""
    return _FORM_OF[type(body)].kind


def scope_of(body: Body) -> Scope:
    """The scopes of which an issuer needs one to commit a body; none where any registered issuer may."""
    return _FORM_OF[type(body)].scope


def level_of(body: Body) -> int:
    """The level of programs that know a body."""
    if isinstance(body, Publish) and body.record.private:
        return PRIVATE_LEVEL
    return _FORM_OF[type(body)].level


def parts_of(command: Command) -> tuple[Command, ...]:
    """The commands in an entry: those of a group, or itself."""
    return command.body.commands if isinstance(command.body, Group) else (command,)


def encode_command(command: Command, *, short: bool = False) -> bytes:
    """Encode a command, with publishes in their `short` form where every node reads level `SHORT_LEVEL`.

    Raises:
        InvalidError: a field is out of bounds, or the whole is over `COMMAND_BYTES_MAX`.
    """
    return _checked(_encode(command, command.signature, short))


def encode_signed(command: Command, sign: Callable[[bytes], bytes], *, short: bool = False) -> bytes:
    """`encode_command` of a command with the signature that `sign` makes of `signed_bytes`: encoded once, as encoding a
    group of a thousand is a good part of publishing it. Raises as `encode_command`."""
    unsigned = signed_bytes(command, short=short)
    at = _signature_at(command)
    return _checked(unsigned[:at] + encode_array([sign(unsigned)])[1:] + unsigned[at + len(_NO_BYTES) :])


def _checked(data: bytes) -> bytes:
    if len(data) > COMMAND_BYTES_MAX:
        raise InvalidError(f"a command of {len(data)} bytes is over the {COMMAND_BYTES_MAX} that consensus takes")
    try:
        decode_command(data)
    except CorruptError as error:
        raise InvalidError(error.message) from error
    return data


def signed_bytes(command: Command, *, short: bool = False) -> bytes:
    """What a signature covers: the command in the form that it is written in, with its signature left empty."""
    return _encode(command, b"", short)


def signed_in(command: Command, payload: bytes) -> bytes:
    """`signed_bytes` of a command that these bytes are of: a group of thousands is not encoded again."""
    at = _signature_at(command)
    return payload[:at] + _NO_BYTES + payload[at + len(encode_array([command.signature])) - 1 :]


def _signature_at(command: Command) -> int:
    """Where in a command's bytes its signature is."""
    return len(encode_array([VERSION, command.session, command.sequence, command.issuer]))


def named_bytes(command: Command) -> bytes:
    """What (session, sequence) stands for: it is the same whoever signs it, when, in whatever group and form."""
    return encode_array([command.session, command.sequence, *_kind_and_fields(command)])


def _encode(command: Command, signature: bytes, short: bool) -> bytes:
    envelope = [VERSION, command.session, command.sequence, command.issuer, signature]
    envelope += _kind_and_fields(command, short=short)
    return encode_array(envelope if command.when is None else [*envelope, command.when])


def _kind_and_fields(command: Command, *, short: bool = False) -> list[object]:
    body = command.body
    if isinstance(body, Group):
        return [int(Kind.GROUP), [_group_rows(command, body, short)]]
    if short and isinstance(body, Publish):
        return [int(Kind.SHORT_PUBLISH), _publish_fields(body, short_fields(body.record, command.session))]
    form = _FORM_OF[type(body)]
    return [int(form.kind), form.fields(body)]


def _group_rows(command: Command, group: Group, short: bool) -> list[object]:
    return [
        [b"" if part.session == command.session else part.session, part.sequence, *_kind_and_fields(part, short=short)]
        for part in group.commands
    ]


def _publish_fields(body: Publish, record: list[object] | None = None) -> list[object]:
    looked_again = [] if body.reused_at is None else [body.reused_at]
    return [record or record_fields(body.record), body.against, body.began, *looked_again]


def _payments_fields(body: PayOwed) -> list[object]:
    payments = [number for p in body.payments for number in (p.member, p.before, p.after)]
    return [body.object_id, body.manifest_id, payments]


def _retirement_fields(body: RetireLayouts) -> list[object]:
    return [body.newest, body.seen]


@lru_cache(maxsize=READ_KEPT)
def decode_command(data: bytes) -> Command:
    """Decode a command. A few are kept: who appends one has checked its bytes, and applies it next.

    Raises:
        UnknownCommandError: its version or its kind is one of a later program.
        CorruptError: the bytes are no command.
    """
    fields = decode_array(data, "command")
    version = fields.uint("version")
    if version != VERSION:
        raise UnknownCommandError(f"a command of version {version}")
    session = SessionId(fields.bytes("session", SESSION_BYTES, SESSION_BYTES))
    sequence = fields.uint("sequence")
    issuer = fields.bytes("issuer", 0, ISSUER_ID_BYTES)
    signature = fields.bytes("signature", 0, SIGNATURE_BYTES)
    form = _form_of_kind(fields.uint("kind"))
    rows = fields.array("body", BODY_FIELDS_MAX)
    body = _take_group(rows, session) if form.kind is Kind.GROUP else _take_body(form, rows, session)
    when = fields.uint("when") if fields.more() else None
    fields.end()
    return Command(session, sequence, body, issuer, signature, when)


def _take_body(form: _Form, fields: Fields, session: SessionId) -> Body:
    if form.kind is Kind.SHORT_PUBLISH:
        return _take_publish(fields, session)
    return form.take(fields)


def _form_of_kind(kind: int) -> _Form:
    form = _FORM_OF_KIND.get(kind)
    if form is None:
        raise UnknownCommandError(f"a command of kind {kind}")
    return form


_PART = Shape(
    ("session", bytes, 0, SESSION_BYTES),
    ("sequence", int, 0, UINT_MAX),
    ("kind", int, 0, UINT_MAX),
)


def _take_group(fields: Fields, session: SessionId) -> Group:
    rows = fields.array("commands", GROUP_MAX)
    commands: list[Command] = []
    while rows.more():
        row = rows.array("command", 4)
        own, sequence, kind = row.plain(_PART)
        if len(own) not in (0, SESSION_BYTES) or own == session:
            raise row.wrong("session", f"is neither empty, as the group's, nor other {SESSION_BYTES} bytes")
        form = _form_of_kind(kind)
        if form.kind is Kind.GROUP:
            raise row.wrong("kind", "is a group")
        whose = SessionId(own) if own else session
        body = _take_body(form, row.array("body", BODY_FIELDS_MAX), whose)
        row.end()
        commands.append(Command(whose, sequence, body))
    fields.end()
    if not commands:
        raise fields.wrong("commands", "are none")
    return Group(tuple(commands))


def _take_publish(fields: Fields, short_of: SessionId | None = None) -> Publish:
    array = fields.array("record", 14)
    record = take_record(array) if short_of is None else take_short(array, short_of)
    against = fields.bytes("against", 0, MANIFEST_ID_BYTES)
    if len(against) not in (0, MANIFEST_ID_BYTES):
        raise fields.wrong("against", f"is neither empty nor {MANIFEST_ID_BYTES} bytes")
    began = Revision(fields.uint("began") if fields.more() else 0)  # written without it at first
    reused_at = Revision(fields.uint("reused at")) if fields.more() else None
    fields.end()
    return Publish(record, against, began, reused_at)


def _take_payments(fields: Fields) -> PayOwed:
    object_id = ObjectId(fields.bytes("object id", OBJECT_ID_BYTES, OBJECT_ID_BYTES))
    manifest_id = fields.bytes("manifest id", MANIFEST_ID_BYTES, MANIFEST_ID_BYTES)
    numbers = fields.array("payments", 3 * DEBTORS_MAX)
    payments: list[Payment] = []
    before = 0
    while numbers.more():
        before = numbers.uint("member", MEMBER_NUMBER_MAX, least=before + 1)
        debt = numbers.uint("before", least=1)
        payments.append(Payment(MemberNumber(before), debt, numbers.uint("after", debt - 1)))
    fields.end()
    return PayOwed(object_id, manifest_id, tuple(payments))


def _take_retirement(fields: Fields) -> RetireLayouts:
    body = RetireLayouts(LayoutNumber(fields.uint("newest", least=1)), Revision(fields.uint("seen")))
    fields.end()
    return body


def _no_fields(_: object) -> list[object]:
    raise AssertionError("it stands in its envelope")


def _no_body(_: Fields) -> Body:
    raise AssertionError("it stands in its envelope")


@dataclass(frozen=True, slots=True)
class _Form:
    """How a body stands in a command: its kind, its fields, how they are read again, of which scopes an issuer needs
    one, and the level of programs that know it (`fungistor.catalog.issuers.LEVEL`)."""

    kind: Kind
    body: type[Body]
    fields: Callable[[Any], list[object]]
    take: Callable[[Fields], Body]
    scope: Scope = Scope.ADMIN
    level: int = 1


_FORMS = (
    _Form(Kind.SET_LAYOUT, SetLayout, layout_fields, take_layout, Scope.POOL, level=0),
    _Form(Kind.PUBLISH, Publish, _publish_fields, _take_publish, Scope.PUBLISH, level=0),
    _Form(Kind.PAY_OWED, PayOwed, _payments_fields, _take_payments, Scope.PUBLISH | Scope.POOL, level=0),
    # These three bring levels about, so they need none: only the authority may use the first two.
    _Form(Kind.REGISTER_ISSUER, RegisterIssuer, register_fields, take_register, level=0),
    _Form(Kind.REVOKE_ISSUER, RevokeIssuer, revoke_fields, take_revoke, level=0),
    _Form(Kind.CHANGE_AUTHORITY, ChangeAuthority, change_fields, take_change),
    _Form(Kind.REPORT, Report, report_fields, take_report, ANY_SCOPE, level=0),
    _Form(Kind.SNAPSHOT, Snapshot, snapshot_fields, take_snapshot, Scope.POOL | Scope.ADMIN),
    _Form(Kind.GROUP, Group, _no_fields, _no_body, ANY_SCOPE),
    _Form(Kind.RETIRE_LAYOUTS, RetireLayouts, _retirement_fields, _take_retirement, Scope.POOL),
    _Form(Kind.SET_NAME, SetName, set_name_fields, take_set_name, Scope.NAMES),
    _Form(Kind.REMOVE_NAME, RemoveName, remove_name_fields, take_remove_name, Scope.NAMES),
    _Form(Kind.UNPUBLISH, Unpublish, unpublish_fields, take_unpublish, Scope.DELETE),
    _Form(Kind.KEEP, KeepObject, keep_fields, take_keep, Scope.DELETE),
    _Form(Kind.OPEN_SESSION, OpenSession, open_session_fields, take_open_session, Scope.PUBLISH | Scope.DELETE),
    _Form(Kind.END_SESSION, EndSession, end_session_fields, take_end_session, Scope.PUBLISH | Scope.DELETE),
    _Form(Kind.EXPIRE, Expire, expire_fields, take_expire, Scope.PUBLISH | Scope.DELETE | Scope.POOL),
    _Form(Kind.COLLECT, Collect, collect_fields, take_collect, Scope.DELETE),
    _Form(Kind.ADD_POLICY, AddPolicy, add_policy_fields, take_add_policy, Scope.POOL, level=2),
    _Form(Kind.REMOVE_POLICY, RemovePolicy, remove_policy_fields, take_remove_policy, Scope.POOL, level=2),
    _Form(Kind.PLACE_POOL, PlacePool, pool_fields, take_pool, Scope.POOL, level=2),
    _Form(Kind.CLEAR_LAYOUTS, ClearLayouts, clear_fields, take_clear, Scope.POOL, level=2),
    _Form(Kind.REPACK, Repack, repack_fields, take_repack, Scope.DELETE),
    *(_Form(Kind(kind), body, fields, take, level=2) for kind, body, fields, take in TENANT_FORMS),
)
_SHORT_PUBLISH = _Form(Kind.SHORT_PUBLISH, Publish, _no_fields, _no_body, Scope.PUBLISH, level=SHORT_LEVEL)
_FORM_OF: dict[type[Body], _Form] = {form.body: form for form in _FORMS}
_FORM_OF_KIND: dict[int, _Form] = {form.kind: form for form in (*_FORMS, _SHORT_PUBLISH)}
