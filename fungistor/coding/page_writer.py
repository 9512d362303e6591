"""Writing the manifest's trees in order, with a page or two and the directories in memory.

Pages close at PAGE_BYTES_TARGET; a tree that fits one root page has no other. A closed page is handed to the
caller, who seals it into a stripe. Where it lies is asked only when its directory page closes, so pages may share
a stripe that is still open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fungistor.coding.manifest import Entry, ListSlot, MapNode, PageRef
from fungistor.coding.page_codec import (
    CHILD_BYTES_MAX,
    HEADER_BYTES_MAX,
    PageKind,
    encode_child,
    encode_list_slot,
    encode_node,
    encode_page,
)
from fungistor.errors import InvalidError
from fungistor.limits import MANIFEST_PAGE_BYTES_MAX, PAGE_BYTES_TARGET, ROOT_PAGE_BYTES_MAX


class PagePlace(Protocol):
    """A page handed over. A `PageRef` is one, for a caller that knows at once."""

    def ref(self) -> PageRef:
        """Where the page lies. May close the stripe that holds it; asked once, when its directory page closes."""


Emit = Callable[[bytes], PagePlace]
"""Takes a closed page's plain bytes. Pages below the root come bottom up, those of a level in order."""

_Item = bytes | PagePlace
_ITEM_BYTES_MAX = MANIFEST_PAGE_BYTES_MAX - HEADER_BYTES_MAX


@dataclass(slots=True)
class _Level:
    """Items of a level that are in no closed page yet: (number, item, its bytes)."""

    items: list[tuple[int, _Item, int]] = field(default_factory=list)
    item_bytes: int = 0
    has_closed: bool = False


class _TreeWriter:
    """The tree both writers build: level 0 holds encoded leaves' items, those above hold places of pages."""

    __slots__ = ("_emit", "_kind", "_levels", "count")

    def __init__(self, kind: PageKind, emit: Emit) -> None:
        self._kind = kind
        self._emit = emit
        self._levels = [_Level()]
        self.count = 0

    def add(self, item: bytes) -> None:
        """Append an encoded item. Raises: InvalidError if no page can hold it."""
        if len(item) > _ITEM_BYTES_MAX:
            raise InvalidError(
                f"an inner node with its entries takes {len(item)} bytes, a manifest page holds {_ITEM_BYTES_MAX}"
            )
        self._push(0, self.count, item, len(item))
        self.count += 1

    def finish(self, root: Entry | None, root_bytes: int) -> bytes:
        """Close all pages but the root page, and give its plain bytes."""
        number = 0
        while True:
            level = self._levels[number]
            is_top = not level.has_closed
            if is_top and level.item_bytes + root_bytes + HEADER_BYTES_MAX <= ROOT_PAGE_BYTES_MAX:
                return self._page(number, level.items, root)
            while level.items:
                self._close_page(number)
            number += 1

    def _push(self, number: int, first: int, item: _Item, item_bytes: int) -> None:
        if number == len(self._levels):
            self._levels.append(_Level())
        level = self._levels[number]
        level.items.append((first, item, item_bytes))
        level.item_bytes += item_bytes
        # As long as all may still fit the root page, nothing is closed.
        if not level.has_closed and level.item_bytes <= ROOT_PAGE_BYTES_MAX - HEADER_BYTES_MAX:
            return
        while level.item_bytes > PAGE_BYTES_TARGET:
            self._close_page(number)

    def _close_page(self, number: int) -> None:
        """Emit the level's first items that fit the target, at least one, and note the page a level higher."""
        level = self._levels[number]
        taken = page_bytes = 0
        for _, _, item_bytes in level.items:
            if taken and page_bytes + item_bytes > PAGE_BYTES_TARGET:
                break
            taken += 1
            page_bytes += item_bytes
        items = level.items[:taken]
        del level.items[:taken]
        level.item_bytes -= page_bytes
        level.has_closed = True
        place = self._emit(self._page(number, items, None))
        self._push(number + 1, items[0][0], place, CHILD_BYTES_MAX)

    def _page(self, number: int, items: list[tuple[int, _Item, int]], root: Entry | None) -> bytes:
        first = items[0][0] if items else 0
        encoded = [item if isinstance(item, bytes) else encode_child(number, item.ref()) for number, item, _ in items]
        return encode_page(self._kind, number, first, encoded, root)


class MapWriter:
    """Writes a block map: `add` its nodes 0, 1, 2, ... and `finish` with the root block's entry."""

    __slots__ = ("_tree",)

    def __init__(self, emit: Emit) -> None:
        self._tree = _TreeWriter(PageKind.MAP, emit)

    @property
    def nodes(self) -> int:
        """How many nodes were added: the number that the next one must have."""
        return self._tree.count

    def add(self, node: MapNode) -> None:
        """Append the next node.

        Raises: ValueError if it is out of order; InvalidError if it is too large for any page.
        """
        if node.number != self._tree.count:
            raise ValueError(f"node {node.number} came where {self._tree.count} was due")
        self._tree.add(encode_node(node))

    def finish(self, root: Entry) -> bytes:
        """The root page's plain bytes, at most ROOT_PAGE_BYTES_MAX. `root` is Inner(0) where the root has links."""
        return self._tree.finish(root, len(encode_page(PageKind.MAP, 0, 0, (), root)))


class ListWriter:
    """Writes a stripe list: `add` its slots in order, then `finish`."""

    __slots__ = ("_tree",)

    def __init__(self, emit: Emit) -> None:
        self._tree = _TreeWriter(PageKind.LIST, emit)

    @property
    def slots(self) -> int:
        """How many slots were added: the number that the next one gets."""
        return self._tree.count

    def add(self, item: ListSlot) -> int:
        """Append a slot and give its number. Raises: InvalidError if it is too large for any page."""
        number = self._tree.count
        self._tree.add(encode_list_slot(item))
        return number

    def finish(self) -> bytes:
        """The root page's plain bytes, at most ROOT_PAGE_BYTES_MAX."""
        return self._tree.finish(None, 0)
