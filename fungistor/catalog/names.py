"""Names that can come to mean something else: their commands, and what these do to the name they meet.

A name's text and what it means are sealed under a key of the name's own, which lies in the key table under `key_ref`:
the log shows that some name changed, when, and by whom. The sequence of the IPNS records is counted here, in the log's
order, so that two publishers never sign one sequence with different values.
"""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.catalog.fields import Fields
from fungistor.ids import Revision, TenantNumber

NAME_ID_BYTES = 32
KEY_REF_BYTES = 32
VALUE_ID_BYTES = 16
SEALED_VALUE_BYTES_MAX = 4096
"""A salt, a name of a DNS label, a path of 2048 bytes and a tag take half of it."""

VALUES_KEPT = 4096
"""Values kept of one name, the newest. Part of the rules: all nodes keep as many."""


@dataclass(frozen=True, slots=True)
class SetName:
    """Let a name mean something. `value_id` is equal where name, value and lifetimes are, and tells nothing else.

    `is_new`: the publisher found no such name and has drawn `key_ref`; else it is the name's own. `against` is the
    sequence that the publisher saw, or None where it wants its value to hold whatever stands. `at` is Unix seconds.
    """

    name_id: bytes
    tenant: TenantNumber
    key_ref: bytes
    is_new: bool
    against: int | None
    sealed: bytes
    value_id: bytes
    at: int


@dataclass(frozen=True, slots=True)
class RemoveName:
    """Forget a name and all that it meant. Its key is dropped afterwards, by whoever removed it."""

    name_id: bytes
    tenant: TenantNumber
    key_ref: bytes


@dataclass(frozen=True, slots=True)
class NameRow:
    """A name as it stands. A removed one has no `key_ref`; its sequence goes on where it comes back."""

    name_id: bytes
    tenant: TenantNumber
    sequence: int
    key_ref: bytes
    value_id: bytes
    revision: Revision

    @property
    def stands(self) -> bool:
        """False once it was removed."""
        return bool(self.key_ref)


@dataclass(frozen=True, slots=True)
class NameValue:
    """One value that a name had, and who gave it: the issuer of the command, empty where it was not signed."""

    sequence: int
    sealed: bytes
    issuer: bytes
    at: int
    revision: Revision


def set_name_fields(body: SetName) -> list[object]:
    """The body as the array of its command."""
    return [
        body.name_id,
        body.tenant,
        body.key_ref,
        int(body.is_new),
        body.against,
        body.sealed,
        body.value_id,
        body.at,
    ]


def take_set_name(fields: Fields) -> SetName:
    """Read the body. Raises: CorruptError."""
    body = SetName(
        name_id=fields.bytes("name id", NAME_ID_BYTES, NAME_ID_BYTES),
        tenant=TenantNumber(fields.uint("tenant")),
        key_ref=fields.bytes("key ref", KEY_REF_BYTES, KEY_REF_BYTES),
        is_new=fields.flag("is new"),
        against=fields.optional_int("against", 0, 2**63 - 1),
        sealed=fields.bytes("sealed", 1, SEALED_VALUE_BYTES_MAX),
        value_id=fields.bytes("value id", VALUE_ID_BYTES, VALUE_ID_BYTES),
        at=fields.uint("at"),
    )
    fields.end()
    return body


def remove_name_fields(body: RemoveName) -> list[object]:
    """The body as the array of its command."""
    return [body.name_id, body.tenant, body.key_ref]


def take_remove_name(fields: Fields) -> RemoveName:
    """Read the body. Raises: CorruptError."""
    body = RemoveName(
        name_id=fields.bytes("name id", NAME_ID_BYTES, NAME_ID_BYTES),
        tenant=TenantNumber(fields.uint("tenant")),
        key_ref=fields.bytes("key ref", KEY_REF_BYTES, KEY_REF_BYTES),
    )
    fields.end()
    return body


def why_not_set(current: NameRow | None, command: SetName) -> str:
    """Why a value is refused by the name as it stands; empty where it is not."""
    if current is not None and current.tenant != command.tenant:
        return f"the name belongs to tenant {current.tenant}, not to {command.tenant}"
    stands = current is not None and current.stands
    if stands and command.is_new:
        return "somebody else published a name like this first, under a key of its own"
    if not stands and not command.is_new:
        return "the name was removed since this publish began"
    if current is not None and stands and current.key_ref != command.key_ref:
        return "the name was removed and published anew since this publish began"
    if command.against is not None and command.against != (current.sequence if current is not None and stands else 0):
        return "the name has come to mean something else meanwhile"
    return ""


def why_not_removed(current: NameRow | None, command: RemoveName) -> str:
    """Why a removal is refused by the name as it stands; empty where it is not."""
    if current is not None and current.stands and current.key_ref != command.key_ref:
        return "the name was published anew since this removal began"
    return ""
