"""The member daemon: one process, one event loop, the original's disk format."""
