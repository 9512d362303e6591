"""All namespaces of one daemon: two locked directories, opened, created, removed, closed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from fungistor.errors import FailedError
from fungistor.zdb.daemon.checkpoint import (
    load_checkpoint,
    note_flushed,
    save_checkpoint,
    write_checkpoint,
)
from fungistor.zdb.daemon.emptying import begin_emptying, emptied_mode, finish_emptying
from fungistor.zdb.daemon.files import (
    OpenFiles,
    close_all,
    create_file,
    flush_each,
    replace_file,
    sync_directory,
    sync_file,
)
from fungistor.zdb.daemon.format import (
    DATA_HEADER,
    INDEX_HEADER,
    MODE_SEQUENTIAL,
    MODE_USER,
    Checkpoint,
    Descriptor,
    data_header,
    encode_descriptor,
    index_header,
)
from fungistor.zdb.daemon.locking import lock_folder
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.properties import DEFAULT, DESCRIPTOR_NAME, find_descriptor
from fungistor.zdb.daemon.recovery import recover
from fungistor.zdb.daemon.recovery_files import Recovered, check_room_to_mend
from fungistor.zdb.daemon.segments import Ends, Segments
from fungistor.zdb.daemon.sequential import first_slots
from fungistor.zdb.daemon.values import IoStats, Live

_NAME_BYTES_MAX: Final = 128


class Store:
    """The namespaces by name, `default` first. One process at a time holds the two directories."""

    def __init__(
        self,
        data_root: str,
        index_root: str,
        *,
        datasize: int,
        durable: bool,
        mode: int | None = None,
        readonly: bool = False,
    ) -> None:
        """Lock both directories and open every namespace in them.

        Args:
            mode: the only mode that is served; None where each namespace has its own.
            readonly: change nothing, also where the disk would allow it; folders that cannot be written are opened so
                in any case.

        Raises:
            ConflictError: another daemon holds a directory.
            FailedError: a directory cannot be used, or holds what this version cannot open.
        """
        self.data_root = data_root
        self.index_root = index_root
        self.io = IoStats()
        self.report: list[str] = []
        self.namespaces: dict[bytes, Namespace] = {}
        self._datasize = datasize
        self.durable = durable
        self._mode = mode
        self._inspected = readonly
        self.readonly = readonly
        """Whether nothing can be written here: a mounted snapshot, or a disk that the kernel gave up on."""
        self._remains: set[bytes] = set()
        """Namespaces that could not be created, nor what there was of them be taken away."""
        self._open_files = OpenFiles()
        self._locks: list[int] = []
        try:
            for root in (index_root, data_root):
                self._make_folder(root)
                self._locks.append(lock_folder(root))
                self.readonly |= not os.access(root, os.W_OK)
            if self.readonly:
                self.report.append("the folders are read-only: values are served, writes are refused")
            self._open_all()
        except OSError as error:
            self._abandon()
            raise FailedError(
                f"cannot use {error.filename or data_root}: {error.strerror}", hint="check the folder's owner and space"
            ) from error
        except BaseException:
            self._abandon()
            raise

    def tell_closes(self, listener: Callable[[int], None]) -> None:
        """Have it told of each descriptor of a file before that is closed."""
        self._open_files.before_close = listener

    def create(self, name: bytes) -> Namespace:
        """Create a namespace; on failure nothing of it is left.

        Raises:
            OSError: the disk refused.
        """
        index_path, data_path = self._paths(name)
        made: list[str] = []
        mode = self._mode or MODE_USER
        try:
            for path in (index_path, data_path):
                if name in self._remains:
                    shutil.rmtree(path, ignore_errors=True)
                os.mkdir(path, 0o700)
                made.append(path)
            descriptor = Descriptor(name)
            os.close(create_file(f"{data_path}/d0", data_header(0)))
            os.close(create_file(f"{index_path}/i0", index_header(0, mode)))
            replace_file(f"{index_path}/{DESCRIPTOR_NAME}", encode_descriptor(descriptor), sync=self.durable)
            if self.durable:
                sync_directory(self.index_root)
                sync_directory(self.data_root)
            segments = self._first_pair(index_path, data_path, mode)
        except OSError:
            for path in made:
                shutil.rmtree(path, ignore_errors=True)
                if os.path.exists(path):
                    self._remains.add(name)
            raise
        self._remains.discard(name)
        segments.touch_directory(data_path)
        namespace = Namespace(
            descriptor, segments, Live(), datasize=self._datasize, io=self.io, next_id=0, slots=first_slots(mode)
        )
        self.namespaces[name] = namespace
        self._rewrite_checkpoint(namespace)
        return namespace

    def remove(self, namespace: Namespace) -> None:
        """Delete a namespace with all its files, at once.

        Raises:
            OSError: the disk refused; it is empty, and takes no writes until the disk changes its mind.
        """
        segments = namespace.segments
        with contextlib.suppress(OSError):
            # A start after a removal that broke off must not find values.
            begin_emptying(segments.index_path, durable=False)
        segments.close()
        try:
            for path in (segments.data_path, segments.index_path):
                if os.path.exists(path):
                    shutil.rmtree(path)
        except OSError:
            self._become_void(namespace)
            raise
        namespace.removed = True
        del self.namespaces[namespace.name]

    def save_descriptor(self, namespace: Namespace, descriptor: Descriptor) -> None:
        """Change a namespace's properties, on disk first.

        Raises:
            OSError: the disk refused; the old properties stand.
        """
        path = f"{namespace.segments.index_path}/{DESCRIPTOR_NAME}"
        replace_file(path, encode_descriptor(descriptor), sync=self.durable)
        namespace.descriptor = descriptor
        self._rewrite_checkpoint(namespace)

    def close(self) -> None:
        """Write checkpoints, close all files and release the directories. Data must be durable already."""
        # Without a checkpoint the next start walks the data: slower, as right.
        flush_each(self._leave, list(self.namespaces.values()))
        for namespace in self.namespaces.values():
            namespace.segments.close()
        self._abandon()

    def _leave(self, namespace: Namespace) -> None:
        if namespace.broken or namespace.unflagged or self.readonly or namespace.settled == namespace.segments.ends:
            return
        if self.durable:
            namespace.segments.sync_index()
        self._save_checkpoint(namespace)

    def note_durable(self, namespace: Namespace, newest: int, end: int) -> None:
        """Note that the data files before `newest` are whole on disk, and that one up to `end`.

        No start need look for holes in the former; what a start finds damaged in the latter was promised to nobody
        behind that end.
        """
        next_id = 0 if namespace.slots is None else namespace.next_id
        note_flushed(namespace.segments.index_path, newest, end, next_id)
        if newest > namespace.checkpoint.durable:
            namespace.checkpoint = replace(namespace.checkpoint, durable=newest)
            self._rewrite_checkpoint(namespace)

    def _rewrite_checkpoint(self, namespace: Namespace) -> None:
        checkpoint = replace(namespace.checkpoint, descriptor=encode_descriptor(namespace.descriptor))
        # Not flushed and not needed: an older one only makes a start look at more.
        with contextlib.suppress(OSError):
            write_checkpoint(namespace.segments.index_path, checkpoint, sync=False)
        namespace.checkpoint = checkpoint

    def _save_checkpoint(self, namespace: Namespace) -> None:
        segments = namespace.segments
        durable = segments.ends.file_id if self.durable else namespace.checkpoint.durable
        descriptor = encode_descriptor(namespace.descriptor)
        namespace.checkpoint = save_checkpoint(segments, descriptor, durable=durable, sync=self.durable)
        namespace.settled = segments.ends

    def _abandon(self) -> None:
        self._open_files.close()
        close_all(self._locks)
        self._locks.clear()

    def _paths(self, name: bytes) -> tuple[str, str]:
        text = os.fsdecode(name)
        return f"{self.index_root}/{text}", f"{self.data_root}/{text}"

    def _open_all(self) -> None:
        names = [
            os.fsencode(entry.name)
            for entry in os.scandir(self.index_root)
            if entry.is_dir() and len(os.fsencode(entry.name)) <= _NAME_BYTES_MAX
        ]
        for name in (DEFAULT, *sorted(set(names) - {DEFAULT})):
            if self._inspected and not all(map(os.path.isdir, self._paths(name))):
                # Nothing is made: what has an index and no data is said, what has neither is not there.
                if name in names:
                    self.report.append(f"namespace {os.fsdecode(name)} has no data folder: it is not served")
                continue
            self._open(name)
        opened = [one for one in self.namespaces.values() if one.unfinished is None]
        for _, error in flush_each(lambda one: self._make_durable(one, changed=one.settled is None), opened):
            raise error

    def _open(self, name: bytes) -> None:
        index_path, data_path = self._paths(name)
        for path in (index_path, data_path):
            self._make_folder(path)
            if os.path.exists(f"{path}/zdb-index-00000"):
                raise FailedError(f"{path} has the layout of 0-db before 2.0", hint="convert it with the original")
        report: list[str] = []
        void = self._emptied(index_path, data_path, report)
        checkpoint = load_checkpoint(index_path, report)
        if void is not None:
            self._open_void(name, void, index_path, data_path, checkpoint, report)
            return
        found, refused = self._recovered(index_path, data_path, checkpoint)
        report += found.report
        descriptor = self._descriptor(name, index_path, checkpoint, report, empty=not found.keys)
        namespace = Namespace(
            descriptor, *self._opened(index_path, data_path, found), datasize=self._datasize, io=self.io,
            next_id=found.index_records, slots=found.slots,
        )  # fmt: skip
        namespace.checkpoint = checkpoint or namespace.checkpoint
        self.namespaces[name] = namespace
        self.report += [f"namespace {os.fsdecode(name)}: {line}" for line in report]
        if not found.changed:
            namespace.settled = found.ends
        if refused:
            self.report.append(f"namespace {os.fsdecode(name)}: cannot be mended yet, takes no writes: {refused}")
            self._await_room(namespace, refused)

    def _await_room(self, namespace: Namespace, refused: str) -> None:
        namespace.broken = f"its files cannot be mended yet: {refused}"
        namespace.unfinished = lambda: self._mend(namespace)

    def _recovered(self, index_path: str, data_path: str, checkpoint: Checkpoint | None) -> tuple[Recovered, str]:
        """Recover a namespace; where there is no room to write what is mended, in memory alone, with the reason."""
        try:
            return recover(index_path, data_path, checkpoint, self._mode, readonly=self.readonly), ""
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return recover(index_path, data_path, checkpoint, self._mode, readonly=True), str(error.strerror)

    def _mend(self, namespace: Namespace) -> None:
        """Recover a namespace once more that had no room for it; until then its values are served.

        Raises:
            OSError: there still is none.
        """
        segments = namespace.segments
        check_room_to_mend(segments.index_path)
        checkpoint = load_checkpoint(segments.index_path, [])
        found = recover(segments.index_path, segments.data_path, checkpoint, self._mode)
        segments.close()
        namespace.adopt(*self._opened(segments.index_path, segments.data_path, found), found.slots, found.index_records)
        namespace.broken, namespace.unfinished = "", None
        self._make_durable(namespace, changed=found.changed)

    def _emptied(self, index_path: str, data_path: str, report: list[str]) -> int | None:
        """Finish a FLUSH that was begun; where the disk refuses, return the namespace's mode."""
        mode = emptied_mode(index_path, data_path)
        if mode is None or self.readonly:
            return mode
        try:
            finish_emptying(index_path, data_path, mode, durable=self.durable)
        except OSError as error:
            report.append(f"a FLUSH cannot be finished yet: {error.strerror}")
            return mode
        report.append("a FLUSH that had begun was finished")
        return None

    def _open_void(
        self, name: bytes, mode: int, index_path: str, data_path: str, checkpoint: Checkpoint | None, report: list[str]
    ) -> None:
        descriptor = self._descriptor(name, index_path, checkpoint, report, empty=True)
        segments = self._first_pair(index_path, data_path, mode)
        namespace = Namespace(
            descriptor, segments, Live(), datasize=self._datasize, io=self.io, next_id=0, slots=first_slots(mode)
        )
        self._become_void(namespace)
        self.namespaces[name] = namespace
        self.report += [f"namespace {os.fsdecode(name)}: {line}" for line in report]

    def _opened(self, index_path: str, data_path: str, found: Recovered) -> tuple[Segments, Live]:
        live = Live(found.keys)
        for key, entry in found.keys.items():
            live.payload_bytes += entry[2]
            live.key_bytes += len(key)
        mode = MODE_USER if found.slots is None else MODE_SEQUENTIAL
        return Segments(index_path, data_path, found.ends, self._open_files, mode), live

    def reload(self, namespace: Namespace) -> None:
        """Read a namespace's files again, as a start does; its clients stay.

        Raises:
            FailedError: what is there now cannot be opened; the namespace takes no writes until a restart.
            OSError: the disk refused; the same.
        """
        segments = namespace.segments
        if emptied_mode(segments.index_path, segments.data_path) is not None:
            self._finish_emptying(namespace)
            segments = namespace.segments
        unsynced = segments.take_unsynced()
        if self.durable:
            unsynced.sync()
        namespace.broken = "its files are being read again"
        segments.close()
        report: list[str] = []
        checkpoint = load_checkpoint(segments.index_path, report)
        found, refused = self._recovered(segments.index_path, segments.data_path, checkpoint)
        descriptor = self._descriptor(namespace.name, segments.index_path, checkpoint, report, empty=not found.keys)
        namespace.descriptor = descriptor
        namespace.adopt(*self._opened(segments.index_path, segments.data_path, found), found.slots, found.index_records)
        namespace.checkpoint = checkpoint or Checkpoint((), b"")
        namespace.broken, namespace.unfinished = "", None
        if refused:
            self._await_room(namespace, refused)
        else:
            self._make_durable(namespace, changed=found.changed)

    def flush(self, namespace: Namespace) -> None:
        """Empty a namespace: values, versions and files; its properties stay.

        Whatever ends the daemon meanwhile, the next start finds all of it or nothing of it.

        Raises:
            OSError: the disk refused. Either nothing has changed; or the namespace is empty, and takes no writes
                until the rest could be done, which is tried before each.
        """
        segments = namespace.segments
        if emptied_mode(segments.index_path, segments.data_path) is None:
            try:
                begin_emptying(segments.index_path, durable=self.durable)
            except OSError:
                # A mark that was taken back must not come back with a power cut.
                segments.touch_directory(segments.index_path)
                raise
            segments.close()
            self._become_void(namespace)
        self._finish_emptying(namespace)

    def _become_void(self, namespace: Namespace) -> None:
        """All values are gone, though files may still be there: none of them may be opened any more."""
        segments = self._first_pair(
            namespace.segments.index_path, namespace.segments.data_path, namespace.segments.mode
        )
        segments.close()
        namespace.adopt(segments, Live(), first_slots(segments.mode), 0)
        namespace.checkpoint = Checkpoint((), b"")
        namespace.broken = "a FLUSH of it is not finished"
        namespace.unfinished = lambda: self._finish_emptying(namespace)

    def _finish_emptying(self, namespace: Namespace) -> None:
        old = namespace.segments
        finish_emptying(old.index_path, old.data_path, old.mode, durable=self.durable)
        segments = self._first_pair(old.index_path, old.data_path, old.mode)
        segments.touch_directory(old.index_path)
        segments.touch_directory(old.data_path)
        namespace.adopt(segments, Live(), first_slots(old.mode), 0)
        namespace.broken, namespace.unfinished = "", None

    def _first_pair(self, index_path: str, data_path: str, mode: int) -> Segments:
        ends = Ends(0, DATA_HEADER.size, 0, INDEX_HEADER.size, 0)
        return Segments(index_path, data_path, ends, self._open_files, mode)

    def _make_folder(self, path: str) -> None:
        """Make a folder unless it is there; a barrier cannot hold what is in it where its own name may be lost."""
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
            if self.durable:
                sync_directory(os.path.dirname(os.path.abspath(path)))

    def _make_durable(self, namespace: Namespace, *, changed: bool) -> None:
        """Flush what is there: a SET of a value that a crashed run left unflushed writes nothing, and yet a barrier
        must cover it."""
        segments = namespace.segments
        if self.readonly:
            return
        if self.durable:
            for file_id in range(segments.ends.file_id + 1):
                with contextlib.suppress(FileNotFoundError):
                    sync_file(f"{segments.data_path}/d{file_id}")
                if changed:
                    # Past a hole that the last cut left, only the index leads to what is appended from now on.
                    with contextlib.suppress(FileNotFoundError):
                        sync_file(f"{segments.index_path}/i{file_id}")
            sync_directory(segments.data_path)
            sync_directory(segments.index_path)
            self.note_durable(namespace, segments.ends.file_id, segments.ends.data_end)
        if changed:
            # A full disk is no reason not to serve; the next start walks the data again.
            with contextlib.suppress(OSError):
                self._save_checkpoint(namespace)

    def _descriptor(
        self, name: bytes, index_path: str, checkpoint: Checkpoint | None, report: list[str], *, empty: bool
    ) -> Descriptor:
        """Return the namespace's properties, mended where its file has not got them."""
        descriptor, there = find_descriptor(name, index_path, checkpoint, report, empty=empty)
        if not there and not self.readonly:
            with contextlib.suppress(OSError):
                replace_file(f"{index_path}/{DESCRIPTOR_NAME}", encode_descriptor(descriptor), sync=self.durable)
        return descriptor
