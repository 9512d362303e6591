"""Serve the forgetful disk: `python -m tests.faults.disk.server MOUNTPOINT`, told what to do by JSON lines on stdin.

| line | does, and answers |
|---|---|
| `{"op": "arm", "kind": K, "nth": N, "then": T}` | counts anew; freezes before what is T after the Nth K; `armed` |
| `{"op": "counts"}` | how many operations of each kind since `arm`; `counts` |
| `{"op": "freeze"}` | answers no request any more; `frozen`, as when the armed moment comes |
| `{"op": "cut", "seed": S or null}` | ends this mount, forgets (in part with a seed), mounts again; `mounted` |
| `{"op": "forget-nothing"}` | takes all that is there as synced; `kept` |
| end of file | unmounts and ends |

A frozen disk is what a power cut looks like from within: nothing is answered, so nobody can go on and say something
that the disk does not know. One thread: there is nothing to wait for.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import select
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.disk import wire
from tests.faults.disk.inodes import ROOT, Inode, Inodes
from tests.faults.disk.wire import Op

FOREVER_S = 3600
"""How long the kernel may believe what it was told: nobody else changes anything."""

MOUNT_FLAGS = 2 | 4
"""No set-user-id, no devices."""

DETACH = 2

CHANGES = {
    Op.WRITE: "write", Op.CREATE: "name", Op.MKNOD: "name", Op.MKDIR: "name", Op.SYMLINK: "name", Op.LINK: "name",
    Op.UNLINK: "name", Op.RMDIR: "name", Op.RENAME: "name", Op.RENAME2: "name", Op.FSYNC: "sync", Op.FSYNCDIR: "sync",
}  # fmt: skip

PLACES = (
    ("/data/fungistor/d", "shards"),
    ("/index/fungistor/", "member-index"),
    ("/catalog/keys.sqlite", "keys"),
    ("/catalog/log.sqlite", "log"),
    ("/catalog/state.sqlite", "state"),
    ("/journal/", "journal"),
)


def place_of(path: str) -> str:
    """Which part of a home a path is: the first half of an operation's kind, as in `log-sync`."""
    return next((name for part, name in PLACES if part in path), "other")


class RefusedError(Exception):
    """A request is answered with an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Disk:
    """One mounted disk."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self.inodes = Inodes()
        self._listings: dict[int, list[tuple[bytes, int, int]]] = {}
        self._next_handle = 1
        self.counts: Counter[str] = Counter()
        self.armed: tuple[str, int] | None = None
        self.then = 0
        self.frozen = False
        self.fd = -1
        self._answers: dict[int, Callable[[int, bytes, tuple[int, int]], bytes | None]] = {
            Op.LOOKUP: self._lookup, Op.GETATTR: self._getattr, Op.SETATTR: self._setattr, Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink, Op.MKNOD: self._mknod, Op.MKDIR: self._mkdir, Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir, Op.RENAME: self._rename, Op.RENAME2: self._rename2, Op.LINK: self._link,
            Op.OPEN: self._open, Op.READ: self._read, Op.WRITE: self._write, Op.STATFS: self._statfs,
            Op.RELEASE: self._nothing, Op.FSYNC: self._sync, Op.FLUSH: self._nothing, Op.INIT: self._init,
            Op.OPENDIR: self._opendir, Op.READDIR: self._readdir, Op.RELEASEDIR: self._releasedir,
            Op.FSYNCDIR: self._sync, Op.ACCESS: self._nothing, Op.CREATE: self._create, Op.DESTROY: self._nothing,
        }  # fmt: skip

    # --- mounting

    def mount(self) -> None:
        """Mount at the mountpoint.

        Raises: OSError where this process may not.
        """
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
        if libc.mount(b"forgetful", os.fsencode(self._mountpoint), b"fuse.forgetful", MOUNT_FLAGS, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self._mountpoint)
        self.frozen = False

    def unmount(self) -> None:
        """End the mount: whoever still waits for an answer gets an error."""
        os.close(self.fd)
        self.fd = -1
        ctypes.CDLL(None).umount2(os.fsencode(self._mountpoint), DETACH)
        self._listings.clear()

    # --- requests

    def serve_one(self) -> bool:
        """Read one request and answer it; True if its moment was the one to freeze at."""
        try:
            request = os.read(self.fd, wire.READ_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return False  # it was interrupted before it could be read
            raise
        _, opcode, unique, node, uid, gid, *_ = wire.HEADER_IN.unpack_from(request)
        if opcode in (Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT):
            return False
        body = request[wire.HEADER_IN.size :]
        if (kind := CHANGES.get(opcode)) is not None and self._is_moment(f"{self._place(node, opcode, body)}-{kind}"):
            self.frozen = True
            return True
        try:
            answer = self._answers[opcode](node, body, (uid, gid)) if opcode in self._answers else None
            number = 0 if answer is not None else errno.ENOSYS
        except RefusedError as refusal:
            answer, number = b"", refusal.number
        reply = answer or b""
        try:
            os.writev(self.fd, [wire.HEADER_OUT.pack(wire.HEADER_OUT.size + len(reply), -number, unique), reply])
        except OSError as error:
            if error.errno != errno.ENOENT:  # whoever asked is gone
                raise
        return False

    def _is_moment(self, kind: str) -> bool:
        """Whether to freeze before this operation; if not, it is counted."""
        if self.armed is not None:
            wanted, nth = self.armed
            if wanted in (kind, "any") and self.counts[wanted] + 1 >= nth:
                self.armed = ("any", self.counts["any"] + 1 + self.then)
                if not self.then:
                    return True
                self.then = 0
        self.counts[kind] += 1
        self.counts["any"] += 1
        return False

    def _place(self, node: int, opcode: int, body: bytes) -> str:
        inode = self.inodes.all.get(node)
        return "other" if inode is None else place_of(inode.path + "/" if inode.is_folder else inode.path)

    def _inode(self, node: int) -> Inode:
        inode = self.inodes.all.get(node)
        if inode is None:
            raise RefusedError(errno.ESTALE)
        return inode

    def _child(self, folder: Inode, name: bytes) -> Inode:
        number = folder.names.get(name)
        if number is None:
            raise RefusedError(errno.ENOENT)
        return self.inodes.all[number]

    def _attributes(self, inode: Inode) -> bytes:
        seconds, nanos = divmod(inode.mtime_ns, 1_000_000_000)
        return wire.ATTR.pack(
            inode.number, inode.size, -(-inode.size // 512), seconds, seconds, seconds, nanos, nanos, nanos,
            inode.mode, 2 if inode.is_folder else 1, inode.uid, inode.gid, 0, 4096, 0,
        )  # fmt: skip

    def _entry(self, inode: Inode) -> bytes:
        return wire.ENTRY_HEAD.pack(inode.number, 0, FOREVER_S, FOREVER_S, 0, 0) + self._attributes(inode)

    def _made(self, node: int, name: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        folder = self._inode(node)
        if name in folder.names:
            raise RefusedError(errno.EEXIST)
        return self.inodes.make(folder, name, mode, owner)

    def _nothing(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        return b""

    def _init(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        major, _, readahead, flags = wire.INIT_IN.unpack_from(body)
        ours = wire.INIT_ASYNC_READ | wire.INIT_BIG_WRITES | wire.INIT_PARALLEL_DIROPS | wire.INIT_MAX_PAGES
        return wire.INIT_OUT.pack(
            major, wire.MINOR, readahead, flags & ours, 64, 48, wire.WRITE_BYTES_MAX, 1, wire.WRITE_BYTES_MAX // 4096,
            0, 0,
        )  # fmt: skip

    def _lookup(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        return self._entry(self._child(self._inode(node), body[:-1]))

    def _getattr(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        return wire.ATTR_HEAD.pack(FOREVER_S, 0, 0) + self._attributes(self._inode(node))

    def _setattr(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        inode = self._inode(node)
        valid, _, _, size, _, _, mtime, _, _, mtime_nanos, _, mode, *_ = wire.SETATTR_IN.unpack_from(body)
        if valid & wire.SET_MODE:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        if valid & wire.SET_SIZE:
            inode.truncate(size)
        if valid & wire.SET_MTIME:
            inode.mtime_ns = mtime * 1_000_000_000 + mtime_nanos
        return self._getattr(node, b"", owner)

    def _readlink(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        return self._inode(node).target

    def _symlink(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        name, target = body[:-1].split(b"\0")
        inode = self._made(node, name, stat.S_IFLNK | 0o777, owner)
        inode.target = target
        return self._entry(inode)

    def _mknod(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        mode, _, umask, _ = wire.MKNOD_IN.unpack_from(body)
        return self._entry(self._made(node, body[wire.MKNOD_IN.size : -1], mode & ~umask, owner))

    def _mkdir(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        mode, umask = wire.MKDIR_IN.unpack_from(body)
        return self._entry(self._made(node, body[wire.MKDIR_IN.size : -1], stat.S_IFDIR | (mode & ~umask), owner))

    def _create(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        _, mode, umask, _ = wire.CREATE_IN.unpack_from(body)
        inode = self._made(node, body[wire.CREATE_IN.size : -1], stat.S_IFREG | (mode & 0o7777 & ~umask), owner)
        return self._entry(inode) + wire.OPEN_OUT.pack(0, wire.OPEN_KEEP_CACHE, 0)

    def _unlink(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        folder = self._inode(node)
        self._child(folder, body[:-1])
        folder.rename({body[:-1]: 0})
        return b""

    def _rmdir(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        if self._child(self._inode(node), body[:-1]).names:
            raise RefusedError(errno.ENOTEMPTY)
        return self._unlink(node, body, owner)

    def _rename(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        (target,) = wire.RENAME_IN.unpack_from(body)
        return self._moved(node, target, body[wire.RENAME_IN.size : -1])

    def _rename2(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        target, flags, _ = wire.RENAME2_IN.unpack_from(body)
        if flags:
            raise RefusedError(errno.EINVAL)
        return self._moved(node, target, body[wire.RENAME2_IN.size : -1])

    def _moved(self, node: int, target: int, names: bytes) -> bytes:
        old, new = names.split(b"\0")
        source, goal = self._inode(node), self._inode(target)
        inode = self._child(source, old)
        if source is goal:
            source.rename({old: 0, new: inode.number} if old != new else {})
        else:
            goal.rename({new: inode.number})
            source.rename({old: 0})
        inode.path = f"{goal.path}/{new.decode('utf-8', 'replace')}"
        return b""

    def _link(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        (number,) = wire.LINK_IN.unpack_from(body)
        inode = self._inode(number)
        self._inode(node).rename({body[wire.LINK_IN.size : -1]: inode.number})
        return self._entry(inode)

    def _open(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        self._inode(node)
        return wire.OPEN_OUT.pack(0, wire.OPEN_KEEP_CACHE, 0)

    def _read(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        _, offset, size, *_ = wire.READ_IN.unpack_from(body)
        return bytes(self._inode(node).data[offset : offset + size])

    def _write(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        _, offset, size, *_ = wire.READ_IN.unpack_from(body)
        self._inode(node).write(offset, body[wire.READ_IN.size : wire.READ_IN.size + size])
        return wire.WRITE_OUT.pack(size, 0)

    def _sync(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        self._inode(node).sync()
        return b""

    def _statfs(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        return wire.STATFS_OUT.pack(1 << 24, 1 << 23, 1 << 23, 1 << 20, 1 << 20, 4096, 255, 4096, 0)

    def _opendir(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        folder = self._inode(node)
        listing = [(b".", node, stat.S_IFDIR), (b"..", ROOT, stat.S_IFDIR)]
        listing += [(name, number, self.inodes.all[number].mode) for name, number in folder.names.items()]
        handle = self._next_handle
        self._next_handle += 1
        self._listings[handle] = listing
        return wire.OPEN_OUT.pack(handle, 0, 0)

    def _readdir(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        handle, offset, size, *_ = wire.READ_IN.unpack_from(body)
        answer = bytearray()
        for position, (name, number, mode) in enumerate(self._listings[handle][offset:], offset + 1):
            entry = wire.DIRENT.pack(number, position, len(name), mode >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return bytes(answer)

    def _releasedir(self, node: int, body: bytes, owner: tuple[int, int]) -> bytes:
        self._listings.pop(wire.READ_IN.unpack_from(body.ljust(wire.READ_IN.size, b"\0"))[0], None)
        return b""


def obey(disk: Disk, words: dict[str, object]) -> dict[str, object]:
    """Do what one line says; give the answer."""
    match words:
        case {"op": "arm", "kind": str(kind), "nth": int(nth), "then": int(then)}:
            disk.counts.clear()
            disk.armed, disk.then = ((kind, nth) if nth else None), then
            return {"event": "armed"}
        case {"op": "counts"}:
            return {"event": "counts", "counts": dict(disk.counts)}
        case {"op": "freeze"}:
            disk.frozen = True
            return {"event": "frozen", "counts": dict(disk.counts)}
        case {"op": "cut", "seed": seed}:
            disk.unmount()
            lost, left = disk.inodes.cut(None if seed is None else random.Random(str(seed)))
            disk.armed = None
            disk.mount()
            return {"event": "mounted", "lost": lost, "left": left}
        case {"op": "forget-nothing"}:
            for inode in disk.inodes.all.values():
                inode.sync()
            return {"event": "kept"}
    raise ValueError(f"not a line of this program: {words}")


def main(mountpoint: str) -> None:
    """Serve until stdin ends."""
    disk = Disk(mountpoint)

    def say(**words: object) -> None:
        print(json.dumps(words), flush=True)

    try:
        disk.mount()
    except OSError as error:
        say(event="failed", error=f"{Path(mountpoint).name} cannot be mounted through /dev/fuse: {error}")
        return
    say(event="mounted", lost=0, left=1)
    pending = b""
    try:
        while True:
            ready, _, _ = select.select([0] if disk.frozen else [0, disk.fd], [], [])
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    say(**obey(disk, json.loads(line)))
            elif disk.serve_one():
                say(event="frozen", counts=dict(disk.counts))
    finally:
        disk.unmount()


if __name__ == "__main__":
    main(sys.argv[1])
