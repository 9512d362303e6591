"""The threads that store blocks: look up, compress, seal, code, send, whatever the blocks come from.

One thread does a stripe's whole work in its own buffers and on its own sockets. An orchestrating loop around pool
threads was measured 15 % slower, and new buffers a block cost twice the encryption.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from fungistor.errors import FailedError
from fungistor.limits import KIB, MIB
from fungistor.objects.ports import Buffer
from fungistor.objects.spool import Spool, StoredBlock
from fungistor.objects.stripe_writer import StripeWriter

LookUp = Callable[[Sequence[bytes]], Mapping[bytes, StoredBlock]]
"""Find those of some blocks that the tenant already stores in a healthy stripe, as blocks of this object."""

Keep = Callable[[bytes, Buffer], None]
"""Take a block by multihash; its bytes are valid during the call only."""

GATHERED_BLOCK_BYTES_MAX = 64 * KIB
GATHERED_BYTES_MAX = MIB
GATHERED_BLOCKS_MAX = 512
"""Small blocks are looked up together: alone, a 100-byte file spent most of its time in statements and locks."""

Work = TypeVar("Work")
Done = TypeVar("Done")
_WorkTaken = TypeVar("_WorkTaken", contravariant=True)
_DoneGiven = TypeVar("_DoneGiven", covariant=True)


class Worker(Protocol[_WorkTaken, _DoneGiven]):
    """What a thread does with a batch: get its blocks and hand each to `keep`. Every thread has its own."""

    def work(self, batch: _WorkTaken, keep: Keep) -> _DoneGiven:
        """Do a whole batch."""

    def close(self) -> None:
        """Let go of files and buffers."""


class StripeKeeper:
    """Stores each block once: not at all if this publish or the tenant has it, else in the writer's open stripe.

    Small blocks are copied and gathered; `flush` stores what was gathered. Not thread-safe.
    """

    def __init__(self, spool: Spool, look_up: LookUp, writer: StripeWriter) -> None:
        self._spool = spool
        self._look_up = look_up
        self._writer = writer
        self._gathered: dict[bytes, bytes] = {}
        self._gathered_bytes = 0

    def keep(self, multihash: bytes, block: Buffer) -> None:
        """Take a block."""
        if len(block) > GATHERED_BLOCK_BYTES_MAX:
            self._store({multihash: block})
        elif multihash not in self._gathered:
            self._gathered[multihash] = bytes(block)
            self._gathered_bytes += len(block)
            if len(self._gathered) >= GATHERED_BLOCKS_MAX or self._gathered_bytes >= GATHERED_BYTES_MAX:
                self.flush()

    def flush(self) -> None:
        """Store what was gathered."""
        gathered, self._gathered, self._gathered_bytes = self._gathered, {}, 0
        if gathered:
            self._store(gathered)

    def _store(self, blocks: Mapping[bytes, Buffer]) -> None:
        claimed = self._spool.claim(blocks)
        if not claimed:
            return
        mine = [multihash for multihash in blocks if multihash in claimed]
        known = self._look_up(mine)
        self._spool.store([(mh, known.get(mh) or self._writer.append(mh, blocks[mh])) for mh in mine])


class SealingThreads(Generic[Work, Done]):
    """A bounded set of threads that take batches. `close` waits for the last stripe; `cancel` gives up at once."""

    def __init__(
        self,
        spool: Spool,
        look_up: LookUp,
        new_writer: Callable[[], StripeWriter],
        new_worker: Callable[[], Worker[Work, Done]],
        threads: int,
    ) -> None:
        self._spool = spool
        self._look_up = look_up
        self._new_writer = new_writer
        self._new_worker = new_worker
        self._queue: queue.SimpleQueue[tuple[Work, Future[Done]] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"sealer-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Work) -> Future[Done]:
        """Hand a batch over; what comes of it is in the future."""
        future: Future[Done] = Future()
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
        worker = self._new_worker()
        keeper = StripeKeeper(self._spool, self._look_up, writer)
        try:
            for batch, future in iter(self._queue.get, None):
                if self._given_up():
                    # Whoever waits for this batch must meet the reason, not a bare cancellation.
                    future.set_exception(self._error or FailedError("the publish was given up"))
                    continue
                try:
                    done = worker.work(batch, keeper.keep)
                    keeper.flush()
                    future.set_result(done)
                except BaseException as error:  # noqa: BLE001 the thread that waits for the future raises it
                    self._error = self._error or error
                    future.set_exception(error)
            if not self._given_up():
                writer.close_stripe()
        except BaseException as error:  # noqa: BLE001 `close` raises it in the caller's thread
            self._error = self._error or error
        finally:
            worker.close()
