"""Stripes: how many shards a run of sealed blocks becomes, how long they are, and what it is called.

m stays and k adapts, so that any m members may die whatever the size. Data shard i is the bytes
[i x shard_bytes, (i + 1) x shard_bytes) of the padded stripe, so a range needs only the shards it touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from fungistor.errors import InvalidError, UnavailableError
from fungistor.ids import StripeId
from fungistor.limits import (
    DATA_SHARDS_MAX,
    PARITY_SHARDS,
    SHARD_UNIT_BYTES,
    STRIPE_BYTES_MAX,
    STRIPE_CLOSE_BYTES,
)

STRIPE_ID_BYTES: Final = 32
SESSION_SECRET_BYTES: Final = 32
DURABLE_MARGIN: Final = 2
"""A stripe counts as stored with this many shards more than it takes to read it, or with all if it has fewer."""

NARROWED: Final = 16
"""While members are away k is smaller, so that nobody owes a shard, where it takes at most one in so many off k."""

# Whole cache lines for the multiplication; below the closing size lengths follow Padme instead.
_SHARD_ALIGN_BYTES: Final = 64
_ID_CONTEXT: Final = "fungistor v0 stripe id"


@dataclass(frozen=True, slots=True)
class Geometry:
    """k data shards and m parity shards of `shard_bytes` each."""

    k: int
    m: int
    shard_bytes: int

    @property
    def shards(self) -> int:
        """k + m."""
        return self.k + self.m

    @property
    def padded_bytes(self) -> int:
        """Length of the stripe with its padding: k x shard_bytes."""
        return self.k * self.shard_bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """How wide a stripe may be: `k` and `m` shards, k one more for each `unit_bytes`."""

    k: int = DATA_SHARDS_MAX
    m: int = PARITY_SHARDS
    unit_bytes: int = SHARD_UNIT_BYTES

    @property
    def margin(self) -> int:
        """How many shards more than k are to be durable before a stripe counts as stored."""
        return min(DURABLE_MARGIN, self.m)


DEFAULT_CUT = Cut()


def geometry(stripe_bytes: int, members: int, members_up: int, cut: Cut = DEFAULT_CUT) -> Geometry:
    """The shape of a stripe of `stripe_bytes` in rows of `members`, of which `members_up` answer now.

    Raises: InvalidError with m members or fewer, or a length out of bounds; UnavailableError with fewer than 3 up.
    """
    if not 1 <= stripe_bytes <= STRIPE_BYTES_MAX:
        raise InvalidError(f"a stripe has 1 to {STRIPE_BYTES_MAX} bytes, not {stripe_bytes}")
    if members <= cut.m:
        raise InvalidError(
            f"the pool has {members} members, {cut.m + 1} is the least that survives {cut.m} losses",
            hint="add members to the pool, or name a policy that survives fewer losses",
        )
    up_min = 1 + cut.margin
    if members_up < up_min:
        raise UnavailableError(
            f"{members_up} of {members} members answer, {up_min} is the least that can hold a new stripe",
            hint="start the members that are down: `fungistor status` shows them",
        )
    by_size = -(-stripe_bytes // cut.unit_bytes)
    k = min(by_size, cut.k, members - cut.m, members_up - cut.margin)
    if (narrower := members_up - cut.m) < k and NARROWED * narrower >= (NARROWED - 1) * k:
        k = narrower
    return Geometry(k, cut.m, _shard_bytes(stripe_bytes, k))


def padme(length: int) -> int:
    """The next length that shows only the top bits of itself: at most 12 % more (Padme, Nikitin et al. 2019)."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask


def stripe_id(session_secret: bytes, counter: int) -> StripeId:
    """The id of a session's stripe number `counter`, so that gc can list every id a session could have used."""
    if len(session_secret) != SESSION_SECRET_BYTES:
        raise ValueError(f"a session secret has {SESSION_SECRET_BYTES} bytes, not {len(session_secret)}")
    return StripeId(blake3(session_secret + counter.to_bytes(8, "big"), derive_key_context=_ID_CONTEXT).digest())


def shards_for(shape: Geometry, offset: int, length: int) -> range:
    """The data shards that hold bytes [offset, offset + length) of the stripe; empty for no bytes.

    Raises: ValueError if the range reaches beyond the stripe.
    """
    if offset < 0 or length < 0 or offset + length > shape.padded_bytes:
        raise ValueError(f"bytes {offset}..{offset + length} lie outside a stripe of {shape.padded_bytes}")
    if length == 0:
        return range(0)
    return range(offset // shape.shard_bytes, (offset + length - 1) // shape.shard_bytes + 1)


def data_shards(shape: Geometry, padded: memoryview) -> list[memoryview]:
    """The k data shards as views into the start of a stripe buffer, which the caller has padded."""
    size = shape.shard_bytes
    if len(padded) < shape.padded_bytes:
        raise ValueError(f"a buffer of {len(padded)} bytes is shorter than the padded stripe's {shape.padded_bytes}")
    return [padded[index * size : (index + 1) * size] for index in range(shape.k)]


def _shard_bytes(stripe_bytes: int, k: int) -> int:
    if stripe_bytes < STRIPE_CLOSE_BYTES:
        return -(-padme(stripe_bytes) // k)
    return -(-stripe_bytes // (k * _SHARD_ALIGN_BYTES)) * _SHARD_ALIGN_BYTES
