"""Idle connections to each member, ready for the next request of any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from fungistor.errors import FungiStorError
from fungistor.ids import MemberNumber
from fungistor.pool.members import MemberSpec
from fungistor.zdb.address import Resolver
from fungistor.zdb.client import Connection, MemberError, connect

IDLE_PER_MEMBER_MAX = 8
"""As many as threads work on stripes at once; beyond that a connection is closed after use."""


class Stock:
    """Thread-safe. The newest idle connection goes out first, so that the others grow old and are few."""

    def __init__(self, members: Iterable[MemberSpec]) -> None:
        self._lock = threading.Lock()
        self._resolver = Resolver()
        self._idle: dict[MemberNumber, deque[Connection]] = {}
        self._specs = {member.number: member for member in members}
        self._closed = False

    def spec(self, number: MemberNumber) -> MemberSpec:
        return self._specs[number]

    def specs(self) -> dict[MemberNumber, MemberSpec]:
        return dict(self._specs)

    def replace(self, members: Iterable[MemberSpec]) -> None:
        """Know these members and no others. Connections of members that changed are closed."""
        specs = {member.number: member for member in members}
        with self._lock:
            changed = [number for number, spec in self._specs.items() if specs.get(number) != spec]
            stale = [connection for number in changed for connection in self._idle.pop(number, ())]
            self._specs = specs
        for connection in stale:
            connection.close()

    def take(self, number: MemberNumber) -> Connection | None:
        """An idle connection, if there is one."""
        with self._lock:
            idle = self._idle.get(number)
            return idle.pop() if idle else None

    def open(self, number: MemberNumber) -> Connection:
        """A new connection, on its way. Raises: MemberError."""
        spec = self._specs.get(number)
        if spec is None:
            raise MemberError("is no member any more")
        try:
            return connect(self._resolver.resolve(spec.address), spec.login())
        except MemberError:
            raise
        except FungiStorError as error:
            raise MemberError(error.message) from error

    def give(self, number: MemberNumber, spec: MemberSpec, connection: Connection) -> None:
        """Take back a connection whose last request was answered."""
        with self._lock:
            idle = self._idle.setdefault(number, deque())
            if not self._closed and self._specs.get(number) == spec and len(idle) < IDLE_PER_MEMBER_MAX:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = [connection for waiting in self._idle.values() for connection in waiting]
            self._idle.clear()
        for connection in idle:
            connection.close()
