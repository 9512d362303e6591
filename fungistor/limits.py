"""Every bound that more than one room knows, with its reason. Bounds of one room stand in that room."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20

BLOCK_BYTES_MAX = 2 * MIB
"""IPFS: no client accepts a larger block."""

STRIPE_CLOSE_BYTES = 4 * MIB
"""A stripe is closed after the sealed block that brings it to this: 16 shards of 256 KiB, the fastest size measured."""

STRIPE_BYTES_MAX = STRIPE_CLOSE_BYTES + BLOCK_BYTES_MAX + 64 * KIB
"""A stripe one byte short of closing takes one more block, sealed."""

SHARD_UNIT_BYTES = 4 * KIB
"""k grows by one data shard for each of these, so that tiny stripes are copies and not crumbs."""

DATA_SHARDS_MAX = 16
PARITY_SHARDS = 4
"""m: how many members of a stripe may die. It stays the same at every size."""

SHARD_INDEX_MAX = 254
"""GF(256) has room for 255 shards; those above k + m stay free for extra parities."""

ZDB_VALUE_BYTES_MAX = 8 * MIB
ZDB_KEY_BYTES_MAX = 255

INLINE_BYTES_MAX = 16 * KIB
"""An object whose contents are no longer than this lies whole inside its manifest's root page."""

PAGE_BYTES_TARGET = 128 * KIB
"""A manifest page is closed when it reaches this; one inner node may make it longer."""

ROOT_PAGE_BYTES_MAX = 256 * KIB

MANIFEST_PAGE_BYTES_MAX = 6 * MIB
"""An inner node of BLOCK_BYTES_MAX with as many links as fit, and an entry for each."""

COMMAND_BYTES_MAX = 1 * MIB
"""etcd takes 1.5 MiB a request; a batch of commands stays below."""

assert STRIPE_BYTES_MAX <= DATA_SHARDS_MAX * ZDB_VALUE_BYTES_MAX
assert DATA_SHARDS_MAX + PARITY_SHARDS <= SHARD_INDEX_MAX + 1
assert INLINE_BYTES_MAX < ROOT_PAGE_BYTES_MAX <= MANIFEST_PAGE_BYTES_MAX
