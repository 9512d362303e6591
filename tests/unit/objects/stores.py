"""Stores in memory with some members down."""

from __future__ import annotations

import random

from fungistor.placement import Policy, plan
from fungistor.testing.memory_network import LAYOUT, members
from fungistor.testing.memory_store import MemoryStore

__all__ = ["LAYOUT", "store_of"]


def store_of(count: int, down: int = 0, seed: int = 0) -> MemoryStore:
    """A store of so many members, some of them down."""
    world = members(count)
    table = plan(world, None, Policy(n=min(20, count)))
    store = MemoryStore({member.number: member.id for member in world}, {LAYOUT: table})
    store.down(random.Random(seed).sample(store.members(), down))
    return store
