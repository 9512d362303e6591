"""Sharded directories: a hash trie in which a name's 64 bits choose one bucket a level, most significant bits first.

Nothing here reads blocks. The checks make a hostile trie cheap to refuse: fanout and depth are bounded, the bitfield
must agree with the links, and a name must lie where its hash says, so that one shard cannot be shown twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mmh3

from fungistor.dag.dag_pb import PBLink
from fungistor.dag.unixfs import DataType, UnixFS
from fungistor.errors import CorruptError, InvalidError

MURMUR3_X64_64 = 0x22
HASH_BITS = 64

FANOUT_MAX = 1024
"""CVE-2023-23625: larger ones were used to exhaust memory."""

_UPPER_HEX = frozenset(b"0123456789ABCDEF")


def check_fanout(fanout: int) -> None:
    """Refuse a number of buckets that is no power of two from 8 to FANOUT_MAX.

    Raises:
        InvalidError: it is none.
    """
    if not 8 <= fanout <= FANOUT_MAX or fanout & (fanout - 1):
        raise InvalidError(f"a directory fanout of {fanout}, powers of two from 8 to {FANOUT_MAX} are read")


def hash_name(name: bytes) -> int:
    """Return the 64 bits that place a name: the first half of murmur3-x64-128, seed 0."""
    return int(mmh3.mmh3_x64_128_utupledigest(name)[0])


def share_up_to(name: bytes) -> float:
    """Return which part of all hashes, from 0 to 1, lies up to that of a name: a trie is walked in their order."""
    return (hash_name(name) + 1) / (1 << HASH_BITS)


def bits_of(fanout: int) -> int:
    """Return how many bits of a hash each level consumes."""
    return fanout.bit_length() - 1


def depth_max(fanout: int) -> int:
    """Return how many levels a hash has bits for."""
    return HASH_BITS // bits_of(fanout)


def bucket_at(hashed: int, level: int, fanout: int) -> int:
    """Return the bucket of a hash at a level, 0 being the root."""
    return hashed >> (HASH_BITS - bits_of(fanout) * (level + 1)) & (fanout - 1)


def prefix_digits(fanout: int) -> int:
    """Return how many hexadecimal digits in front of a link's name give its bucket."""
    return (bits_of(fanout) + 3) // 4


def bucket_prefix(bucket: int, fanout: int) -> bytes:
    """Return the digits in front of a link's name; alone they name a sub-shard."""
    return b"%0*X" % (prefix_digits(fanout), bucket)


def encode_bitfield(buckets: Sequence[int]) -> bytes:
    """Return which buckets are used: one big-endian number, leading zero bytes stripped (the spec says otherwise)."""
    field = 0
    for bucket in buckets:
        field |= 1 << bucket
    return field.to_bytes((field.bit_length() + 7) // 8, "big")


@dataclass(frozen=True, slots=True)
class Slot:
    """One used bucket. No name: the link leads to a sub-shard."""

    bucket: int
    name: bytes | None
    link: PBLink


def open_shard(message: UnixFS, links: Sequence[PBLink], fanout: int | None = None) -> list[Slot]:
    """Check one shard and return its used buckets in order; with `fanout`, a sub-shard's must be the same.

    Raises:
        CorruptError: another hash, a fanout out of bounds or changed, links that do not fit the bitfield.
    """
    if message.type is not DataType.HAMT_SHARD:
        raise CorruptError(f"a UnixFS {message.type.name.lower()} where a directory shard should be")
    if message.hash_type != MURMUR3_X64_64:
        raise CorruptError(f"a directory shard hashed by {message.hash_type}, only murmur3-x64-64 is known")
    width = message.fanout or 0
    try:
        check_fanout(width)
    except InvalidError as error:
        raise CorruptError(str(error)) from None
    if fanout is not None and width != fanout:
        raise CorruptError(f"a directory shard of fanout {width} below one of {fanout}")
    slots = [_slot(link, width) for link in links]
    field = int.from_bytes(message.data, "big")
    if len(message.data) > width // 8 or field.bit_count() != len(slots):
        raise CorruptError(f"a directory shard of {len(slots)} links with {field.bit_count()} buckets in use")
    last = -1
    for slot in slots:
        if slot.bucket <= last or not field >> slot.bucket & 1:
            raise CorruptError(f"bucket {slot.bucket} of a directory shard is out of order or not in its bitfield")
        last = slot.bucket
    return slots


def _slot(link: PBLink, fanout: int) -> Slot:
    digits = prefix_digits(fanout)
    label = link.name or b""
    prefix = label[:digits]
    if len(prefix) < digits or not _UPPER_HEX.issuperset(prefix):
        raise CorruptError("a directory shard's link without its bucket in front of the name")
    bucket = int(prefix, 16)
    if bucket >= fanout:
        raise CorruptError(f"bucket {bucket} in a directory shard of {fanout}")
    return Slot(bucket, label[digits:] or None, link)
