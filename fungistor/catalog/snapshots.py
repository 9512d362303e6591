"""The command that says where a snapshot of the state lies in the pool; what it does is in `snapshot_rows`.

The bytes stand in docs/formats/catalog.md. With a snapshot committed, the log before it may be trimmed: a node that
comes later, or was away, takes the snapshot and goes on from its position.
"""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.catalog.fields import Fields
from fungistor.catalog.log import Position

SNAPSHOT_ID_BYTES = 32
POSITION_BYTES_MAX = 16
DIGEST_BYTES = 32
SHARDS_MAX = 255
CHUNKS_MAX = 2**20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot in the pool: the state at `position`, after `applied` commands, in `chunks` pieces, each coded into
    `shards` of which `k` bring it back. Keys and places follow from `id` and the network's key."""

    id: bytes
    position: Position
    applied: int
    digest: bytes
    chunks: int
    k: int
    shards: int
    size: int


def snapshot_fields(body: Snapshot) -> list[object]:
    """The body as it is encoded."""
    return [body.id, body.position, body.applied, body.digest, body.chunks, body.k, body.shards, body.size]


def take_snapshot(fields: Fields) -> Snapshot:
    """The body as it is read."""
    identity = fields.bytes("id", SNAPSHOT_ID_BYTES, SNAPSHOT_ID_BYTES)
    position = Position(fields.bytes("position", 1, POSITION_BYTES_MAX))
    applied = fields.uint("applied", least=1)
    digest = fields.bytes("digest", DIGEST_BYTES, DIGEST_BYTES)
    chunks = fields.uint("chunks", CHUNKS_MAX, least=1)
    k = fields.uint("k", SHARDS_MAX, least=1)
    shards = fields.uint("shards", SHARDS_MAX, least=k)
    size = fields.uint("size")
    fields.end()
    return Snapshot(identity, position, applied, digest, chunks, k, shards, size)
