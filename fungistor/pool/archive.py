"""What the network keeps on its members for itself, found without any layout: by member addresses and keys alone.

A piece is coded into as many shards as there are members, of which about half bring it back: it must be there when
placement tables are lost with the catalog, and when more members are gone than objects survive. Each member gets the
shard of its rank, by a hash of piece and member; a reader asks those first and then everybody for everything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from blake3 import blake3

from fungistor.coding import erasure
from fungistor.coding.shard import check_shard, payload_root, shard_key, shard_tag
from fungistor.errors import CorruptError, NotEnoughShardsError, UnavailableError
from fungistor.ids import StripeId
from fungistor.pool.members import MemberSpec
from fungistor.zdb.client import Client, MemberError

SHARDS_MAX = 32
MARGIN = 2
"""As with objects: durable on so many members more than it takes to read."""

ANSWER_S = 5.0
FLUSH_MS = 5000
THREADS = 16
_LENGTH_BYTES = 4

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shape:
    """How pieces are coded: `k` of `shards`."""

    k: int
    shards: int


def shape_for(members: int) -> Shape:
    """Half of the members may be gone, and never fewer than five where there are so many."""
    shards = min(members, SHARDS_MAX)
    return Shape(max(1, min(shards // 2, shards - 5)), shards)


class Archive:
    """Use in `with`: it has a connection to each member while open. One thread at a time."""

    def __init__(self, members: Sequence[MemberSpec]) -> None:
        self._members = list(members)
        self._clients: dict[str, Client] = {}
        self._failed: dict[str, str] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self.shape = shape_for(len(members))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True)
        for client in self._clients.values():
            client.close()

    def put(self, piece: StripeId, data: bytes) -> None:
        """Store a piece on every member that answers; a member that once did not is left out from then on.

        Raises: UnavailableError: too few members take it.
        """
        k, shards = self.shape.k, self.shape.shards
        if shards == 0:
            raise UnavailableError("there are no members to keep it")
        framed = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        size = -(-len(framed) // k)
        padded = bytearray(framed + os.urandom(k * size - len(framed)))
        parity = bytearray((shards - k) * size)
        with memoryview(padded) as whole, memoryview(parity) as rest:
            views = [whole[i * size : (i + 1) * size] for i in range(k)]
            views += [rest[i * size : (i + 1) * size] for i in range(shards - k)]
            erasure.encode(k, shards - k, views[:k], views[k:])
            values = [bytes(view) + shard_tag(piece, i, size, payload_root(view)) for i, view in enumerate(views)]
            for view in views:
                view.release()
        holders = self._ranked(piece)[:shards]
        ranks = {member.id: rank for rank, member in enumerate(holders)}

        def store(member: MemberSpec, client: Client) -> None:
            client.call("SET", shard_key(piece, ranks[member.id]), values[ranks[member.id]])

        self._each(holders, store)
        self._check_enough()

    def flush(self) -> int:
        """Make all that was put durable; on how many members it is. Raises: UnavailableError as `put`."""

        def flush(_: MemberSpec, client: Client) -> None:
            if client.run_id:
                client.call("WAITAOF", 1, 0, FLUSH_MS, timeout_s=FLUSH_MS / 1000 + 1)

        self._each([member for member in self._members if member.id in self._clients], flush)
        self._check_enough()
        return len(self._good())

    def get(self, piece: StripeId, k: int, shards: int) -> bytes:
        """A piece. Raises: NotEnoughShardsError."""
        have: dict[int, memoryview] = {}
        ranked = [(member, [rank]) for rank, member in enumerate(self._ranked(piece)[:shards])]
        everything = [(member, list(range(shards))) for member in self._members]
        for plan in (ranked, everything):
            self._gather(piece, plan, have)
            if len(have) >= k:
                return _joined(k, have)
        raise NotEnoughShardsError(found=len(have), needed=k, by_member=self._failed)

    def _gather(
        self, piece: StripeId, plan: Sequence[tuple[MemberSpec, list[int]]], have: dict[int, memoryview]
    ) -> None:
        wanted = {member.id: [index for index in indices if index not in have] for member, indices in plan}

        def fetch(member: MemberSpec, client: Client) -> list[tuple[int, object]]:
            return [(index, client.call("GET", shard_key(piece, index))) for index in wanted[member.id]]

        for index, value in (pair for pairs in self._each([member for member, _ in plan], fetch) for pair in pairs):
            if isinstance(value, bytes | bytearray | memoryview):
                # The tag says what was stored here as this shard: who knows the id could forge it, and has the keys.
                with contextlib.suppress(CorruptError):
                    have[index] = check_shard(piece, index, value)

    def delete(self, piece: StripeId, shards: int) -> bool:
        """Delete a piece wherever it lies; whether some member had any of it."""

        def drop(_: MemberSpec, client: Client) -> bool:
            found = False
            for index in range(shards):
                with contextlib.suppress(MemberError):  # an original 0-db calls a key that is not there an error
                    found |= client.call("DEL", shard_key(piece, index)) not in (0, None)
            return found

        return any(self._each(self._members, drop))

    @property
    def failed(self) -> bool:
        """Whether some member did not do what it was asked."""
        return bool(self._failed)

    def _ranked(self, piece: StripeId) -> list[MemberSpec]:
        return sorted(self._members, key=lambda member: blake3(piece + member.id.encode()).digest())

    def _each(self, members: Iterable[MemberSpec], act: Callable[[MemberSpec, Client], _T]) -> list[_T]:
        """Do it on each member at once; what those answered that did."""

        def attempt(member: MemberSpec) -> list[_T]:
            if member.id in self._failed:
                return []
            try:
                client = self._clients.get(member.id)
                if client is None:
                    client = self._clients[member.id] = Client(member.address, member.login(), timeout_s=ANSWER_S)
                return [act(member, client)]
            except (MemberError, OSError) as error:
                self._failed[member.id] = str(error)
                return []

        return [answer for answers in self._threads.map(attempt, members) for answer in answers]

    def _good(self) -> list[MemberSpec]:
        return [member for member in self._members if member.id not in self._failed]

    def _check_enough(self) -> None:
        if len(self._good()) < min(self.shape.k + MARGIN, self.shape.shards):
            raise UnavailableError(
                f"{len(self._good())} of {len(self._members)} members take what the catalog keeps in the pool "
                f"({self._reasons()})",
                hint="start more of the network's members: `fungistor status`",
            )

    def _reasons(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in list(self._failed.items())[:4]) or "all answered"


def _joined(k: int, have: dict[int, memoryview]) -> bytes:
    size = len(next(iter(have.values())))
    out = bytearray(k * size)
    with memoryview(out) as whole:
        missing = {index: whole[index * size : (index + 1) * size] for index in range(k) if index not in have}
        for index in range(k):
            if index in have:
                whole[index * size : (index + 1) * size] = have[index]
        if missing:
            erasure.recover(k, have, missing)
        for view in missing.values():
            view.release()
    length = int.from_bytes(out[:_LENGTH_BYTES], "big")
    if length > len(out) - _LENGTH_BYTES:
        raise CorruptError("a piece of the catalog's snapshot has a false length")
    return bytes(out[_LENGTH_BYTES : _LENGTH_BYTES + length])
