"""Taking back what was published: the use cases behind `unpublish`, `pin`, `lock`, and a worker of `up`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
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

OBJECTS_A_COMMIT = 256


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
        ((_, outcome),) = self.unpublish_all([text], grace_s=grace_s, dry_run=dry_run)
        if isinstance(outcome, FungiStorError):
            raise outcome
        return outcome

    def unpublish_all(
        self, texts: Sequence[str], *, grace_s: int = 0, dry_run: bool = False
    ) -> Iterator[tuple[str, Unpublished | FungiStorError]]:
        """Take objects back, so many by one commit; what came of each, in their order."""
        with contextlib.suppress(FungiStorError):
            self._parts.content.catch_up_index()
        for start in range(0, len(texts), OBJECTS_A_COMMIT):
            batch = texts[start : start + OBJECTS_A_COMMIT]
            yield from zip(batch, self._unpublish(batch, grace_s, dry_run), strict=True)

    def _unpublish(self, texts: Sequence[str], grace_s: int, dry_run: bool) -> list[Unpublished | FungiStorError]:
        asked: list[tuple[CID, ObjectId]] = []
        refused: dict[int, FungiStorError] = {}
        for at, text in enumerate(texts):
            try:
                asked.append(self._root(text))
            except FungiStorError as error:
                refused[at] = error
        try:
            told = iter(self._remover.unpublish_all(asked, grace_s=grace_s, dry_run=dry_run))
        except FungiStorError as error:
            return [refused.get(at, error) for at in range(len(texts))]
        away = () if dry_run or grace_s else self._parts.copier.erase()
        return [
            outcome if isinstance(outcome, FungiStorError) else _with_pending(outcome, away)
            for outcome in (refused.get(at) or next(told) for at in range(len(texts)))
        ]

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


def _with_pending(outcome: Unpublished, away: Sequence[str]) -> Unpublished:
    return replace(outcome, pending=tuple(sorted({*outcome.pending, *away})))
