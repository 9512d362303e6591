"""The commands on keys and on the connection, with the original's replies and texts.

The order of the checks in each is the original's, because clients match on the text of the first that fails.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from fungistor.coding.proof import PROOF_VERSION, check_question
from fungistor.coding.proof import prove as make_proof
from fungistor.errors import InvalidError
from fungistor.zdb.daemon.info import info_text
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.scanning import cursor_of
from fungistor.zdb.daemon.session import (
    BarrierWanted,
    Reply,
    Session,
    key_of,
    parse_timestamp,
    plain,
    same_secret,
)
from fungistor.zdb.daemon.values import DamagedError
from fungistor.zdb.daemon.wire import (
    NIL,
    OK,
    Argument,
    ReplyError,
    array,
    bulk,
    error,
    integer,
    status,
)

Handler = Callable[[Session, list[Argument]], Reply]

INTERNAL: Final = b"-Internal Error\r\n"
_PIECES_ABOVE_BYTES: Final = 16 << 10
_PASSWORD_BYTES_MAX: Final = 128
_INT64: Final = (1 << 63) - 1


def _arity(args: list[Argument], count: int) -> None:
    if len(args) != count:
        raise ReplyError("Unexpected arguments")


def _lookup(session: Session, args: list[Argument], words: int = 2) -> tuple[Namespace, bytes, tuple[int, ...] | None]:
    """Check a read of one key as the original does and return (namespace, key, entry)."""
    _arity(args, words)
    key = key_of(args[1])
    namespace = session.readable()
    return namespace, key, namespace.entry(key)


# connection


def ping(_session: Session, _args: list[Argument]) -> Reply:
    return b"+PONG\r\n"


def time_now(_session: Session, _args: list[Argument]) -> Reply:
    now_us = time.time_ns() // 1000
    return array([bulk(b"%d" % (now_us // 1_000_000)), bulk(b"%d" % (now_us % 1_000_000))])


def auth(session: Session, args: list[Argument]) -> Reply:
    if not 2 <= len(args) <= 3:
        raise ReplyError("Unexpected arguments")
    if len(args) == 3:
        return _auth_secure(session, plain(args[1]), plain(args[2]))
    password = session.context.admin_password
    if not password:
        raise ReplyError("Authentication disabled")
    if not args[1]:
        raise ReplyError("Invalid argument")
    if len(args[1]) > _PASSWORD_BYTES_MAX:
        raise ReplyError("Password too long")
    if not same_secret(plain(args[1]), password):
        raise ReplyError("Access denied")
    session.admin = True
    return OK


def _auth_secure(session: Session, word: bytes, answer: bytes) -> Reply:
    if word.upper() != b"SECURE":
        raise ReplyError("Only SECURE extra method supported")
    if answer.upper() == b"CHALLENGE":
        return status(session.challenge())
    password = session.context.admin_password
    if not password:
        raise ReplyError("Authentication disabled")
    if not session.answers(answer, password):
        raise ReplyError("Access denied")
    session.admin = True
    return OK


def info(session: Session, _args: list[Argument]) -> Reply:
    return bulk(info_text(session.context).encode())


def dbsize(session: Session, _args: list[Argument]) -> Reply:
    return integer(len(session.namespace.live.keys))


def waitaof(session: Session, args: list[Argument]) -> Reply:
    """`WAITAOF numlocal numreplicas timeout`, Redis' word; the third item of the reply is ours, the run id."""
    _arity(args, 4)
    numbers = [plain(argument) for argument in args[1:]]
    if not all(number.isdigit() and len(number) <= 12 for number in numbers):
        raise ReplyError("Invalid argument")
    local, _, timeout_ms = (int(number) for number in numbers)
    if local > 1:
        raise ReplyError("Invalid argument, numlocal is 0 or 1")
    if local == 0:
        return barrier_reply(session, 0)
    return BarrierWanted(timeout_ms / 1000)


def barrier_reply(session: Session, flushed: int) -> bytes:
    """Return what WAITAOF answers: flushes done here, none on replicas, and which run of the daemon did it."""
    return array([integer(flushed), integer(0), bulk(session.context.run_id)])


# writing


def check_set(session: Session, args: list[Argument]) -> Put:
    """Check a SET up to where the namespace decides and return what to store.

    Raises:
        ReplyError: it is refused.
    """
    if len(args) == 4 and not session.admin:
        session.context.stats.unauthorized += 1
        raise ReplyError("Permission denied")
    if not 3 <= len(args) <= 4:
        raise ReplyError("Unexpected arguments")
    if len(args[1]) > 255:
        raise ReplyError("Key too large")
    session.writing()
    if not args[1] and session.namespace.slots is None:
        raise ReplyError("Invalid argument, key needed")
    timestamp = parse_timestamp(args[3]) if len(args) == 4 else int(time.time()) & 0xFFFFFFFF
    return Put(plain(args[1]), args[2], timestamp)


def put_answers(namespace: Namespace, puts: list[Put]) -> list[bytes | ReplyError | None]:
    """Store values under distinct keys; answer each with its key, None where it was there already, or the refusal.

    Also where the value was there already it counts as written: another connection may have stored it a moment ago.
    """
    if len(puts) > 1:
        return namespace.put_many(puts)
    try:
        return [namespace.put(puts[0])]
    except ReplyError as refusal:
        return [refusal]


def _set_answer(session: Session, put: Put) -> bytes:
    try:
        answer = session.namespace.put(put)
    except ReplyError as refusal:
        return error(refusal.text)
    session.wrote = True
    return NIL if answer is None else bulk(answer)


def set_(session: Session, args: list[Argument]) -> Reply:
    return _set_answer(session, check_set(session, args))


def delete(session: Session, args: list[Argument]) -> Reply:
    if len(args) == 3 and not session.admin:
        session.context.stats.unauthorized += 1
        raise ReplyError("Permission denied")
    if not 2 <= len(args) <= 3:
        raise ReplyError("Unexpected arguments")
    key = key_of(args[1])
    namespace = session.writing()
    entry = namespace.entry(key)
    if entry is None:
        raise ReplyError("Key not found")
    if namespace.descriptor.worm:
        raise ReplyError("Cannot delete a key when namespace is in worm mode")
    timestamp = parse_timestamp(args[2]) if len(args) == 3 else int(time.time()) & 0xFFFFFFFF
    namespace.delete(key, entry, timestamp)
    session.wrote = True
    return OK


# reading


def get(session: Session, args: list[Argument]) -> Reply:
    namespace, key, entry = _lookup(session, args)
    if entry is None:
        return NIL
    try:
        return _value(namespace.read(key, entry))
    except DamagedError:
        return INTERNAL


def _value(value: bytes) -> Reply:
    if len(value) <= _PIECES_ABOVE_BYTES:
        return bulk(value)
    return [b"$%d\r\n" % len(value), value, b"\r\n"]


def mget(session: Session, args: list[Argument]) -> Reply:
    if len(args) < 2:
        raise ReplyError("Invalid arguments")
    if any(len(argument) > 255 for argument in args[1:]):
        raise ReplyError("Invalid key")
    namespace = session.readable()
    found = [(plain(argument), namespace.entry(plain(argument))) for argument in args[1:]]
    if namespace.asked is not None:
        # Once the reply has begun no hook can be waited for.
        for _, entry in found:
            if entry is not None:
                with contextlib.suppress(OSError):
                    namespace.require(entry[0])
    return _values(namespace, found)


def _values(namespace: Namespace, found: list[tuple[bytes, tuple[int, ...] | None]]) -> Iterator[bytes]:
    """Make the reply value by value, so that a thousand long ones never lie in memory together."""
    yield b"*%d\r\n" % len(found)
    for key, entry in found:
        if entry is None:
            yield NIL
            continue
        try:
            value = namespace.read(key, entry)
        except DamagedError:
            yield _moved(namespace, key, entry)
            continue
        reply = _value(value)
        if isinstance(reply, bytes):
            yield reply
        elif isinstance(reply, list):
            yield from reply


def _moved(namespace: Namespace, key: bytes, entry: tuple[int, ...]) -> bytes:
    """Answer for a value that was copied forward, or replaced, while a long reply was sent."""
    now = namespace.entry(key)
    if now is None:
        return NIL
    if now == entry:
        return INTERNAL
    try:
        return bulk(namespace.read(key, now))
    except DamagedError:
        return INTERNAL


def getrange(session: Session, args: list[Argument]) -> Reply:
    """`GETRANGE key start end`, Redis' word: both ends inclusive, negative ones from the end; only that is read."""
    namespace, key, entry = _lookup(session, args, 4)
    first, last = _signed(args[2]), _signed(args[3])
    if entry is None:
        return NIL
    length = entry[2]
    first = max(first + length, 0) if first < 0 else first
    last = last + length if last < 0 else min(last, length - 1)
    if first > last or first >= length:
        return bulk(b"")
    try:
        return _value(namespace.read_range(key, entry, first, last - first + 1))
    except DamagedError:
        return INTERNAL


def prove(session: Session, args: list[Argument]) -> Reply:
    """`PROVE key nonce count`, ours: leaves of a shard, chosen by the nonce; see docs/formats/proof.md."""
    _arity(args, 4)
    count = plain(args[3][:8])
    if not count.isdigit():
        raise ReplyError("Invalid argument, count is a number")
    nonce = plain(args[2])
    try:
        check_question(nonce, int(count))
        namespace, key, entry = _lookup(session, args, 4)
        if entry is None:
            return NIL
        proof = make_proof(namespace.read(key, entry), nonce, int(count))
    except InvalidError as refused:
        raise ReplyError(f"Invalid argument, {refused.message}") from refused
    except DamagedError:
        return INTERNAL
    head = b"*%d\r\n" % (4 + len(proof.leaves))
    items = [integer(PROOF_VERSION), integer(proof.payload_bytes), bulk(proof.tag), bulk(proof.others)]
    return [head, *items, *map(bulk, proof.leaves)]


def _signed(argument: Argument) -> int:
    text = plain(argument[:24])
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or abs(int(text)) > _INT64:
        raise ReplyError("Invalid argument")
    return int(text)


def exists(session: Session, args: list[Argument]) -> Reply:
    return integer(int(_lookup(session, args)[2] is not None))


def check(session: Session, args: list[Argument]) -> Reply:
    namespace, key, entry = _lookup(session, args)
    if entry is None:
        return NIL
    return integer(namespace.check(key, entry))


def length(session: Session, args: list[Argument]) -> Reply:
    entry = _lookup(session, args)[2]
    return NIL if entry is None else integer(entry[2])


def keytime(session: Session, args: list[Argument]) -> Reply:
    entry = _lookup(session, args)[2]
    return NIL if entry is None else integer(entry[4])


def keycur(session: Session, args: list[Argument]) -> Reply:
    namespace, key, entry = _lookup(session, args)
    if entry is None:
        raise ReplyError("Key not found")
    return bulk(cursor_of(namespace, key, entry))


KEY_COMMANDS: Final[dict[bytes, Handler]] = {
    b"PING": ping,
    b"TIME": time_now,
    b"AUTH": auth,
    b"INFO": info,
    b"DBSIZE": dbsize,
    b"WAITAOF": waitaof,
    b"SET": set_,
    b"SETX": set_,
    b"DEL": delete,
    b"GET": get,
    b"MGET": mget,
    b"GETRANGE": getrange,
    b"PROVE": prove,
    b"EXISTS": exists,
    b"CHECK": check,
    b"LENGTH": length,
    b"KEYTIME": keytime,
    b"KEYCUR": keycur,
}
