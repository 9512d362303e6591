"""From the walk of a tree to its root CID: run ahead of the hashing, then put leaves together in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import BinaryIO

from fungistor.dag.block import Block
from fungistor.dag.cid import CID
from fungistor.dag.importer import FileBuilder, Leaf, Link, build_directory, build_symlink
from fungistor.dag.profiles import Profile, profile_for
from fungistor.errors import FailedError
from fungistor.objects.scan import Attributes, Enter, Event, File, Leave, Skipped, Symlink
from fungistor.objects.sealer import Batch, Chunk

BATCHES_AHEAD = 6
EVENTS_AHEAD_MAX = 4096

Submit = Callable[[Batch], "Future[list[Leaf]]"]
Emit = Callable[[Block], None]


class LookAhead:
    """Walks ahead of the assembler and keeps the sealing threads fed, by a bounded number of batches."""

    def __init__(self, events: Iterable[Event], profile: Profile, submit: Submit) -> None:
        self._profile = profile
        self._submit = submit
        self._events: deque[Event] = deque()
        self._futures: deque[Future[list[Leaf]]] = deque()
        self._leaves: deque[Leaf] = deque()
        self._batch = Batch()
        self._chunks: Iterator[Chunk | None] | None = self._walk(events)

    def event(self) -> Event | None:
        """The next entry of the tree, None at the end."""
        self._fill()
        return self._events.popleft() if self._events else None

    def leaf(self) -> Leaf:
        """The next leaf, in the order of the chunks of the entries."""
        if not self._leaves:
            self._fill()
            if not self._futures:
                self._flush()
            self._leaves.extend(self._futures.popleft().result())
        return self._leaves.popleft()

    def _fill(self) -> None:
        while self._chunks is not None and len(self._futures) < BATCHES_AHEAD:
            if len(self._events) >= EVENTS_AHEAD_MAX:
                return
            try:
                chunk = next(self._chunks)
            except StopIteration:
                self._chunks = None
                self._flush()
                return
            if chunk is not None:
                self._batch.add(chunk)
                if self._batch.full:
                    self._flush()

    def _flush(self) -> None:
        if self._batch.chunks:
            self._futures.append(self._submit(self._batch))
            self._batch = Batch()

    def _walk(self, events: Iterable[Event]) -> Iterator[Chunk | None]:
        for event in events:
            self._events.append(event)
            if isinstance(event, File):
                yield from file_chunks(event, self._profile)
            else:
                yield None


def file_chunks(file: File, profile: Profile) -> Iterator[Chunk]:
    """Cut a file as the profile says; an empty file is one empty chunk."""
    mode, mtime = file.attributes.mode, file.attributes.mtime
    used = profile_for(profile, mode=mode, mtime=mtime)
    size, step = file.state.size, used.chunk_bytes
    if size <= step and (mode is not None or mtime is not None):
        # The only leaf is the root, and carries the attributes itself.
        yield Chunk(used, size, file.state, last=True, root=file.attributes)
        return
    for offset in range(0, max(size, 1), step):
        yield Chunk(used, min(step, size - offset), file.state, offset, last=offset + step >= size)


@dataclass(slots=True)
class _Folder:
    name: bytes
    attributes: Attributes
    links: list[Link] = field(default_factory=list)


@dataclass(slots=True)
class Assembled:
    """The root of a tree and what was met on the way."""

    root: CID
    tsize: int
    size: int
    skipped: list[bytes]


class Assembler:
    """Builds files and folders from leaves; `emit` gets every block that is not a leaf."""

    def __init__(self, profile: Profile, emit: Emit, read_bytes: Callable[[int], None]) -> None:
        self._profile = profile
        self._emit = emit
        self._read_bytes = read_bytes
        self._folders: list[_Folder] = []
        self._root: Link | None = None
        self._size = 0
        self._skipped: list[bytes] = []

    def run(self, look_ahead: LookAhead) -> Assembled:
        """Consume the whole walk.

        Raises:
            FailedError: a file cannot be read or changed meanwhile.
        """
        while (event := look_ahead.event()) is not None:
            match event:
                case Enter(name, attributes):
                    self._folders.append(_Folder(name, attributes))
                case Leave():
                    folder = self._folders.pop()
                    mode, mtime = folder.attributes.mode, folder.attributes.mtime
                    link = build_directory(self._profile, folder.links, self._emit, mode=mode, mtime=mtime)
                    self._done(folder.name, link.cid, link.tsize)
                case File():
                    self._file(event, look_ahead)
                case Symlink(name, target, attributes):
                    link = build_symlink(
                        self._profile, target, self._emit, mode=attributes.mode, mtime=attributes.mtime
                    )
                    self._done(name, link.cid, link.tsize)
                case Skipped(path):
                    self._skipped.append(path)
        if self._root is None:
            raise FailedError("there was nothing to publish")
        return Assembled(self._root.cid, self._root.tsize, self._size, self._skipped)

    def run_stream(self, stream: BinaryIO, submit: Submit) -> Assembled:
        """Read one file of unknown length to its end.

        Raises:
            FailedError: the stream cannot be read.
        """
        builder = FileBuilder(self._profile, self._emit)
        futures: deque[Future[list[Leaf]]] = deque()
        batch = Batch()

        def collect(ahead: int) -> None:
            while len(futures) > ahead:
                for leaf in futures.popleft().result():
                    builder.add(leaf)
                    self._read_bytes(leaf.file_bytes)

        for data in _stream_chunks(stream, self._profile.chunk_bytes):
            batch.add(Chunk(self._profile, len(data), data=data))
            if batch.full:
                futures.append(submit(batch))
                batch = Batch()
                collect(BATCHES_AHEAD)
        if batch.chunks:
            futures.append(submit(batch))
        collect(0)
        root = builder.finish()
        return Assembled(root.cid, root.tsize, root.file_bytes, self._skipped)

    def _file(self, file: File, look_ahead: LookAhead) -> None:
        mode, mtime = file.attributes.mode, file.attributes.mtime
        builder = FileBuilder(profile_for(self._profile, mode=mode, mtime=mtime), self._emit, mode=mode, mtime=mtime)
        for _ in range(0, max(file.state.size, 1), self._profile.chunk_bytes):
            leaf = look_ahead.leaf()
            builder.add(leaf)
            self._read_bytes(leaf.file_bytes)
        root = builder.finish()
        self._size += root.file_bytes
        self._done(file.name, root.cid, root.tsize)

    def _done(self, name: bytes, cid: CID, tsize: int) -> None:
        link = Link(name, cid, tsize)
        if self._folders:
            self._folders[-1].links.append(link)
        else:
            self._root = link


def _stream_chunks(stream: BinaryIO, step: int) -> Iterator[bytes]:
    """Whole chunks of a stream; one empty chunk for an empty stream."""
    first = True
    while True:
        try:
            data = stream.read(step)
        except OSError as error:
            raise FailedError(f"the standard input cannot be read: {error.strerror or error}") from error
        if data or first:
            yield data
        first = False
        if len(data) < step:
            return
