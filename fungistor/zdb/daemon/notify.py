"""What systemd hands a service and wants to hear of it: sockets, readiness, signs of life (sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_FD: Final = 3
_FDS_MAX: Final = 16
_TEXT_CHARS_MAX: Final = 300


class Notifier:
    """Tells the service manager; with none, nothing happens. The variables are taken away, so that no hook has them."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog(environment) if self._address else 0.0
        """How often a sign of life is wanted at least; 0: never."""

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` says that it is done."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str, extend_s: float) -> None:
        """Say that the end has begun and may take so long."""
        self._tell("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(extend_s * 1e6)}")

    def status(self, text: str) -> None:
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ")[:_TEXT_CHARS_MAX] for line in lines).encode("utf-8", "replace")
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Whoever listens there may be gone, or slow: the daemon matters more than who watches it.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link,
        ):
            link.setblocking(False)
            link.connect(address)
            link.send(message)


def _watchdog(environment: MutableMapping[str, str]) -> float:
    usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6


def passed_sockets(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """Return the listening sockets that were passed, with their names; they are this process' own from here on."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for place in range(min(int(count), _FDS_MAX)):
        os.set_inheritable(FIRST_FD + place, False)
        passed = socket.socket(fileno=FIRST_FD + place)
        found.append((names[place] if place < len(names) else "", passed))
    return found
