"""What part of a DAG a CAR shall hold: ``dag-scope``, ``entity-bytes``, order and duplicates (IPIP-402, 412)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.errors import RefusedError

_BYTES = re.compile(r"(-?[0-9]{1,18}):(\*|-?[0-9]{1,18})")


class Scope(Enum):
    """How much of what lies at the end of the path; the value is its name in ``?dag-scope=``."""

    BLOCK = "block"
    ENTITY = "entity"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """The first and the last byte wanted, counted from the end where negative; no last byte: up to the end."""

    first: int
    last: int | None

    def within(self, size: int) -> tuple[int, int]:
        """Return start and end of the wanted bytes in a file of `size`; equal where there are none."""
        start = self.first if self.first >= 0 else max(0, size + self.first)
        last = size - 1 if self.last is None else self.last if self.last >= 0 else size + self.last
        start = min(start, size)
        return start, max(start, min(last + 1, size))


@dataclass(frozen=True, slots=True)
class CarQuery:
    """One CAR. The order is always depth first, which satisfies a client without a wish, too."""

    scope: Scope = Scope.ALL
    entity_bytes: EntityBytes | None = None
    has_duplicates: bool = False

    @property
    def media_type(self) -> str:
        """The type that says what the answer is, whatever was left open by the request."""
        return f"application/vnd.ipld.car; version=1; order=dfs; dups={'y' if self.has_duplicates else 'n'}"

    @property
    def may_repeat(self) -> bool:
        """False where the walk itself leaves repeats out; no block of a path lies below its end, by their hashes."""
        return self.has_duplicates or self.scope is not Scope.ALL

    @property
    def tag(self) -> str:
        """What tells the CARs of one CID apart."""
        part = "" if self.entity_bytes is None else f"{self.entity_bytes.first}:{self.entity_bytes.last}"
        return f"{self.scope.value}|{part}|{self.has_duplicates}"

    @property
    def url_parameters(self) -> str:
        """The part of a URL's query that says what ``Accept`` may have said."""
        return f"format=car&car-order=dfs&car-dups={'y' if self.has_duplicates else 'n'}"


def read_query(query: Mapping[str, str], accepted: Mapping[str, str]) -> CarQuery:
    """Read the URL's query and the parameters of ``Accept``; the URL wins.

    Raises:
        RefusedError: 400 for a value that does not exist, 406 for a version or an order that is not written here.
    """
    version = query.get("car-version") or accepted.get("version") or "1"
    if version != "1":
        raise RefusedError(406, f"CAR version {version[:20]!r} is not written here", hint="ask for version=1")
    order = query.get("car-order") or accepted.get("order") or "dfs"
    if order not in ("dfs", "unk"):
        raise RefusedError(406, f"CAR order {order[:20]!r} is not known", hint="orders: dfs, unk")
    dups = query.get("car-dups") or accepted.get("dups") or "n"
    if dups not in ("y", "n"):
        raise RefusedError(400, f"dups {dups[:20]!r} is neither y nor n")
    part = _entity_bytes(query.get("entity-bytes"))
    return CarQuery(_scope(query.get("dag-scope"), part), part, dups == "y")


def _scope(text: str | None, part: EntityBytes | None) -> Scope:
    if not text:
        # A part makes sense of an entity alone, so asking for one says the scope as well.
        return Scope.ALL if part is None else Scope.ENTITY
    try:
        return Scope(text)
    except ValueError:
        raise RefusedError(400, f"unknown dag-scope {text[:40]!r}", hint="scopes: block, entity, all") from None


def _entity_bytes(text: str | None) -> EntityBytes | None:
    if not text:
        return None
    found = _BYTES.fullmatch(text)
    if found is None:
        raise RefusedError(400, f"malformed entity-bytes {text[:40]!r}", hint="write FROM:TO or FROM:*, as 0:1023")
    first, last = int(found.group(1)), None if found.group(2) == "*" else int(found.group(2))
    if last is not None and (first >= 0) == (last >= 0) and last < first:
        raise RefusedError(400, f"entity-bytes {text[:40]!r} ends before it starts")
    return EntityBytes(first, last)
