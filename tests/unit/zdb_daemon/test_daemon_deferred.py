"""SETs of one connection that wait to be stored with those of others come before whatever it asks next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from fungistor.zdb.daemon.barrier import Barrier
from fungistor.zdb.daemon.connection import Connection
from fungistor.zdb.daemon.hooks import Hooks
from fungistor.zdb.daemon.hub import Hub
from fungistor.zdb.daemon.namespace import Put
from fungistor.zdb.daemon.rounds import compiled
from fungistor.zdb.daemon.session import Context, ServerStats
from fungistor.zdb.daemon.store import Store
from tests.unit.zdb_daemon.harness import encode


@contextlib.contextmanager
def opened(home: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Hub]:
    """All of a daemon but its process."""
    store = Store(str(home / "data"), str(home / "index"), datasize=1 << 20, durable=False)
    context = Context(store, ServerStats(), b"0" * 40, "here", b"", False, "none", Hooks(None, "here"))
    hub = Hub(context, Barrier(store, loop, skip=True), loop, sync=False)
    try:
        yield hub
    finally:
        hub.rounds.close()
        store.close()


@pytest.mark.skipif(compiled is None, reason="there was no compiler at `make env`: all is Python")
def test_the_lane_overtakes_no_set_that_was_deferred(tmp_path: Path) -> None:
    """A SET is staged outside a round, the GET behind it is read in one before the SETs are stored: the SET's answer
    comes first, and the GET sees it."""

    async def converse(hub: Hub) -> bytes:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        connection = Connection(hub)
        with theirs:
            await hub.loop.connect_accepted_socket(lambda: connection, ours)
            theirs.sendall(encode("PING"))
            assert await hub.loop.sock_recv(theirs, 100) == b"+PONG\r\n"
            connection.puts[b"k"] = Put(b"k", b"v", 1)
            hub.defer(connection)
            theirs.sendall(encode("GET", "k"))
            assert hub.lane is not None
            if not hub.lane.serve(connection, ours.fileno()):
                connection.readable()
            told = await hub.loop.sock_recv(theirs, 100)
            connection.abort()
            await hub.empty.wait()
            return told

    loop = uvloop.new_event_loop()
    try:
        with opened(tmp_path, loop) as hub:
            assert loop.run_until_complete(converse(hub)) == b"$1\r\nk\r\n$1\r\nv\r\n"
    finally:
        loop.close()
