"""Pages of a long directory: where one begins (``?after=NAME``) and how long it is (``?limit=N``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

from fungistor.dag.walk import DirEntry
from gateway.errors import RefusedError

LIMIT_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Paging:
    """`limit` None: all that is left. `after` is the last name of the page before."""

    after: bytes | None = None
    limit: int | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], default_limit: int | None) -> Paging:
        """Read the query.

        Raises:
            RefusedError: 400 for a limit that is no number from 1 to LIMIT_MAX, or ``all``.
        """
        text = query.get("limit", "")
        limit = default_limit
        if text == "all":
            limit = None
        elif text:
            if not (text.isascii() and text.isdigit() and len(text) < 8 and 0 < int(text) <= LIMIT_MAX):
                raise RefusedError(400, f"limit {text[:20]!r} is neither 1 to {LIMIT_MAX} nor all")
            limit = int(text)
        after = query.get("after")
        return cls(after.encode("utf-8", "surrogateescape") if after else None, limit)

    @property
    def tag(self) -> str:
        """What tells pages apart in an entity tag."""
        after = "" if self.after is None else quote(self.after, safe="")
        return "" if self.after is None and self.limit is None else f"-{after}-{self.limit}"

    def cut(self, found: Iterable[DirEntry]) -> Page:
        """Return the entries of this page; `found` begins behind `after` already."""
        return Page(found, self.limit)


class Page:
    """Entries of one page; `is_last` and `next_query` are known when they are all taken."""

    def __init__(self, found: Iterable[DirEntry], limit: int | None) -> None:
        self._found = iter(found)
        self._limit = limit
        self.next_query: str | None = None
        self.is_last = False

    def __iter__(self) -> Iterator[DirEntry]:
        last: DirEntry | None = None
        for entry in islice(self._found, self._limit):
            last = entry
            yield entry
        if self._limit is not None and last is not None and next(self._found, None) is not None:
            self.next_query = f"?after={quote(last.name, safe='')}&limit={self._limit}"
        self.is_last = self.next_query is None
