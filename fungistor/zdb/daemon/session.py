"""What a connection is to the daemon: its namespace, its rights, and what commands may ask of the whole."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from fungistor.zdb.daemon.compaction import Outcome
from fungistor.zdb.daemon.hooks import Hooks
from fungistor.zdb.daemon.namespace import Namespace
from fungistor.zdb.daemon.properties import DEFAULT
from fungistor.zdb.daemon.store import Store
from fungistor.zdb.daemon.wire import Argument, ReplyError

_HASH_CHARS: Final = 40


@dataclass(slots=True)
class ServerStats:
    """Counters since start."""

    clients: int = 0
    commands: int = 0
    failed: int = 0
    unauthorized: int = 0
    refused: int = 0
    """Connections beyond the limit."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    write_failed_at: float = 0.0
    """When the disk refused something last, unix seconds, as precise as the daemon looks after itself."""
    operations: dict[str, int] = field(default_factory=dict)

    def count(self, name: bytes, times: int = 1) -> None:
        """Count commands by their names."""
        text = name.decode()
        self.operations[text] = self.operations.get(text, 0) + times


@dataclass(slots=True)
class Context:
    """The daemon as its commands see it."""

    store: Store
    stats: ServerStats
    run_id: bytes
    instance: str
    admin_password: bytes
    protect: bool
    durability: str
    hooks: Hooks
    """Told of files; may keep them elsewhere."""
    debug: bool = False
    """Whether STOP and KSCAN are served."""
    mixed: bool = True
    """Whether each namespace has a mode of its own."""
    start_compaction: Callable[[Namespace, int, Callable[[Outcome | str], None], bool], bool] = lambda *_: False
    """Begins a pass over a namespace unless one runs there; the flag: what is dead and stays is wiped."""
    stop: Callable[[], None] = lambda: None
    """Ends the daemon as SIGTERM does."""
    flush_closed: Callable[[], None] | None = None
    """Makes files durable that the next ones have followed, where that is wanted at once."""
    started: float = field(default_factory=time.time)

    def greet(self, namespace: Namespace) -> None:
        """Have the hook told of a namespace's rotations, and asked for its missing files."""
        if self.hooked:
            namespace.asked = set()
        if self.hooked or self.flush_closed is not None:
            namespace.rotated = self._rotated

    def _rotated(self, namespace: Namespace, closed: int) -> None:
        if self.flush_closed is not None:
            self.flush_closed()
        if self.hooked:
            self._tell_rotation(namespace, closed)

    def _tell_rotation(self, namespace: Namespace, closed: int) -> None:
        segments = namespace.segments
        index, data = segments.index_path, segments.data_path
        told = set(segments.patched)

        def exited(code: int) -> None:
            if code == 0:
                segments.patched -= told

        self.hooks.tell(
            "jump-index", f"{index}/i{closed}", f"{index}/i{closed + 1}", dirty_ids(namespace), exited=exited
        )
        self.hooks.tell("jump-data", f"{data}/d{closed}", f"{data}/d{closed + 1}")

    @property
    def hooked(self) -> bool:
        """Whether there is a hook at all."""
        return self.hooks.program is not None


@dataclass(frozen=True, slots=True)
class BarrierWanted:
    """A reply that waits until all acknowledged so far is durable, for at most `timeout_s` (0: without end)."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class WaitWanted:
    """A reply that comes when another client of the namespace executes `command` (`*`: any), or after `timeout_s`."""

    command: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Later:
    """A reply that is there when `begin`'s argument is called with it; the connection stands still until then."""

    begin: Callable[[Callable[[bytes], None]], None]


Reply = bytes | list[bytes] | Iterator[bytes] | BarrierWanted | WaitWanted | Later
"""Whole, in pieces, made while it is sent, or later."""


class Session:
    """One connection's state."""

    __slots__ = ("admin", "context", "master", "mirror", "namespace", "nonce", "writable", "wrote")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.namespace: Namespace = context.store.namespaces[DEFAULT]
        self.admin = not context.admin_password
        self.writable = not context.protect
        self.master = False
        """Whether the last word of each request is an owner id, not meant for the command."""
        self.mirror = False
        """Whether it is sent what all other clients execute."""
        self.nonce: bytes | None = None
        self.wrote = False
        """Whether something was stored since the last flush that this connection waited for."""

    def challenge(self) -> bytes:
        """Return a new nonce for a SECURE answer; it replaces the one before."""
        self.nonce = secrets.token_hex(8).encode()
        return self.nonce

    @property
    def owns_namespace(self) -> bool:
        """Whether it may write in a namespace that only a password opens: its space is its own to get back."""
        descriptor = self.namespace.descriptor
        return self.writable and bool(descriptor.password) and not descriptor.public

    def answers(self, given: bytes, password: bytes) -> bool:
        """Whether a SECURE answer is right; the nonce is used up by it, so that none is accepted twice.

        Raises:
            ReplyError: there is nothing to answer, or the answer has no form.
        """
        if self.nonce is None:
            raise ReplyError("No CHALLENGE requested, secure authentication not available")
        if len(given) != _HASH_CHARS:
            raise ReplyError("Invalid hash length")
        # SHA-1 is what the original's clients compute.
        expected = hashlib.sha1(self.nonce + b":" + password).hexdigest().encode()  # noqa: S324
        self.nonce = None
        return hmac.compare_digest(given, expected)

    def readable(self) -> Namespace:
        """Return the namespace for reading.

        Raises:
            ReplyError: it is frozen.
        """
        if self.namespace.frozen:
            raise ReplyError("Namespace is temporarily frozen (read-write disabled)")
        return self.namespace

    def writing(self) -> Namespace:
        """Return the namespace for writing.

        Raises:
            ReplyError: the session may only read, or the namespace is frozen or locked.
        """
        if not self.writable:
            raise ReplyError("Namespace is in read-only mode")
        namespace = self.readable()
        if namespace.locked:
            raise ReplyError("Namespace is temporarily locked (read-only)")
        return namespace


def dirty_ids(namespace: Namespace) -> str:
    """Return the index files that were changed in place, as hooks are told."""
    return " ".join(str(number) for number in sorted(namespace.segments.patched))


def plain(argument: Argument) -> bytes:
    """Return an argument as bytes of its own."""
    return argument if isinstance(argument, bytes) else bytes(argument)


def key_of(argument: Argument) -> bytes:
    """Return a key to look up.

    Raises:
        ReplyError: it is empty or too long.
    """
    if not argument:
        raise ReplyError("Invalid argument")
    if len(argument) > 255:
        raise ReplyError("Invalid key")
    return plain(argument)


def same_secret(given: bytes, expected: bytes) -> bool:
    """Compare without telling by time how much of it is right."""
    return hmac.compare_digest(given, expected)


def parse_number(text: Argument) -> int:
    """Return a number as C's atoll reads it: blanks and a sign before, anything behind, 64 bits."""
    digits = plain(text[:64]).lstrip(b" \t\n\v\f\r")
    sign = -1 if digits[:1] == b"-" else 1
    if digits[:1] in (b"-", b"+"):
        digits = digits[1:]
    end = 0
    while end < len(digits) and digits[end : end + 1].isdigit():
        end += 1
    number = sign * int(digits[:end] or b"0")
    return max(min(number, (1 << 63) - 1), -(1 << 63))


def parse_timestamp(text: Argument) -> int:
    """Return a timestamp, cut to 32 bits."""
    return parse_number(text) & 0xFFFFFFFF
