"""The commands on namespaces, with the original's replies and texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from fungistor.errors import ConflictError, FailedError
from fungistor.zdb.daemon.commands import Handler
from fungistor.zdb.daemon.compaction import DEAD_PERCENT, Outcome, check_allowed
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.info import nsinfo_text
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.session import Later, Reply, Session, parse_number, plain, same_secret
from fungistor.zdb.daemon.wire import OK, Argument, ReplyError, array, bulk, integer
from fungistor.zdb.daemon.wire import error as error_reply

_NAME_BYTES_MAX: Final = 128
_PROPERTY_BYTES_MAX: Final = 256
_VALUE_BYTES_MAX: Final = 63
_PASSWORD_BYTES_MAX: Final = 255
_UINT64: Final = (1 << 64) - 1


def _name(args: list[Argument], words: int) -> bytes:
    """Return a namespace's name, cut at NUL as the original reads it."""
    if len(args) != words:
        raise ReplyError("Unexpected arguments")
    if any(not argument for argument in args[1:]):
        raise ReplyError("Invalid argument")
    if len(args[1]) > _NAME_BYTES_MAX:
        raise ReplyError("Namespace too long")
    return plain(args[1]).split(b"\0", 1)[0]


def nsnew(session: Session, args: list[Argument]) -> Reply:
    name = _name(args, 2)
    if name in (b"", b".", b"..", DEFAULT) or b"/" in name:
        raise ReplyError("This name is not allowed")
    store = session.context.store
    if name in store.namespaces:
        raise ReplyError("This namespace is not available")
    try:
        store.create(name)
    except OSError as error:
        raise ReplyError("Could not create namespace") from error
    session.context.greet(store.namespaces[name])
    session.context.hooks.tell("namespace-created", os.fsdecode(name))
    return OK


def nsdel(session: Session, args: list[Argument]) -> Reply:
    name = _name(args, 2)
    if name == DEFAULT:
        raise ReplyError("Cannot remove default namespace")
    namespace = session.context.store.namespaces.get(name)
    if namespace is None:
        raise ReplyError("This namespace doesn't exists")
    if namespace is session.namespace:
        raise ReplyError("Cannot remove namespace you're currently using.")
    try:
        session.context.store.remove(namespace)
    except OSError as error:
        raise ReplyError("Could not remove namespace") from error
    session.context.hooks.tell("namespace-deleted", os.fsdecode(name))
    return OK


def nslist(session: Session, _args: list[Argument]) -> Reply:
    return array([bulk(name) for name in session.context.store.namespaces])


def nsinfo(session: Session, args: list[Argument]) -> Reply:
    namespace = _existing(session, _name(args, 2))
    return bulk(nsinfo_text(namespace, admin=session.admin, master=session.master).encode("utf-8", "surrogateescape"))


def _existing(session: Session, name: bytes) -> Namespace:
    namespace = session.context.store.namespaces.get(name)
    if namespace is None:
        raise ReplyError("Namespace not found")
    return namespace


def nsset(session: Session, args: list[Argument]) -> Reply:
    reply = _set_property(session, args)
    session.context.hooks.tell("namespace-updated", os.fsdecode(_name(args, 4)))
    return reply


def _set_property(session: Session, args: list[Argument]) -> Reply:
    name = _name(args, 4)
    namespace = _existing(session, name)
    key, value = plain(args[2]), plain(args[3])
    if len(key) > _PROPERTY_BYTES_MAX or len(value) > _VALUE_BYTES_MAX:
        raise ReplyError("Argument too long")
    if key in (b"lock", b"freeze"):
        on = value[:1] == b"1"
        namespace.locked = on and key == b"lock"
        namespace.frozen = on and key == b"freeze"
        return OK
    if key == b"mode":
        return _mode(session, namespace, value)
    if key not in (b"password", b"public", b"maxsize", b"worm", b"history"):
        raise ReplyError("Invalid property")
    if name == DEFAULT:
        raise ReplyError("Cannot update default namespace")
    descriptor = namespace.descriptor
    if key == b"password":
        descriptor = replace(descriptor, password=b"" if value == b"*" else value)
    elif key == b"public":
        descriptor = replace(descriptor, public=value[:1] == b"1")
    elif key == b"worm":
        descriptor = replace(descriptor, worm=value[:1] == b"1")
    elif key == b"history":
        descriptor = replace(descriptor, history=value[:1] == b"1")
    else:
        descriptor = replace(descriptor, maxsize=parse_number(value) & _UINT64)
    try:
        session.context.store.save_descriptor(namespace, descriptor)
    except OSError as error:
        raise ReplyError("Cannot write namespace right now") from error
    return OK


def _mode(session: Session, namespace: Namespace, value: bytes) -> Reply:
    if value not in (b"user", b"seq"):
        raise ReplyError("Invalid property value (expected: user, seq)")
    if not session.context.mixed:
        raise ReplyError("This server instance is configured to use a single runtime mode")
    if not namespace.untouched:
        raise ReplyError("Cannot change mode of used namespace")
    try:
        namespace.set_mode(MODE_SEQUENTIAL if value == b"seq" else MODE_USER)
    except OSError as error:
        raise ReplyError("Cannot write namespace right now") from error
    return OK


def nsjump(session: Session, _args: list[Argument]) -> Reply:
    session.namespace.rotate()
    session.wrote = True
    return OK


def reload(session: Session, args: list[Argument]) -> Reply:
    namespace = _existing(session, _name(args, 2))
    try:
        session.context.store.reload(namespace)
    except (OSError, FailedError) as error:
        namespace.broken = f"reload failed: {error}"
        raise ReplyError("Could not reload namespace") from error
    session.context.hooks.tell("namespace-reloaded", os.fsdecode(namespace.name))
    return OK


def flush(session: Session, _args: list[Argument]) -> Reply:
    namespace = session.namespace
    if namespace.descriptor.public or not namespace.descriptor.password:
        raise ReplyError("Flushing public namespace denied")
    try:
        session.context.store.flush(namespace)
    except OSError as error:
        raise ReplyError("Could not flush namespace") from error
    session.wrote = True
    return OK


def compact(session: Session, args: list[Argument]) -> Reply:
    """`COMPACT [percent [FORCE|WIPE]]`, ours: drop old files of which that share is dead; [dropped, freed, copied]."""
    if len(args) > 3:
        raise ReplyError("Unexpected arguments")
    text = plain(args[1][:8]) if len(args) > 1 else b"%d" % DEAD_PERCENT
    if not text.isdigit() or int(text) > 100:
        raise ReplyError("Invalid argument, percent is 0 to 100")
    word = plain(args[2]).upper() if len(args) == 3 else b""
    if word not in (b"", b"FORCE", b"WIPE"):
        raise ReplyError("Invalid argument, the extra words are FORCE and WIPE")
    namespace, context = session.namespace, session.context
    try:
        check_allowed(namespace, hooked=context.hooked, force=word == b"FORCE")
    except ConflictError as error:
        raise ReplyError(f"Cannot compact, {error.message} ({error.hint})") from error

    def begin(reply: Callable[[bytes], None]) -> None:
        def done(outcome: Outcome | str) -> None:
            if isinstance(outcome, str):
                reply(error_reply(f"Cannot compact, {outcome}"))
            else:
                reply(array([integer(outcome.dropped), integer(outcome.freed), integer(outcome.copied)]))

        if not context.start_compaction(namespace, int(text), done, word == b"WIPE"):
            reply(error_reply("Cannot compact, a pass runs already"))

    return Later(begin)


def hooks(session: Session, _args: list[Argument]) -> Reply:
    """A row a run: event, arguments, pid, started, finished, exit code."""
    return array([
        array([
            bulk(run.event.encode()), array([bulk(os.fsencode(word)) for word in run.arguments]), integer(run.pid),
            integer(run.started), integer(run.finished), integer(run.code),
        ])
        for run in session.context.hooks.runs
    ])  # fmt: skip


def select(session: Session, args: list[Argument]) -> Reply:
    if len(args) < 2 or not args[1]:
        raise ReplyError("Invalid argument")
    if len(args[1]) > _NAME_BYTES_MAX:
        raise ReplyError("Namespace too long")
    namespace = _existing(session, plain(args[1]).split(b"\0", 1)[0])
    session.writable = _select_writable(session, namespace, args)
    session.namespace = namespace
    return OK


def _select_writable(session: Session, namespace: Namespace, args: list[Argument]) -> bool:
    """Return whether the session may write there.

    Raises:
        ReplyError: it may not enter at all.
    """
    password = namespace.descriptor.password
    if namespace.name == DEFAULT and session.context.protect:
        password = session.context.admin_password
    if not password:
        return True
    if len(args) == 2:
        if namespace.descriptor.public:
            return False
        raise ReplyError("Namespace protected and private")
    if len(args) > 4:
        raise ReplyError("Too many arguments")
    if len(args) == 4:
        if plain(args[2]).upper() != b"SECURE":
            raise ReplyError("Only SECURE extra method supported")
        right = session.answers(plain(args[3]), password)
    else:
        if len(args[2]) > _PASSWORD_BYTES_MAX:
            raise ReplyError("Password too long")
        right = same_secret(plain(args[2]), password)
    if not right:
        raise ReplyError("Access denied")
    return True


NAMESPACE_COMMANDS: Final[dict[bytes, Handler]] = {
    b"NSLIST": nslist,
    b"NSINFO": nsinfo,
    b"SELECT": select,
    b"FLUSH": flush,
}
ADMIN_COMMANDS: Final[dict[bytes, Handler]] = {
    b"NSNEW": nsnew,
    b"NSDEL": nsdel,
    b"NSSET": nsset,
    b"NSJUMP": nsjump,
    b"RELOAD": reload,
    b"COMPACT": compact,
    b"HOOKS": hooks,
}
