"""What a publish has stored so far, on this machine's disk, so that one that was cut short need not store it again.

A record a stripe, appended when its shards went out. The next publish of the same source reads the records that were
left and takes from them the blocks that it meets again, by multihash: whatever has changed meanwhile, nothing old is
taken for new. A stripe counts only while enough of its shards are there, flushed by the runs of the daemons that took
them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import libipld
from blake3 import blake3

from fungistor.coding.manifest import ListSlot, Slot, Stored
from fungistor.errors import FungiStorError
from fungistor.ids import LayoutNumber, MemberNumber, StripeId, TenantNumber
from fungistor.objects.ports import ShardStore
from fungistor.objects.spool import EntryTable, StoredBlock

KEPT_S: Final = 3 * 3600
"""An upload that nobody took up by then is forgotten. The catalog protects what it stored for longer than this, see
`fungistor.objects.lease`, so that whoever takes it up at the last moment has time to commit."""

SYNC_BYTES: Final = 64 << 20
"""So much content may be sent again after a power cut. A crash of the publisher alone loses none of it."""

ENTRY_BYTES_MAX: Final = 1 << 16
RECORD_BYTES_MAX: Final = 64 << 20
LEFT_MAX: Final = 16
"""Uploads of one source that are taken up at once."""

ENTRY_NAME: Final = "session.json"
STRIPES_NAME: Final = "stripes"
_VERSION: Final = 0
_HEAD_BYTES: Final = 4
_CHECK_BYTES: Final = 16


class StripeRecords:
    """The records of one session. Not thread-safe; the file is made with the first."""

    def __init__(self, *, sync: bool) -> None:
        self._sync = sync
        self._descriptor = -1
        self._unsynced = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded."""
        return self._descriptor < 0

    def add(
        self,
        folder: str,
        slot: Slot,
        lengths: Sequence[int],
        receipts: Collection[Any],
        blocks: Sequence[tuple[bytes, StoredBlock]],
    ) -> None:
        """Record a stripe with the blocks in it, in the session's folder. Raises: OSError."""
        body = libipld.encode_dag_cbor(
            [
                [slot.stripe_id, slot.k, slot.m, slot.shard_bytes, slot.content_root, slot.layout],
                list(lengths),
                [[receipt.member, receipt.run_id] for receipt in receipts],
                [[mh, block.number, block.plain_bytes, block.compression, block.key] for mh, block in blocks],
            ]
        )
        if self._descriptor < 0:
            path = os.path.join(folder, STRIPES_NAME)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        record = len(body).to_bytes(_HEAD_BYTES, "big") + blake3(body).digest(_CHECK_BYTES) + body
        with memoryview(record) as view:
            done = 0
            while done < len(record):
                done += os.write(self._descriptor, view[done:])
        self._unsynced += sum(lengths)
        if self._sync and self._unsynced >= SYNC_BYTES:
            os.fdatasync(self._descriptor)
            self._unsynced = 0

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class LeftStripe:
    """A stripe that an earlier upload stored, and the members whose shards of it cannot be counted on."""

    listed: ListSlot
    lost: frozenset[MemberNumber]


@dataclass(slots=True)
class LeftUpload:
    """What earlier uploads of one source left. Hold it until the new one has ended; not thread-safe."""

    folders: list[str] = field(default_factory=list)
    stripes: list[LeftStripe] = field(default_factory=list)
    _blocks: EntryTable = field(default_factory=EntryTable)
    _locks: list[int] = field(default_factory=list)

    def find(self, multihashes: Sequence[bytes]) -> dict[bytes, tuple[LeftStripe, Stored]]:
        """Those of some blocks that are in one of the stripes."""
        found = self._blocks.find(multihashes)
        return {mh: (self.stripes[int.from_bytes(number, "big")], entry) for mh, (number, entry) in found.items()}

    def release(self) -> None:
        """Leave all as it is, for another time."""
        while self._locks:
            os.close(self._locks.pop())

    def forget(self) -> None:
        """What was left is used or outdated."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.release()

    def take(self, folder: str, lock: int, store: ShardStore) -> None:
        """Learn what a session left."""
        self.folders.append(folder)
        self._locks.append(lock)
        records = list(_records(os.path.join(folder, STRIPES_NAME)))
        receipts = {store.receipt(MemberNumber(member), run) for record in records for member, run in record[2]}
        failed = frozenset(store.barrier(receipts).failed) if receipts else frozenset()
        for place, lengths, taken, blocks in records:
            stripe_id, k, m, size, root, layout = place
            slot = Slot(StripeId(stripe_id), k, m, size, root, LayoutNumber(layout))
            members = store.window(slot.stripe_id, slot.layout, k + m)
            held = {member for member, _ in taken} - failed
            lost = frozenset(member for member in members if member not in held)
            number = len(self.stripes).to_bytes(4, "big")
            self.stripes.append(LeftStripe(ListSlot(slot, tuple(lengths), ()), lost))
            self._blocks.add(
                number, ((mh, Stored(0, at, plain, compression, key)) for mh, at, plain, compression, key in blocks)
            )


def left_uploads(journal: str, source: str, store: ShardStore, now: float) -> LeftUpload:
    """What earlier uploads of a source left, of those that no living process is at. Forgets what is too old."""
    left = LeftUpload()
    for folder, entry in _entries(journal):
        lock = lock_entry(folder)
        if lock < 0:
            continue
        is_old = not now - KEPT_S < entry["started"] <= now + KEPT_S
        if is_old and "source" in entry:
            shutil.rmtree(folder, ignore_errors=True)
        if is_old or entry.get("source") != source or len(left.folders) >= LEFT_MAX:
            os.close(lock)
            continue
        # What cannot be read, or whose members cannot be asked, is stored again.
        with contextlib.suppress(FungiStorError, OSError, ValueError, TypeError):
            left.take(folder, lock, store)
    return left


def lock_entry(folder: str) -> int:
    """Hold a session's entry while the descriptor is open; -1 where a living process holds it, or it is gone."""
    try:
        descriptor = os.open(os.path.join(folder, ENTRY_NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _entries(journal: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with os.scandir(journal) as found:
            folders = sorted(entry.path for entry in found if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(folder, ENTRY_NAME), "rb") as file:
                entry = json.loads(file.read(ENTRY_BYTES_MAX))
            if isinstance(entry, dict) and entry.get("version") == _VERSION and type(entry.get("started")) is int:
                yield folder, entry


def _records(path: str) -> Iterator[list[Any]]:
    """Whole records from the beginning; what a crash cut off ends them."""
    try:
        with open(path, "rb") as file:
            while head := file.read(_HEAD_BYTES + _CHECK_BYTES):
                size = int.from_bytes(head[:_HEAD_BYTES], "big")
                body = file.read(size) if size <= RECORD_BYTES_MAX else b""
                if len(body) != size or blake3(body).digest(_CHECK_BYTES) != head[_HEAD_BYTES:]:
                    return
                record = libipld.decode_dag_cbor(body)
                yield record
    except FileNotFoundError:
        return


def source_of(words: Sequence[str], tenant: TenantNumber) -> str:
    """What tells one source of content from another, without naming it in the clear. No tenant takes up another's."""
    named = list(words) if tenant == 0 else [f"tenant {tenant}", *words]
    return blake3(json.dumps(named).encode()).hexdigest(16)


def clear_scratch(folder: str) -> None:
    """Leave of a session that ended early only what the next one needs."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if entry.name not in (ENTRY_NAME, STRIPES_NAME):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def wall_now() -> float:
    """Unix seconds: the age of what was left must outlive a restart of the machine."""
    return time.time()
