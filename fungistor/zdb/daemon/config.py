"""What a daemon is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

DATASIZE_MIN = 512 << 10
DATASIZE_MAX = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Configuration of one daemon. Sizes in bytes."""

    data: str = "./zdb-data"
    index: str = "./zdb-index"
    listen: str = "127.0.0.1"
    port: int = 9900
    """0 is any free port; `ready` and `port_file` tell which."""
    socket: str | None = None
    """Path of a unix socket, instead of TCP unless `dualnet`."""
    dualnet: bool = False
    admin: str | None = None
    """Admin password; without one everybody is admin."""
    protect: bool = False
    """The default namespace is read-only without the admin password."""
    sync: bool = False
    """A reply to a write leaves when the write is on disk."""
    no_sync: bool = False
    """Nothing waits for the disk: for trials and benchmarks."""
    mode: str = "mixed"
    """`user` or `seq`: all namespaces have that mode; `mixed`: each has its own, user at first."""
    debug_commands: bool = False
    """STOP and KSCAN are served, as the original's test program needs them."""
    hook: str | None = None
    """A program that is told what happens to files, and may bring those that are missing."""
    admin_http: str | None = None
    """HOST:PORT where operators' numbers are served."""
    datasize: int = 256 << 20
    maxsize: int = 0
    """Quota of the default namespace in payload bytes, 0 for none."""
    port_file: str | None = None
    """Written, atomically, when requests are served: the port, or the socket's path."""
