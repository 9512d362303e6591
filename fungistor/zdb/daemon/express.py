"""The plain GETs and small SETs that a read begins with, in a third of the steps that any command takes.

The compiled lane does the same for a whole round. This is what is there without a compiler, and under TLS.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fungistor.zdb.daemon.commands import INTERNAL
from fungistor.zdb.daemon.keytable import Entry
from fungistor.zdb.daemon.namespace import Namespace, Put
from fungistor.zdb.daemon.values import DamagedError, MissingFileError
from fungistor.zdb.daemon.wire import NIL, whole_get, whole_set

if TYPE_CHECKING:
    from fungistor.zdb.daemon.connection import Connection
    from fungistor.zdb.daemon.hub import Hub

BATCH_BYTES: Final = 64 << 10
"""Replies beyond this are sent before more is carried out."""
_LARGE_BYTES: Final = 16 << 10
"""Longer values are read into a buffer that is reused and sent from there."""


class Express:
    """One daemon's."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def work(self, connection: Connection, data: bytes) -> int:
        """Carry out what is plain; return where the rest begins, for the parser."""
        namespace = connection.plain_namespace()
        if namespace is None:
            return 0
        writing = connection.plain_writing(namespace)
        pos = gets = sets = 0
        now = int(time.time()) & 0xFFFFFFFF
        puts = connection.puts
        while connection.outbox.size < BATCH_BYTES:
            if (found := whole_get(data, pos)) is not None:
                connection.settle_writes()
                if not self._get(connection, namespace, found[0]):
                    break
                gets += 1
                pos = found[1]
            elif writing and (given := whole_set(data, pos)) is not None:
                if given[0] in puts:
                    connection.store_puts()
                puts[given[0]] = Put(given[0], given[1], now)
                sets += 1
                pos = given[2]
            else:
                break
        stats = self._hub.context.stats
        stats.commands += gets + sets
        if gets:
            stats.count(b"GET", gets)
        if sets:
            stats.count(b"SET", sets)
        return pos

    def _get(self, connection: Connection, namespace: Namespace, key: bytes) -> bool:
        """Answer a GET; return False where the long way has to."""
        entry = namespace.live.keys.get(key)
        if entry is None:
            connection.reply(NIL)
            return True
        try:
            if entry[2] > _LARGE_BYTES:
                return self._get_large(connection, namespace, key, entry)
            value = namespace.read(key, entry)
        except MissingFileError:
            return False
        except DamagedError:
            connection.reply(INTERNAL)
            return True
        connection.reply(b"$%d\r\n%b\r\n" % (len(value), value))
        return True

    def _get_large(self, connection: Connection, namespace: Namespace, key: bytes, entry: Entry) -> bool:
        """Send a value from a buffer that is reused at once; return False where none is to be had.

        Raises:
            DamagedError: it cannot be had.
            MissingFileError: a hook may bring it.
        """
        buffers = self._hub.buffers
        if buffers.contended or (buffer := buffers.take(entry[2])) is None:
            return False
        try:
            value = namespace.read_into(key, entry, buffer)
            connection.reply(b"$%d\r\n" % entry[2])
            if self._hub.sync or connection.told:
                connection.reply(bytes(value))
            else:
                self._hub.context.stats.tx_bytes += connection.outbox.send_with(value)
            connection.reply(b"\r\n")
        finally:
            buffers.give(buffer)
        return True
