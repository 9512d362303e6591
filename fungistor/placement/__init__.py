"""Pure: which member holds which shard, and whom to ask in what order."""

from fungistor.placement.planner import Policy, plan, table_policy
from fungistor.placement.policy import DEFAULT_POLICY, StoragePolicy, Zone
from fungistor.placement.table import GROUPS, PlacementTable, group_of, moves, spares, window
from fungistor.placement.topology import Member, distance_km
from fungistor.placement.tracks import DEFAULT_NUMBER, layout_of, policy_of, track

__all__ = [
    "DEFAULT_NUMBER",
    "DEFAULT_POLICY",
    "GROUPS",
    "Member",
    "PlacementTable",
    "Policy",
    "StoragePolicy",
    "Zone",
    "distance_km",
    "group_of",
    "layout_of",
    "moves",
    "plan",
    "policy_of",
    "spares",
    "table_policy",
    "track",
    "window",
]
