"""Block sources of one request."""

from __future__ import annotations

from collections.abc import Sequence

from fungistor.dag.cid import CID
from fungistor.dag.source import BlockSource
from fungistor.errors import NotFoundError
from fungistor.limits import BLOCK_BYTES_MAX


class RememberingSource:
    """Remembers the last blocks, up to 2 MiB.

    A path's blocks are wanted a few times: to resolve it, to describe its end, to look at a file's first bytes, to
    send them. Once `settle` is called each is given once more and let go, so that a long answer holds none.
    """

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._blocks: dict[bytes, bytes] = {}
        self._held = 0
        self._is_settled = False

    def get(self, cid: CID) -> bytes:
        """Return a block's verified bytes."""
        known = self._blocks.pop(cid.multihash, None)
        if known is not None:
            if self._is_settled:
                self._held -= len(known)
            else:
                self._blocks[cid.multihash] = known
            return known
        block = self._source.get(cid)
        if not self._is_settled:
            self._remember(cid.multihash, block)
        return block

    def hint(self, cids: Sequence[CID]) -> None:
        """Pass on what will be asked for next, without what is at hand."""
        self._source.hint([cid for cid in cids if cid.multihash not in self._blocks] if self._blocks else cids)

    def settle(self) -> None:
        """Remember nothing new from here on."""
        self._is_settled = True

    def _remember(self, multihash: bytes, block: bytes) -> None:
        self._blocks[multihash] = block
        self._held += len(block)
        while self._held > BLOCK_BYTES_MAX:
            self._held -= len(self._blocks.pop(next(iter(self._blocks))))


class NoBlocks:
    """The source behind an identity CID: its bytes stand in the CID, and nothing else is known."""

    def get(self, cid: CID) -> bytes:
        """Raise NotFoundError."""
        raise NotFoundError(f"{cid} is not held here")

    def hint(self, cids: Sequence[CID]) -> None:
        """Ignore it."""


class TracingSource:
    """Keeps what it was asked for, in that order, until it is taken: what a client needs to follow a read."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._met: list[tuple[CID, bytes]] = []

    def get(self, cid: CID) -> bytes:
        """Return a block, and keep it to be taken."""
        block = self._source.get(cid)
        self._met.append((cid, block))
        return block

    def hint(self, cids: Sequence[CID]) -> None:
        """Pass it on."""
        self._source.hint(cids)

    def take(self) -> list[tuple[CID, bytes]]:
        """Return what was met since the last call."""
        met, self._met = self._met, []
        return met
