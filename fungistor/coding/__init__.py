"""Pure: compress, seal, stripe, erasure-code, shard, manifest pages."""
