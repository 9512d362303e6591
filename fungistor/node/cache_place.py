"""Where a home's processes find the cache on disk, and how large it may grow."""

from __future__ import annotations

import shutil

from fungistor.cache.disk import DiskCache
from fungistor.node.config import Config
from fungistor.node.home import Home

DISK_SHARE = 10
"""Of the disk it lies on, a cache takes at most one part in this many: members mostly lie on the same one."""


def open_cache_disk(home: Home, config: Config) -> DiskCache:
    """The spans on disk, bounded by `gateway_cache_bytes` and by the size of the disk.

    Raises: OSError.
    """
    room = shutil.disk_usage(home.root).total // DISK_SHARE
    return DiskCache(home.cache_spans, min(config.gateway_cache_bytes, room))
