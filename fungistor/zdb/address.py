"""Where a member listens: `HOST:PORT`, `[IPV6]:PORT`, or the absolute path of a unix socket."""

from __future__ import annotations

import queue
import socket
import threading
import time
from dataclasses import dataclass, field

from fungistor.errors import InvalidError, UnavailableError

RESOLVE_S = 1.0
"""getaddrinfo knows no deadline, so it runs in a thread that is left behind after this."""

RESOLVED_FOR_S = 60.0
NUMERIC_PORT_MAX = 65535

SocketAddress = str | tuple[str, int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket family with an address ready for connect()."""

    family: socket.AddressFamily
    address: SocketAddress
    host: str = field(default="", compare=False)
    """As it was named: whom a certificate must be for."""


def parse_address(text: str) -> Endpoint | tuple[str, int]:
    """An endpoint, or (host, port) where the host is a name to resolve. Raises: InvalidError."""
    if text.startswith("/"):
        return Endpoint(socket.AF_UNIX, text)
    host, colon, port_text = text.rpartition(":")
    if not colon or not host or not port_text.isascii() or not port_text.isdigit():
        raise InvalidError(f"member address {text!r} is neither HOST:PORT nor the absolute path of a socket")
    port = int(port_text)
    if not 0 < port <= NUMERIC_PORT_MAX:
        raise InvalidError(f"member address {text!r} has port {port}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return Endpoint(family, (host, port), host)
    return host, port


class Resolver:
    """Names to endpoints, each look-up under a deadline and remembered, failures too. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Endpoint | str]] = {}

    def resolve(self, text: str) -> Endpoint:
        """Where `text` is now. Raises: InvalidError, or UnavailableError when the name cannot be resolved in time."""
        parsed = parse_address(text)
        if isinstance(parsed, Endpoint):
            return parsed
        known = self._known.get(text)
        if known is None or time.monotonic() - known[0] > RESOLVED_FOR_S:
            known = time.monotonic(), _look_up(*parsed)
            self._known[text] = known
        if isinstance(known[1], str):
            raise UnavailableError(known[1])
        return known[1]


def _look_up(host: str, port: int) -> Endpoint | str:
    answers: queue.SimpleQueue[Endpoint | str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(f"name {host} cannot be resolved: {error.strerror or error}")
            return
        family, _, _, _, address = found[0]
        answers.put(Endpoint(family, (str(address[0]), port), host))

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    try:
        return answers.get(timeout=RESOLVE_S)
    except queue.Empty:
        return f"name {host} was not resolved within {RESOLVE_S:.0f} s"
