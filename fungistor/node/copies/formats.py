"""The catalog as it lies on members: segments of its log, copies of wrapped keys, and the anchor that all hangs on.

Each is a small value under a name of 20 bytes, as random as a shard's, and sealed: names and keys are derived from the
network's key. The same content gives the same bytes, so that two writers of one thing never disagree. The bytes stand
in docs/formats/copies.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from fungistor.catalog.claims import PLACE_BYTES
from fungistor.catalog.fields import Fields, decode_array, encode_array
from fungistor.catalog.snapshots import Snapshot, snapshot_fields, take_snapshot
from fungistor.coding.seal import open_sealed, seal
from fungistor.coding.stripe import padme
from fungistor.errors import CorruptError
from fungistor.ids import ObjectId, TenantNumber
from fungistor.keys.ring import KEY_BYTES, SALT_BYTES, WRAPPED_KEY_BYTES, derive
from fungistor.keys.store import KeyRow
from fungistor.limits import COMMAND_BYTES_MAX

VERSION = 0
NAME_BYTES = 20
LOG_BYTES = 16
LINK_BYTES = 16
OBJECT_ID_BYTES = 32
MEMBERS_MAX = 4096
TENANTS_MAX = 1 << 16
SNAPSHOTS_MAX = 8
MEMBER_ID_BYTES_MAX = 64
TENANT_MAX = 2**32 - 1
VALUE_BYTES_MAX = 6 << 20
"""A segment is an entry of a MiB at most and its padding; an anchor with all tenants that there may be has 3 MiB."""

NO_LINK = b""


@dataclass(frozen=True, slots=True)
class Segment:
    """One entry of the log: its payload, or the claim that stands there for it. `link` tells which entry stands before
    it: the hash of that one's payload, empty where it was not at hand."""

    number: int
    link: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a rebuild begins with. `serial` is one more with each; `first`: entries up to that number are in the newest
    snapshot, and have no segments any more."""

    serial: int
    log: bytes
    first: int
    snapshots: tuple[Snapshot, ...]
    tenants: tuple[tuple[TenantNumber, bytes], ...]
    members: tuple[str, ...]
    when: int

    def says_the_same_as(self, other: Anchor) -> bool:
        """Whether only serial and time differ."""
        return (self.log, self.first, self.snapshots, self.tenants, self.members) == (
            other.log,
            other.first,
            other.snapshots,
            other.tenants,
            other.members,
        )


def link_to(payload: bytes) -> bytes:
    """What the entry after one with that payload says of it."""
    return blake3(payload).digest(LINK_BYTES)


class CopyFormats:
    """Names and seals of one network."""

    def __init__(self, network_key: bytes) -> None:
        self._network_key = network_key

    # --- segments

    def segment_name(self, log: bytes, number: int) -> bytes:
        """Under which an entry lies."""
        return derive(self._of_log(log), "segment place", number.to_bytes(SALT_BYTES, "big"))[:NAME_BYTES]

    def seal_segment(self, log: bytes, segment: Segment) -> bytes:
        """An entry as it lies there, its length padded."""
        bare = encode_array([VERSION, segment.number, segment.link, segment.payload, b""])
        padding = padme(len(bare)) - len(bare)
        fields = [VERSION, segment.number, segment.link, segment.payload, bytes(padding)]
        return _seal(self._of_log(log), "segment", encode_array(fields))

    def open_segment(self, log: bytes, value: bytes) -> Segment:
        """Raises: CorruptError: it is no segment of that log, or was changed."""
        fields = decode_array(_open(self._of_log(log), "segment", value), "segment")
        _check_version(fields)
        number = fields.uint("number", least=1)
        link = fields.bytes("link", 0, LINK_BYTES)
        if len(link) not in (0, LINK_BYTES):
            raise fields.wrong("link", f"is neither empty nor {LINK_BYTES} bytes")
        payload = fields.bytes("payload", 1, COMMAND_BYTES_MAX)
        fields.bytes("padding", 0, COMMAND_BYTES_MAX)
        fields.end()
        return Segment(number, link, payload)

    # --- entries that are claimed

    def entry_name(self, log: bytes, place: bytes) -> bytes:
        """Under which an entry lies for which a claim stands in the log."""
        return derive(self._of_log(log), "claimed entry place", place + bytes(SALT_BYTES - PLACE_BYTES))[:NAME_BYTES]

    def seal_entry(self, log: bytes, payload: bytes) -> bytes:
        """An entry as it lies there, its length padded."""
        padding = padme(len(payload)) - len(payload)
        return _seal(self._of_log(log), "claimed entry", encode_array([VERSION, payload, bytes(padding)]))

    def open_entry(self, log: bytes, value: bytes) -> bytes:
        """Raises: CorruptError: it is no entry of that log, or was changed."""
        fields = decode_array(_open(self._of_log(log), "claimed entry", value), "claimed entry")
        _check_version(fields)
        payload = fields.bytes("payload", 1, COMMAND_BYTES_MAX)
        fields.bytes("padding", 0, COMMAND_BYTES_MAX)
        fields.end()
        return payload

    def _of_log(self, log: bytes) -> bytes:
        if len(log) != LOG_BYTES:
            raise CorruptError(f"a log's identity has {LOG_BYTES} bytes, not {len(log)}")
        return derive(self._network_key, "catalog segments", log + bytes(SALT_BYTES - LOG_BYTES))

    # --- copies of wrapped keys

    def key_name(self, key_id: ObjectId) -> bytes:
        """Under which the copy of a wrapped key lies."""
        return derive(self._network_key, "key copy place", key_id)[:NAME_BYTES]

    def seal_key(self, row: KeyRow) -> bytes:
        """A wrapped key as it lies there."""
        key_id, tenant, wrapped = row
        return _seal(self._keys(), "key copy", encode_array([VERSION, key_id, tenant, wrapped]))

    def open_key(self, value: bytes) -> KeyRow:
        """Raises: CorruptError: it is no copy of a key of this network, or was changed."""
        fields = decode_array(_open(self._keys(), "key copy", value), "key copy")
        _check_version(fields)
        key_id = ObjectId(fields.bytes("key id", OBJECT_ID_BYTES, OBJECT_ID_BYTES))
        tenant = TenantNumber(fields.uint("tenant", TENANT_MAX))
        wrapped = fields.bytes("wrapped", WRAPPED_KEY_BYTES, WRAPPED_KEY_BYTES)
        fields.end()
        return key_id, tenant, wrapped

    def _keys(self) -> bytes:
        return derive(self._network_key, "key copies")

    # --- the anchor

    def anchor_name(self) -> bytes:
        """Under which every member has the anchor."""
        return derive(self._network_key, "catalog anchor place")[:NAME_BYTES]

    def seal_anchor(self, anchor: Anchor) -> bytes:
        """The anchor as it lies there."""
        fields: list[object] = [
            VERSION,
            anchor.serial,
            anchor.log,
            anchor.first,
            [snapshot_fields(snapshot) for snapshot in anchor.snapshots],
            [[tenant, wrapped] for tenant, wrapped in anchor.tenants],
            list(anchor.members),
            anchor.when,
        ]
        return _seal(self._anchor(), "catalog anchor", encode_array(fields))

    def open_anchor(self, value: bytes) -> Anchor:
        """Raises: CorruptError: it is no anchor of this network, or was changed."""
        fields = decode_array(_open(self._anchor(), "catalog anchor", value), "anchor")
        _check_version(fields)
        serial = fields.uint("serial", least=1)
        log = fields.bytes("log", LOG_BYTES, LOG_BYTES)
        first = fields.uint("first")
        snapshots = tuple(take_snapshot(row) for row in _rows(fields, "snapshots", SNAPSHOTS_MAX, 8))
        tenants = tuple(_take_tenant(row) for row in _rows(fields, "tenants", TENANTS_MAX, 2))
        ids = fields.array("members", MEMBERS_MAX)
        members: list[str] = []
        while ids.more():
            members.append(ids.text("id", MEMBER_ID_BYTES_MAX))
        when = fields.uint("when")
        fields.end()
        return Anchor(serial, log, first, snapshots, tenants, tuple(members), when)

    def newest_anchor(self, values: Iterable[bytes | None]) -> Anchor | None:
        """The newest of the anchors that members gave, where any is sound."""
        newest: Anchor | None = None
        for value in values:
            if value is not None:
                with contextlib.suppress(CorruptError):
                    anchor = self.open_anchor(value)
                    newest = anchor if newest is None or anchor.serial > newest.serial else newest
        return newest

    def _anchor(self) -> bytes:
        return derive(self._network_key, "catalog anchor")


def _rows(fields: Fields, name: str, most: int, width: int) -> Sequence[Fields]:
    listed, rows = fields.array(name, most), []
    while listed.more():
        rows.append(listed.array("row", width))
    return rows


def _take_tenant(row: Fields) -> tuple[TenantNumber, bytes]:
    tenant = TenantNumber(row.uint("tenant", TENANT_MAX))
    wrapped = row.bytes("wrapped", WRAPPED_KEY_BYTES, WRAPPED_KEY_BYTES)
    row.end()
    return tenant, wrapped


def _check_version(fields: Fields) -> None:
    found = fields.uint("version")
    if found != VERSION:
        raise CorruptError(f"a copy of the catalog is of version {found}", hint="update fungistor on this machine")


def _seal(key: bytes, purpose: str, plain: bytes) -> bytes:
    """Under a key that follows from the content: one content, one value, and no key over two contents."""
    salt = blake3(plain, key=derive(key, f"{purpose} salt")).digest(SALT_BYTES)
    return salt + seal(derive(key, f"{purpose} key", salt), plain, _context(purpose))


def _open(key: bytes, purpose: str, value: bytes) -> bytes:
    if not SALT_BYTES < len(value) <= VALUE_BYTES_MAX:
        raise CorruptError(f"{len(value)} bytes are no copy of the catalog")
    salt = value[:SALT_BYTES]
    return open_sealed(derive(key, f"{purpose} key", salt), value[SALT_BYTES:], _context(purpose))


def _context(purpose: str) -> bytes:
    return f"fungistor {purpose} {VERSION}".encode()


assert KEY_BYTES == SALT_BYTES
