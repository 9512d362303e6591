"""What was read before: blocks in memory, sealed spans on disk, and one fetch at a time for what is in neither."""
