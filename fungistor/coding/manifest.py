"""What a manifest says: the stripe list, for workers without keys, and the block map, for readers.

Both are trees of pages. A page is a leaf (`ListPage`, `MapPage`) or a `Directory` of pages below it. The bytes
are in `page_codec`, writing in page order in `page_writer`, sealing in `pages`, the format in
docs/formats/manifest.md. Nothing here does I/O: `locate_node` and `locate_slot` tell what to load next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from fungistor.coding.stripe import Geometry
from fungistor.errors import CorruptError
from fungistor.ids import LayoutNumber, StripeId


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one stripe is: all that a keyless worker needs to find, check and rebuild its shards."""

    stripe_id: StripeId = field(repr=False)
    k: int
    m: int
    shard_bytes: int
    content_root: bytes
    layout: LayoutNumber

    @property
    def geometry(self) -> Geometry:
        """The stripe's shape."""
        return Geometry(self.k, self.m, self.shard_bytes)


@dataclass(frozen=True, slots=True)
class PageRef:
    """A manifest page: a whole slot, so that it can be read before the stripe list is, and a range of it."""

    slot: Slot
    offset: int
    sealed_bytes: int
    plain_bytes: int
    compression: int
    key: bytes = field(repr=False)

    def ref(self) -> PageRef:
        """Itself: a page that is already in its stripe is its own `PagePlace`."""
        return self


@dataclass(frozen=True, slots=True)
class RootRef:
    """A root page within the manifest's slot; its key is derived, not stored."""

    offset: int
    sealed_bytes: int
    plain_bytes: int
    compression: int


@dataclass(frozen=True, slots=True)
class ManifestRoot:
    """Where both root pages lie: one slot for the two. The catalog's record keeps it, the salt beside it.

    The root pages' keys are derive(list key, "list root page", salt) and derive(object key, "map root page", salt).
    """

    slot: Slot
    list_root: RootRef
    map_root: RootRef
    salt: bytes


@dataclass(frozen=True, slots=True)
class ListSlot:
    """A stripe of an object: the sealed lengths of all its blocks in order, and the runs that the object uses.

    `runs` are (first block, count), rising and apart. `offsets` are the running sum of the lengths.
    """

    slot: Slot
    block_lengths: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(accumulate(self.block_lengths, initial=0)))

    def extent(self, number: int) -> tuple[int, int]:
        """Offset and sealed length of block `number` in the stripe, in bytes.

        Raises: CorruptError if the stripe has no such block.
        """
        if not 0 <= number < len(self.block_lengths):
            raise CorruptError(f"a stripe of {len(self.block_lengths)} blocks has no block {number}")
        return self.offsets[number], self.block_lengths[number]


@dataclass(frozen=True, slots=True)
class Stored:
    """A block in block `number` of stripe list slot `slot`, sealed under its own key."""

    slot: int
    number: int
    plain_bytes: int
    compression: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inline:
    """A block that lies in the map itself."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inner:
    """The block map's node `node`, counted in depth-first pre-order by first occurrence; the root is 0."""

    node: int


@dataclass(frozen=True, slots=True)
class Absent:
    """A block that was not there when the object was published."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A block whose CID holds its bytes."""


Entry = Stored | Inline | Inner | Absent | Identity


@dataclass(frozen=True, slots=True)
class MapNode:
    """An inner node's own bytes, the codec that says where its links are, and an entry for each, in link order."""

    number: int
    codec: int
    data: bytes = field(repr=False)
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """A page below a directory: the first number it holds, its level, and where it is."""

    first: int
    level: int
    page: PageRef


@dataclass(frozen=True, slots=True)
class Directory:
    """A page of references, `level` >= 1 above the leaves. `root` as in `MapPage`."""

    level: int
    children: tuple[Child, ...]
    root: Entry | None = None


@dataclass(frozen=True, slots=True)
class MapPage:
    """A leaf of the block map: nodes numbered from `first`. The root page alone has `root`, the root block's entry."""

    first: int
    nodes: tuple[MapNode, ...]
    root: Entry | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """A leaf of the stripe list: slots numbered from `first`."""

    first: int
    slots: tuple[ListSlot, ...]


def locate_node(page: MapPage | Directory, number: int) -> MapNode | Child:
    """Node `number`, or the child page to load next on the way to it.

    Raises: CorruptError if the page cannot lead to it.
    """
    if isinstance(page, Directory):
        return _child(page, number)
    return page.nodes[_place(page.first, len(page.nodes), number, "node")]


def locate_slot(page: ListPage | Directory, number: int) -> ListSlot | Child:
    """Slot `number`, or the child page to load next on the way to it.

    Raises: CorruptError if the page cannot lead to it.
    """
    if isinstance(page, Directory):
        return _child(page, number)
    return page.slots[_place(page.first, len(page.slots), number, "slot")]


def find_node(root: MapPage | Directory, number: int, load: Callable[[Child], MapPage | Directory]) -> MapNode:
    """Node `number`, by as many calls of `load` as the tree has levels.

    Raises: CorruptError if there is no such node, and whatever `load` raises.
    """
    page = root
    while isinstance(step := locate_node(page, number), Child):
        page = load(step)
    return step


def find_slot(root: ListPage | Directory, number: int, load: Callable[[Child], ListPage | Directory]) -> ListSlot:
    """Slot `number`, by as many calls of `load` as the tree has levels.

    Raises: CorruptError if there is no such slot, and whatever `load` raises.
    """
    page = root
    while isinstance(step := locate_slot(page, number), Child):
        page = load(step)
    return step


def _child(page: Directory, number: int) -> Child:
    place = bisect_right(page.children, number, key=_first)
    if place == 0:
        raise CorruptError(f"number {number} lies before the first of its directory page")
    return page.children[place - 1]


def _first(child: Child) -> int:
    return child.first


def _place(first: int, count: int, number: int, what: str) -> int:
    if not first <= number < first + count:
        raise CorruptError(f"{what} {number} is not in a page of {count} from {first}")
    return number - first
