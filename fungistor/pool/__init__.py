"""The members as one shard store: connections, scatter, gather, health."""
