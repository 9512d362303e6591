"""A connection to one ZDB namespace that never blocks, and a client that waits on one under a deadline.

A `Connection` is moved by its owner's poll loop: connect, greeting and request leave in one flight, and a value lands
straight in the caller's buffers. It serves one request at a time; whoever gives up on a reply closes it, so that no
connection is ever used out of step.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Self

from fungistor.errors import UnavailableError
from fungistor.zdb.address import Endpoint, Resolver
from fungistor.zdb.replies import LengthError, Replies, ReplyReader
from fungistor.zdb.resp import Buffer, ErrorReply, ProtocolError, Reply, Status, command

SEND_BUFFER_BYTES = 1 << 20
"""A 256 KiB shard leaves in one sendmsg."""

IO_VECTORS_MAX = 1024
CONNECTING = frozenset({errno.EINPROGRESS, errno.EAGAIN, errno.EALREADY})
DEFAULT_NAMESPACE = "default"


class MemberError(UnavailableError):
    """A member cannot be used now; the message says why in a few words."""

    demotes: ClassVar[bool] = True
    """Whether it says something about the member, not only about what was asked."""


class WrongLengthError(MemberError):
    """A value came that cannot be the one asked for; the connection is lost, the member may be well."""

    demotes = False


class LocalError(MemberError):
    """This machine cannot make a connection: too many open files, no address left."""

    demotes = False


class IdentityError(MemberError):
    """An address answers, but not as the member it should be."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to believe, and what to show; paths of PEM files. `authorities` "": those that this system believes."""

    authorities: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """How to enter a namespace. `pin`: a key and the value it must have there, checked before anything is trusted."""

    namespace: str = DEFAULT_NAMESPACE
    password: str = field(default="", repr=False)
    admin_password: str = field(default="", repr=False)
    pin: tuple[bytes, bytes] | None = None
    tls: Tls | None = None


class Connection:
    """One nonblocking socket, greeting included. Not thread-safe; every method returns at once."""

    def __init__(self, endpoint: Endpoint, login: Login) -> None:
        self._login = login
        self._out: deque[memoryview] = deque()
        self._held: Sequence[Buffer] = ()
        self._greeting: Replies | None
        self._reply: ReplyReader | None = None
        self.run_id = b""
        """The daemon's run, b"" when it does not tell (an original 0-db)."""
        self.heard = False
        """Whether a byte of the present request's reply has come."""
        words = _greeting(login)
        self._greeting = Replies(len(words))
        self._out.append(memoryview(b"".join(words)))
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(endpoint.family, kind)
        except OSError as error:
            raise LocalError(f"this machine cannot connect: {error.strerror or error}") from error
        self._connected = False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            if endpoint.family != socket.AF_UNIX:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex(endpoint.address)
            if code and (code not in CONNECTING or (code == errno.EAGAIN and endpoint.family == socket.AF_UNIX)):
                raise MemberError(f"cannot connect: {os.strerror(code)}")
            self._connected = code == 0
        except OSError as error:
            self._socket.close()
            raise MemberError(f"cannot connect: {error.strerror or error}") from error
        except MemberError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def greeted(self) -> bool:
        """Whether the member has let us in and is who it should be."""
        return self._greeting is None

    @property
    def connected(self) -> bool:
        """Whether something at that address has accepted the connection."""
        return self._connected

    @property
    def reusable(self) -> bool:
        """Whether it is in step: nothing left to send, no reply to come."""
        return self.greeted and not self._out and self._reply is None

    def submit(self, request: Sequence[Buffer], reply: ReplyReader, *, greet_first: bool = False) -> None:
        """Begin to send a request. The buffers must stay as they are until it is answered.

        `greet_first` holds the request back until the greeting has been answered: a value must not be sent to a
        place that may turn out to be another one. Raises: MemberError.
        """
        assert self._reply is None, "one request at a time"
        self._reply, self.heard = reply, False
        if greet_first and not self.greeted:
            self._held = request
        else:
            self._out.extend(map(memoryview, request))
        if self._connected:
            self._flush()

    def interest(self) -> int:
        """The poll events that would move this connection."""
        return select.POLLIN | (select.POLLOUT if self._out or not self._connected else 0)

    def advance(self, events: int) -> bool:
        """Do what can be done now; True when the request is answered. Raises: MemberError, and is then of no use."""
        try:
            if not self._connected:
                self._finish_connect()
            if self._out and events & select.POLLOUT:
                self._flush()
            return events & ~select.POLLOUT != 0 and self._receive()
        except OSError as error:
            raise MemberError(f"broke off: {error.strerror or error}") from error
        except LengthError as error:
            raise WrongLengthError(error.message) from error
        except ProtocolError as error:
            raise MemberError(f"talks nonsense: {error}") from error

    def close(self) -> None:
        """Idempotent. An unanswered request is abandoned with it."""
        self._out.clear()
        self._held, self._reply = (), None
        self._socket.close()

    def _finish_connect(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise MemberError(f"cannot connect: {os.strerror(code)}")
        self._connected = True

    def _flush(self) -> None:
        try:
            while self._out:
                batch = list(self._out)[:IO_VECTORS_MAX]
                self._sent(self._send(batch))
        except BlockingIOError:
            return
        except OSError as error:
            raise MemberError(f"broke off: {error.strerror or error}") from error

    def _send(self, batch: Sequence[memoryview]) -> int:
        return self._socket.sendmsg(batch, (), socket.MSG_NOSIGNAL)

    def _receive_into(self, room: Sequence[memoryview]) -> int:
        return self._socket.recvmsg_into(room)[0]

    def _sent(self, count: int) -> None:
        while self._out and count >= len(self._out[0]):
            count -= len(self._out.popleft())
        if count:
            self._out[0] = self._out[0][count:]

    def _receive(self) -> bool:
        reader = self._greeting or self._reply
        room = reader.room() if reader is not None else [memoryview(bytearray(1))]
        try:
            count = self._receive_into(room)
        except BlockingIOError:
            return False
        if not count:
            raise MemberError("closed the connection")
        if reader is None:
            raise MemberError("talks unasked")
        if self._greeting is None:
            self.heard = True
            whole = reader.took(count)
        else:
            whole = self._greeting.took(count) and self._welcomed()
        if whole:
            self._reply = None
        return whole

    def _welcomed(self) -> bool:
        """Read the greeting's replies; bytes behind them belong to the request. True when they answer it whole."""
        assert self._greeting is not None
        greeting, self._greeting = self._greeting, None
        self._check_greeting(greeting.values)
        if self._held:
            self._out.extend(map(memoryview, self._held))
            self._held = ()
        whole = False
        rest = memoryview(greeting.rest())
        while rest:
            if self._reply is None or whole:
                raise MemberError("talks unasked")
            self.heard = True
            taken = _spill(rest, self._reply.room())
            rest = rest[taken:]
            whole = self._reply.took(taken)
        self._flush()
        return whole

    def _check_greeting(self, replies: list[Reply]) -> None:
        left = deque(replies)
        if self._login.admin_password:
            _must_be_ok(left.popleft(), "admin password")
        if _selects(self._login):
            _must_be_ok(left.popleft(), f"namespace {self._login.namespace}")
        self.run_id = run_id_of(left.popleft())
        if self._login.pin is not None:
            _check_pin(left.popleft(), self._login.pin[1])


def connect(endpoint: Endpoint, login: Login) -> Connection:
    """Begin a connection, by TLS if the login says so. Raises: MemberError."""
    if login.tls is None:
        return Connection(endpoint, login)
    # It is built on this module, and only who needs it pays for loading it.
    from fungistor.zdb.tls import TlsConnection

    return TlsConnection(endpoint, login)


class Client:
    """A connection for one caller that waits: administration, probes, tests. Close it or use it in `with`."""

    def __init__(self, address: str, login: Login | None = None, *, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._connection = connect(Resolver().resolve(address), login or Login())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def run_id(self) -> bytes:
        return self._connection.run_id

    def call(self, *words: bytes | str | int, timeout_s: float | None = None) -> Reply:
        """Send one command and wait for its reply; an ErrorReply is raised. Raises: MemberError."""
        replies = Replies()
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            self._connection.submit([command(*words)], replies, greet_first=True)
            self._wait(deadline)
        except MemberError:
            self.close()
            raise
        value = replies.values[0]
        if isinstance(value, ErrorReply):
            raise MemberError(f"answered: {value.message}")
        return value

    def close(self) -> None:
        self._connection.close()

    def _wait(self, deadline: float) -> None:
        poll, whole = select.poll(), False
        while not whole:
            left = deadline - time.monotonic()
            if left <= 0:
                raise MemberError("did not answer in time")
            poll.register(self._connection, self._connection.interest())
            for _, events in poll.poll(left * 1000 + 1):
                whole = self._connection.advance(events)


def run_id_of(reply: Reply) -> bytes:
    """The run id in a WAITAOF reply, b"" from a daemon that does not know the command."""
    if isinstance(reply, ErrorReply):
        return b""
    if isinstance(reply, list):
        return next((item for item in reply if isinstance(item, bytes)), b"")
    raise MemberError("talks nonsense: WAITAOF was not answered with a list")


def _selects(login: Login) -> bool:
    return login.namespace != DEFAULT_NAMESPACE or bool(login.password)


def _greeting(login: Login) -> list[bytes]:
    """AUTH and SELECT where needed, the run id, the pinned value: one flight, answered in this order."""
    words = [command("AUTH", login.admin_password)] if login.admin_password else []
    if _selects(login):
        words.append(command("SELECT", login.namespace, *([login.password] if login.password else [])))
    words.append(command("WAITAOF", 0, 0, 0))
    if login.pin is not None:
        words.append(command("GET", login.pin[0]))
    return words


def _must_be_ok(reply: Reply, what: str) -> None:
    if isinstance(reply, ErrorReply):
        raise MemberError(f"refused {what}: {reply.message}")
    if not isinstance(reply, Status):
        raise MemberError(f"talks nonsense: {what} was not answered with a status")


def _check_pin(reply: Reply, expected: bytes) -> None:
    if isinstance(reply, ErrorReply):
        raise MemberError(f"answered: {reply.message}")
    if reply is None:
        raise IdentityError("wiped")
    if reply != expected:
        raise IdentityError("swapped")


def _spill(data: memoryview, rooms: list[memoryview]) -> int:
    """Copy as much of `data` as fits into `rooms`, in order."""
    done = 0
    for room in rooms:
        piece = data[done : done + len(room)]
        room[: len(piece)] = piece
        done += len(piece)
    return done
