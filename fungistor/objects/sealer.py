"""Turn chunks of files into stored blocks in a few threads: read, hash, look up, compress, seal, code, send.

One thread does a stripe's whole work in its own buffers and on its own sockets. An orchestrating loop around pool
threads was measured 15 % slower, and new buffers a block cost twice the encryption.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from fungistor.dag.importer import Leaf, encode_leaf, leaf_cid
from fungistor.dag.profiles import Profile
from fungistor.errors import FailedError
from fungistor.limits import MIB
from fungistor.objects.ports import Buffer
from fungistor.objects.scan import Attributes, FileState, shown
from fungistor.objects.spool import Spool, StoredBlock
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


LookUp = Callable[[bytes], StoredBlock | None]
"""Find a block that the tenant already stores in a healthy stripe, as a block of this object."""


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


Keep = Callable[[bytes, Buffer], None]
"""Take a block by multihash; its bytes are valid during the call only."""


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


def keep_in_stripes(spool: Spool, look_up: LookUp, writer: StripeWriter) -> Keep:
    """Store each block once: not at all if this publish or the tenant has it, else in the writer's open stripe."""

    def keep(multihash: bytes, block: Buffer) -> None:
        if spool.claim((multihash,)):
            stored = look_up(multihash) or writer.append(multihash, block)
            spool.store(((multihash, stored),))

    return keep


class Sealer:
    """A bounded set of threads that take batches. `close` waits for the last stripe; `cancel` gives up at once."""

    def __init__(self, spool: Spool, look_up: LookUp, new_writer: Callable[[], StripeWriter], threads: int) -> None:
        self._spool = spool
        self._look_up = look_up
        self._new_writer = new_writer
        self._queue: queue.SimpleQueue[tuple[Batch, Future[list[Leaf]]] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"sealer-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Batch) -> Future[list[Leaf]]:
        """Hand a batch over; its leaves come in the future."""
        future: Future[list[Leaf]] = Future()
        self._queue.put((batch, future))
        return future

    def close(self) -> None:
        """Let the threads finish and send their open stripes. Raises what one of them met."""
        self._stop()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Make the threads drop what they have not begun."""
        self._cancelled.set()
        self._stop()

    def _stop(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _given_up(self) -> bool:
        return self._cancelled.is_set() or self._error is not None

    def _run(self) -> None:
        writer = self._new_writer()
        reader = ChunkReader()
        keep = keep_in_stripes(self._spool, self._look_up, writer)
        try:
            for batch, future in iter(self._queue.get, None):
                if self._given_up():
                    # Whoever waits for this batch must meet the reason, not a bare cancellation.
                    future.set_exception(self._error or FailedError("the publish was given up"))
                    continue
                try:
                    future.set_result(leaves_of(batch, reader, keep))
                except BaseException as error:  # noqa: BLE001 the thread that waits for the future raises it
                    self._error = self._error or error
                    future.set_exception(error)
            if not self._given_up():
                writer.close_stripe()
        except BaseException as error:  # noqa: BLE001 `close` raises it in the caller's thread
            self._error = self._error or error
        finally:
            reader.close()
