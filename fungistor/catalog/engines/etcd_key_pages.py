"""Pages of the shared key table on etcd: the keys of one batch in one value.

A key of etcd costs it some 300 bytes of memory beside its own, for good, and what each request said stays in its memory
for as long as its raft log goes back: a million object keys by themselves took it to 2 GB.

A page's value is its rows, each an object id (32 bytes), a tenant (4 bytes, big-endian) and a wrapped key (40 bytes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from fungistor.errors import CorruptError
from fungistor.ids import ObjectId, TenantNumber

Row = tuple[ObjectId, TenantNumber, bytes]

PAGE_ID_BYTES: Final = 16
OBJECT_ID_BYTES: Final = 32
TENANT_BYTES: Final = 4
WRAPPED_BYTES: Final = 40
ROW_BYTES: Final = OBJECT_ID_BYTES + TENANT_BYTES + WRAPPED_BYTES


def page_id(rows: Sequence[Row]) -> bytes:
    """What a page is found by. It follows from the objects in it, so that a page that is put again is the same one."""
    return hashlib.sha256(b"".join(object_id for object_id, _, _ in rows)).digest()[:PAGE_ID_BYTES]


def pack_page(rows: Iterable[Row]) -> bytes:
    """A page's value. Raises ValueError: an id or a key has another length."""
    packed = bytearray()
    for object_id, tenant, wrapped in rows:
        if len(object_id) != OBJECT_ID_BYTES or len(wrapped) != WRAPPED_BYTES:
            raise ValueError(f"a row of {len(object_id)} and {len(wrapped)} bytes does not go into a page")
        packed += object_id + tenant.to_bytes(TENANT_BYTES, "big") + wrapped
    return bytes(packed)


def open_page(value: bytes) -> list[Row]:
    """A page's rows. Raises CorruptError: these are no whole rows."""
    if len(value) % ROW_BYTES:
        raise CorruptError(
            f"a page of the shared key table has {len(value)} bytes, which are no whole rows",
            hint="restore etcd from its backup",
        )
    return [_row(value[at : at + ROW_BYTES]) for at in range(0, len(value), ROW_BYTES)]


def _row(packed: bytes) -> Row:
    key_at = OBJECT_ID_BYTES + TENANT_BYTES
    tenant = TenantNumber(int.from_bytes(packed[OBJECT_ID_BYTES:key_at], "big"))
    return ObjectId(packed[:OBJECT_ID_BYTES]), tenant, packed[key_at:]
