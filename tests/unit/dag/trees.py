"""File trees written as plain data, as they stand in tests/vectors/unixfs.json, and their import."""

from __future__ import annotations

from typing import Any

from fungistor.dag import Emit, Link, Mtime, Profile, build_directory, build_symlink, import_file
from tests.unit.dag.blocks import cut

Tree = dict[str, Any]
"""One of `text`, `symlink`, `entries` (name to tree), and maybe `mode` and `mtime` ([seconds, nanoseconds])."""


def import_tree(profile: Profile, tree: Tree, emit: Emit) -> Link:
    """Import a tree under a profile and return its root."""
    mode = tree.get("mode")
    mtime = Mtime(*tree["mtime"]) if "mtime" in tree else None
    if "symlink" in tree:
        return build_symlink(profile, tree["symlink"].encode(), emit, mode=mode, mtime=mtime)
    if "text" in tree:
        chunks = cut(tree["text"].encode(), profile.chunk_bytes)
        root = import_file(profile, chunks, emit, mode=mode, mtime=mtime)
        return Link(b"", root.cid, root.tsize)
    links = []
    for name, child in tree["entries"].items():
        link = import_tree(profile, child, emit)
        links.append(Link(name.encode(), link.cid, link.tsize))
    return build_directory(profile, links, emit, mode=mode, mtime=mtime)
