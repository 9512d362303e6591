"""Import profiles: the parameters that together decide which CID a file gets (IPIP-499, docs/formats/unixfs.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from fungistor.dag.hamt import check_fanout
from fungistor.dag.unixfs import Mtime
from fungistor.errors import InvalidError
from fungistor.limits import BLOCK_BYTES_MAX, KIB, MIB

CHUNK_BYTES_MAX = BLOCK_BYTES_MAX - 256
"""Kubo's bound: a leaf with its envelope stays below the largest block that peers accept."""


class DirectorySize(Enum):
    """How a directory's size is reckoned when it is decided whether to shard it."""

    LINKS = "links"
    """Bytes of all names and CIDs: the old estimate, which ignores the envelope."""

    BLOCK = "block"
    """Bytes of the block as it would be written."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to import. A directory is sharded when its size, reckoned so, *exceeds* `shard_above_bytes`."""

    name: str
    cid_version: int
    raw_leaves: bool
    chunk_bytes: int
    file_width: int
    directory_size: DirectorySize
    shard_above_bytes: int = 256 * KIB
    fanout: int = 256

    def __post_init__(self) -> None:
        """Refuse what could not be read back."""
        if self.cid_version not in (0, 1):
            raise InvalidError(f"CID version {self.cid_version} in profile {self.name}")
        if self.cid_version == 0 and self.raw_leaves:
            raise InvalidError(f"profile {self.name}: a CIDv0 cannot name a raw leaf")
        if not 1 <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise InvalidError(f"chunks of {self.chunk_bytes} bytes, 1 to {CHUNK_BYTES_MAX} can be read back")
        if self.file_width < 2:
            raise InvalidError(f"a file node with {self.file_width} links, at least 2 are needed")
        check_fanout(self.fanout)


UNIXFS_V1_2025 = Profile("unixfs-v1-2025", 1, True, 1 * MIB, 1024, DirectorySize.BLOCK)
UNIXFS_V0_2015 = Profile("unixfs-v0-2015", 0, False, 256 * KIB, 174, DirectorySize.LINKS)
KUBO_CIDV1 = Profile("kubo-cidv1", 1, True, 256 * KIB, 174, DirectorySize.LINKS)

PROFILES = {profile.name: profile for profile in (UNIXFS_V1_2025, UNIXFS_V0_2015, KUBO_CIDV1)}
DEFAULT_PROFILE = UNIXFS_V1_2025


def profile_for(profile: Profile, *, mode: int | None = None, mtime: Mtime | None = None) -> Profile:
    """Return the profile to import one file under, which has no raw leaves if mode or time are kept.

    A raw block has no room for them, and Kubo then wraps all leaves of the file, not only a root that is one.
    """
    if (mode is None and mtime is None) or not profile.raw_leaves:
        return profile
    return replace(profile, raw_leaves=False)
