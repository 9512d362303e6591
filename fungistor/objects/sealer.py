"""Turn chunks of files into stored blocks: read and hash here, the rest as `sealing` does with any block."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fungistor.dag.importer import Leaf, encode_leaf, leaf_cid
from fungistor.dag.profiles import Profile
from fungistor.errors import FailedError
from fungistor.limits import BLOCK_BYTES_MAX, KIB, MIB
from fungistor.objects.scan import Attributes, FileState, shown
from fungistor.objects.sealing import Keep, LookUp, SealingThreads
from fungistor.objects.spool import Spool
from fungistor.objects.stripe_writer import StripeWriter

BATCH_BYTES = 4 * MIB
BATCH_CHUNKS_MAX = 512
"""A batch of tiny files is closed by number, so that the look-ahead of the walk stays bounded."""

HOLE_BYTES_MIN = 64 * KIB
"""Shorter chunks are read: to ask where data begins costs as much."""

SHA2_256 = b"\x12\x20"
_ZEROS = bytes(BLOCK_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of a file, or bytes in hand where there is no file to read (`data`)."""

    profile: Profile
    length: int
    state: FileState | None = None
    offset: int = 0
    last: bool = False
    data: bytes | None = None
    root: Attributes | None = None
    """Set where this chunk's leaf is the file's root and carries its attributes."""


@dataclass(slots=True)
class Batch:
    """Chunks that one thread takes at a time, in the order of the DAG."""

    chunks: list[Chunk] = field(default_factory=list)
    bytes: int = 0

    def add(self, chunk: Chunk) -> None:
        """Put a chunk at the end."""
        self.chunks.append(chunk)
        self.bytes += chunk.length

    @property
    def full(self) -> bool:
        """Whether it is time to hand it over."""
        return self.bytes >= BATCH_BYTES or len(self.chunks) >= BATCH_CHUNKS_MAX


class ChunkReader:
    """Reads chunks into one reused buffer; keeps the last file open, since its next chunk mostly follows."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._path: bytes | None = None
        self._fd = -1
        self._hole = (0, 0)
        self._data = (0, 0)

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._fd >= 0:
            os.close(self._fd)
        self._path, self._fd, self._hole, self._data = None, -1, (0, 0), (0, 0)

    def is_hole(self, chunk: Chunk) -> bool:
        """Whether the file has no data where the chunk lies: zeros, as long as the file stays what it is.

        Raises:
            FailedError: as `read`.
        """
        if chunk.state is None or chunk.length < HOLE_BYTES_MIN:
            return False
        start, end = chunk.offset, chunk.offset + chunk.length
        with _told(chunk.state):
            self._open(chunk.state)
            # Asked once for a run of data, not for each of its chunks: the answer takes longer than a small read.
            if self._data[0] <= start < self._data[1]:
                return False
            if not self._hole[0] <= start < self._hole[1]:
                self._hole = (start, _data_after(self._fd, start, chunk.state.size))
                if self._hole[1] == start:
                    self._data = (start, _hole_after(self._fd, start))
            if end > self._hole[1]:
                return False
            if chunk.last:
                self._check_unchanged(chunk.state)
        return True

    def read(self, chunk: Chunk) -> memoryview:
        """Return the chunk's bytes; they are valid until the next call.

        Raises:
            FailedError: the file cannot be read or is not what it was when it was met.
        """
        if chunk.data is not None:
            return memoryview(chunk.data)
        assert chunk.state is not None
        if len(self._buffer) < chunk.length:
            self._buffer = bytearray(chunk.length)
        view = memoryview(self._buffer)[: chunk.length]
        with _told(chunk.state):
            self._open(chunk.state)
            done = 0
            while done < chunk.length:
                got = os.preadv(self._fd, [view[done:]], chunk.offset + done)
                if got == 0:
                    raise _changed(chunk.state)
                done += got
            if chunk.last:
                self._check_unchanged(chunk.state)
        return view

    def _open(self, state: FileState) -> None:
        if self._path != state.path:
            self.close()
            # O_NONBLOCK: a file replaced by a pipe since it was met must not hang the publisher.
            self._fd = os.open(state.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            self._path = state.path

    def _check_unchanged(self, state: FileState) -> None:
        if FileState.of(state.path, os.fstat(self._fd)) != state:
            raise _changed(state)


@contextlib.contextmanager
def _told(state: FileState) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FailedError(
            f"{shown(state.path)}: cannot be read: {error.strerror or error}",
            hint="make it readable for this user, or leave it out",
        ) from error


def _changed(state: FileState) -> FailedError:
    return FailedError(
        f"{shown(state.path)}: changed while it was read", hint="publish again when nothing writes to it"
    )


def _data_after(fd: int, offset: int, size: int) -> int:
    """Where the first data at or after `offset` lies, `size` if there is none; `offset` where nobody can tell."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:
            return offset
        raise


def _hole_after(fd: int, offset: int) -> int:
    """Where the run of data at `offset` ends; `offset` where nobody can tell."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EINVAL):
            return offset
        raise


class ZeroLeaves:
    """Leaves of holes. Each kind is made and kept once, so that a hole of any size is neither read nor hashed."""

    def __init__(self) -> None:
        self._made: dict[tuple[Profile, int], Leaf] = {}

    def leaf(self, profile: Profile, length: int, keep: Keep) -> Leaf:
        """The leaf of so many zeros, kept if it was not yet."""
        leaf = self._made.get((profile, length))
        if leaf is None:
            leaf = self._made[profile, length] = _leaf(profile, memoryview(_ZEROS)[:length], keep)
        return leaf


def leaves_of(batch: Batch, reader: ChunkReader, keep: Keep, zeros: ZeroLeaves | None = None) -> list[Leaf]:
    """Read and hash the chunks of a batch, hand each block to `keep`, and return their leaves in order.

    With `zeros`, which must have known no other `keep`, the leaves of holes come from there.
    """
    leaves: list[Leaf] = []
    for chunk in batch.chunks:
        if zeros is not None and chunk.root is None and reader.is_hole(chunk):
            leaves.append(zeros.leaf(chunk.profile, chunk.length, keep))
        else:
            leaves.append(_leaf(chunk.profile, reader.read(chunk), keep, chunk.root))
    return leaves


def _leaf(profile: Profile, content: memoryview, keep: Keep, root: Attributes | None = None) -> Leaf:
    stat = root or Attributes()
    _, block = encode_leaf(profile, content, mode=stat.mode, mtime=stat.mtime)
    multihash = SHA2_256 + hashlib.sha256(block).digest()
    keep(multihash, block)
    return Leaf(leaf_cid(profile, multihash), len(block), len(content), root is not None)


class _LeafWorker:
    """Makes leaves of chunks."""

    def __init__(self) -> None:
        self._reader = ChunkReader()
        self._zeros = ZeroLeaves()

    def work(self, batch: Batch, keep: Keep) -> list[Leaf]:
        """Read, hash and keep a batch."""
        return leaves_of(batch, self._reader, keep, self._zeros)

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()


class Sealer(SealingThreads[Batch, "list[Leaf]"]):
    """The threads of a publish of files: a batch's leaves come in its future."""

    def __init__(self, spool: Spool, look_up: LookUp, new_writer: Callable[[], StripeWriter], threads: int) -> None:
        super().__init__(spool, look_up, new_writer, _LeafWorker, threads)
