"""Paths through symbolic links, where the operator lets them be followed: never out of the root the request names."""

from __future__ import annotations

from collections import deque

from fungistor.dag.cid import CID, DAG_PB
from fungistor.dag.reader import describe
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import Resolution, resolve
from gateway.errors import RefusedError

FOLLOWED_MAX = 32
"""Links on one path; more is a circle."""


def resolve_following(source: BlockSource, root: CID, segments: tuple[bytes, ...]) -> Resolution:
    """Follow a path and every symlink on it. Absolute targets begin at the root, as in a folder that was chrooted.

    Raises:
        RefusedError: 404 for links that lead above the root, 422 for more than FOLLOWED_MAX of them.
        NotFoundError, CorruptError, UnavailableError, InsideBlockError: as `resolve`.
    """
    pending = deque(segments)
    walked: list[tuple[bytes, tuple[CID, ...]]] = []
    here: tuple[CID, ...] = (root,)
    followed = 0
    while pending:
        name = pending.popleft()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not walked:
                raise RefusedError(404, "a symlink on this path leads above its root")
            walked.pop()
            here = walked[-1][1] if walked else (root,)
            continue
        if here[-1].codec != DAG_PB:  # linked data has no symlinks, and may use several names for one step
            rest = (name, *pending)
            resolution = resolve(source, here[-1], rest)
            return Resolution(resolution.cid, (*here, *resolution.roots[1:]))
        child = resolve(source, here[-1], (name,)).cid
        target = _symlink_target(source, child)
        if target is None:
            here = (*here, child)
            walked.append((name, here))
            continue
        followed += 1
        if followed > FOLLOWED_MAX:
            raise RefusedError(422, f"more than {FOLLOWED_MAX} symlinks on this path")
        if target.startswith(b"/"):
            walked.clear()
            here = (root,)
        pending.extendleft(reversed(target.split(b"/")))
    return Resolution(here[-1], here)


def _symlink_target(source: BlockSource, cid: CID) -> bytes | None:
    if cid.codec != DAG_PB:
        return None
    info = describe(source, cid)
    return info.target if info.type == "symlink" else None
