"""A file system that forgets at a power cut what was not fsynced: a double in memory behind /dev/fuse."""
