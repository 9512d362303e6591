"""The gateway's one port: where blocks come from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from fungistor.dag.cid import CID
from fungistor.dag.source import BlockSource
from fungistor.objects.access import Reader


class Content(Protocol):
    """What this network holds, by root CID or by the CID of any block below one."""

    def open(self, root: CID, reader: Reader | None = None) -> AbstractContextManager[BlockSource]:
        """Give the blocks of the DAG at `root` for the time of one request, to a reader or to anybody.

        Called from worker threads. The source is used by one thread at a time, though not always the same one, and is
        closed in a worker thread as soon as the answer is sent or its client has left. Every `get` ends under a
        deadline of its own. What `get` returned may still be on its way to a socket after the source was closed,
        so it is never overwritten.

        Raises:
            NotFoundError: nothing that the reader may read has this block, and the node has caught up enough to know.
            UnavailableError: it cannot be had now; `retry_after_s` says when to ask again.
        """
        ...

    def hides(self, root: CID, reader: Reader | None = None) -> bool:
        """Tell whether this is the root of a private object alone, of which the reader may not know."""
        ...
