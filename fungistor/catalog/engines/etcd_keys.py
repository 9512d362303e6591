"""The shared key table on etcd, beside the log. Implements `fungistor.keys.store.SharedKeys`, which it may not import.

Keys under the network's prefix: ``keys/network``, ``keys/changed`` (written by every change: its revision is the
table's position), ``keys/object/`` and the object id: tenant (4 bytes, big-endian) and wrapped key; ``keys/page/`` and
a page's id: many of those (`etcd_key_pages`); ``keys/paged``, written by every change of a page; ``keys/dropped/`` and
the object id of a key that was dropped; ``keys/tenant/`` and the number. A key is in a page or has one of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fungistor.catalog.engines.etcd_client import EtcdAddress, EtcdClient, EtcdLogin, Json, packed, unpacked
from fungistor.catalog.engines.etcd_key_pages import OBJECT_ID_BYTES, TENANT_BYTES, Row, open_page, pack_page, page_id
from fungistor.errors import CorruptError, UnavailableError
from fungistor.ids import ObjectId, TenantNumber

Change = tuple[ObjectId, TenantNumber, bytes | None, bytes | None]

ROWS_AT_ONCE: Final = 2000
"""Some 300 kB of answer."""

PAGES_AT_ONCE: Final = 8
"""Some 800 kB of answer, where they are full."""

EDITS_MAX: Final = 100
"""How often a page is read again because somebody else changed it first."""

HISTORY_S: Final = 5.0
"""How long etcd may be silent while it tells what changed."""

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
        return self._put_unless_there(self._prefix + b"network", network, self._change())

    # -- putting

    def put_all(self, rows: Sequence[Row], position: int) -> tuple[int, int, list[bytes]] | None:
        # All or none takes etcd two fifths of the time that a decision for each takes, and ours a half. A mark of one
        # that was dropped may stay: whoever follows is told of dropped keys before those that are there.
        before = _range(self._prefix + b"changed")
        known = _unchanged_since(self._prefix + b"paged", position)
        puts = [_put(self._object_key(row[0]), _value(row)) for row in rows]
        absent = [_absent(self._object_key(row[0])) for row in rows]
        answer = self._client.ask("kv/txn", {"compare": [known, *absent], "success": [before, *puts, self._change()]})
        kept = [wrapped for _, _, wrapped in rows]
        if not answer.get("succeeded"):
            each = [before, *map(self._put_if_absent, rows), self._change()]
            answer = self._client.ask("kv/txn", {"compare": [known], "success": each})
            if not answer.get("succeeded"):
                return None
            kept = [
                wrapped if response["response_txn"].get("succeeded") else self._kept(response["response_txn"])
                for (_, _, wrapped), response in zip(rows, answer["responses"][1:], strict=False)
            ]
        return _position(answer["responses"][0]), int(answer["header"]["revision"]), kept

    def put_page(self, rows: Sequence[Row], position: int | None = None) -> tuple[int, int, bytes] | None:
        page = page_id(rows)
        key = self._prefix + b"page/" + page
        compare = [_absent(key)]
        if position is not None:
            compare.append(_unchanged_since(self._prefix + b"changed", position))
        puts = [_put(key, pack_page(rows)), self._paged(), self._change()]
        answer = self._client.ask(
            "kv/txn",
            {"compare": compare, "success": [_range(self._prefix + b"changed"), *puts], "failure": [_range(key)]},
        )
        if answer.get("succeeded"):
            return _position(answer["responses"][0]), int(answer["header"]["revision"]), page
        # An answer that was lost is asked for again, and then the page is there.
        is_there = bool(answer["responses"][0]["response_range"].get("kvs"))
        return (0, 0, page) if is_there else None

    def _kept(self, done: Json) -> bytes:
        return self._wrapped(_only(done["responses"][0]))[1]

    def _put_if_absent(self, row: Row) -> Json:
        key = self._object_key(row[0])
        unmark = {"request_delete_range": {"key": packed(self._dropped_key(row[0]))}}
        success = [_put(key, _value(row)), unmark]
        return {"request_txn": {"compare": [_absent(key)], "success": success, "failure": [_range(key)]}}

    # -- dropping and replacing

    def drop(self, object_ids: Sequence[ObjectId], pages: Mapping[bytes, Sequence[ObjectId]]) -> int:
        dropped = 0
        for page, ids in pages.items():
            marks = [_put(self._dropped_key(object_id), b"") for object_id in ids]
            dropped += self._edit_page(page, dict.fromkeys(ids), marks)
        each: list[Json] = []
        for object_id in object_ids:
            key = self._object_key(object_id)
            gone_and_marked = [{"request_delete_range": {"key": packed(key)}}, _put(self._dropped_key(object_id), b"")]
            each.append({"request_txn": {"compare": [_there(key)], "success": gone_and_marked}})
        if each:
            answer = self._client.ask("kv/txn", {"success": [*each, self._change()]})
            dropped += sum(bool(one["response_txn"].get("succeeded")) for one in answer["responses"][:-1])
        return dropped

    def replace(self, rows: Sequence[Row], pages: Mapping[bytes, Sequence[Row]]) -> None:
        for page, replaced in pages.items():
            self._edit_page(page, {row[0]: row for row in replaced}, [])
        each: list[Json] = []
        for row in rows:
            key = self._object_key(row[0])
            each.append({"request_txn": {"compare": [_there(key)], "success": [_put(key, _value(row))]}})
        if each:
            self._client.ask("kv/txn", {"success": [*each, self._change()]})

    def _edit_page(self, page: bytes, anew: Mapping[ObjectId, Row | None], more: list[Json]) -> int:
        """Give rows of a page others, or None, as nobody else has changed it meanwhile; how many rows fewer it has."""
        key = self._prefix + b"page/" + page
        for _ in range(EDITS_MAX):
            found = self._client.ask("kv/range", {"key": packed(key)}).get("kvs", [])
            if not found:
                return 0
            before = open_page(unpacked(found[0]["value"]))
            after = [row for old in before if (row := anew.get(old[0], old)) is not None]
            if after == before:
                return 0
            written = _put(key, pack_page(after)) if after else {"request_delete_range": {"key": packed(key)}}
            same = {"key": packed(key), "target": "MOD", "mod_revision": found[0]["mod_revision"]}
            done = self._client.ask(
                "kv/txn", {"compare": [same], "success": [written, *more, self._paged(), self._change()]}
            )
            if done.get("succeeded"):
                return len(before) - len(after)
        raise UnavailableError(f"{self._where}: a page of keys changes all the time", retry_after_s=2)

    def replace_tenant(self, tenant: TenantNumber, wrapped: bytes) -> None:
        self._client.ask("kv/txn", {"success": [_put(self._prefix + b"tenant/%d" % tenant, wrapped)]})

    def purge(self) -> bool:
        return self._client.forget_history(self._prefix + b"changed")

    # -- following

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
                # Tenants' keys are no changes of the table: what is told beyond `until` must not take it past its last.
                complete = min(until, max(int(event["kv"]["mod_revision"]) for event in events))
                yield complete, [change for event in events for change in self._changes_of(event)]
                if complete >= until:
                    return
        raise UnavailableError(f"{self._where}: etcd did not tell within {HISTORY_S:g} s what changed", retry_after_s=2)

    def _changes_of(self, event: Json) -> list[Change]:
        if event.get("type") == "DELETE":
            return []  # what was dropped is told by its mark
        return self._changes_by(unpacked(event["kv"]["key"]), event["kv"].get("value", ""))

    def _changes_by(self, key: bytes, value: str) -> list[Change]:
        """What a key of etcd that was written says."""
        kind, _, rest = key.removeprefix(self._prefix).partition(b"/")
        if kind == b"page":
            return [(*row, rest) for row in open_page(unpacked(value))]
        if kind == b"object":
            return [(self._object_id(rest), *self._wrapped(unpacked(value)), None)]
        if kind == b"dropped":
            return [(self._object_id(rest), _NO_TENANT, None, None)]
        return []

    def _difference(self, after: int, until: int) -> Iterator[tuple[int, list[Change]]]:
        """All that is there now and was written after a position. It is complete with the last of it only.

        Keys after what was dropped: one that was put again in between is there, not gone.
        """
        for kind, count in ((b"dropped/", ROWS_AT_ONCE), (b"object/", ROWS_AT_ONCE), (b"page/", PAGES_AT_ONCE)):
            for found in self._ranges(self._prefix + kind, after, count):
                yield (
                    after,
                    [change for kv in found for change in self._changes_by(unpacked(kv["key"]), kv.get("value", ""))],
                )
        yield until, []

    def _ranges(self, start: bytes, after: int, count: int) -> Iterator[list[Json]]:
        end, key = packed(start[:-1] + b"0"), start
        newer = {"min_mod_revision": str(after + 1)} if after else {}
        while True:
            answer = self._client.ask("kv/range", {"key": packed(key), "range_end": end, "limit": str(count), **newer})
            found = answer.get("kvs", [])
            if found:
                yield found
                key = unpacked(found[-1]["key"]) + b"\0"
            if not found or not answer.get("more"):
                return

    # -- tenants

    def put_tenant(self, tenant: TenantNumber, wrapped: bytes) -> bytes:
        return self._put_unless_there(self._prefix + b"tenant/%d" % tenant, wrapped)

    def tenants(self) -> list[tuple[TenantNumber, bytes]]:
        start = self._prefix + b"tenant/"
        found = itertools.chain.from_iterable(self._ranges(start, 0, ROWS_AT_ONCE))
        return sorted((self._tenant(unpacked(kv["key"])[len(start) :]), unpacked(kv["value"])) for kv in found)

    def close(self) -> None:
        self._client.close()

    # -- keys and values

    def _put_unless_there(self, key: bytes, value: bytes, *more: Json) -> bytes:
        """Put a value, and what goes with it, unless the key has one; give the one that is there then."""
        puts = [_put(key, value), *more]
        answer = self._client.ask("kv/txn", {"compare": [_absent(key)], "success": puts, "failure": [_range(key)]})
        return value if answer.get("succeeded") else _only(answer["responses"][0])

    def _tenant(self, text: bytes) -> TenantNumber:
        if not text.isdigit():
            raise self._damaged()
        return TenantNumber(int(text))

    def _change(self) -> Json:
        return _put(self._prefix + b"changed", b"")

    def _paged(self) -> Json:
        return _put(self._prefix + b"paged", b"")

    def _object_key(self, object_id: ObjectId) -> bytes:
        return self._prefix + b"object/" + object_id

    def _dropped_key(self, object_id: ObjectId) -> bytes:
        return self._prefix + b"dropped/" + object_id

    def _object_id(self, packed_id: bytes) -> ObjectId:
        if len(packed_id) != OBJECT_ID_BYTES:
            raise self._damaged()
        return ObjectId(packed_id)

    def _wrapped(self, value: bytes) -> tuple[TenantNumber, bytes]:
        if len(value) <= TENANT_BYTES:
            raise self._damaged()
        return TenantNumber(int.from_bytes(value[:TENANT_BYTES], "big")), value[TENANT_BYTES:]

    def _damaged(self) -> CorruptError:
        return CorruptError(f"{self._where}: the key table is damaged", hint="restore etcd from its backup")


def _value(row: Row) -> bytes:
    _, tenant, wrapped = row
    return tenant.to_bytes(TENANT_BYTES, "big") + wrapped


def _absent(key: bytes) -> Json:
    return {"key": packed(key), "target": "CREATE", "create_revision": "0"}


def _there(key: bytes) -> Json:
    return {"key": packed(key), "target": "CREATE", "result": "GREATER", "create_revision": "0"}


def _unchanged_since(key: bytes, position: int) -> Json:
    return {"key": packed(key), "target": "MOD", "result": "LESS", "mod_revision": str(position + 1)}


def _range(key: bytes) -> Json:
    return {"request_range": {"key": packed(key)}}


def _put(key: bytes, value: bytes) -> Json:
    return {"request_put": {"key": packed(key), "value": packed(value)}}


def _only(response: Json) -> bytes:
    return unpacked(response["response_range"]["kvs"][0].get("value", ""))


def _position(response: Json) -> int:
    """Where the table was before a change, as its first request has read it."""
    changed = response["response_range"].get("kvs", [])
    return int(changed[0]["mod_revision"]) if changed else 0
