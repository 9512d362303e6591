"""Walk what is to be published and say, in the order of the DAG, what each entry is.

The walk is streaming: it holds one sorted listing for each folder on the way down. Each regular file's state is
taken when it is met and compared after its last byte was read, so that a file that changes meanwhile is noticed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fungistor.dag.unixfs import Mtime
from fungistor.errors import FailedError, InvalidError, NotFoundError

DEPTH_MAX = 256
"""Deeper trees are refused: each level is an open folder and a frame in every reader."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Mode bits and modification time, None where the publisher did not ask to preserve them."""

    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def mtime(self) -> Mtime | None:
        """The time as UnixFS has it."""
        return None if self.mtime_ns is None else Mtime(*divmod(self.mtime_ns, 1_000_000_000))


@dataclass(frozen=True, slots=True)
class FileState:
    """What of a file must be the same before and after it was read."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: bytes, status: os.stat_result) -> FileState:
        """Take the state out of a stat result."""
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True, slots=True)
class Enter:
    """A folder begins; entries follow until the matching Leave."""

    name: bytes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Leave:
    """The innermost folder ends."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    name: bytes
    state: FileState
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link, stored as it is and never followed."""

    name: bytes
    target: bytes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A hidden entry left out."""

    path: bytes


Event = Enter | Leave | File | Symlink | Skipped


@dataclass(frozen=True, slots=True)
class ScanRules:
    """What to take along."""

    hidden: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False

    def attributes(self, status: os.stat_result) -> Attributes:
        """The attributes that the publisher asked to preserve."""
        return Attributes(
            stat.S_IMODE(status.st_mode) if self.preserve_mode else None,
            status.st_mtime_ns if self.preserve_mtime else None,
        )


def shown(path: bytes) -> str:
    """A path as a person can read it, whatever its bytes."""
    return path.decode("utf-8", "backslashreplace")


def scan(path: bytes, rules: ScanRules) -> Iterator[Event]:
    """Yield the entries of `path` itself and below, folders' entries in the order of their names' bytes.

    Raises:
        NotFoundError: there is nothing at `path`.
        FailedError: something cannot be read.
        InvalidError: something is neither file, folder nor symbolic link, or lies too deep.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise NotFoundError(f"{shown(path)}: no such file or folder") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    name = os.path.basename(os.path.abspath(path))
    yield from _entry(path, name, status, rules, 0)


def _entry(path: bytes, name: bytes, status: os.stat_result, rules: ScanRules, depth: int) -> Iterator[Event]:
    attributes = rules.attributes(status)
    if stat.S_ISREG(status.st_mode):
        yield File(name, FileState.of(path, status), attributes)
    elif stat.S_ISLNK(status.st_mode):
        try:
            yield Symlink(name, os.readlink(path), attributes)
        except OSError as error:
            raise _unreadable(path, error) from error
    elif stat.S_ISDIR(status.st_mode):
        yield from _folder(path, name, attributes, rules, depth)
    else:
        raise InvalidError(
            f"{shown(path)}: is neither a file, a folder nor a symbolic link",
            hint="remove it, or leave it out by publishing the other paths one by one",
        )


def _folder(path: bytes, name: bytes, attributes: Attributes, rules: ScanRules, depth: int) -> Iterator[Event]:
    if depth >= DEPTH_MAX:
        raise InvalidError(f"{shown(path)}: lies deeper than {DEPTH_MAX} folders")
    try:
        with os.scandir(path) as listing:
            names = sorted(entry.name for entry in listing)
    except OSError as error:
        raise _unreadable(path, error) from error
    yield Enter(name, attributes)
    for child in names:
        child_path = os.path.join(path, child)
        if child.startswith(b".") and not rules.hidden:
            yield Skipped(child_path)
            continue
        try:
            status = os.lstat(child_path)
        except OSError as error:
            raise _unreadable(child_path, error) from error
        yield from _entry(child_path, child, status, rules, depth + 1)
    yield Leave()


def _unreadable(path: bytes, error: OSError) -> FailedError:
    return FailedError(
        f"{shown(path)}: cannot be read: {error.strerror or error}",
        hint="make it readable for this user, or leave it out",
    )


def total_size(path: bytes, rules: ScanRules, enough: int | None = None) -> int:
    """Sum the sizes of the files below `path`; stop early once the sum exceeds `enough`."""
    total = 0
    for event in scan(path, rules):
        if isinstance(event, File):
            total += event.state.size
            if enough is not None and total > enough:
                break
    return total
