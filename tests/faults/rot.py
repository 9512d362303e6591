"""Bits flipped in what members have on disk: in shards, their tags, and the daemon's own records."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from fungistor.coding.manifest import Slot
from fungistor.coding.shard import SHARD_TAG_BYTES, shard_key
from fungistor.node.wiring import open_network
from fungistor.zdb.daemon.format import DATA_RECORD, INDEX_RECORD, checksum

LIVE = ("payload", "padding", "tag", "key length", "payload length", "checksum", "deleted flag", "key")
"""What is flipped in a data file under a running member."""

RESEALED = "resealed"
"""A payload flipped with its checksum made right again, in data and index: only the tag tells."""

INDEX = ("index key length", "index offset", "index payload length", "index checksum", "index flag", "index key")
"""What is flipped in an index file, which a member reads as it starts."""

DATA_FIELDS = {"key length": (0, 1), "payload length": (1, 4), "checksum": (9, 4)}
INDEX_FIELDS = {
    "index key length": (0, 1),
    "index offset": (1, 4),
    "index payload length": (5, 4),
    "index checksum": (22, 4),
}
"""Where a field lies in a record's head, and its bytes."""

FLAGS_AT, CHECKSUM_AT, INDEX_CHECKSUM_AT = 13, 9, 22


@dataclass(frozen=True, slots=True)
class Held:
    """One shard, where it lies, and how many of its last payload bytes are padding."""

    stripe: int
    slot: Slot
    index: int
    member: str
    folder: Path
    padding_bytes: int

    @property
    def key(self) -> bytes:
        return shard_key(self.slot.stripe_id, self.index)

    def flip(self, what: str, rng: random.Random) -> None:
        """Flip bits of this shard's record."""
        if what.startswith("index"):
            self._flip_index(what, rng)
            return
        path, at = self._find("data", "d", DATA_RECORD.size)
        head = DATA_RECORD.size + len(self.key)
        size = self.slot.shard_bytes
        if what in DATA_FIELDS:
            start, length = DATA_FIELDS[what]
            flip_bit(path, at + start + rng.randrange(length), rng.randrange(8))
        elif what == "deleted flag":
            flip_bit(path, at + FLAGS_AT, 0)
        elif what == "key":
            flip_bit(path, at + DATA_RECORD.size + rng.randrange(len(self.key)), rng.randrange(8))
        elif what == "tag":
            flip_bit(path, at + head + size + rng.randrange(SHARD_TAG_BYTES), rng.randrange(8))
        else:
            first, count = (size - self.padding_bytes, self.padding_bytes) if what == "padding" else (0, size)
            # An odd number: should all fall on one bit, it is flipped still.
            for _ in range(rng.choice((1, 3, 7))):
                flip_bit(path, at + head + first + rng.randrange(count), rng.randrange(8))
        if what == RESEALED:
            content = path.read_bytes()[at + head : at + head + size + SHARD_TAG_BYTES]
            index_path, index_at = self._find("index", "i", INDEX_RECORD.size)
            for target, where in ((path, at + CHECKSUM_AT), (index_path, index_at + INDEX_CHECKSUM_AT)):
                overwrite(target, where, checksum(content).to_bytes(4, "little"))

    def _flip_index(self, what: str, rng: random.Random) -> None:
        path, at = self._find("index", "i", INDEX_RECORD.size)
        if what in INDEX_FIELDS:
            start, length = INDEX_FIELDS[what]
            flip_bit(path, at + start + rng.randrange(length), rng.randrange(8))
        elif what == "index flag":
            flip_bit(path, at + FLAGS_AT, 0)
        else:
            flip_bit(path, at + INDEX_RECORD.size + rng.randrange(len(self.key)), rng.randrange(8))

    def _find(self, kind: str, letter: str, head: int) -> tuple[Path, int]:
        """The newest record of this shard's key: its file and offset."""
        for path in sorted((self.folder / kind / "fungistor").glob(f"{letter}[0-9]*"), reverse=True):
            at = path.read_bytes().rfind(self.key)
            if at >= head:
                return path, at - head
        raise AssertionError(f"{self.member} has no {kind} record of shard {self.index} of stripe {self.stripe}")


def flip_bit(path: Path, offset: int, bit: int) -> None:
    """Flip one bit in place, as rot does: nothing is told to anybody."""
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes((value ^ 1 << bit,)))


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Write in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def shards_of(home: Path, cid: str) -> list[list[Held]]:
    """Every shard of every stripe of an object, the manifest's stripes among them."""
    network = open_network(str(home))
    try:
        parts = network._parts
        manifest = parts.content.manifest_of(network._record_of(cid))
        lengths = {listed.slot.stripe_id: sum(listed.block_lengths) for listed in manifest.list_slots()}
        stripes = []
        for number, slot in enumerate(manifest.all_slots()):
            window = parts.pool.window(slot.stripe_id, slot.layout, slot.k + slot.m)
            content = lengths.get(slot.stripe_id, slot.k * slot.shard_bytes)
            stripes.append(
                [
                    Held(number, slot, index, name := parts.pool.name(member), home / "members" / name, padding)
                    for index, member in enumerate(window)
                    for padding in [_padding(slot, index, content)]
                ]
            )
        return stripes
    finally:
        network.close()


def _padding(slot: Slot, index: int, content_bytes: int) -> int:
    """How many of a shard's last bytes lie behind the stripe's content."""
    if index >= slot.k:
        return 0
    return min(slot.shard_bytes, max(0, (index + 1) * slot.shard_bytes - content_bytes))


def choose(stripes: list[list[Held]], kinds: tuple[str, ...], rng: random.Random) -> list[tuple[Held, str]]:
    """For every stripe one to four shards, a data shard among them, each with what is to be flipped in it."""
    turn = rng.randrange(len(kinds))
    chosen = []
    for stripe in stripes:
        slot = stripe[0].slot
        needed = rng.randrange(slot.k)
        others = [index for index in range(slot.k + slot.m) if index != needed]
        for index in (needed, *rng.sample(others, rng.randint(0, 3))):
            held, what = stripe[index], kinds[turn % len(kinds)]
            turn += 1
            if what == "padding" and not held.padding_bytes:
                what = "payload"
            chosen.append((held, what))
    return chosen
