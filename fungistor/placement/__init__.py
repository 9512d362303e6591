"""Pure: which member holds which shard, and whom to ask in what order."""

from fungistor.placement.planner import Policy, plan
from fungistor.placement.table import GROUPS, PlacementTable, group_of, moves, spares, window
from fungistor.placement.topology import Member, distance_km

__all__ = [
    "GROUPS",
    "Member",
    "PlacementTable",
    "Policy",
    "distance_km",
    "group_of",
    "moves",
    "plan",
    "spares",
    "window",
]
