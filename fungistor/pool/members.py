"""What a pool is told about its members, and the words in which it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fungistor.ids import MemberId, MemberNumber
from fungistor.zdb.client import Login, Tls

IDENTITY_KEY = b"fungistor-identity"
"""The fixed key of each namespace's sealed identity value. Shard keys are 20 bytes of BLAKE3, so none is this one."""


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """One ZDB namespace with a place in the world.

    `address` is HOST:PORT, [IPV6]:PORT or the absolute path of a unix socket. `durable`: what it acknowledges is on
    its disk, though it cannot flush on demand. `identity` is what its namespace must hold under IDENTITY_KEY; None
    asks for nothing.
    """

    number: MemberNumber
    id: MemberId
    address: str
    namespace: str = "default"
    password: str = field(default="", repr=False)
    zone: tuple[str, ...] = ()
    durable: bool = False
    lat: float | None = None
    lon: float | None = None
    identity: bytes | None = field(default=None, repr=False)
    tls: Tls | None = None

    def login(self, *, pinned: bool = True) -> Login:
        """How to enter its namespace; unpinned, whoever answers is taken."""
        pin = (IDENTITY_KEY, self.identity) if pinned and self.identity is not None else None
        return Login(self.namespace, self.password, pin=pin, tls=self.tls)

    @property
    def place(self) -> tuple[float, float] | None:
        return None if self.lat is None or self.lon is None else (self.lat, self.lon)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A run of a member's daemon has acknowledged something that is not flushed yet. `run_id` b"": it does not tell."""

    member: MemberNumber
    run_id: bytes


@dataclass(frozen=True, slots=True)
class PutResult:
    """A stripe was stored well enough. `owed`: shard index to the reason it is not stored."""

    stored: frozenset[int]
    owed: Mapping[int, str]
    receipts: frozenset[Receipt]


@dataclass(frozen=True, slots=True)
class BarrierResult:
    """Members on which nothing acknowledged may be counted on, with reasons. Empty: all is durable."""

    failed: Mapping[MemberNumber, str]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Shards read but not checked, unless that was asked for; by index. `failures`: why others were not had."""

    shards: Mapping[int, memoryview]
    tags: Mapping[int, bytes]
    served_by: Mapping[int, MemberNumber]
    failures: Mapping[int, str]
    asked: int
