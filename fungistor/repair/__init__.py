"""Bring every shard where the newest layout wants it: rebuilt where it is missing, copied where it lies elsewhere."""
