"""The shared key table on etcd, beside the log. Implements `fungistor.keys.store.SharedKeys`, which it may not import.

Keys under the network's prefix: ``keys/network``, ``keys/changed`` (written by every change: its revision is the
table's position), ``keys/object/`` and the object id: tenant (4 bytes, big-endian) and wrapped key; ``keys/dropped/``
and the object id of a key that was dropped; ``keys/tenant/`` and the number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdClient, EtcdLogin, Json, packed, unpacked
from fungistor.errors import CorruptError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber

Row = tuple[ObjectId, TenantNumber, bytes]
Change = tuple[ObjectId, TenantNumber, bytes | None]

PAGE_ROWS: Final = 2000
"""Some 300 kB of answer."""

HISTORY_S: Final = 5.0
"""How long etcd may be silent while it tells what changed."""

_OBJECT_ID_BYTES: Final = 32
_TENANT_BYTES: Final = 4
_NO_TENANT: Final = TenantNumber(0)


class HistoryGoneError(UnavailableError):
    """etcd's history was compacted after the position that was asked for."""


class EtcdKeys:
    """Thread-safe. Errors as `EtcdClient` gives them."""

    def __init__(self, address: EtcdAddress, login: EtcdLogin | None = None) -> None:
        """Nothing is asked yet. Raises: InvalidError: the login's certificates cannot be used."""
        self._client = EtcdClient(address, login)
        self._where = f"etcd prefix {address.prefix!r}"
        self._prefix = f"{address.prefix}/keys/".encode()

    def claim(self, network: bytes) -> bytes:
        key = self._prefix + b"network"
        absent = {"key": packed(key), "target": "CREATE", "create_revision": "0"}
        answer = self._client.ask(
            "kv/txn", {"compare": [absent], "success": [_put(key, network), self._change()], "failure": [_range(key)]}
        )
        return network if answer.get("succeeded") else _only(answer["responses"][0])

    def put_all(self, rows: Sequence[Row]) -> tuple[int, int, list[bytes]]:
        # New keys have ids of chance, so mostly none is there. All or none takes etcd two fifths of the time that a
        # decision for each takes, and ours a half. A mark of one that was dropped may stay: whoever follows is told of
        # dropped keys before those that are there.
        before = _range(self._prefix + b"changed")
        puts = [_put(self._object_key(row[0]), _value(row)) for row in rows]
        answer = self._client.ask(
            "kv/txn",
            {"compare": [self._absent(row[0]) for row in rows], "success": [before, *puts, self._change()]},
        )
        kept = [wrapped for _, _, wrapped in rows]
        if not answer.get("succeeded"):
            answer = self._client.ask("kv/txn", {"success": [before, *map(self._put_if_absent, rows), self._change()]})
            kept = [
                wrapped if response["response_txn"].get("succeeded") else self._kept(response["response_txn"])
                for (_, _, wrapped), response in zip(rows, answer["responses"][1:], strict=False)
            ]
        changed = answer["responses"][0]["response_range"].get("kvs", [])
        return int(changed[0]["mod_revision"]) if changed else 0, int(answer["header"]["revision"]), kept

    def _kept(self, done: Json) -> bytes:
        return self._wrapped(_only(done["responses"][0]))[1]

    def _absent(self, object_id: ObjectId) -> Json:
        return {"key": packed(self._object_key(object_id)), "target": "CREATE", "create_revision": "0"}

    def _put_if_absent(self, row: Row) -> Json:
        key = self._object_key(row[0])
        return {
            "request_txn": {
                "compare": [self._absent(row[0])],
                "success": [
                    _put(key, _value(row)),
                    {"request_delete_range": {"key": packed(self._dropped_key(row[0]))}},
                ],
                "failure": [_range(key)],
            }
        }

    def get(self, object_id: ObjectId) -> bytes | None:
        rows = self._client.ask("kv/range", {"key": packed(self._object_key(object_id))}).get("kvs", [])
        return self._wrapped(unpacked(rows[0]["value"]))[1] if rows else None

    def drop(self, object_ids: Sequence[ObjectId]) -> int:
        each: list[Json] = []
        for object_id in object_ids:
            key = self._object_key(object_id)
            there = {"key": packed(key), "target": "CREATE", "result": "GREATER", "create_revision": "0"}
            gone = [{"request_delete_range": {"key": packed(key)}}, _put(self._dropped_key(object_id), b"")]
            each.append({"request_txn": {"compare": [there], "success": gone}})
        if not each:
            return 0
        answer = self._client.ask("kv/txn", {"success": [*each, self._change()]})
        return sum(bool(response["response_txn"].get("succeeded")) for response in answer["responses"][:-1])

    def replace(self, rows: Sequence[Row]) -> None:
        each: list[Json] = []
        for object_id, tenant, wrapped in rows:
            key = self._object_key(object_id)
            there = {"key": packed(key), "target": "CREATE", "result": "GREATER", "create_revision": "0"}
            put = _put(key, _value((object_id, tenant, wrapped)))
            each.append({"request_txn": {"compare": [there], "success": [put]}})
        if each:
            self._client.ask("kv/txn", {"success": [*each, self._change()]})

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        self._client.ask("kv/txn", {"success": [_put(self._prefix + b"tenant/%d" % tenant, wrapped)]})

    def purge(self) -> bool:
        return self._client.forget_history(self._prefix + b"changed")

    def last(self) -> int:
        rows = self._client.ask("kv/range", {"key": packed(self._prefix + b"changed")}).get("kvs", [])
        return int(rows[0]["mod_revision"]) if rows else 0

    def changes(self, after: int, until: int) -> Iterator[tuple[int, list[Change]]]:
        if after:
            try:
                for complete, changes in self._history(after, until):
                    after = complete
                    yield complete, changes
                    if complete >= until:
                        return
            except HistoryGoneError:
                pass
        yield from self._difference(after, until)

    def _history(self, after: int, until: int) -> Iterator[tuple[int, list[Change]]]:
        """What etcd remembers of each change. Raises: HistoryGoneError."""
        create = {
            "key": packed(self._prefix),
            "range_end": packed(self._prefix[:-1] + b"0"),
            "start_revision": str(after + 1),
        }
        with self._client.stream("watch", {"create_request": create}, HISTORY_S) as answers:
            for answer in answers:
                result = answer.get("result", {})
                if result.get("canceled"):
                    raise HistoryGoneError(f"{self._where}: {result.get('cancel_reason', 'its history is compacted')}")
                events = result.get("events", [])
                if not events:
                    continue
                complete = max(int(event["kv"]["mod_revision"]) for event in events)
                yield complete, [change for event in events if (change := self._change_of(event)) is not None]
                if complete >= until:
                    return
        raise UnavailableError(f"{self._where}: etcd did not tell within {HISTORY_S:g} s what changed", retry_after_s=2)

    def _change_of(self, event: Json) -> Change | None:
        key, start = unpacked(event["kv"]["key"]), self._prefix + b"object/"
        if not key.startswith(start):
            return None
        object_id = self._object_id(key, start)
        if event.get("type") == "DELETE":
            return object_id, _NO_TENANT, None
        return object_id, *self._wrapped(unpacked(event["kv"]["value"]))

    def _difference(self, after: int, until: int) -> Iterator[tuple[int, list[Change]]]:
        """All that is there now and was written after a position. Pages are complete with the last of them only."""
        start = self._prefix + b"dropped/"
        for rows in self._pages(start, after):
            yield after, [(self._object_id(unpacked(row["key"]), start), _NO_TENANT, None) for row in rows]
        start = self._prefix + b"object/"
        # Keys after what was dropped: one that was put again in between is there, not gone.
        for rows in self._pages(start, after):
            yield (
                after,
                [
                    (self._object_id(unpacked(row["key"]), start), *self._wrapped(unpacked(row["value"])))
                    for row in rows
                ],
            )
        yield until, []

    def _pages(self, start: bytes, after: int) -> Iterator[list[Json]]:
        end, key = packed(start[:-1] + b"0"), start
        newer = {"min_mod_revision": str(after + 1)} if after else {}
        while True:
            answer = self._client.ask(
                "kv/range", {"key": packed(key), "range_end": end, "limit": str(PAGE_ROWS), **newer}
            )
            rows = answer.get("kvs", [])
            if rows:
                yield rows
                key = unpacked(rows[-1]["key"]) + b"\0"
            if not rows or not answer.get("more"):
                return

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        key = self._prefix + b"tenant/%d" % tenant
        absent = {"key": packed(key), "target": "CREATE", "create_revision": "0"}
        answer = self._client.ask(
            "kv/txn", {"compare": [absent], "success": [_put(key, wrapped)], "failure": [_range(key)]}
        )
        return wrapped if answer.get("succeeded") else _only(answer["responses"][0])

    def tenants(self) -> list[tuple[TenantNumber, bytes]]:
        start = self._prefix + b"tenant/"
        rows = itertools.chain.from_iterable(self._pages(start, 0))
        return sorted((self._tenant(unpacked(row["key"])[len(start) :]), unpacked(row["value"])) for row in rows)

    def close(self) -> None:
        self._client.close()

    def _tenant(self, text: bytes) -> TenantNumber:
        if not text.isdigit():
            raise self._damaged()
        return TenantNumber(int(text))

    def _change(self) -> Json:
        return _put(self._prefix + b"changed", b"")

    def _object_key(self, object_id: ObjectId) -> bytes:
        return self._prefix + b"object/" + object_id

    def _dropped_key(self, object_id: ObjectId) -> bytes:
        return self._prefix + b"dropped/" + object_id

    def _object_id(self, key: bytes, start: bytes) -> ObjectId:
        if len(key) != len(start) + _OBJECT_ID_BYTES:
            raise self._damaged()
        return ObjectId(key[len(start) :])

    def _wrapped(self, value: bytes) -> tuple[TenantNumber, bytes]:
        if len(value) <= _TENANT_BYTES:
            raise self._damaged()
        return TenantNumber(int.from_bytes(value[:_TENANT_BYTES], "big")), value[_TENANT_BYTES:]

    def _damaged(self) -> CorruptError:
        return CorruptError(f"{self._where}: the key table is damaged", hint="restore etcd from its backup")


def _value(row: Row) -> bytes:
    _, tenant, wrapped = row
    return tenant.to_bytes(_TENANT_BYTES, "big") + wrapped


def _range(key: bytes) -> Json:
    return {"request_range": {"key": packed(key)}}


def _put(key: bytes, value: bytes) -> Json:
    return {"request_put": {"key": packed(key), "value": packed(value)}}


def _only(response: Json) -> bytes:
    return unpacked(response["response_range"]["kvs"][0].get("value", ""))
