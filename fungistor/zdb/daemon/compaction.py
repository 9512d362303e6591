"""Giving back the space of old versions: live records are copied forward, then whole old files are dropped.

No closed file is rewritten. A data file goes only when everything in it that still counts has been written again and is
on disk; whatever ends a pass in between leaves values twice, never not at all, and the next pass goes on from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fungistor.errors import ConflictError, FailedError
from fungistor.zdb.daemon.files import replace_file, sync_directory
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    DATA_RECORD,
    DELETED,
    DataRecord,
    index_header,
    parse_data_record,
)
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.segments import WriteError
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.values import DamagedError
from fungistor.zdb.daemon.wiping import filler, wipe
from fungistor.zdb.daemon.wire import ReplyError

DEAD_PERCENT: Final = 25
"""A closed file is worth a pass when this share of it is dead: copying three live bytes frees four."""
_WINDOW_BYTES: Final = 256 << 10
_STEP_BYTES: Final = 1 << 20


class Step(Enum):
    """What a pass needs before it goes on."""

    PAUSE = "pause"
    """Nothing: others may have a turn."""
    BARRIER = "barrier"
    """All that was written so far is on disk."""


@dataclass(slots=True)
class Outcome:
    """What a pass did. Sizes in bytes."""

    files: int = 0
    """Data files before it."""
    dropped: int = 0
    freed: int = 0
    copied: int = 0
    kept_damaged: int = 0
    """Files that stay because something in them cannot be read: dropping them would destroy evidence."""
    wiped: int = 0
    """Small dead values overwritten in files that stay."""


class PassEnded(FailedError):  # noqa: N818
    """The pass cannot go on; everything is as safe as before it."""


def compact(
    store: Store, namespace: Namespace, outcome: Outcome, *, percent: int, wiping: bool = False
) -> Iterator[Step]:
    """One pass over a namespace. The caller does what each step asks for, and throttles.

    Args:
        percent: files with at least this share of dead bytes are dropped, the newest is closed first if it has it.
        wiping: in files that stay, small dead values are overwritten where they lie.

    Raises:
        PassEnded: the disk refused, or the namespace went away.
    """
    segments = namespace.segments
    yield from _close_newest(namespace, percent)
    last = segments.ends.file_id
    outcome.files = sum(os.path.exists(f"{segments.data_path}/d{number}") for number in range(last + 1))
    for number in range(last):
        _check_same(namespace, segments)
        try:
            fd = os.open(f"{segments.data_path}/d{number}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            size = os.fstat(fd).st_size
            dead = yield from _dead_bytes(namespace, number, fd, size)
            if dead is None:
                outcome.kept_damaged += 1
                continue
            if dead * 100 < max(percent * (size - DATA_HEADER.size), 1):
                if wiping and dead:
                    yield from _wipe_file(namespace, number, fd, size, outcome)
                continue
            whole = yield from _carry_file(namespace, number, fd, size, outcome)
        finally:
            os.close(fd)
        if not whole:
            outcome.kept_damaged += 1
            continue
        yield Step.BARRIER
        _check_same(namespace, segments)
        _drop(store, namespace, number)
        outcome.dropped += 1
        outcome.freed += size
    if wiping:
        ends = segments.ends
        yield from _wipe_file(namespace, ends.file_id, segments.data_fd(ends.file_id), ends.data_end, outcome)


def _wipe_file(namespace: Namespace, number: int, fd: int, size: int, outcome: Outcome) -> Generator[Step, None, None]:
    """Overwrite the small dead values of a file that stays. Their deletions are on disk before, so that no start takes
    what is in their place for them; a record that a crash leaves half overwritten is met again by the next pass."""
    segments = namespace.segments
    dead = [
        (record.payload_at, record.payload_bytes, record.crc)
        for record in _heads(fd, size)
        if record is not None
        and not record.flags & DELETED
        and filler(record.payload_bytes, record.crc) is not None
        and not _live(namespace, number, record)
    ]
    if not dead:
        return
    yield Step.BARRIER
    _check_same(namespace, segments)
    path = f"{segments.data_path}/d{number}"
    try:
        writable = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            wiped = sum(wipe(writable, *place) for place in dead)
        finally:
            os.close(writable)
    except OSError as error:
        raise PassEnded(f"{path} cannot be written: {error.strerror}", hint="mend the disk") from error
    if wiped:
        outcome.wiped += wiped
        segments.touch_data(number)
        yield Step.BARRIER
        _check_same(namespace, segments)


def _check_same(namespace: Namespace, segments: object) -> None:
    if namespace.removed or namespace.segments is not segments or namespace.broken:
        raise PassEnded("the namespace was removed, emptied, read again, or takes no writes")


def _close_newest(namespace: Namespace, percent: int) -> Iterator[Step]:
    """Rotate when the newest file is worth dropping."""
    segments = namespace.segments
    ends = segments.ends
    dead = yield from _dead_bytes(namespace, ends.file_id, segments.data_fd(ends.file_id), ends.data_end)
    _check_same(namespace, segments)
    if dead and dead * 100 >= percent * (ends.data_end - DATA_HEADER.size):
        try:
            namespace.rotate()
        except ReplyError as error:
            raise PassEnded(error.text) from error


def _dead_bytes(namespace: Namespace, number: int, fd: int, size: int) -> Generator[Step, None, int | None]:
    """Return the bytes of a file that nothing needs any more; None where its records cannot be followed."""
    dead, since = 0, 0
    for record in _heads(fd, size):
        if record is None:
            return None
        since += DATA_RECORD.size + len(record.key)
        if not _live(namespace, number, record) and not _still_needed(namespace, number, record):
            dead += record.end - record.offset
        if since >= _WINDOW_BYTES:
            since = 0
            yield Step.PAUSE
    return dead


def _carry_file(namespace: Namespace, number: int, fd: int, size: int, outcome: Outcome) -> Generator[Step, None, bool]:
    """Write again what still counts of a file; return whether all of it could be."""
    segments, since = namespace.segments, 0
    for record in _heads(fd, size):
        if record is None:
            return False
        try:
            if _live(namespace, number, record):
                entry = namespace.entry(record.key)
                assert entry is not None, "it is live"
                namespace.carry(record.key, entry, namespace.read(record.key, entry))
            elif _still_needed(namespace, number, record):
                segments.append_bare_tombstone(record.key, record.timestamp)
            else:
                continue
        except DamagedError:
            return False
        except (WriteError, ReplyError, OSError) as error:
            raise PassEnded(f"nothing more can be copied: {error}", hint="make room, and compact again") from error
        length = record.end - record.offset
        outcome.copied += length
        since += length
        if since >= _STEP_BYTES:
            since = 0
            yield Step.PAUSE
            _check_same(namespace, segments)
    return True


def _live(namespace: Namespace, number: int, record: DataRecord) -> bool:
    entry = namespace.entry(record.key)
    return entry is not None and entry[:2] == (number, record.offset)


def _still_needed(namespace: Namespace, number: int, record: DataRecord) -> bool:
    """Whether a deletion keeps an older version dead, should the index ever be rebuilt from the data."""
    if not record.flags & DELETED or record.key in namespace.live.keys:
        return False
    path = namespace.segments.data_path
    return any(os.path.exists(f"{path}/d{older}") for older in range(number))


def _heads(fd: int, size: int) -> Iterator[DataRecord | None]:
    """Yield the heads of a file's records; None, and then no more, where one cannot be."""
    offset, start, window = DATA_HEADER.size, 0, b""
    while offset < size:
        at = offset - start
        if at + DATA_RECORD.size + 255 > len(window):
            window = os.pread(fd, min(_WINDOW_BYTES, size - offset), offset)
            start, at = offset, 0
        record = parse_data_record(window, at, offset)
        if record is None or not record.key or record.end > size:
            yield None
            return
        yield record
        offset = record.end


def _drop(store: Store, namespace: Namespace, number: int) -> None:
    """Drop a pair of files that nothing needs.

    The index goes first: should the daemon end in between, the data is walked again and found to be superseded. In
    sequential mode it stays, because ids are counted in it. An index file is never missing altogether: the original
    stops loading there.
    """
    segments = namespace.segments
    namespace.settled = None
    try:
        if namespace.slots is None:
            replace_file(f"{segments.index_path}/i{number}", index_header(number, segments.mode), sync=store.durable)
        segments.forget(number)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{segments.data_path}/d{number}")
        if store.durable:
            sync_directory(segments.data_path)
    except OSError as error:
        raise PassEnded(f"d{number} cannot be dropped: {error.strerror}") from error
    if namespace.offsets is not None and namespace.offsets[0] == number:
        namespace.offsets = None


def check_allowed(namespace: Namespace, *, hooked: bool, force: bool) -> None:
    """Raises: ConflictError where old versions are wanted, unless forced."""
    if force:
        return
    if namespace.descriptor.history:
        raise ConflictError("namespace keeps its history", hint="NSSET history 0, or FORCE")
    if hooked:
        raise ConflictError("files of this daemon are kept elsewhere by its hook", hint="FORCE")


def compact_now(store: Store, namespace: Namespace, *, percent: int) -> Iterator[Outcome]:
    """A whole pass with nobody else to serve; yields its outcome so far after each step.

    Raises:
        PassEnded: see `compact`.
    """
    outcome = Outcome()
    for step in compact(store, namespace, outcome, percent=percent):
        if step is Step.BARRIER and store.durable:
            unsynced = namespace.segments.take_unsynced()
            try:
                unsynced.sync()
            except OSError as error:
                raise PassEnded(f"fsync failed: {error.strerror}") from error
            store.note_durable(namespace, unsynced.newest, unsynced.end)
        yield outcome
    yield outcome
