"""The one thing that reading a DAG asks of the outside: blocks by CID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fungistor.dag.cid import CID


class BlockSource(Protocol):
    """Blocks by CID. Every method may be called from any thread; a reader uses one source from one thread."""

    def get(self, cid: CID) -> bytes:
        """Return a block whose bytes were verified against its CID.

        Raises:
            NotFoundError: nobody has it.
            UnavailableError: it cannot be had now.
            CorruptError: only other bytes could be had.
        """
        ...

    def hint(self, cids: Sequence[CID]) -> None:
        """Learn that these blocks will be asked for in this order, before whatever earlier hints still announce.

        A source may fetch them ahead, as far as its memory allows, or ignore it. Not all of them need be asked for.
        """
        ...


def fetch(source: BlockSource, cid: CID) -> bytes:
    """Return a block; one that stands in its CID is never asked for."""
    return cid.digest if cid.is_identity else source.get(cid)


def announce(source: BlockSource, cids: Sequence[CID]) -> None:
    """Hint at blocks, leaving out those that stand in their CIDs."""
    wanted = [cid for cid in cids if not cid.is_identity]
    if wanted:
        source.hint(wanted)
