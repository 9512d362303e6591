"""An object as a source of blocks: its block map found on demand, its stored blocks fetched a little ahead.

A reader that walks a DAG says what it will want next (`hint`); the source fetches that in the order named, stripe by
stripe, in a few shared threads, never more than a window of bytes ahead of what was taken.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fungistor.coding.manifest import Entry, Identity, Inline, Inner, Stored
from fungistor.dag.cid import CID
from fungistor.errors import NotFoundError
from fungistor.limits import MIB
from fungistor.objects.manifest_reader import ManifestReader
from fungistor.objects.stripe_reader import StripeReader, Wanted

WINDOW_BYTES = 12 * MIB
"""Blocks fetched and not yet taken, a source: three stripes, enough to keep two threads busy on loopback."""

GROUP_BYTES = 4 * MIB
GROUP_BLOCKS_MAX = 256

ENTRIES_REMEMBERED_MAX = 200_000
"""Entries of nodes already met, a source. Beyond it the oldest nodes are looked up in the map again."""


class ReadThreads:
    """The threads of one process that read stripes for all sources."""

    def __init__(self, reader: StripeReader, threads: int) -> None:
        self.reader = reader
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def submit(self, manifest: ManifestReader, slot: int, wanted: Sequence[Wanted]) -> Future[list[bytes]]:
        """Read blocks of one stripe in a thread."""
        return self._pool.submit(lambda: self.reader.read_blocks(manifest.slot(slot), wanted))

    def close(self) -> None:
        """Let the threads finish what they are at."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Group:
    """Blocks of one stripe that were asked for together."""

    def __init__(self, future: Future[list[bytes]], wanted: Sequence[Wanted]) -> None:
        self.future = future
        self.position = {block.multihash: index for index, block in enumerate(wanted)}
        self.bytes = sum(block.entry.plain_bytes for block in wanted)
        self.left = len(self.position)


class ObjectSource:
    """A `BlockSource` over one object. One reader at a time; that reader may move between threads."""

    def __init__(self, manifest: ManifestReader, threads: ReadThreads) -> None:
        self._manifest = manifest
        self._threads = threads
        self._lock = threading.RLock()
        self._nodes: OrderedDict[int, dict[bytes, Entry]] = OrderedDict()
        self._entries = 0
        self._seeds: dict[bytes, Entry] = {}
        self._plan: deque[Wanted] = deque()
        self._planned: set[bytes] = set()
        self._groups: dict[bytes, _Group] = {}
        self._ahead = 0
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
            for group in self._groups.values():
                group.future.cancel()
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
            if not isinstance(entry, Stored):
                raise NotFoundError(f"block {cid} is not stored with this object")
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
            self._last = (cid.multihash, data)
            self._pump()
        return data

    def plain_bytes(self, cid: CID) -> int | None:
        """A stored block's length, told by the block map without fetching it."""
        with self._lock:
            entry = self._find(cid)
        return entry.plain_bytes if isinstance(entry, Stored) else None

    def hint(self, cids: Sequence[CID]) -> None:
        """These will be asked for, in this order and before what was hinted earlier."""
        with self._lock:
            fresh: list[Wanted] = []
            for cid in cids:
                multihash = cid.multihash
                if multihash in self._planned or multihash in self._groups:
                    continue
                entry = self._find(cid)
                if isinstance(entry, Stored):
                    fresh.append(Wanted(multihash, entry))
                    self._planned.add(multihash)
            self._plan.extendleft(reversed(fresh))
            self._pump()

    def _find(self, cid: CID) -> Entry | None:
        multihash = cid.multihash
        if (seed := self._seeds.get(multihash)) is not None:
            return seed
        for entries in reversed(self._nodes.values()):
            if (entry := entries.get(multihash)) is not None:
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
        """Find or start the group that brings a block; forget what was planned before it."""
        group = self._groups.get(wanted.multihash)
        if group is not None:
            return group
        if wanted.multihash in self._planned:
            while self._plan and self._plan[0].multihash != wanted.multihash:
                self._planned.discard(self._plan.popleft().multihash)
            # What was fetched for blocks that are skipped would fill the window for ever.
            for skipped in {id(g): g for g in self._groups.values()}.values():
                self._drop(skipped)
        else:
            self._plan.appendleft(wanted)
            self._planned.add(wanted.multihash)
        self._start_next()
        return self._groups[wanted.multihash]

    def _pump(self) -> None:
        while self._plan and not self._closed and self._ahead < WINDOW_BYTES:
            self._start_next()

    def _start_next(self) -> None:
        """Start the next group of the plan: blocks in a row that lie in one stripe."""
        slot = self._plan[0].entry.slot
        wanted: list[Wanted] = []
        size = 0
        while self._plan and self._plan[0].entry.slot == slot and len(wanted) < GROUP_BLOCKS_MAX:
            if wanted and size + self._plan[0].entry.plain_bytes > GROUP_BYTES:
                break
            block = self._plan.popleft()
            self._planned.discard(block.multihash)
            wanted.append(block)
            size += block.entry.plain_bytes
        group = _Group(self._threads.submit(self._manifest, slot, wanted), wanted)
        self._ahead += group.bytes
        for block in wanted:
            self._groups[block.multihash] = group

    def _drop(self, group: _Group) -> None:
        held = [multihash for multihash, other in self._groups.items() if other is group]
        for multihash in held:
            del self._groups[multihash]
        if held:
            self._ahead -= group.bytes
            group.future.cancel()
