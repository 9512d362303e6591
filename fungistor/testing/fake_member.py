"""A member in this process: a threaded RESP server over a dict, with faults to order.

It speaks what a pool says to a member (see the shard store contract), on a real socket, so that connects, half
replies and broken connections are those of the kernel and not of a model.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fungistor.testing.faults import WELL, FaultPlan, Lie

READ_BYTES = 1 << 16
ACCEPT_BACKLOG = 64
GREETING_COMMANDS = frozenset({"AUTH", "SELECT", "WAITAOF", "PING"})
UNSTORED = b"-Cannot write data right now\r\n"


@dataclass(slots=True)
class _Session:
    """One accepted connection."""

    stream: socket.socket
    buffer: bytearray = field(default_factory=bytearray)


class _BrokenOffError(Exception):
    """The member broke off by its fault plan."""


class FakeMember:
    """Use in `with`. `faults` may be changed at any time; `restart` gives another run id and drops connections."""

    def __init__(self, faults: FaultPlan = WELL, *, namespace: str = "default", password: str = "") -> None:
        self.values: dict[bytes, bytes] = {}
        self.faults = faults
        self.connections = 0
        self.commands: list[str] = []
        self.run_id = secrets.token_hex(20).encode()
        self.knows_waitaof = True
        self.knows_getrange = True
        self._namespace = namespace
        self._password = password
        self._served = 0
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._sessions: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def open_sessions(self) -> int:
        """Connections that are open now."""
        with self._lock:
            return len(self._sessions)

    def stop(self) -> None:
        """Close all; later connects are refused. Idempotent."""
        self._release.set()
        with self._lock:
            streams = [self._listener, *self._sessions]
            self._sessions.clear()
            threads, self._threads = self._threads, []
        for stream in streams:
            _shut(stream)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def restart(self, *, forget: int = 0) -> None:
        """Come back on the same port as another run, without the last `forget` values that were stored."""
        self.stop()
        for key in list(self.values)[len(self.values) - forget :]:
            del self.values[key]
        self._release = threading.Event()
        self._served = 0
        self.run_id = secrets.token_hex(20).encode()
        self._listener = self._listen(self._port)

    def resume(self) -> None:
        """End its faults; what hangs is answered now."""
        self.faults = WELL
        release, self._release = self._release, threading.Event()
        release.set()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=ACCEPT_BACKLOG)
        thread = threading.Thread(target=self._accept, args=(listener,), name="fake member", daemon=True)
        self._threads.append(thread)
        thread.start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            if self.faults.refuse:
                _reset(stream)
                continue
            thread = threading.Thread(target=self._serve, args=(stream,), name="fake session", daemon=True)
            with self._lock:
                self.connections += 1
                self._sessions.add(stream)
                self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the member was stopped before this thread got its turn
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _Session(stream)
        selected = not self._password and self._namespace == "default"
        try:
            for words in _commands(session):
                name = words[0].decode().upper()
                self.commands.append(name)
                if name == "SELECT":
                    selected = self._may_select(words)
                    stream.sendall(b"+OK\r\n" if selected else b"-Access denied\r\n")
                    continue
                self._stall(name)
                reply = self._reply(name, words) if selected else b"-Namespace not found\r\n"
                self._send(stream, name, reply)
        except (OSError, _BrokenOffError):
            pass
        finally:
            with self._lock:
                self._sessions.discard(stream)
            _shut(stream)

    def _may_select(self, words: list[bytes]) -> bool:
        return words[1].decode() == self._namespace and (not self._password or words[2:] == [self._password.encode()])

    def _stall(self, name: str) -> None:
        """Be silent, late or gone as planned."""
        release = self._release
        if self.faults.hang or name in self.faults.hang_on:
            release.wait()
        elif self.faults.delay_s:
            release.wait(self.faults.delay_s)
        if name not in GREETING_COMMANDS:
            self._served += 1
            if self.faults.die_after is not None and self._served > self.faults.die_after:
                with self._lock:
                    streams = [self._listener, *self._sessions]
                for stream in streams:
                    _shut(stream)
                raise _BrokenOffError

    def _send(self, stream: socket.socket, name: str, reply: bytes) -> None:
        if name in ("GET", "GETRANGE") and self.faults.half_then_close and reply.startswith(b"$") and len(reply) > 8:
            stream.sendall(reply[: len(reply) // 2])
            raise _BrokenOffError
        stream.sendall(reply)

    def _reply(self, name: str, words: list[bytes]) -> bytes:
        answers: dict[str, Callable[[list[bytes]], bytes]] = {
            "PING": lambda _: b"+PONG\r\n",
            "WAITAOF": self._waitaof,
            "SET": self._set,
            "GET": lambda words: _bulk(self._told(words[1])),
            "GETRANGE": self._getrange,
            "EXISTS": lambda words: b":%d\r\n" % (words[1] in self.values),
            "CHECK": lambda words: b":1\r\n" if words[1] in self.values else _bulk(None),
            "DEL": lambda words: b"+OK\r\n" if self.values.pop(words[1], None) is not None else b"-Key not found\r\n",
        }
        if self.faults.error and name not in GREETING_COMMANDS:
            return b"-" + self.faults.error.encode() + b"\r\n"
        answer = answers.get(name)
        return answer(words) if answer is not None else b"-Command not supported\r\n"

    def _waitaof(self, words: list[bytes]) -> bytes:
        if not self.knows_waitaof:
            return b"-Command not supported\r\n"
        return b"*3\r\n:%d\r\n:0\r\n%b" % (int(words[1]), _bulk(self.run_id))

    def _getrange(self, words: list[bytes]) -> bytes:
        if not self.knows_getrange:
            return b"-Command not supported\r\n"
        told = self._told(words[1])
        return _bulk(None if told is None else told[int(words[2]) : int(words[3]) + 1])

    def _set(self, words: list[bytes]) -> bytes:
        _, key, value = words
        if self.values.get(key) == value:
            return _bulk(None)
        if not self.faults.forget_sets:
            self.values[key] = value
        return _bulk(key)

    def _told(self, key: bytes) -> bytes | None:
        value = self.values.get(key)
        if value is None or len(key) != 20:
            return value
        match self.faults.lie:
            case Lie.FLIP:
                return bytes([value[0] ^ 1]) + value[1:]
            case Lie.TRUNCATE:
                return value[:-1]
            case Lie.SWAP:
                others = [other for held, other in self.values.items() if held != key and len(other) == len(value)]
                return others[0] if others else value[::-1]
            case None:
                return value


def _commands(session: _Session) -> Iterator[list[bytes]]:
    """Requests as they come; ends when the other side closes."""
    while True:
        count = int(_line(session)[1:])
        words = []
        for _ in range(count):
            length = int(_line(session)[1:])
            words.append(bytes(_take(session, length + 2)[:length]))
        yield words


def _line(session: _Session) -> bytes:
    while (end := session.buffer.find(b"\r\n")) < 0:
        _fill(session)
    return bytes(_take(session, end + 2)[:end])


def _take(session: _Session, count: int) -> bytearray:
    while len(session.buffer) < count:
        _fill(session)
    taken = session.buffer[:count]
    del session.buffer[:count]
    return taken


def _fill(session: _Session) -> None:
    data = session.stream.recv(READ_BYTES)
    if not data:
        raise _BrokenOffError
    session.buffer += data


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def _shut(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was not connected, or the other side was first
        stream.shutdown(socket.SHUT_RDWR)
    stream.close()


def _reset(stream: socket.socket) -> None:
    """Close with a reset, as a full or firewalled machine does."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.close()
