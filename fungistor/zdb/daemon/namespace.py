"""One namespace: its properties, and what commands that write do to it."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DATA_RECORD,
    INDEX_HEADER,
    INDEX_RECORD,
    SLOT_BYTES,
    Checkpoint,
    Descriptor,
    checksum_of,
    parse_index_record,
)
from fungistor.zdb.daemon.keytable import Entry
from fungistor.zdb.daemon.segments import Ends, Segments, Write, WriteError
from fungistor.zdb.daemon.sequential import ID_BYTES, Slots, first_slots, id_bytes
from fungistor.zdb.daemon.values import DamagedError, IoStats, Live, Values
from fungistor.zdb.daemon.wire import ReplyError


@dataclass(slots=True)
class Put:
    """One SET: the value may lie in a reused buffer, so it is used up before the call returns."""

    key: bytes
    value: bytes | memoryview
    timestamp: int


class _Batch:
    """Writes that go to disk together, and the answers they belong to."""

    __slots__ = ("data_bytes", "grown", "index_bytes", "olds", "positions", "writes")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.writes: list[Write] = []
        self.olds: list[Entry | None] = []
        self.data_bytes = 0
        self.index_bytes = 0
        self.grown = 0

    def add(self, position: int, write: Write, old: Entry | None) -> None:
        """Take one more."""
        self.positions.append(position)
        self.writes.append(write)
        self.olds.append(old)
        size = len(write.payload)
        self.data_bytes += DATA_RECORD.size + len(write.key) + size
        self.index_bytes += INDEX_RECORD.size + len(write.key)
        self.grown += size - (0 if old is None else old[2])


class Namespace(Values):
    """A namespace that is open. All calls are from the daemon's one loop."""

    def __init__(
        self,
        descriptor: Descriptor,
        segments: Segments,
        live: Live,
        *,
        datasize: int,
        io: IoStats,
        next_id: int,
        slots: Slots | None = None,
    ) -> None:
        super().__init__(segments, live, io)
        self.descriptor = descriptor
        self.next_id = next_id
        self.slots = slots
        """In sequential mode: where the ids lie; None in user mode."""
        self.rotated: Callable[[Namespace, int], None] | None = None
        """Told after each rotation, with the number of the pair that was closed."""
        self.offsets: tuple[int, int, array[int]] | None = None
        """What a backward scan found last: index file, its size, where its records begin."""
        self.locked = False
        self.frozen = False
        self.removed = False
        self.broken = ""
        """Why writes are refused until a restart; empty when they are not."""
        self.unfinished: Callable[[], None] | None = None
        """What is still to be done before it takes writes again; while it raises OSError, `broken` says why."""
        self.unflagged = False
        """Whether an index record could not be marked: only the data file knows, so no checkpoint may be taken."""
        self.checkpoint = Checkpoint((), b"")
        """The last one written or read; what it vouches for stays so."""
        self.settled: Ends | None = None
        """Where its files ended when the checkpoint spoke of all that is in them; None where it never did."""
        self.datasize = datasize
        """How long a data file may become."""

    @property
    def name(self) -> bytes:
        return self.descriptor.name

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever written to it."""
        ends = self.segments.ends
        return (ends.file_id, ends.data_end, ends.index_end) == (0, DATA_HEADER.size, INDEX_HEADER.size)

    def set_mode(self, mode: int) -> None:
        """Change the mode of a namespace that is untouched.

        Raises:
            OSError: the disk refused.
        """
        self.segments.set_mode(mode)
        self.settled = None
        self.next_id, self.slots = 0, first_slots(mode)

    def adopt(self, segments: Segments, live: Live, slots: Slots | None, next_id: int) -> None:
        """Go on with other files; the old ones are closed."""
        segments.patched.clear()
        self.segments, self.live, self.slots, self.next_id = segments, live, slots, next_id
        self.unflagged = False
        self.offsets = self.settled = None

    def place(self, key: bytes, entry: Entry) -> tuple[int, int]:
        """Return the index file and offset of a live key's record."""
        return (entry[0], entry[5]) if self.slots is None else self.slots.place(key)

    # writing

    def put(self, put: Put) -> bytes | None:
        """Store one value; return its key, or None where that very value was there already.

        Raises:
            ReplyError: why it was refused.
        """
        self._check_writable()
        if self.slots is not None:
            return self._put_id(put, self.slots)
        write, old = self._prepare(put, 0)
        if write is None:
            return None
        if not self._has_room(len(put.value), 0, len(put.key)):
            self.rotate()
        try:
            self._commit([write], [old])
        except WriteError as error:
            raise ReplyError(f"Cannot write {error.where} right now") from error
        return put.key

    def put_many(self, puts: Sequence[Put]) -> list[bytes | ReplyError | None]:
        """Store values under distinct keys, in as few writes as it takes.

        Each answer is the key, None where that very value was there already, or why it was refused.
        """
        if self.broken:
            # Before anything is looked up: what is mended may lie elsewhere.
            self.recovers()
        if self.slots is not None:
            return [self._answer(put) for put in puts]
        answers: list[bytes | ReplyError | None] = [put.key for put in puts]
        batch = _Batch()
        for position, put in enumerate(puts):
            try:
                write, old = self._prepare(put, batch.grown)
                if write is None:
                    answers[position] = None
                    continue
                if not self._has_room(batch.data_bytes + len(put.value), batch.index_bytes, len(put.key)):
                    self._store(batch, answers)
                    batch = _Batch()
                    if not self._has_room(len(put.value), 0, len(put.key)):
                        self.rotate()
            except ReplyError as error:
                answers[position] = error
                continue
            batch.add(position, write, old)
        self._store(batch, answers)
        return answers

    def _answer(self, put: Put) -> bytes | ReplyError | None:
        try:
            return self.put(put)
        except ReplyError as error:
            return error

    def _put_id(self, put: Put, slots: Slots) -> bytes | None:
        """Store under the next id, or a new version of the id that is given."""
        write, old = self._prepare(put, 0)
        if write is None:
            return None
        if put.key and old is None:
            raise ReplyError("Invalid key, only update authorized")
        if not self._has_room(len(put.value), 0, ID_BYTES):
            self.rotate()
        try:
            if old is None:
                write.key = id_bytes(self.next_id)
                self._commit([write], [None])
                return write.key
            self._update_id(write, old, slots)
        except WriteError as error:
            raise ReplyError(f"Cannot write {error.where} right now") from error
        return put.key

    def _update_id(self, write: Write, old: Entry, slots: Slots) -> None:
        slot = slots.place(write.key)
        try:
            current = parse_index_record(os.pread(self.segments.index_fd(slot[0]), SLOT_BYTES, slot[1]), 0, slot[1])
        except OSError as error:
            raise WriteError("index", error) from error
        if current is None:
            raise WriteError("index", OSError(f"i{slot[0]} ends before {slot[1]}"))
        try:
            self.segments.append_update(write, current, slot)
        except WriteError as error:
            self._write_fault(error)
            raise
        size = len(write.payload)
        self.live.keys.put(
            write.key, (self.segments.ends.file_id, write.data_offset, size, write.crc, write.timestamp, slot[1])
        )
        self.live.payload_bytes += size - old[2]
        self.io.data_write_bytes += DATA_RECORD.size + ID_BYTES + size
        self.io.index_write_bytes += 2 * SLOT_BYTES
        self.next_id += 1

    def _prepare(self, put: Put, grown: int) -> tuple[Write | None, Entry | None]:
        """Return what to append for a put and the version it supersedes; nothing when it changes nothing."""
        old = self.entry(put.key)
        size = len(put.value)
        self._check_allowed(old, size, grown)
        crc = checksum_of(put.value)
        if old is None:
            return Write(put.key, put.value, crc, put.timestamp), None
        if old[3] == crc and old[2] == size and self.same(put, old):
            return None, old
        return Write(put.key, put.value, crc, put.timestamp, 0, old[0], old[5]), old

    def _has_room(self, data_bytes: int, index_bytes: int, key_bytes: int) -> bool:
        return self.segments.has_room(data_bytes, index_bytes + INDEX_RECORD.size + key_bytes, self.datasize)

    def _store(self, batch: _Batch, answers: list[bytes | ReplyError | None]) -> None:
        """Append the batch; if the disk refuses it as one, one by one, so that those that fit are stored."""
        if not batch.writes:
            return
        try:
            self._commit(batch.writes, batch.olds)
        except WriteError:
            for position, write in zip(batch.positions, batch.writes, strict=True):
                try:
                    self.put(Put(write.key, write.payload, write.timestamp))
                except ReplyError as error:
                    answers[position] = error

    def carry(self, key: bytes, entry: Entry, value: bytes) -> None:
        """Write a live value again, at the end, with its time: what was before it is no history any more.

        Raises:
            WriteError: the disk refused; the key is as it was.
            ReplyError: writes are refused.
        """
        if not self._has_room(len(value), 0, len(key)):
            self.rotate()
        write = Write(key, value, entry[3], entry[4])
        if self.slots is None:
            self._commit([write], [entry])
        else:
            self._update_id(write, entry, self.slots)

    def delete(self, key: bytes, entry: Entry, timestamp: int) -> None:
        """Delete a live key.

        Raises:
            ReplyError: the disk refused; the key is as it was.
        """
        if self.broken:
            self._check_writable()
            entry = self.entry(key) or entry
        try:
            self.segments.append_tombstone(key, timestamp, *self.place(key, entry))
        except WriteError as error:
            self._write_fault(error)
            raise ReplyError(f"Cannot delete key ({error.where})") from error
        self.io.data_write_bytes += DATA_RECORD.size + len(key)
        self.io.index_write_bytes += 1
        self.live.keys.pop(key)
        self.live.payload_bytes -= entry[2]
        self.live.key_bytes -= len(key)

    def rotate(self) -> None:
        """Begin a new pair of files.

        Raises:
            ReplyError: the disk refused.
        """
        self._check_writable()
        try:
            self.segments.rotate()
        except WriteError as error:
            self._write_fault(error)
            raise ReplyError(f"Cannot write {error.where} right now") from error
        closed = self.segments.ends.file_id - 1
        if self.slots is not None:
            self.slots.begin(closed + 1, self.next_id)
        if self.rotated is not None:
            self.rotated(self, closed)

    def _check_writable(self) -> None:
        if self.broken and not self.recovers():
            raise ReplyError("Cannot write data right now")

    def recovers(self) -> bool:
        """Do what is unfinished; return whether writes are taken again."""
        if self.unfinished is not None:
            with contextlib.suppress(OSError):
                self.unfinished()
        return not self.broken

    def _check_allowed(self, old: Entry | None, size: int, grown: int) -> None:
        if self.broken:
            raise ReplyError("Cannot write data right now")
        if old is not None and self.descriptor.worm:
            raise ReplyError("Namespace is protected by worm mode")
        limit = self.descriptor.maxsize
        if limit:
            freed = old[2] if old is not None else 0
            if self.live.payload_bytes + grown + size > limit + freed:
                raise ReplyError("No space left on this namespace")

    def same(self, put: Put, old: Entry) -> bool:
        """Whether the stored value is this one; one that cannot be read is not, so that a SET mends it."""
        try:
            return self.read(put.key, old) == put.value
        except DamagedError:
            return False

    def _commit(self, writes: list[Write], olds: list[Entry | None]) -> None:
        try:
            self.segments.append(writes)
        except WriteError as error:
            self._write_fault(error)
            raise
        file_id = self.segments.ends.file_id
        live, io, put = self.live, self.io, self.live.keys.put
        for write, old in zip(writes, olds, strict=True):
            key, size = write.key, len(write.payload)
            put(key, (file_id, write.data_offset, size, write.crc, write.timestamp, write.index_offset))
            live.payload_bytes += size
            io.data_write_bytes += DATA_RECORD.size + len(key) + size
            io.index_write_bytes += INDEX_RECORD.size + len(key)
            if old is None:
                live.key_bytes += len(key)
                self.next_id += 1
                continue
            live.payload_bytes -= old[2]
            self.flag_deleted(old[0], old[5])

    def flag_deleted(self, index_file: int, index_offset: int) -> None:
        """Mark the index record of a version that is superseded by what was appended."""
        try:
            self.segments.mark_deleted(index_file, index_offset)
        except OSError as error:
            # The new version stands in both files and the last record wins: only the original's books suffer.
            self.unflagged = True
            self._index_fault(error)

    # faults

    def index_read_failed(self, error: OSError) -> None:
        """Count an index file that could not be read."""
        self.io.index_read_failed += 1
        self.faults.index_errors += 1
        self.faults.index_error_last = error.errno or 0

    def _index_fault(self, error: OSError) -> None:
        self.io.index_write_failed += 1
        self.faults.index_errors += 1
        self.faults.index_error_last = error.errno or 0

    def _write_fault(self, error: WriteError) -> None:
        if error.where == "index":
            self._index_fault(error.cause)
            return
        self.io.data_write_failed += 1
        self.faults.data_errors += 1
        self.faults.data_error_last = error.cause.errno or 0
