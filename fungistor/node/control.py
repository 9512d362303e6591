"""The running `up`'s own door: a unix socket in its home, for commands about its processes.

One JSON line in, one JSON line out. Who may open the socket is decided by the home's mode 0700 and its own 0600.
A socket's path is limited to 107 bytes and a home's is not, so both ends go through a descriptor of `run/`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator

from fungistor.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    FailedError,
    FungiStorError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from fungistor.node.home import NOT_RUNNING_HINT, Home
from fungistor.objects.results import error_json

SOCKET_NAME = "control.sock"
LINE_BYTES_MAX = 4 << 20
"""Of a request or an answer: the lines of POOL_MEMBERS_MAX members and room."""

REQUEST_WAIT_S = 5.0
"""A client that has connected says what it wants within this."""

CONVERSATIONS_MAX = 16

ANSWER_WAIT_S = 90.0
"""How long a command waits for what `up` does for it: a member's slow start, twenty times over, two at a time."""

Message = dict[str, object]
Handler = Callable[[Message], Message]

log = logging.getLogger(__name__)

_FAMILIES: dict[str, type[FungiStorError]] = {
    family.kind: family
    for family in (FailedError, InvalidError, UnavailableError, NotFoundError, DeniedError, ConflictError, CorruptError)
}


class ControlServer:
    """Answers requests by `handler`, each in a thread of its own. An error of one ends only that one."""

    def __init__(self, home: Home, handler: Handler) -> None:
        """Open the socket, in place of one that a killed `up` left. The caller holds the home's lock.

        Raises: OSError.
        """
        self._home = home
        self._handler = handler
        self._slots = threading.BoundedSemaphore(CONVERSATIONS_MAX)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(home.path("run", SOCKET_NAME))
        with _short_path(home) as path:
            before = os.umask(0o177)
            try:
                self._listener.bind(path)
            finally:
                os.umask(before)
        self._listener.listen(CONVERSATIONS_MAX)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse new requests. Those under way end with the process."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._home.path("run", SOCKET_NAME))
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(REQUEST_WAIT_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                connection.close()  # the client sees it as "not running", and asks again
                continue
            threading.Thread(target=self._converse, args=(connection,), name="control request", daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(REQUEST_WAIT_S)
                answer = self._answer(_read_line(connection))
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            log.info("a control client left: %s", error)
        finally:
            self._slots.release()

    def _answer(self, line: bytes) -> Message:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise InvalidError("a control request is one JSON object")
            return self._handler(request)
        except FungiStorError as error:
            return {"error": error_json(error)}
        except ValueError as error:
            return {"error": error_json(InvalidError(f"a control request is no JSON: {error}"))}
        except Exception as error:
            log.exception("a control request failed")
            return {"error": error_json(FailedError(str(error) or type(error).__name__))}


def ask(home: Home, request: Message, timeout_s: float = ANSWER_WAIT_S) -> Message:
    """Have the running `up` of a home do something, and give its answer.

    Raises: UnavailableError where no network runs; else the error that the request ended with over there.
    """
    home.require_running()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            with _short_path(home) as path:
                connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(connection)
    except TimeoutError as error:
        raise UnavailableError(f"the running `fungistor up` did not answer within {timeout_s:g} s") from error
    except OSError as error:
        raise UnavailableError(
            f"network not running: `fungistor up` on {home.root} is starting or stopping ({error.strerror})",
            hint=f"try again in a moment, or {NOT_RUNNING_HINT}",
        ) from error
    if not line:
        raise UnavailableError("the running `fungistor up` ended before it answered", hint=NOT_RUNNING_HINT)
    answer: Message = json.loads(line)
    failure = answer.get("error")
    if isinstance(failure, dict):
        family = _FAMILIES.get(str(failure.get("kind")), FailedError)
        raise family(str(failure.get("message")), hint=str(failure.get("hint", "")))
    return answer


def _read_line(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < LINE_BYTES_MAX:
        part = connection.recv(64 << 10)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            break
    return b"".join(parts)


@contextlib.contextmanager
def _short_path(home: Home) -> Iterator[str]:
    folder = os.open(home.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
