"""An object as a source of blocks: its block map found on demand, its stored blocks fetched a little ahead.

A reader that walks a DAG says what it will want next (`hint`); the source fetches that in the order named, stripe by
stripe, in a few shared threads, never more than a window of bytes ahead of what was taken.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fungistor.coding.manifest import Absent, Entry, Identity, Inline, Inner, Stored
from fungistor.dag.cid import CID
from fungistor.errors import NotFoundError
from fungistor.limits import MIB
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.ports import ReadCache
from fungistor.objects.stripe_reader import StripeReader, Wanted

WINDOW_BYTES_MAX = 8 * MIB
"""Blocks fetched and not yet taken, a source: two stripes keep two threads busy; a third was measured no faster."""

WINDOW_BYTES_MIN = 1 * MIB
"""Where every source begins, and where a slow reader ends: hundreds of them must not hold stripes that nobody takes."""

PAUSE_S = 0.1
"""A reader that takes its next block later than this after the last one is not waiting for us."""

GROUP_BYTES = 4 * MIB
GROUP_BLOCKS_MAX = 256

AHEAD_OF_LATER_BYTES = 2 * GROUP_BYTES
"""What may be fetched beyond the window when it is full of blocks that come later: a large file before many small."""

STALE_PLANNED_MAX = 4096
"""Places in the plan of blocks that were hinted again since; beyond it they are swept out."""

ENTRIES_REMEMBERED_MAX = 65_536
"""Entries of nodes already met, a source. Beyond it the oldest nodes are looked up in the map again."""


KEPT_BYTES_MAX = 64 * MIB
"""Of the first pass over an object, what is kept on disk: what lies beyond is mostly never read again, and writing it
took a fifth of the time of reading it. A second pass shows that it is, and all it brings is kept."""

REPEATED_SHARE = 2
"""Of what is kept on disk, one pass takes at most one part in this many."""


class ReadThreads:
    """The threads of one process that read stripes for all sources."""

    def __init__(self, reader: StripeReader, threads: int) -> None:
        self.reader = reader
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    @property
    def cache(self) -> ReadCache | None:
        """What was read before."""
        return self.reader.cache

    def submit(
        self, manifest: ManifestReader, slot: int, wanted: Sequence[Wanted], *, keep: bool
    ) -> Future[list[bytes]]:
        """Read blocks of one stripe in a thread."""
        context = contextvars.copy_context()  # so that whoever waits for it sees whom it waits for
        return self._pool.submit(context.run, self._read, manifest, slot, wanted, keep)

    def _read(self, manifest: ManifestReader, slot: int, wanted: Sequence[Wanted], keep: bool) -> list[bytes]:
        return self.reader.read_blocks(manifest.slot(slot), wanted, keep=keep)

    def close(self) -> None:
        """Let the threads finish what they are at."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Group:
    """Blocks of one stripe that were asked for together; `last` is the rank of the one to be taken last."""

    def __init__(self, future: Future[list[bytes]], wanted: Sequence[Wanted], last: int) -> None:
        self.future = future
        self.last = last
        self.position = {block.multihash: index for index, block in enumerate(wanted)}
        self.bytes = sum(block.entry.plain_bytes for block in wanted)
        self.left = len(self.position)


class ObjectSource:
    """A `BlockSource` over one object. One reader at a time; that reader may move between threads."""

    def __init__(
        self, manifest: ManifestReader, threads: ReadThreads, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._manifest = manifest
        self._threads = threads
        self._clock = clock
        self._lock = threading.RLock()
        self._nodes: OrderedDict[int, dict[bytes, Entry]] = OrderedDict()
        self._entries = 0
        self._seeds: dict[bytes, Entry] = {}
        # Each hint stands before all earlier ones, so ranks fall from hint to hint and rise along the plan. A place in
        # the plan counts only if the block has that rank still.
        self._front = 0
        self._plan: deque[tuple[int, Wanted]] = deque()
        self._planned: dict[bytes, int] = {}
        self._groups: dict[bytes, _Group] = {}
        self._running: list[_Group] = []
        self._ahead = 0
        self._asked = 0
        self._is_repeated: bool | None = None
        self._window = WINDOW_BYTES_MIN
        self._taken_at = -math.inf
        self._closed = False
        # Whoever describes a file reads it next, and its only block would be fetched twice.
        self._last: tuple[bytes, bytes] = (b"", b"")

    def __enter__(self) -> ObjectSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was fetched ahead; threads that are at it finish for themselves."""
        with self._lock:
            self._closed = True
            self._plan.clear()
            self._planned.clear()
            for group in self._running:
                group.future.cancel()
            self._running.clear()
            self._groups.clear()

    def seed(self, cid: CID, entry: Entry) -> None:
        """Learn where a block lies, from which the reading is to start."""
        with self._lock:
            self._seeds[cid.multihash] = entry

    def get(self, cid: CID) -> bytes:
        """The verified bytes of a block.

        Raises:
            NotFoundError: the object has no such block.
            NotEnoughShardsError: its stripe cannot be read now.
        """
        with self._lock:
            if self._closed:
                raise NotFoundError(f"block {cid}: the source is closed")
            if self._last[0] == cid.multihash:
                return self._last[1]
            entry = self._find(cid)
            if isinstance(entry, Inner):
                return self._remember(entry.node, cid)
            if isinstance(entry, Inline):
                return entry.data
            if isinstance(entry, Identity):
                return cid.digest
            if isinstance(entry, Absent):
                raise NotFoundError(
                    f"block {cid} is missing: its object was imported without it",
                    hint="import a CAR file that has it, or publish its content again",
                )
            if not isinstance(entry, Stored):
                raise NotFoundError(f"block {cid} is not stored with this object")
            kept = self._kept(cid)
            if kept is not None:
                return kept
            self._pace()
            group = self._take(Wanted(cid.multihash, entry))
        try:
            blocks = group.future.result()
        except BaseException:
            with self._lock:
                self._drop(group)
            raise
        data = blocks[group.position[cid.multihash]]
        with self._lock:
            if self._groups.pop(cid.multihash, None) is group:
                group.left -= 1
                if group.left == 0:
                    self._ahead -= group.bytes
                    self._running.remove(group)
            self._last = (cid.multihash, data)
            self._taken_at = self._clock()
            self._pump()
        return data

    def _kept(self, cid: CID) -> bytes | None:
        """A block from memory, unless it is being fetched already."""
        cache = self._threads.cache
        if cache is None or cid.multihash in self._groups:
            return None
        block = cache.block(cid.multihash)
        if block is not None:
            self._planned.pop(cid.multihash, None)
            self._last = (cid.multihash, block)
        return block

    def plain_bytes(self, cid: CID) -> int | None:
        """A stored block's length, told by the block map without fetching it."""
        with self._lock:
            entry = self._find(cid)
        return entry.plain_bytes if isinstance(entry, Stored) else None

    def hint(self, cids: Sequence[CID]) -> None:
        """These will be asked for, in this order and before what was hinted earlier."""
        with self._lock:
            fresh: dict[bytes, Wanted] = {}
            cache = self._threads.cache
            for cid in cids:
                if cid.multihash not in fresh and cid.multihash not in self._groups:
                    entry = self._find(cid)
                    if isinstance(entry, Stored) and not (cache is not None and cache.has_block(cid.multihash)):
                        fresh[cid.multihash] = Wanted(cid.multihash, entry)
            self._put_first(list(fresh.values()))
            self._pump()

    def _put_first(self, blocks: Sequence[Wanted]) -> None:
        """Plan these before all that is planned."""
        self._front -= len(blocks)
        ranked = list(enumerate(blocks, self._front))
        self._planned.update((block.multihash, rank) for rank, block in ranked)
        self._plan.extendleft(reversed(ranked))
        if len(self._plan) > len(self._planned) + STALE_PLANNED_MAX:
            self._plan = deque(place for place in self._plan if self._planned.get(place[1].multihash) == place[0])

    def _head(self) -> Wanted | None:
        """The block to be fetched next."""
        while self._plan:
            rank, block = self._plan[0]
            if self._planned.get(block.multihash) == rank:
                return block
            self._plan.popleft()
        return None

    def _find(self, cid: CID) -> Entry | None:
        multihash = cid.multihash
        if (seed := self._seeds.get(multihash)) is not None:
            return seed
        for number in reversed(self._nodes):
            if (entry := self._nodes[number].get(multihash)) is not None:
                # A folder whose entries are still asked for must outlast what lies below them.
                self._nodes.move_to_end(number)
                return entry
        return self._manifest.search(multihash)

    def _remember(self, number: int, cid: CID) -> bytes:
        node = self._manifest.node(number)
        if number in self._nodes:
            self._nodes.move_to_end(number)
        else:
            entries = self._manifest.entries(node, cid)
            self._nodes[number] = entries
            self._entries += len(entries)
            while self._entries > ENTRIES_REMEMBERED_MAX and len(self._nodes) > 1:
                self._entries -= len(self._nodes.popitem(last=False)[1])
        return node.data

    def _take(self, wanted: Wanted) -> _Group:
        """Find or start the group that brings a block; forget what was to be taken before it."""
        group = self._groups.get(wanted.multihash)
        if group is not None:
            return group
        rank = self._planned.get(wanted.multihash)
        if rank is None:
            self._put_first([wanted])
        else:
            while (head := self._head()) is not None and head.multihash != wanted.multihash:
                del self._planned[head.multihash]
            # What was fetched for blocks that are skipped would fill the window for ever.
            for running in [running for running in self._running if running.last < rank]:
                self._drop(running)
        # Where there is no room at all, the block comes alone: it is taken at once.
        self._start_next(GROUP_BLOCKS_MAX if self._has_room(wanted) else 1)
        return self._groups[wanted.multihash]

    def _pace(self) -> None:
        """Double the window for a reader that keeps asking, halve it for one that lets blocks lie."""
        if self._clock() - self._taken_at > PAUSE_S:
            self._window = max(WINDOW_BYTES_MIN, self._window // 2)
        else:
            self._window = min(WINDOW_BYTES_MAX, self._window * 2)

    def _pump(self) -> None:
        while (head := self._head()) is not None and not self._closed and self._has_room(head):
            self._start_next(GROUP_BLOCKS_MAX)

    def _has_room(self, block: Wanted) -> bool:
        if self._ahead < self._window:
            return True
        rank = self._planned[block.multihash]
        later = any(running.last > rank for running in self._running)
        return later and self._ahead < self._window + AHEAD_OF_LATER_BYTES

    def _start_next(self, blocks_max: int) -> None:
        """Start the next group of the plan: blocks in a row that lie in one stripe."""
        wanted: list[Wanted] = []
        size = last = 0
        size_max = min(GROUP_BYTES, self._window)
        while (head := self._head()) is not None and len(wanted) < blocks_max:
            if wanted and (head.entry.slot != wanted[0].entry.slot or size + head.entry.plain_bytes > size_max):
                break
            self._plan.popleft()
            last = self._planned.pop(head.multihash)
            wanted.append(head)
            size += head.entry.plain_bytes
        keep = self._keeps()
        self._asked += size
        group = _Group(self._threads.submit(self._manifest, wanted[0].entry.slot, wanted, keep=keep), wanted, last)
        self._running.append(group)
        self._ahead += group.bytes
        for block in wanted:
            self._groups[block.multihash] = group

    def _keeps(self) -> bool:
        """Tell whether what comes next is to be kept on disk."""
        if self._asked < KEPT_BYTES_MAX:
            return True
        cache = self._threads.cache
        if cache is None:
            return False
        if self._is_repeated is None:
            self._is_repeated = cache.note_pass(self._manifest.where.slot.stripe_id)
        return self._is_repeated and self._asked < cache.sealed_bytes_max // REPEATED_SHARE

    def _drop(self, group: _Group) -> None:
        if group in self._running:
            self._running.remove(group)
            self._ahead -= group.bytes
            group.future.cancel()
        for multihash in group.position:
            if self._groups.get(multihash) is group:
                del self._groups[multihash]
