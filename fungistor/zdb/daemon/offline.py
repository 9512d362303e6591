"""Tools on the closed folders of a daemon: check, compact, rebuild-index, dump. None runs beside a daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from fungistor.errors import FailedError, InvalidError
from fungistor.zdb.daemon.compaction import DEAD_PERCENT, Outcome, check_allowed, compact_now
from fungistor.zdb.daemon.datawalk import walk_data_file
from fungistor.zdb.daemon.files import close_all, read_file
from fungistor.zdb.daemon.format import DATA_HEADER, DATA_MAGIC, DATA_VERSION, DELETED, INDEX_HEADER
from fungistor.zdb.daemon.locking import lock_folder
from fungistor.zdb.daemon.matching import index_rest
from fungistor.zdb.daemon.properties import DESCRIPTOR_NAME
from fungistor.zdb.daemon.recovery_files import file_numbers
from fungistor.zdb.daemon.store import Store

Row = dict[str, object]
Progress = Callable[[str], None]

_DATASIZE: Final = 256 << 20
_DATA_FILE: Final = re.compile(r"d(0|[1-9][0-9]{0,9})")
_INDEX_FILE: Final = re.compile(r"i(0|[1-9][0-9]{0,9})")
VERBS: Final = ("check", "compact", "rebuild-index", "dump")


@dataclass(slots=True)
class _Found:
    """What one pair of files holds."""

    records: int = 0
    damaged: list[int] = field(default_factory=list)
    torn_bytes: int = 0
    unindexed: int = 0
    lost: int = 0


@contextlib.contextmanager
def _locked(data: str, index: str, lock: Callable[[str], int] = lock_folder) -> Iterator[None]:
    """Hold both folders.

    Raises:
        InvalidError: they are not what a daemon has left.
        ConflictError: a daemon has them.
    """
    _check_layout(data, index)
    locks: list[int] = []
    try:
        locks.extend(map(lock, (index, data)))
        yield
    finally:
        close_all(locks)


def _check_layout(data: str, index: str) -> None:
    """Refuse folders that a slip of the hand has named, before anything is made or mended in them."""
    for path in (data, index):
        if not os.path.isdir(path):
            raise InvalidError(f"{path} is no folder")
    if os.path.samefile(data, index):
        raise InvalidError("--data and --index must be two folders")
    in_data, in_index = _kinds(data), _kinds(index)
    if "data" in in_index or "index" in in_data:
        raise InvalidError(f"{index} holds data files, or {data} index files", hint="--data and --index are swapped")
    if not in_data and not in_index:
        raise InvalidError(f"{data} and {index} hold no namespaces of a daemon", hint="look at its --data and --index")


def _kinds(root: str) -> set[str]:
    """Return which kinds of files the namespaces in a folder have."""
    found: set[str] = set()
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            for name in os.listdir(entry.path):
                if _DATA_FILE.fullmatch(name):
                    found.add("data")
                elif name == DESCRIPTOR_NAME or _INDEX_FILE.fullmatch(name):
                    found.add("index")
    return found


def _lock_unwritten(root: str) -> int:
    """Lock a folder that may be on a disk which takes no writes, where a daemon cannot write either.

    Raises:
        ConflictError: a daemon has it.
    """
    try:
        return lock_folder(root)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
    return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def check(data: str, index: str, progress: Progress) -> Iterator[Row]:
    """Read everything and change nothing: a row a namespace, `whole` false where a start would have to mend.

    Raises:
        InvalidError: a folder is not there.
        ConflictError: a daemon has them.
    """
    with _locked(data, index, _lock_unwritten):
        for name in sorted(entry.name for entry in os.scandir(index) if entry.is_dir()):
            yield _check_namespace(name, f"{data}/{name}", f"{index}/{name}", progress)


def _check_namespace(name: str, data: str, index: str, progress: Progress) -> Row:
    numbers = sorted(file_numbers(index, data)) if os.path.isdir(data) else []
    records = damaged = torn = unindexed = lost = missing = 0
    for number in numbers:
        progress(f"{name}: file {number} of {numbers[-1]}")
        found = _check_pair(data, index, number)
        if found is None:
            missing += 1
            continue
        records += found.records
        damaged += len(found.damaged)
        torn += found.torn_bytes
        unindexed += found.unindexed
        lost += found.lost
    return {
        "namespace": name, "files": len(numbers), "records": records, "damaged": damaged, "torn_bytes": torn,
        "unindexed": unindexed, "index_only": lost, "files_elsewhere": missing,
        "whole": not (damaged or torn or unindexed or lost),
    }  # fmt: skip


def _check_pair(data: str, index: str, number: int) -> _Found | None:
    """Walk a data file with all payloads and compare it with its index; None where it is gone."""
    try:
        fd = os.open(f"{data}/d{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return _Found(damaged=[0])
    try:
        head = os.pread(fd, DATA_HEADER.size, 0)
        rest = index_rest(read_file(f"{index}/i{number}") or b"", INDEX_HEADER.size)
        walk = walk_data_file(fd, DATA_HEADER.size, None, rest.ends(), verify=True)
        found = _Found(len(walk.records), [*walk.damaged, *walk.torn], os.fstat(fd).st_size - walk.end)
        if len(head) < DATA_HEADER.size or DATA_HEADER.unpack(head)[:2] != (DATA_MAGIC, DATA_VERSION):
            found.damaged.append(0)
    finally:
        os.close(fd)
    kept = {record.offset for record in walk.records if not record.flags & DELETED}
    # In sequential mode a slot moves with its id: what this index names may lie in another file.
    sequential = _is_sequential(index, number)
    found.unindexed = 0 if sequential else len(kept - set(rest.by_offset))
    found.lost = 0 if sequential else len(set(rest.by_offset) - kept)
    return found


def _is_sequential(index: str, number: int) -> bool:
    head = (read_file(f"{index}/i{number}") or b"")[: INDEX_HEADER.size]
    return len(head) == INDEX_HEADER.size and head[-1] == 1


def compact(
    data: str, index: str, progress: Progress, *, percent: int = DEAD_PERCENT, force: bool = False
) -> Iterator[Row]:
    """Compact every namespace: a row each.

    Raises:
        InvalidError: a folder is not there.
        ConflictError: a daemon has them.
        PassEnded: the disk refused.
    """
    with _opened(data, index, progress) as store:
        if store.readonly:
            raise FailedError(f"{data} or {index} lies on a read-only file system", hint="copy the folders elsewhere")
        for name, namespace in list(store.namespaces.items()):
            shown = os.fsdecode(name)
            if namespace.descriptor.history and not force:
                yield {"namespace": shown, "dropped": 0, "freed": 0, "copied": 0, "skipped": "keeps its history"}
                continue
            check_allowed(namespace, hooked=False, force=force)
            outcome = Outcome()
            for outcome in compact_now(store, namespace, percent=percent):
                progress(f"{shown}: {outcome.dropped} of {outcome.files} files, {outcome.copied} bytes copied")
            yield {
                "namespace": shown, "dropped": outcome.dropped, "freed": outcome.freed, "copied": outcome.copied,
                "kept_damaged": outcome.kept_damaged,
            }  # fmt: skip


@contextlib.contextmanager
def _opened(data: str, index: str, progress: Progress, *, readonly: bool = False) -> Iterator[Store]:
    """Open the folders as a start does, and say what that mended, or would mend."""
    with _locked(data, index):
        pass
    store = Store(data, index, datasize=_DATASIZE, durable=True, readonly=readonly)
    try:
        for line in store.report:
            progress(line)
        yield store
    finally:
        store.close()


def rebuild_index(data: str, index: str, progress: Progress) -> Iterator[Row]:
    """Make every index anew from the data files that are there: a row a namespace, with what was found.

    Index files whose data file is elsewhere are all that is known of it, and stay.

    Raises:
        InvalidError: a folder is not there.
        ConflictError: a daemon has them.
    """
    with _locked(data, index):
        for name in sorted(entry.name for entry in os.scandir(index) if entry.is_dir()):
            progress(f"{name}: reading all of its data")
            path, first = f"{index}/{name}", True
            for number in sorted(file_numbers(path, f"{data}/{name}")) if os.path.isdir(f"{data}/{name}") else ():
                # The head of the first stays: it alone says the namespace's mode.
                if os.path.exists(f"{data}/{name}/d{number}") and os.path.exists(f"{path}/i{number}"):
                    os.truncate(f"{path}/i{number}", INDEX_HEADER.size if first else 0)
                    first = False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}/fungistor-checkpoint")
    with _opened(data, index, progress) as store:
        for name_bytes, namespace in store.namespaces.items():
            shown = os.fsdecode(name_bytes)
            report = [line for line in store.report if line.startswith(f"namespace {shown}: ")]
            yield {"namespace": shown, "entries": len(namespace.live.keys), "report": report}


def dump(data: str, index: str, progress: Progress) -> Iterator[Row]:
    """A row a live key: where it lies and how long it is; values are not shown, and nothing is mended on disk.

    Raises:
        InvalidError: a folder is not there.
        ConflictError: a daemon has them.
    """
    with _opened(data, index, progress, readonly=True) as store:
        yield from live_rows(store, progress)


def live_rows(store: Store, progress: Progress = lambda _: None) -> Iterator[Row]:
    """A row a live key of an open store."""
    for name, namespace in store.namespaces.items():
        progress(os.fsdecode(name))
        for key in namespace.live.keys:
            entry = namespace.entry(key)
            assert entry is not None, "it is in the table"
            yield {
                "namespace": os.fsdecode(name), "key": key.hex(), "bytes": entry[2], "time": entry[4],
                "checksum": f"{entry[3]:08x}", "file": entry[0], "offset": entry[1],
            }  # fmt: skip
