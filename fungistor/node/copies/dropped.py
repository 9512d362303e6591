"""Keys that were dropped, as far as a catalog can tell: their copies go from members that were away when they went.

Which members had not confirmed stood in the home that was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fungistor.catalog.catalog import Catalog
from fungistor.catalog.commands import Publish, decode_command, parts_of
from fungistor.catalog.log import Log
from fungistor.catalog.names import SetName
from fungistor.errors import FungiStorError
from fungistor.ids import ObjectId


def dropped_keys(catalog: Catalog, log: Log) -> Iterator[ObjectId]:
    """Keys that nothing needs which stands: of manifests that gc has not done with, and of what is still in the log."""
    removal = catalog.removal
    for gone in removal.retired():
        if not removal.needs_key(gone.record.object_id, gone.record.key_id):
            yield gone.record.key_id
    for entry in log.read(log.trimmed()):
        with contextlib.suppress(FungiStorError):  # of a later program, which knows what it needs
            for part in parts_of(decode_command(entry.payload)):
                match part.body:
                    case Publish(record=record) if not removal.needs_key(record.object_id, record.key_id):
                        yield record.key_id
                    case SetName(name_id=name_id, key_ref=key_ref) if not _names_key(catalog, name_id, key_ref):
                        yield ObjectId(key_ref)
                    case _:
                        pass


def _names_key(catalog: Catalog, name_id: bytes, key_ref: bytes) -> bool:
    name = catalog.name(name_id)
    return name is not None and name.key_ref == key_ref
