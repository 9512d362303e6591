"""All of a network's catalog that its members have, gathered in a folder, where a run that was cut short left off.

Nothing is believed but what opens under the network's key and adds up by the catalog's own digests.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import decode_command
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import BATCH_ENTRIES_MAX, after_entry, entry_number
from fungistor.catalog.state import State
from fungistor.errors import CorruptError, UnavailableError
from fungistor.ids import ObjectId, Revision
from fungistor.keys.ring import fingerprint, network_key_of, unwrap, wrapping_half
from fungistor.keys.table import KeyTable
from fungistor.limits import COMMAND_BYTES_MAX
from fungistor.node.copies.findings import Asked, Rebuilt, is_proven, nothing_found, unproven
from fungistor.node.copies.formats import Anchor, CopyFormats, link_to
from fungistor.node.copies.reading import CopyReader, missing_members, numbered_specs
from fungistor.node.files import read_bounded, write_atomic
from fungistor.node.home import Home
from fungistor.node.members import unknown_spec
from fungistor.node.pool_file import PoolMember
from fungistor.node.snapshots import Snapshots
from fungistor.objects.results import Progress
from fungistor.pool.pool import Pool

ANCHOR_BYTES_MAX = 8 << 20


class Gathering:
    """The folder in which a catalog comes together. Use in `with`."""

    def __init__(self, folder: str, asked: Asked, members: list[PoolMember], progress: Progress) -> None:
        self._folder = folder
        self._asked = asked
        self._members = members
        self._progress = progress
        self._network_key = network_key_of(asked.root)
        self._formats = CopyFormats(self._network_key)
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Gathering:
        pool = self._ending.enter_context(Pool(numbered_specs(self._members), {}))
        self._reader = CopyReader(pool, self._formats)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def read(self) -> Rebuilt:
        """Bring it all together."""
        self._progress(0, None, "asking members")
        self.anchor, missing = self._begin()
        snapshot = self.anchor.snapshots[-1] if self.anchor.snapshots else None
        log = self._ending.enter_context(contextlib.closing(SqliteLog(self._path("log.sqlite"), sync=False)))
        state = self._ending.enter_context(contextlib.closing(State(self._path("state.sqlite"))))
        log.adopt(self.anchor.log, after_entry(self.anchor.first))
        if snapshot is not None and state.progress().applied < snapshot.applied:
            self._progress(0, None, "reading the snapshot")
            snapshots = Snapshots(
                Home(self._folder), self._network_key, lambda: [unknown_spec(one) for one in self._members]
            )
            with contextlib.closing(snapshots.chunks(snapshot)) as chunks:
                state.restore(chunks, self.anchor.log, snapshot.applied)
        entries = self._read_segments(log)
        catalog = Catalog(log, state)
        if not catalog.catch_up():
            raise CorruptError(
                f"the catalog cannot be applied whole: {state.progress().stopped}",
                hint="update fungistor on this machine, and run this again",
            )
        if not state.is_sound():
            raise CorruptError("the rows that came together are not those of their digest", hint="run this again")
        keys, keys_missing = self._read_keys(catalog)
        found = self._count(catalog, state, tuple(missing), entries, keys, keys_missing)
        self.last = entry_number(log.last())
        if not self._asked.incomplete:
            if not found.is_proven:
                raise unproven(len(self.anchor.members), missing, entry_number(log.last()), found.last_commit)
            if keys_missing:
                raise UnavailableError(
                    f"the keys of {keys_missing} of {keys + keys_missing} objects and names are on no member that "
                    "answers",
                    hint="start more members and run this again; or take what there is with --incomplete",
                )
        return found

    def _begin(self) -> tuple[Anchor, list[str]]:
        """The anchor to go by, and who is missing. What an earlier run read by another anchor is thrown away."""
        holding, empty = self._reader.answering()
        anchor = self._reader.anchor()
        if anchor is None:
            silent = [member.id for member in self._members if member.id not in holding | empty]
            answering, print_ = len(holding | empty), fingerprint(self._asked.root)
            raise nothing_found(answering, len(self._members), silent, len(holding), print_)
        for tenant, wrapped in anchor.tenants:
            unwrap(wrapping_half(self._asked.root), wrapped, what=f"key of tenant {tenant}", under="root key")
        kept = read_bounded(self._path("anchor"), ANCHOR_BYTES_MAX) if os.path.exists(self._path("anchor")) else None
        sealed = self._formats.seal_anchor(anchor)
        if kept is not None:
            with contextlib.suppress(CorruptError):
                before = self._formats.open_anchor(kept)
                if (before.log, before.first) != (anchor.log, anchor.first):
                    for name in os.listdir(self._folder):
                        os.unlink(self._path(name))
        write_atomic(self._path("anchor"), sealed)
        self._last_commit = anchor.when
        return anchor, missing_members(anchor, holding)

    def _read_segments(self, log: SqliteLog) -> int:
        at, newest = entry_number(log.last()), b""
        for entry in log.read(log.trimmed()):
            newest = entry.payload
        epoch, batch, size = log.epoch(), list[bytes](), 0
        for segment in self._reader.segments(self.anchor.log, at, link_to(newest) if newest else b""):
            if batch and (len(batch) == BATCH_ENTRIES_MAX or size + len(segment.payload) > COMMAND_BYTES_MAX):
                log.append(epoch, batch)
                batch, size = [], 0
            newest = segment.payload
            batch.append(newest)
            size += len(segment.payload)
            self._progress(segment.number - self.anchor.first, None, "reading segments")
        if batch:
            log.append(epoch, batch)
        if newest:
            with contextlib.suppress(CorruptError):  # of a later program; applying it says so
                self._last_commit = decode_command(newest).when or self._last_commit
        return entry_number(log.last()) - self.anchor.first

    def _read_keys(self, catalog: Catalog) -> tuple[int, int]:
        found = missing = 0
        with contextlib.closing(KeyTable(self._path("keys.sqlite"), sync=False)) as table:
            for tenant, wrapped in self.anchor.tenants:
                table.put_tenant(tenant, wrapped)
            held = set(table.objects())
            for rows, nowhere in self._reader.keys(key for key in _needed(catalog) if key not in held):
                for row in rows:
                    table.put(*row)
                found, missing = found + len(rows), missing + nowhere
                self._progress(found, None, "reading keys")
            return found + len(held), missing

    def _count(
        self, catalog: Catalog, state: State, missing: tuple[str, ...], entries: int, keys: int, keys_missing: int
    ) -> Rebuilt:
        layout, progress = catalog.layout(), state.progress()
        return Rebuilt(
            objects=progress.objects,
            names=sum(name.stands for name in catalog.names_after(Revision(0))),
            members=0 if layout is None else len(layout.members),
            nodes=sum(not issuer.revoked for issuer in catalog.issuers()),
            entries=entries,
            revision=int(progress.revision),
            last_commit=self._last_commit,
            keys=keys,
            keys_missing=keys_missing,
            missing=missing,
            is_proven=is_proven(len(self.anchor.members), missing),
        )

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _needed(catalog: Catalog) -> Iterator[ObjectId]:
    """The keys without which something of a catalog cannot be read."""
    for record in catalog.records():
        yield record.key_id
    for record, _ in catalog.removal.windows():
        yield record.key_id
    for name in catalog.names_after(Revision(0)):
        if name.stands:
            yield ObjectId(name.key_ref)
