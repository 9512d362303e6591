"""The log on etcd: a key an entry, numbered by a head that every append compares, so that Raft gives them one order.

Keys under the network's prefix: ``log/identity`` (16 bytes), ``log/epoch``, ``log/head`` and ``log/trimmed`` (decimal
text), ``log/entry/`` and the number as 16 hex digits. Every read of more than one of them is one transaction. The
identity is asked for once; what reads or appends entries sees in its own transaction that it is still the same.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdClient, EtcdLogin, Json, packed, unpacked
from fungistor.catalog.log import START, Entry, FenceMovedError, LogTrimmedError, Position, check_batch
from fungistor.errors import ConflictError, CorruptError, InvalidError, UnavailableError

APPEND_S: Final = 10.0
"""How long an append tries again while others are quicker."""

CONTENDED_S: Final = 0.002
READ_ENTRIES_FIRST: Final = 16
READ_ENTRIES_MAX: Final = 512
READ_BYTES: Final = 2 << 20
"""A chunk twice as long is asked for while chunks stay below this."""

WATCH_S: Final = 1.0
"""A watch is renewed so often, and so hears of `close`."""

IDENTITY_BYTES: Final = 16

FREE_BYTES: Final = 64 << 20
"""Of etcd's file: so much is given back to the disk when the log is trimmed."""


class EtcdLog:
    """`fungistor.catalog.log.Log` on etcd 3.4 or later."""

    def __init__(self, address: EtcdAddress, login: EtcdLogin | None = None) -> None:
        """Nothing is asked yet. Raises: InvalidError: the login's certificates cannot be used."""
        self._client = EtcdClient(address, login)
        self._where = f"etcd prefix {address.prefix!r}"
        self._prefix = f"{address.prefix}/log/".encode()
        self._closed = threading.Event()
        self._appending = threading.Lock()
        self._head: int | None = None
        self._is_made = False
        self._identity: bytes | None = None

    def identity(self) -> bytes:
        if self._identity is None:
            self._make()
            self._identity = self._checked(*self._get(["identity"]))
        return self._identity

    def _checked(self, identity: bytes | None) -> bytes:
        """The identity as it was found. Raises: CorruptError: there is none, or not the one that was there before."""
        if identity is None or len(identity) != IDENTITY_BYTES:
            raise CorruptError(f"{self._where}: the log has no identity", hint="restore etcd from its backup")
        if self._identity not in (None, identity):
            raise CorruptError(
                f"{self._where} holds another log than it did before", hint="bring the right one back, and start anew"
            )
        return identity

    def epoch(self) -> int:
        self._make()
        return self._number(*self._get(["epoch"]))

    def raise_epoch(self, expected: int) -> int:
        self._make()
        answer = self._client.change(
            "kv/txn",
            {
                "compare": [self._is("epoch", b"%d" % expected)],
                "success": [self._put("epoch", b"%d" % (expected + 1))],
                "failure": [self._range("epoch")],
            },
        )
        if not answer.get("succeeded"):
            raise FenceMovedError(expected=expected, found=self._number(*_values(answer)))
        return expected + 1

    def append(self, fence: int, batch: Sequence[bytes]) -> Position:
        check_batch(batch)
        self._make()
        with self._appending:
            head = self._number(*self._get(["head"])) if self._head is None else self._head
            deadline = time.monotonic() + APPEND_S
            for attempt in range(1 << 30):
                found = self._append_at(fence, head, batch)
                if found is None:
                    self._head = head + len(batch)
                    return _position(self._head)
                self._head = head = found
                if time.monotonic() > deadline:
                    break
                # Somebody else was quicker; whoever loses often waits a little longer at random.
                self._closed.wait(random.uniform(0, CONTENDED_S * min(attempt, 16)))  # noqa: S311  no secret
        raise UnavailableError(f"{self._where}: others kept appending for {APPEND_S:.0f} s", retry_after_s=2)

    def _append_at(self, fence: int, head: int, batch: Sequence[bytes]) -> int | None:
        """Append if nobody has since `head`; the head found otherwise."""
        identity = self.identity()
        puts = [self._put_key(self._entry_key(head + at), payload) for at, payload in enumerate(batch, 1)]
        answer = self._client.change(
            "kv/txn",
            {
                "compare": [
                    self._is("identity", identity),
                    self._is("epoch", b"%d" % fence),
                    self._is("head", b"%d" % head),
                ],
                "success": [*puts, self._put("head", b"%d" % (head + len(batch)))],
                "failure": [self._range("identity"), self._range("epoch"), self._range("head")],
            },
        )
        if answer.get("succeeded"):
            return None
        now, *numbers = _values(answer)
        self._checked(now)
        epoch, found = map(self._number, numbers)
        if epoch != fence:
            raise FenceMovedError(expected=fence, found=epoch)
        return found

    def last(self) -> Position:
        self._make()
        identity, head = self._get(["identity", "head"])
        self._checked(identity)
        return _position(self._number(head))

    def trimmed(self) -> Position:
        self._make()
        return _position(self._number(*self._get(["trimmed"])))

    def read(self, after: Position) -> Iterator[Entry]:
        self._make()
        number = _number_of(after)
        limit = READ_ENTRIES_FIRST
        head = number + 1
        while number < head:
            chunk, head = self._chunk(number, limit)
            for payload in chunk:
                number += 1
                yield Entry(_position(number), payload)
            size = sum(map(len, chunk))
            limit = min(READ_ENTRIES_MAX, limit * 2) if size < READ_BYTES else max(1, limit // 2)

    def _chunk(self, after: int, limit: int) -> tuple[list[bytes], int]:
        """Some entries after one, and the number of the newest."""
        entries = {
            "key": packed(self._entry_key(after + 1)),
            "range_end": packed(self._prefix + b"entry0"),
            "limit": str(limit),
        }
        said = [self._range("identity"), self._range("trimmed"), self._range("head")]
        answer = self._client.ask("kv/txn", {"success": [*said, {"request_range": entries}]})
        identity, *numbers = _values(answer, 3)
        self._checked(identity)
        trimmed, head = map(self._number, numbers)
        if after < trimmed:
            raise LogTrimmedError(self._where)
        if after > head:
            raise CorruptError(
                f"{self._where} ends at entry {head}, but entry {after} was read before",
                hint="an older copy stands in its place: bring the newest one back",
            )
        rows = answer["responses"][3]["response_range"].get("kvs", [])
        if [unpacked(row["key"]) for row in rows] != [self._entry_key(after + at) for at in range(1, len(rows) + 1)]:
            raise CorruptError(f"{self._where}: entries after {after} are missing", hint="restore etcd from its backup")
        if not rows and after < head:
            raise CorruptError(f"{self._where}: entry {after + 1} is missing", hint="restore etcd from its backup")
        return [unpacked(row.get("value", "")) for row in rows], head

    def watch(self, after: Position, timeout_s: float) -> bool:
        number = _number_of(after)
        deadline = time.monotonic() + timeout_s
        try:
            self._make()
            while not self._closed.is_set():
                revision, head = self._revision_and_head()
                if head > number:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._wait_for_change(revision + 1, min(left, WATCH_S))
        except UnavailableError:
            if not self._closed.is_set():
                raise
        return False

    def _revision_and_head(self) -> tuple[int, int]:
        answer = self._client.ask("kv/range", {"key": packed(self._prefix + b"head")})
        return int(answer["header"]["revision"]), self._number(_value(answer))

    def _wait_for_change(self, revision: int, timeout_s: float) -> None:
        create = {"key": packed(self._prefix + b"head"), "start_revision": str(revision)}
        until = time.monotonic() + timeout_s
        with self._client.stream("watch", {"create_request": create}, timeout_s) as answers:
            for answer in answers:
                if answer.get("result", {}).get("events") or self._closed.is_set() or time.monotonic() > until:
                    return

    def trim(self, before: Position) -> None:
        self._make()
        number = _number_of(before)
        while True:
            trimmed, head = (self._number(value) for value in self._get(["trimmed", "head"]))
            if number > head:
                raise InvalidError(f"{self._where} has {head} entries, cannot trim before {number}")
            if number - 1 <= trimmed:
                return
            gone = {"key": packed(self._entry_key(0)), "range_end": packed(self._entry_key(number))}
            answer = self._client.ask(
                "kv/txn",
                {
                    "compare": [self._is("trimmed", b"%d" % trimmed)],
                    "success": [{"request_delete_range": gone}, self._put("trimmed", b"%d" % (number - 1))],
                },
            )
            if answer.get("succeeded"):
                # Or etcd keeps what was deleted in its history. The room that this leaves in its file is written again.
                with suppress(UnavailableError):  # the next trim forgets this, too
                    self._client.forget_history(self._prefix + b"head", free_bytes=FREE_BYTES)
                return

    def exists(self) -> bool:
        """Whether this prefix holds a log; none is made."""
        return self._get(["identity"]) != [None]

    def adopt(self, identity: bytes, trimmed: Position = START) -> None:
        """Make this prefix the log of that identity, so that its entries can be brought here from another engine, from
        where it was trimmed.

        Raises:
            ConflictError: it holds another log already.
        """
        self._make(identity, _number_of(trimmed))
        if self.identity() != identity:
            raise ConflictError(
                f"{self._where} holds another network's catalog", hint="give another prefix: URL/PREFIX"
            )

    def close(self) -> None:
        self._closed.set()
        self._client.close()

    def _make(self, identity: bytes | None = None, trimmed: int = 0) -> None:
        """Make the log if this prefix has none. Two that do it at once end with the same one."""
        if self._is_made:
            return
        start = {"identity": identity or os.urandom(IDENTITY_BYTES), "epoch": b"0"}
        start |= {"head": b"%d" % trimmed, "trimmed": b"%d" % trimmed}
        absent = {"key": packed(self._prefix + b"identity"), "target": "CREATE", "create_revision": "0"}
        self._client.ask(
            "kv/txn", {"compare": [absent], "success": [self._put(name, value) for name, value in start.items()]}
        )
        self._is_made = True

    # requests

    def _get(self, names: Sequence[str]) -> list[bytes | None]:
        answer = self._client.ask("kv/txn", {"success": [self._range(name) for name in names]})
        return _values(answer)

    def _range(self, name: str) -> Json:
        return {"request_range": {"key": packed(self._prefix + name.encode())}}

    def _put(self, name: str, value: bytes) -> Json:
        return self._put_key(self._prefix + name.encode(), value)

    def _put_key(self, key: bytes, value: bytes) -> Json:
        return {"request_put": {"key": packed(key), "value": packed(value)}}

    def _is(self, name: str, value: bytes) -> Json:
        return {"key": packed(self._prefix + name.encode()), "target": "VALUE", "value": packed(value)}

    def _entry_key(self, number: int) -> bytes:
        return self._prefix + b"entry/%016x" % number

    def _number(self, value: bytes | None) -> int:
        if value is None or not value.isdigit():
            raise CorruptError(f"{self._where}: the log's own keys are damaged", hint="restore etcd from its backup")
        return int(value)


def _values(answer: Json, count: int | None = None) -> list[bytes | None]:
    """The values of a transaction's ranges, None where a key is missing."""
    return [_value(response["response_range"]) for response in answer.get("responses", [])[:count]]


def _value(found: Json) -> bytes | None:
    rows = found.get("kvs", [])
    return unpacked(rows[0].get("value", "")) if rows else None


def _position(number: int) -> Position:
    return Position(number.to_bytes(8, "big")) if number else START


def _number_of(position: Position) -> int:
    if position == START:
        return 0
    if len(position) != 8:
        raise InvalidError("the position is not one of this log")
    return int.from_bytes(position, "big")
