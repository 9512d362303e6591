"""Pure: which member holds which shard, and whom to ask in what order."""
