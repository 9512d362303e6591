"""Members that a new network draws for itself: ids, passwords, and ports where nothing else will come to lie."""

from __future__ import annotations

import random
import secrets
import socket

from fungistor.errors import FailedError
from fungistor.ids import MemberId
from fungistor.node.pool_file import PoolMember

PORT_MIN = 20_000
PORT_TRIES = 200
EMBEDDED_ZONE = ("local", "here", "this-host", "this-disk")
"""Embedded members survive the loss of 4 members and of 0 disks: the zone says so to whoever plans."""


def new_members(count: int, after: int = 0) -> list[PoolMember]:
    """Draw `count` embedded members: ids m01.., those after number `after`, free ports, random passwords."""
    digits = max(2, len(str(after + count)))
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return [
        PoolMember(
            id=MemberId(f"m{place:0{digits}}"),
            address=f"127.0.0.1:{port}",
            namespace="fungistor",
            password=secrets.token_hex(24),
            zone=EMBEDDED_ZONE,
            durable=True,
        )
        for place, port in enumerate(sorted(ports), after + 1)
    ]


def free_port() -> int:
    """Draw a port that is free now and lies below those that the system gives to outgoing connections.

    Among those, a client's own connection could take a stopped member's port, or even connect to itself there and be
    its own answer.

    Raises: FailedError.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low = int(file.read().split()[0])
    end = low if low > PORT_MIN + PORT_TRIES else 65_536
    for _ in range(PORT_TRIES):
        port = random.randrange(PORT_MIN, end)  # noqa: S311  # no secret: only spread out
        if port_is_free(port):
            return port
    raise FailedError(f"no free port from {PORT_MIN} to {end - 1} was found in {PORT_TRIES} tries")


def port_is_free(port: int) -> bool:
    """Tell whether a member could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
