"""The members as one shard store: connections, scatter, gather, health."""

from fungistor.placement.health import MemberState, Standing
from fungistor.pool.members import IDENTITY_KEY, BarrierResult, Fetched, MemberSpec, PutResult, Receipt
from fungistor.pool.pool import Pool
from fungistor.pool.survey import Inspected, Soundness

__all__ = [
    "IDENTITY_KEY",
    "BarrierResult",
    "Fetched",
    "Inspected",
    "MemberSpec",
    "MemberState",
    "Pool",
    "PutResult",
    "Receipt",
    "Soundness",
    "Standing",
]
