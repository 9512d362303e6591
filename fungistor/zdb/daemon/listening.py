"""Where a daemon listens: TCP, TLS, a unix socket, or what the service manager passed; and whom it turns away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
from typing import Final, cast

from fungistor.errors import FailedError
from fungistor.zdb.daemon.config import DaemonConfig
from fungistor.zdb.daemon.connection import Connection
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.log import WARNING, say
from fungistor.zdb.daemon.tls import HANDSHAKE_S, SHUTDOWN_S, Credentials, load_credentials
from fungistor.zdb.daemon.wire import error as error_reply

CONNECTIONS_MAX: Final = 10_000
"""Unless told otherwise, and as far as descriptors allow: each takes some 3 KiB, with TLS 300."""
_DESCRIPTORS_KEPT: Final = 384
"""For files, hooks and the daemon itself; half of them all where there are few."""
_BACKLOG: Final = 512
_TLS_NAME: Final = "tls"
"""A passed socket of this name (FileDescriptorName=) serves TLS."""


class Refusal(asyncio.Protocol):
    """Says that there is no room, and closes."""

    def __init__(self, hub: Hub, limit: int) -> None:
        hub.context.stats.refused += 1
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.WriteTransport", transport)
        stream.write(error_reply(f"Too many connections, at most {self._limit} are served at a time"))
        stream.close()


class Door:
    """Makes what serves a new connection."""

    def __init__(self, hub: Hub, limit: int) -> None:
        self._hub = hub
        descriptors = raise_descriptor_limit()
        self.limit = min(limit or CONNECTIONS_MAX, max(descriptors - _DESCRIPTORS_KEPT, descriptors // 2))
        """How many connections are served at a time."""

    def __call__(self) -> asyncio.BaseProtocol:
        hub, limit = self._hub, self.limit
        if len(hub.connections) < limit:
            return Connection(hub)
        say(WARNING, "connection.refused", "too many connections", limit=limit)
        return Refusal(hub, limit)


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may, and return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft != resource.RLIM_INFINITY and soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return hard if soft == resource.RLIM_INFINITY else soft


class Listeners:
    """The daemon's open doors."""

    def __init__(self, config: DaemonConfig, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._door = door
        self._loop = loop
        self._servers: list[asyncio.AbstractServer] = []
        self._tls_servers: list[asyncio.AbstractServer] = []
        self._tls_sockets: list[socket.socket] = []
        self.credentials: Credentials | None = None
        self.tcp = ""
        self.tls = ""
        self.unix = ""
        """Addresses, empty where it does not listen."""

    @property
    def address(self) -> str:
        """The one to tell: the unix socket, else TCP, else TLS."""
        return self.unix or self.tcp or self.tls

    async def open(self, passed: list[tuple[str, socket.socket]]) -> None:
        """Listen on the sockets that were passed, or else where the configuration says.

        Raises:
            FailedError: an address is taken or none of this machine, or TLS has no certificate that serves.
        """
        config = self._config
        if config.tls_cert is not None:
            self.credentials = load_credentials(config)
        try:
            if passed:
                for name, one in passed:
                    await self._serve(one, tls=name == _TLS_NAME)
                return
            if not config.tls_only and (config.socket is None or config.dualnet):
                await self._serve(_bound(config.listen, config.port), tls=False)
            if config.tls_port is not None:
                await self._serve(_bound(config.listen, config.tls_port), tls=True)
            if config.socket is not None:
                await self._serve(_bound_unix(config.socket), tls=False)
        except FailedError:
            self.close()
            raise

    async def renew_tls(self) -> None:
        """Read the TLS files again and use them for who comes from now on; those who are there stay.

        Raises:
            FailedError: they do not serve; the old ones go on.
        """
        if self.credentials is None:
            return
        self.credentials = load_credentials(self._config)
        old, self._tls_servers = self._tls_servers, []
        for one in self._tls_sockets:
            # The listening socket itself stays, so that nobody is turned away meanwhile.
            self._tls_servers.append(await self._tls_server(one))
        for server in old:
            server.close()

    def close(self) -> None:
        """Take no more connections."""
        for server in (*self._servers, *self._tls_servers):
            server.close()
        for one in self._tls_sockets:
            one.close()
        self._servers, self._tls_servers, self._tls_sockets = [], [], []

    def remove_socket_file(self) -> None:
        """Leave no file behind that nobody listens at."""
        if self._config.socket is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._config.socket)

    async def _serve(self, one: socket.socket, *, tls: bool) -> None:
        one.setblocking(False)
        name = one.getsockname()
        if one.family == socket.AF_UNIX:
            self._servers.append(await self._loop.create_unix_server(self._door, sock=one, backlog=_BACKLOG))
            self.unix = os.fsdecode(name)
            return
        host, port = name[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if tls:
            if self.credentials is None:
                one.close()
                raise FailedError("a socket for TLS was passed, but no certificate", hint="--tls-port and --tls-cert")
            self._tls_sockets.append(one)
            self._tls_servers.append(await self._tls_server(one))
            self.tls = address
        else:
            self._servers.append(await self._loop.create_server(self._door, sock=one, backlog=_BACKLOG))
            self.tcp = address

    async def _tls_server(self, one: socket.socket) -> asyncio.AbstractServer:
        assert self.credentials is not None, "callers look first"
        return await self._loop.create_server(
            self._door, sock=one.dup(), backlog=_BACKLOG, ssl=self.credentials.context,
            ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=SHUTDOWN_S,
        )  # fmt: skip


def _bound(host: str, port: int) -> socket.socket:
    """Return a TCP socket bound to an address.

    A socket of our own: given a host, the loop would start resolver threads, 1.4 MiB a daemon.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _cannot(f"{host}:{port}", error) from error
    return bound


def _bound_unix(path: str) -> socket.socket:
    """Return a unix socket bound to a path, where nothing but an old socket may be."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FailedError(f"{path} is there and no socket", hint="choose another path for --socket")
            os.unlink(path)
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise _cannot(path, error) from error
    except FailedError:
        bound.close()
        raise
    return bound


def _cannot(where: str, error: OSError) -> FailedError:
    return FailedError(
        f"cannot listen on {where}: {error.strerror or error}", hint="choose another address, or port 0 for any"
    )
