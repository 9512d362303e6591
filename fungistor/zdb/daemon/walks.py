"""The commands that walk a namespace, and those that watch what other clients do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fungistor.zdb.daemon import scanning
from fungistor.zdb.daemon.commands import INTERNAL, Handler
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.session import Reply, Session, WaitWanted, plain
from fungistor.zdb.daemon.values import DamagedError
from fungistor.zdb.daemon.wire import NIL, Argument, ReplyError, array, bulk, integer, status

_WAIT_MS_DEFAULT: Final = 5000
_WAIT_MS_MIN: Final = 100
_WAIT_MS_MAX: Final = 1_800_000

WATCHABLE: Final = frozenset(
    b"* WAIT MIRROR MASTER PING TIME AUTH HOOKS INDEX DATA SET SETX GET MGET DEL EXISTS CHECK SCAN SCANX RSCAN KSCAN "
    b"HISTORY KEYCUR LENGTH KEYTIME INFO STOP DBSIZE NSNEW NSDEL NSLIST NSSET NSINFO NSJUMP SELECT RELOAD FLUSH "
    b"GETRANGE WAITAOF".split()
)


Walk = Callable[[Namespace, bytes | None], tuple[bytes, scanning.Found]]


def _scan(session: Session, args: list[Argument], walk: Walk) -> Reply:
    namespace = session.readable()
    cursor, found = walk(namespace, plain(args[1]) if len(args) > 1 else None)
    entries = [array([bulk(key), integer(size), integer(written)]) for key, size, written in found]
    return array([bulk(cursor), array(entries)])


def scan(session: Session, args: list[Argument]) -> Reply:
    return _scan(session, args, scanning.scan)


def rscan(session: Session, args: list[Argument]) -> Reply:
    return _scan(session, args, scanning.rscan)


def kscan(session: Session, args: list[Argument]) -> Reply:
    if not session.context.debug:
        raise ReplyError("Command disabled in release code, not yet available")
    if len(args) != 2:
        raise ReplyError("Unexpected arguments")
    if not args[1]:
        raise ReplyError("Invalid argument")
    keys = scanning.keys_with(session.namespace, plain(args[1]))
    return array([bulk(b"0"), array([bulk(key) for key in keys])])


def history(session: Session, args: list[Argument]) -> Reply:
    if not 2 <= len(args) <= 3:
        raise ReplyError("Invalid arguments")
    namespace = session.readable()
    at = plain(args[2]) if len(args) == 3 else None
    if at is not None and len(at) != len(scanning.NO_VERSION):
        raise ReplyError("Invalid arguments")
    if len(args[1]) > 255:
        raise ReplyError("Key not found" if at is None else "Invalid arguments (invalid key)")
    try:
        older, written, value = scanning.version(namespace, plain(args[1]), at)
    except DamagedError:
        return INTERNAL
    return [b"*3\r\n", NIL if older is None else bulk(older), bulk(b"%d" % written), bulk(value)]


def wait(_session: Session, args: list[Argument]) -> Reply:
    if not 2 <= len(args) <= 3:
        raise ReplyError("Invalid arguments")
    name = plain(args[1][:32]).upper() or b"*"
    if name not in WATCHABLE or len(args[1]) > 32:
        raise ReplyError("Unknown command to watch")
    text = plain(args[2][:17]) if len(args) == 3 else b"%d" % _WAIT_MS_DEFAULT
    if not text.isdigit() or len(text) > 16 or not _WAIT_MS_MIN <= int(text) <= _WAIT_MS_MAX:
        raise ReplyError("Invalid timeout")
    return WaitWanted(name, int(text) / 1000)


def mirror(session: Session, _args: list[Argument]) -> Reply:
    session.mirror = True
    return status(b"Starting mirroring")


def master(session: Session, _args: list[Argument]) -> Reply:
    session.master = True
    return status(b"Hello, master")


def stop(session: Session, _args: list[Argument]) -> Reply:
    if not session.context.debug:
        raise ReplyError("Unauthorized")
    session.context.stop()
    return status(b"Stopping")


def data_raw(session: Session, args: list[Argument]) -> Reply:
    """`DATA RAW file offset`: a record of the data file as it stands, for replication."""
    if len(args) < 2:
        raise ReplyError("Missing arguments")
    if len(args[1]) > 256:
        raise ReplyError("Argument too long")
    if plain(args[1]).upper() != b"RAW":
        raise ReplyError("Unknown DATA subcommand")
    if len(args) < 4:
        raise ReplyError("Missing arguments")
    numbers = [plain(argument[:24]) for argument in args[2:4]]
    if not all(number.isdigit() for number in numbers):
        raise ReplyError("Invalid Request")
    record, payload = scanning.raw(session.namespace, int(numbers[0]), int(numbers[1]))
    return [
        b"*6\r\n", bulk(record.key), integer(record.previous), bulk(b"0x%08x" % record.crc), integer(record.flags),
        integer(record.timestamp), bulk(payload),
    ]  # fmt: skip


def index_dirty(session: Session, args: list[Argument]) -> Reply:
    """`INDEX DIRTY [RESET]`: the index files that were changed in place since the last reset."""
    if len(args) < 2:
        raise ReplyError("Missing arguments")
    if len(args[1]) > 256:
        raise ReplyError("Argument too long")
    if plain(args[1]).upper() != b"DIRTY":
        raise ReplyError("Unknown INDEX subcommand")
    patched = session.namespace.segments.patched
    if len(args) == 3:
        if plain(args[2]).upper() != b"RESET":
            raise ReplyError("Unknown INDEX DIRTY subcommand")
        patched.clear()
        return b"+OK\r\n"
    return array([integer(number) for number in sorted(patched)])


WALK_COMMANDS: Final[dict[bytes, Handler]] = {
    b"SCAN": scan,
    b"SCANX": scan,
    b"RSCAN": rscan,
    b"KSCAN": kscan,
    b"HISTORY": history,
    b"WAIT": wait,
    b"STOP": stop,
}
RAW_COMMANDS: Final[dict[bytes, Handler]] = {
    b"MIRROR": mirror,
    b"MASTER": master,
    b"DATA": data_raw,
    b"INDEX": index_dirty,
}
"""For admins."""
