"""The kernel's side of FUSE, protocol 7.31 (linux/fuse.h): the numbers and layouts that the double needs."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

MINOR = 31
WRITE_BYTES_MAX = 1 << 20
READ_BYTES = WRITE_BYTES_MAX + 8192
"""Of one read of /dev/fuse: the longest write with its headers, in one piece or not at all."""


class Op(IntEnum):
    """Opcodes; what is not here is answered ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    RENAME2 = 45


HEADER_IN = Struct("<IIQQIIIHH")
"""Length, opcode, unique, node, uid, gid, pid, and two shorts of extensions."""
HEADER_OUT = Struct("<IiQ")
INIT_IN = Struct("<IIII")
INIT_OUT = Struct("<IIIIHHIIHHI28x")
ATTR = Struct("<6Q10I")
ENTRY_HEAD = Struct("<QQQQII")
ATTR_HEAD = Struct("<QII")
OPEN_OUT = Struct("<QII")
READ_IN = Struct("<QQIIQII")
"""Of READ, READDIR and WRITE: handle, offset, size, and what does not matter here."""
WRITE_OUT = Struct("<II")
SETATTR_IN = Struct("<IIQQQQQQIIIIIIII")
CREATE_IN = Struct("<IIII")
MKNOD_IN = Struct("<IIII")
MKDIR_IN = Struct("<II")
RENAME_IN = Struct("<Q")
RENAME2_IN = Struct("<QII")
LINK_IN = Struct("<Q")
DIRENT = Struct("<QQII")
STATFS_OUT = Struct("<5Q4I24x")

SET_MODE, SET_SIZE, SET_MTIME = 1, 8, 32

INIT_ASYNC_READ = 1 << 0
INIT_BIG_WRITES = 1 << 5
INIT_PARALLEL_DIROPS = 1 << 18
INIT_MAX_PAGES = 1 << 22

OPEN_KEEP_CACHE = 1 << 1
