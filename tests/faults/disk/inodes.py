"""What a disk holds now, and what of that it would still hold after the power went.

The model is POSIX at its least generous: `fsync` of a file keeps its bytes and size, `fsync` of a folder keeps the
names in it, and neither keeps anything else. A new file whose folder was never synced is gone, however often it was
synced itself. Modes and times are kept at once: nothing here depends on them.

A cut without chance drops all the rest. One with chance keeps a part of it, as real disks do: each unsynced page of
4 KiB of a file or not, its old size or its new one (so that pages of zeros appear within it), and of a folder's
unsynced changes the first few, as a journal would, a rename being one change.
"""

from __future__ import annotations

import random
import stat
import time
from dataclasses import dataclass, field

PAGE = 4096
ROOT = 1


@dataclass(slots=True)
class Inode:
    """A file, folder, link or socket: as it is now, and how to get back to what was synced."""

    number: int
    mode: int
    path: str
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    before: dict[int, bytes] = field(default_factory=dict)
    """Pages changed since the last sync, as they were at it."""
    synced_bytes: int = 0
    names: dict[bytes, int] = field(default_factory=dict)
    synced_names: dict[bytes, int] = field(default_factory=dict)
    changes: list[dict[bytes, int]] = field(default_factory=list)
    """Changes of names since the last sync, in order; 0 is a name removed."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        return len(self.target) or len(self.data)

    @property
    def dirty(self) -> bool:
        return bool(self.before or self.changes or self.synced_bytes != len(self.data))

    # --- now

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite or append; a gap becomes zeros."""
        end = offset + len(data)
        self._remember(offset, end)
        if len(self.data) < offset:
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:end] = data
        self.mtime_ns = time.time_ns()

    def truncate(self, size: int) -> None:
        """Cut, or grow by zeros."""
        if size < len(self.data):
            self._remember(size, len(self.data))
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))
        self.mtime_ns = time.time_ns()

    def rename(self, change: dict[bytes, int]) -> None:
        """Change names in this folder, all of them or none; 0 removes."""
        self.changes.append(change)
        _apply(self.names, change)
        self.mtime_ns = time.time_ns()

    def sync(self) -> None:
        """What is now is what a power cut leaves."""
        self.before.clear()
        self.synced_bytes = len(self.data)
        self.changes.clear()
        if self.is_folder:
            self.synced_names = dict(self.names)

    def _remember(self, start: int, end: int) -> None:
        for page in range(start // PAGE, -(-end // PAGE)):
            if page not in self.before:
                self.before[page] = bytes(self.data[page * PAGE : (page + 1) * PAGE])

    # --- the power goes

    def forget(self, rng: random.Random | None) -> None:
        """Go back to what was synced; with chance, only in part."""
        size = len(self.data)
        kept = self.synced_bytes if rng is None else rng.choice((self.synced_bytes, size))
        self.data.extend(bytes(max(0, kept - size, self.synced_bytes - size)))
        for page, content in self.before.items():
            if rng is None or rng.random() < 0.5:
                self.data[page * PAGE : (page + 1) * PAGE] = content.ljust(PAGE, b"\0")
        del self.data[kept:]
        self.data.extend(bytes(kept - len(self.data)))
        survivors = 0 if rng is None else rng.randint(0, len(self.changes))
        self.names = dict(self.synced_names)
        for change in self.changes[:survivors]:
            _apply(self.names, change)
        self.sync()


def _apply(names: dict[bytes, int], change: dict[bytes, int]) -> None:
    for name, number in change.items():
        if number:
            names[name] = number
        else:
            names.pop(name, None)


class Inodes:
    """All of a disk, by number."""

    def __init__(self) -> None:
        self._last = ROOT
        self.all = {ROOT: Inode(ROOT, stat.S_IFDIR | 0o755, "")}

    def make(self, folder: Inode, name: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        """Make an inode and its name."""
        self._last += 1
        path = f"{folder.path}/{name.decode('utf-8', 'replace')}"
        made = Inode(self._last, mode, path, *owner, mtime_ns=time.time_ns())
        self.all[made.number] = made
        folder.rename({name: made.number})
        return made

    def cut(self, rng: random.Random | None) -> tuple[int, int]:
        """The power goes and comes back: give how many inodes lost something, and how many are left."""
        lost = sum(inode.dirty for inode in self.all.values())
        for number in sorted(self.all):
            self.all[number].forget(rng)
        reached: dict[int, Inode] = {}
        waiting = [ROOT]
        while waiting:
            inode = self.all[waiting.pop()]
            reached[inode.number] = inode
            waiting.extend(inode.names.values())
        self.all = reached
        return lost, len(reached)
