"""What a daemon is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from fungistor.zdb.daemon.outflow import UNSENT_BYTES_MAX

DATASIZE_MIN = 512 << 10
DATASIZE_MAX = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Configuration of one daemon. Sizes in bytes, times in seconds."""

    data: str = "./zdb-data"
    index: str = "./zdb-index"
    listen: str = "127.0.0.1"
    port: int = 9900
    """0 is any free port; `ready` and `port_file` tell which."""
    socket: str | None = None
    """Path of a unix socket, instead of TCP unless `dualnet`."""
    dualnet: bool = False
    tls_port: int | None = None
    """TLS is served there, beside TCP; 0 is any free port."""
    tls_only: bool = False
    """TLS instead of TCP."""
    tls_cert: str | None = None
    """PEM: the certificate, those that sign it behind it."""
    tls_key: str | None = None
    """PEM of its key; None: it is in the certificate's file."""
    tls_ca: str | None = None
    """PEM of the authorities that sign clients' certificates; given, every client must have one."""
    admin: str | None = field(default=None, repr=False)
    """Admin password; without one everybody is admin."""
    protect: bool = False
    """The default namespace is read-only without the admin password."""
    sync: bool = False
    """A reply to a write leaves when the write is on disk."""
    synctime: int = 0
    """Nothing that was acknowledged stays off the disk for longer; 0: until somebody asks for a barrier."""
    secure: bool = False
    """Files are flushed when the next ones begin."""
    no_sync: bool = False
    """Nothing waits for the disk: for trials and benchmarks."""
    mode: str = "mixed"
    """`user` or `seq`: all namespaces have that mode; `mixed`: each has its own, user at first."""
    rotate: int = 0
    """A file that was written to gives way to the next after this time; 0: when it is full."""
    debug_commands: bool = False
    """STOP and KSCAN are served, as the original's test program needs them."""
    hook: str | None = None
    """A program that is told what happens to files, and may bring those that are missing."""
    hook_timeout: int = 600
    """A run of it that takes longer is ended; 0: none is."""
    admin_http: str | None = None
    """HOST:PORT where operators' numbers are served."""
    datasize: int = 256 << 20
    maxsize: int = 0
    """Quota of the default namespace in payload bytes, 0 for none."""
    port_file: str | None = None
    """Written with the TCP port, and the TLS port on a second line, when requests are served."""
    max_connections: int = 0
    """More are refused; 0: as many as descriptors allow."""
    max_unsent: int = UNSENT_BYTES_MAX
    """Replies that wait for clients who do not read, over all connections; beyond, the slowest is dropped."""
    max_mapped: int = 64 << 20
    """How much of its data files may be mapped, where values are looked at in place; 0: nothing. What is mapped is the
    page cache's, and yet counts as memory of the process."""
    idle_timeout: int = 0
    """A connection on which nothing happens for longer is closed; 0: never."""
    greeting_timeout: int = 60
    """A connection that has never sent anything is closed after this; 0: never."""
    background: bool = False
    """The process that was started ends when requests are served, and another one serves them."""
    dump: bool = False
    """List live keys and end."""
    logfile: str | None = None
    log_json: bool | None = None
    """None: text where stderr is a terminal, JSON elsewhere."""
    verbose: bool = False
