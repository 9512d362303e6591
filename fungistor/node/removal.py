"""Taking back what was published: the use cases behind `unpublish`, `pin`, `lock`, and a worker of `up`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from fungistor.catalog.removal import Keep
from fungistor.dag.cid import CID
from fungistor.errors import ConflictError, FungiStorError, InvalidError
from fungistor.ids import ObjectId
from fungistor.keys.ring import object_id
from fungistor.node.cache_place import open_cache_disk
from fungistor.node.config import load_config
from fungistor.node.files import locked
from fungistor.node.network import Parts
from fungistor.objects.collect import Collector
from fungistor.objects.paths import parse_cid_path
from fungistor.objects.repack import Repacker
from fungistor.objects.results import Collected, KeptLine, Progress, Unpublished, no_progress
from fungistor.objects.unpublish import RemovalPorts, Remover, drop_gone


class Removal:
    """What a node can be asked to take away."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._remover = Remover(
            RemovalPorts(parts.catalog, parts.content, parts.index, parts.keys, parts.key_table, self._drop_cached)
        )
        self._looked_for_leftovers = False

    def unpublish(self, text: str, *, grace_s: int = 0, dry_run: bool = False) -> Unpublished:
        """Take an object back. Raises as `Remover.unpublish`."""
        root, identity = self._root(text)
        with contextlib.suppress(FungiStorError):
            self._parts.content.catch_up_index()
        outcome = self._remover.unpublish(root, identity, grace_s=grace_s, dry_run=dry_run)
        if dry_run or grace_s:
            return outcome
        return replace(outcome, pending=tuple(sorted({*outcome.pending, *self._parts.copier.erase()})))

    def keep(self, text: str, what: Keep, until: int | None = None) -> str:
        """Undo an unpublish, pin, unpin, or lock; return the CID. Raises as `Remover.keep`."""
        root, identity = self._root(text)
        self._remover.keep(root, identity, what, until)
        return str(root)

    def kept(self) -> Iterator[KeptLine]:
        """All that is pinned or locked."""
        catalog = self._parts.catalog
        catalog.catch_up()
        for kept in catalog.removal.all_kept():
            record = catalog.record(kept.object_id)
            if record is not None and record.tenant == self._parts.tenant:
                name = self._parts.content.name_of(record)
                yield KeptLine(str(name.cid), name.name, kept.pinned, kept.locked or None)

    def expire(self) -> bool:
        """Background work of `up`: what has expired goes, and so do keys that a crash left behind."""
        if not self._looked_for_leftovers:
            self._remover.shred_leftovers()
            drop_gone(self._parts.index, self._parts.catalog)
            self._looked_for_leftovers = True
        return self._remover.expire()

    def collect(self, *, grace_s: int, dry_run: bool = False, progress: Progress = no_progress) -> Collected:
        """Give back the space of what nobody needs.

        Raises: as `Collector.collect`; ConflictError where one runs here.
        """
        parts = self._parts
        if dry_run:
            return self._collector().collect(grace_s=grace_s, dry_run=True, progress=progress)
        with self._alone():
            self._remover.expire()
            self._remover.shred_leftovers()
            outcome = self._collector().collect(grace_s=grace_s, progress=progress)
            self._remover.shred_leftovers()  # of publishers whose sessions were ended just now
            drop_gone(parts.index, parts.catalog)
            parts.index.sweep()
            unwiped, freed = parts.copier.wipe()
        pending = tuple(sorted({*outcome.pending, *unwiped}))
        return replace(outcome, pending=pending, freed=max(0, outcome.freed + freed))

    def _collector(self) -> Collector:
        parts = self._parts
        repacker = Repacker(
            parts.catalog, parts.pool, parts.stripe_list, parts.mender, parts.home.journal, sync=parts.sync
        )
        return Collector(parts.catalog, parts.pool, parts.stripe_list, repacker, parts.home.journal)

    def _alone(self) -> AbstractContextManager[None]:
        busy = ConflictError("a collection runs already in this home", hint="wait until it has ended")
        return locked(self._parts.home.path("run", "gc.lock"), busy)

    def _root(self, text: str) -> tuple[CID, ObjectId]:
        path = parse_cid_path(text)
        if path.segments:
            raise InvalidError("objects are taken back whole", hint=f"`fungistor unpublish {path.cid}`")
        return path.cid, object_id(self._parts.keys.network_key, self._parts.tenant, path.cid.codec, path.cid.multihash)

    def _drop_cached(self, spans: Iterable[bytes]) -> None:
        home = self._parts.home
        config = load_config(home)
        if config.gateway_cache_bytes:
            with contextlib.closing(open_cache_disk(home, config)) as disk:
                disk.drop(spans)
