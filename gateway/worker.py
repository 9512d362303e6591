"""One worker process: serves content on an inherited listening socket until it is told to stop."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from gateway.app import NotReady, create_app
from gateway.backend import Content
from gateway.delegated import Announcement
from gateway.hosts import HostTable
from gateway.names import Names
from gateway.operations.desk import Desk
from gateway.server import GatewayServer
from gateway.settings import Settings

_PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Ask Linux to kill this process when its parent ends, and leave at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


def ignore_interrupt() -> None:
    """Leave Ctrl-C to the supervisor, which gets it too and stops its workers in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def serve(
    content: Content,
    listener: socket.socket,
    *,
    ready_fd: int | None = None,
    settings: Settings | None = None,
    not_ready: NotReady = lambda: None,
    names: Names | None = None,
    hosts: HostTable | None = None,
    desk: Desk | None = None,
    announcement: Announcement | None = None,
    hosts_again: Callable[[], HostTable] | None = None,
) -> None:
    """Serve until SIGTERM, then drain. Writes a line to `ready_fd` and closes it when requests are served.

    Must be called in the main thread. `listener` may be shared with other workers; only this one's copy is closed.
    """
    bounds = settings or Settings()
    logging.getLogger("gateway").setLevel(logging.INFO)
    # Set before the app answers: a supervisor takes readiness from here and liveness from /-/health.
    app = create_app(
        content, bounds, not_ready=not_ready, names=names, hosts=hosts, desk=desk, announcement=announcement
    )
    if hosts_again is not None:
        app.desk.on_reload = lambda: app.take_hosts(hosts_again())
    server = GatewayServer(
        app,
        bounds,
        on_started=lambda: _announce(ready_fd),
    )
    server.run(sockets=[listener])


def _announce(ready_fd: int | None) -> None:
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
