"""Pages of the shared key table on etcd: the keys of one batch in one value.

A key of etcd costs it some 300 bytes of memory beside its own, for good, and what each request said stays in its memory
for as long as its raft log goes back: a million object keys by themselves took it to 2 GB.

A page's value is the version (1 byte, 0) and runs. A run is of object ids that count up by one, as a publisher draws
them for a batch: the first (32 bytes), a tenant (4 bytes, big-endian), how many (2 bytes, big-endian), and as many
wrapped keys (40 bytes each). Only the last 8 bytes of an id are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fungistor.errors import CorruptError
from fungistor.ids import ObjectId, TenantNumber

Row = tuple[ObjectId, TenantNumber, bytes]

PAGE_ID_BYTES: Final = 16
OBJECT_ID_BYTES: Final = 32
TENANT_BYTES: Final = 4
WRAPPED_BYTES: Final = 40

_VERSION: Final = b"\0"
_COUNTED_BYTES: Final = 8
_COUNT_BYTES: Final = 2
_RUN_MAX: Final = 0xFFFF
_HEAD_BYTES: Final = OBJECT_ID_BYTES + TENANT_BYTES + _COUNT_BYTES


def page_id(rows: Sequence[Row]) -> bytes:
    """What a page is found by. It follows from the objects in it, so that a page that is put again is the same one."""
    return hashlib.sha256(b"".join(object_id for object_id, _, _ in rows)).digest()[:PAGE_ID_BYTES]


def pack_page(rows: Iterable[Row]) -> bytes:
    """A page's value. Raises ValueError: an id or a key has another length."""
    packed = bytearray(_VERSION)
    for run in _runs(rows):
        first, tenant, _ = run[0]
        packed += first + tenant.to_bytes(TENANT_BYTES, "big") + len(run).to_bytes(_COUNT_BYTES, "big")
        packed += b"".join(wrapped for _, _, wrapped in run)
    return bytes(packed)


def _runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    run: list[Row] = []
    after: tuple[bytes, TenantNumber] | None = None
    for row in rows:
        object_id, tenant, wrapped = row
        if len(object_id) != OBJECT_ID_BYTES or len(wrapped) != WRAPPED_BYTES:
            raise ValueError(f"a row of {len(object_id)} and {len(wrapped)} bytes does not go into a page")
        if run and ((object_id, tenant) != after or len(run) == _RUN_MAX):
            yield run
            run = []
        run.append(row)
        after = _counted(object_id, 1), tenant
    if run:
        yield run


def _counted(object_id: bytes, steps: int) -> bytes:
    """The id so many steps on. Behind the last number comes none, which is no id."""
    number = int.from_bytes(object_id[-_COUNTED_BYTES:], "big") + steps
    return b"" if number >> 8 * _COUNTED_BYTES else object_id[:-_COUNTED_BYTES] + number.to_bytes(_COUNTED_BYTES, "big")


def open_page(value: bytes) -> list[Row]:
    """A page's rows. Raises CorruptError: these are no whole rows."""
    if value[: len(_VERSION)] != _VERSION:
        raise _damaged(f"a page of the shared key table is of version {value[:1].hex() or 'none'}")
    rows: list[Row] = []
    at = len(_VERSION)
    while at < len(value):
        first, end = value[at : at + OBJECT_ID_BYTES], at + _HEAD_BYTES
        tenant = TenantNumber(int.from_bytes(value[at + OBJECT_ID_BYTES : end - _COUNT_BYTES], "big"))
        count = int.from_bytes(value[end - _COUNT_BYTES : end], "big")
        at = end + count * WRAPPED_BYTES
        if not count or at > len(value) or not _counted(first, count - 1):
            raise _damaged(f"a page of the shared key table has {len(value)} bytes, which are no whole rows")
        rows += [
            (ObjectId(_counted(first, step)), tenant, value[wrapped_at : wrapped_at + WRAPPED_BYTES])
            for step, wrapped_at in enumerate(range(end, at, WRAPPED_BYTES))
        ]
    return rows


def _damaged(what: str) -> CorruptError:
    return CorruptError(what, hint="restore etcd from its backup")
