"""Write a DAG as files: aside first, then renamed, so that nothing is at OUT unless it is whole.

Names come from outside and are hostile: none that is not a plain entry name is written, none is written twice, and
nothing is ever created below a symbolic link, so that no name in a DAG leaves OUT.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator

from fungistor.dag.cid import CID
from fungistor.dag.reader import NodeInfo, describe, read_file
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import DirEntry, entries
from fungistor.errors import FailedError, InvalidError
from fungistor.limits import MIB
from fungistor.objects.scan import DEPTH_MAX, shown

HINT_ENTRIES = 256
"""How many entries of a folder are told to the source at once."""

AT_FDCWD = -100
RENAME_EXCHANGE = 2

_ZEROS = bytes(2 * MIB)

Written = Callable[[int], None]


class Exporter:
    """Writes one DAG from one source. `written` is told of content bytes as they are written."""

    def __init__(self, source: BlockSource, written: Written) -> None:
        self._source = source
        self._written = written

    def export(self, cid: CID, out: str, *, force: bool = False) -> NodeInfo:
        """Write the file, folder or symbolic link `cid` as `out`.

        Raises:
            InvalidError: `out` exists and `force` was not given, or a name in the DAG cannot be an entry's name.
            FailedError: it cannot be written here.
        """
        target = os.fsencode(out).rstrip(b"/") or b"/"
        if os.path.lexists(target) and not force:
            raise InvalidError(f"{out}: exists already", hint="choose another -o, or add --force to replace it")
        folder = os.path.dirname(os.path.abspath(target))
        aside = os.path.join(folder, b".fungistor-" + secrets.token_hex(6).encode())
        try:
            info = describe(self._source, cid)
            try:
                self._write(cid, info, aside, 0)
                _put_in_place(aside, target)
            finally:
                _remove(aside)
        except OSError as error:
            raise FailedError(
                f"{shown(os.fsencode(error.filename or out))}: cannot be written: {error.strerror or error}",
                hint="nothing was left behind; free space or choose another -o",
            ) from error
        return info

    def _write(self, cid: CID, info: NodeInfo, path: bytes, depth: int) -> None:
        if info.type == "directory":
            self._write_folder(cid, path, depth, is_sharded=info.is_sharded)
        elif info.type == "symlink":
            os.symlink(info.target, path)
        else:
            self._write_file(cid, path)
        _restore(info, path)

    def _write_folder(self, cid: CID, path: bytes, depth: int, *, is_sharded: bool) -> None:
        if depth >= DEPTH_MAX:
            raise InvalidError(f"the DAG is deeper than {DEPTH_MAX} folders")
        os.mkdir(path)
        # The names of a sharded folder need no second look, and may be millions.
        names: set[bytes] | None = None if is_sharded else set()
        listing = entries(self._source, cid, repeated=True)
        while some := list(itertools.islice(listing, HINT_ENTRIES)):
            self._source.hint([entry.cid for entry in some])
            for entry in some:
                child = os.path.join(path, checked_name(entry))
                if names is not None:
                    if entry.name in names and not os.path.islink(child):
                        continue  # of equal names the first counts
                    names.add(entry.name)
                if os.path.lexists(child):
                    raise InvalidError(f"the DAG has two entries named {shown(entry.name)!r} in one folder")
                self._write(entry.cid, describe(self._source, entry.cid), child, depth + 1)

    def _write_file(self, cid: CID, path: bytes) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb", 0) as file:
            size = 0
            for data in read_file(self._source, cid):
                length = len(data)
                # A run of zeros becomes a hole, as it most likely was.
                if length >= 4096 and length <= len(_ZEROS) and data == memoryview(_ZEROS)[:length]:
                    file.seek(length, os.SEEK_CUR)
                else:
                    _write_all(file.fileno(), data)
                size += length
                self._written(length)
            file.truncate(size)


def checked_name(entry: DirEntry) -> bytes:
    """Return the entry's name if it can be one below OUT.

    Raises:
        InvalidError: it is empty, `.`, `..`, or holds a slash or a NUL.
    """
    name = entry.name
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidError(
            f"the DAG has an entry named {shown(name)!r}, which would not stay below the output folder",
            hint="read single files of it with `fungistor cat`",
        )
    return name


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _restore(info: NodeInfo, path: bytes) -> None:
    if info.mode is not None and info.type != "symlink":
        os.chmod(path, info.mode & 0o777)
    if info.mtime is not None:
        stamp = info.mtime.seconds * 1_000_000_000 + info.mtime.nanos
        with contextlib.suppress(OverflowError):
            os.utime(path, ns=(stamp, stamp), follow_symlinks=False)


def _put_in_place(aside: bytes, target: bytes) -> None:
    """Rename `aside` to `target`, in one step where the system can exchange two names."""
    if not os.path.lexists(target) or not (_is_folder(target) or _is_folder(aside)):
        os.replace(aside, target)
        return
    if _exchange(aside, target):
        return  # what was there is removed with `aside`
    old = aside + b".old"
    os.rename(target, old)
    try:
        os.rename(aside, target)
    except OSError:
        os.rename(old, target)
        raise
    _remove(old)


def _exchange(one: bytes, other: bytes) -> bool:
    """Give two names to each other's files at once; False where system or file system cannot (renameat2(2))."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0)


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _remove(path: bytes) -> None:
    if _is_folder(path):
        for folder in _folders(path):
            with contextlib.suppress(OSError):
                os.chmod(folder, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _folders(path: bytes) -> Iterator[bytes]:
    """Folders restored without write permission would keep their entries from being removed."""
    for folder, _, _ in os.walk(path):
        yield folder
