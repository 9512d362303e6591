"""Turn chunks of files into stored blocks: read and hash here, the rest as `sealing` does with any block."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from fungistor.dag.importer import Leaf, encode_leaf, leaf_cid
from fungistor.dag.profiles import Profile
from fungistor.errors import FailedError
from fungistor.limits import MIB
from fungistor.objects.scan import Attributes, FileState, shown
from fungistor.objects.sealing import Keep, LookUp, SealingThreads
from fungistor.objects.spool import Spool
from fungistor.objects.stripe_writer import StripeWriter

BATCH_BYTES = 4 * MIB
BATCH_CHUNKS_MAX = 512
"""A batch of tiny files is closed by number, so that the look-ahead of the walk stays bounded."""

SHA2_256 = b"\x12\x20"


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

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._fd >= 0:
            os.close(self._fd)
        self._path, self._fd = None, -1

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
        try:
            if self._path != chunk.state.path:
                self.close()
                # O_NONBLOCK: a file replaced by a pipe since it was met must not hang the publisher.
                self._fd = os.open(chunk.state.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
                self._path = chunk.state.path
            done = 0
            while done < chunk.length:
                got = os.preadv(self._fd, [view[done:]], chunk.offset + done)
                if got == 0:
                    break
                done += got
            changed = done < chunk.length
            if chunk.last and not changed:
                changed = FileState.of(chunk.state.path, os.fstat(self._fd)) != chunk.state
        except OSError as error:
            raise FailedError(
                f"{shown(chunk.state.path)}: cannot be read: {error.strerror or error}",
                hint="make it readable for this user, or leave it out",
            ) from error
        if changed:
            raise FailedError(
                f"{shown(chunk.state.path)}: changed while it was read",
                hint="publish again when nothing writes to it",
            )
        return view


def leaves_of(batch: Batch, reader: ChunkReader, keep: Keep) -> list[Leaf]:
    """Read and hash the chunks of a batch, hand each block to `keep`, and return their leaves in order."""
    leaves: list[Leaf] = []
    for chunk in batch.chunks:
        root = chunk.root or Attributes()
        _, block = encode_leaf(chunk.profile, reader.read(chunk), mode=root.mode, mtime=root.mtime)
        multihash = SHA2_256 + hashlib.sha256(block).digest()
        keep(multihash, block)
        leaves.append(Leaf(leaf_cid(chunk.profile, multihash), len(block), chunk.length, chunk.root is not None))
    return leaves


class _LeafWorker:
    """Makes leaves of chunks."""

    def __init__(self) -> None:
        self._reader = ChunkReader()

    def work(self, batch: Batch, keep: Keep) -> list[Leaf]:
        """Read, hash and keep a batch."""
        return leaves_of(batch, self._reader, keep)

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()


class Sealer(SealingThreads[Batch, "list[Leaf]"]):
    """The threads of a publish of files: a batch's leaves come in its future."""

    def __init__(self, spool: Spool, look_up: LookUp, new_writer: Callable[[], StripeWriter], threads: int) -> None:
        super().__init__(spool, look_up, new_writer, _LeafWorker, threads)
