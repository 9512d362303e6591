"""Move a network's catalog from the file in its home to etcd, while the network stands still.

Identity, numbers and bytes of all entries stay, so what this node has applied stays applied. Nothing of the file is
changed; it is put aside when all of it was read back from etcd, and that is the way back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fungistor.catalog.engines.etcd import EtcdLog
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.log import BATCH_ENTRIES_MAX, Entry, Log, Position
from fungistor.errors import ConflictError, CorruptError, InvalidError
from fungistor.keys.files import load_node_keys
from fungistor.limits import COMMAND_BYTES_MAX
from fungistor.node.catalog_place import CatalogOptions, catalog_url, etcd_log, open_keys, with_options
from fungistor.node.config import Config, load_config, save_config
from fungistor.node.home import Home
from fungistor.objects.results import Progress

ASIDE = ".migrated"


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved, and where the file lies now."""

    entries: int
    bytes: int
    source: str
    target: str
    aside: str


def migrate(home: Home, asked: CatalogOptions, progress: Progress) -> Moved:
    """Copy the log, read it back, then go by etcd from now on. May be repeated after an interruption.

    Raises:
        ConflictError: the network runs, or etcd holds another catalog under that prefix.
        InvalidError: the catalog is on etcd already, or the URL cannot be used.
        UnavailableError: etcd cannot be had; the network is as it was.
    """
    home.check_version()
    config = load_config(home)
    has_file, wanted = os.path.exists(home.catalog_log), with_options(config, asked)
    # A run that was cut short at its very end has left the file in its place.
    if config.catalog is not None and not (has_file and config.catalog == wanted.catalog):
        raise InvalidError(f"the catalog of this network is on etcd already: {config.catalog}")
    if not has_file:
        raise InvalidError(f"{home.root} holds no catalog yet", hint="start it with `up --catalog URL`")
    lock = home.lock()
    try:
        with contextlib.closing(SqliteLog(home.catalog_log)) as source:
            if config.catalog is None:
                with contextlib.closing(etcd_log(wanted)) as target:
                    bring(source, target, progress)
                share_keys(home, wanted, load_node_keys(os.path.join(home.keys, "node.key")).network_key)
                save_config(home, wanted)
            entries, size, _ = _sum(source)
        aside = home.catalog_log + ASIDE
        os.replace(home.catalog_log, aside)
    finally:
        os.close(lock)
    return Moved(entries, size, f"sqlite:{home.catalog_log}", catalog_url(home, wanted), aside)


def share_keys(home: Home, wanted: Config, network_key: bytes) -> None:
    """Bring the home's key table beside the log, and back into the home as its mirror."""
    keys = open_keys(home, wanted, network_key)
    try:
        keys.follow()
    finally:
        keys.close()


def bring(source: SqliteLog, target: EtcdLog, progress: Progress) -> tuple[int, int]:
    """Bring a log's entries to etcd as they are, and read them back; how many, and their bytes. May be repeated.

    Raises: as `migrate`.
    """
    target.adopt(source.identity(), source.trimmed())
    done = target.last()
    if int.from_bytes(done, "big") > int.from_bytes(source.last(), "big"):
        raise ConflictError(
            "etcd has entries that this catalog has not", hint="it was moved before: set it in config.toml"
        )
    epoch, moved = target.epoch(), 0
    for batch in _batches(source, done):
        position = target.append(epoch, [entry.payload for entry in batch])
        if position != batch[-1].position:
            raise CorruptError(
                "somebody else appends to this catalog", hint="stop all nodes of this network, then repeat"
            )
        moved += sum(len(entry.payload) for entry in batch)
        progress(moved, None, "entries")
    copied, kept = _sum(target), _sum(source)
    if copied != kept:
        raise CorruptError(
            "what etcd gives back is not what was brought there", hint="nothing was changed here; repeat it"
        )
    return kept[0], kept[1]


def _batches(source: Log, after: Position) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in source.read(after):
        if batch and (len(batch) == BATCH_ENTRIES_MAX or size + len(entry.payload) > COMMAND_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.payload)
    if batch:
        yield batch


def _sum(log: Log) -> tuple[int, int, bytes]:
    """How many entries, how many bytes, and one digest over positions and payloads."""
    count = size = 0
    digest = hashlib.sha256()
    for entry in log.read(log.trimmed()):
        count += 1
        size += len(entry.payload)
        digest.update(entry.position + hashlib.sha256(entry.payload).digest())
    return count, size, digest.digest()
