"""The record: all that the catalog keeps of one published object. The bytes are laid out in docs/formats/catalog.md."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType

from blake3 import blake3

from fungistor.catalog.fields import UINT_MAX, Fields, Shape, decode_array, encode_array
from fungistor.errors import CorruptError, InvalidError
from fungistor.ids import MemberNumber, ObjectId, TenantNumber

VERSION = 0

DEFAULT_POLICY = "default"
SHORT_FIELDS = 13
_LIST_KEY_CONTEXT = "fungistor v0 own list key"

OBJECT_ID_BYTES = 32
SALT_BYTES = 32
LIST_KEY_BYTES = 32
MANIFEST_ID_BYTES = 16
POLICY_BYTES_MAX = 32
MANIFEST_BYTES_MAX = 512
"""A manifest's root is a slot and two references: about 100 bytes."""
SEALED_NAME_BYTES_MAX = 4096
"""A salt, a CID, a name of 255 bytes and a tag take a tenth of it."""
DEBTORS_MAX = 4096
MEMBER_NUMBER_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """What an object weighs, in bytes but for the last two: content, after sealing, on members; blocks; stripes."""

    size: int
    sealed: int
    stored: int
    blocks: int
    stripes: int


@dataclass(frozen=True, slots=True)
class Record:
    """One object of one tenant. The caller seals names and CIDs: here they are bytes.

    `manifest` is the manifest's root, encoded by coding. `sealed_name` stands for itself: what it takes to open it
    beside the object key (its own salt) is inside. `owed` is (member, shards) by rising member number, no zeros.
    `published` and `expires` are Unix seconds; no `expires` means never. `profile` is the code of the UnixFS profile.
    """

    object_id: ObjectId
    tenant: TenantNumber
    policy: str
    private: bool
    profile: int
    sizes: Sizes
    manifest: bytes
    salt: bytes
    list_key: bytes
    sealed_name: bytes
    published: int
    expires: int | None = None
    owed: tuple[tuple[MemberNumber, int], ...] = ()

    @property
    def manifest_id(self) -> bytes:
        """16 bytes that tell this manifest from any other the object had or will have."""
        return blake3(self.manifest + self.salt).digest(MANIFEST_ID_BYTES)

    @property
    def key_id(self) -> ObjectId:
        """Where the key table has the object's key: under its salt, whose first half is the session that drew it.

        A key so belongs to one manifest and the repacked forms of it, and is never taken for that of an object that was
        published, dropped and published again.
        """
        return ObjectId(self.salt)

    @property
    def owed_shards(self) -> int:
        """All its debts."""
        return sum(shards for _, shards in self.owed)


def record_fields(record: Record) -> list[object]:
    """The record as the array that stands in a command; no check of bounds."""
    s = record.sizes
    return [
        VERSION,
        record.object_id,
        record.tenant,
        record.policy,
        int(record.private),
        record.profile,
        [s.size, s.sealed, s.stored, s.blocks, s.stripes],
        record.manifest,
        record.salt,
        record.list_key,
        record.sealed_name,
        record.published,
        record.expires,
        [number for debt in record.owed for number in debt],
    ]


_RECORD = Shape(
    ("version", int, 0, VERSION),
    ("object id", bytes, OBJECT_ID_BYTES, OBJECT_ID_BYTES),
    ("tenant", int, 0, UINT_MAX),
    ("policy", str, 1, POLICY_BYTES_MAX),
    ("private", int, 0, 1),
    ("profile", int, 0, 255),
    ("sizes", list, 5, 5),
    ("manifest", bytes, 1, MANIFEST_BYTES_MAX),
    ("salt", bytes, SALT_BYTES, SALT_BYTES),
    ("list key", bytes, LIST_KEY_BYTES, LIST_KEY_BYTES),
    ("sealed name", bytes, 1, SEALED_NAME_BYTES_MAX),
    ("published", int, 0, UINT_MAX),
    ("expires", NoneType, 0, UINT_MAX),
    ("owed", list, 0, 2 * DEBTORS_MAX),
)
_SIZES = Shape(*((name, int, 0, UINT_MAX) for name in ("size", "sealed", "stored", "blocks", "stripes")))


def own_list_key(object_id: ObjectId, salt: bytes) -> bytes:
    """The list key of an object's first manifest under a salt.

    Whoever has the record has both, as he has a list key that stands in it. The key table has salts, but no object ids.
    """
    return blake3(object_id + salt, derive_key_context=_LIST_KEY_CONTEXT).digest(LIST_KEY_BYTES)


def short_fields(record: Record, session: bytes) -> list[object]:
    """The record as it stands in a short publish of a session: without what it begins with or mostly says."""
    s = record.sizes
    own = record.salt.startswith(session)
    return [
        record.object_id,
        record.tenant,
        None if record.policy == DEFAULT_POLICY else record.policy,
        int(record.private),
        record.profile,
        [s.size, s.sealed, s.stored, s.blocks, s.stripes],
        record.manifest,
        record.salt[len(session) :] if own else record.salt,
        None if record.list_key == own_list_key(record.object_id, record.salt) else record.list_key,
        record.sealed_name,
        record.published,
        record.expires,
        [number for debt in record.owed for number in debt],
    ]


def take_short(fields: Fields, session: bytes) -> Record:
    """Read a short record. Raises: CorruptError: as `take_record`, or what should be left out is there."""
    values = fields.rest()
    if len(values) != SHORT_FIELDS:
        raise fields.wrong("record", f"has {len(values)} fields, not {SHORT_FIELDS}")
    policy, salt = values[2], values[7]
    if policy == DEFAULT_POLICY:
        raise fields.wrong("policy", "is the one that is left out")
    if type(salt) is not bytes or salt.startswith(session):
        raise fields.wrong("salt", "has the session that is left out")
    values[2] = DEFAULT_POLICY if policy is None else policy
    values[7] = salt = session + salt if len(salt) < SALT_BYTES else salt
    own = own_list_key(ObjectId(values[0]), salt) if type(values[0]) is bytes else b""
    if values[8] == own:
        raise fields.wrong("list key", "is the one that is left out")
    values[8] = own if values[8] is None else values[8]
    return take_record(Fields([VERSION, *values], "short record"))


def take_record(fields: Fields) -> Record:
    """Read a record's array.

    Raises:
        CorruptError: a field is missing, out of bounds or of another version.
    """
    values = fields.plain(_RECORD)
    fields.end()
    _, object_id, tenant, policy, private, profile, sizes, manifest, salt, list_key, name, published, expires, owed = (
        values
    )
    return Record(
        object_id,
        tenant,
        policy,
        bool(private),
        profile,
        Sizes(*Fields(sizes, "sizes", fields).plain(_SIZES)),
        manifest,
        salt,
        list_key,
        name,
        published,
        expires,
        take_owed(Fields(owed, "owed", fields)) if owed else (),
    )


def take_owed(fields: Fields) -> tuple[tuple[MemberNumber, int], ...]:
    """Read debts: member, shards, by rising member. Raises: CorruptError."""
    owed: list[tuple[MemberNumber, int]] = []
    before = 0
    while fields.more():
        before = fields.uint("member", MEMBER_NUMBER_MAX, least=before + 1)
        owed.append((MemberNumber(before), fields.uint("shards", least=1)))
    return tuple(owed)


def encode_record(record: Record) -> bytes:
    """Encode a record.

    Raises:
        InvalidError: a field is out of bounds.
    """
    data = encode_array(record_fields(record))
    try:
        decode_record(data)
    except CorruptError as error:
        raise InvalidError(error.message) from error
    return data


def decode_record(data: bytes) -> Record:
    """Decode a record.

    Raises:
        CorruptError: the bytes are no record of this version.
    """
    return take_record(decode_array(data, "record"))
