"""Where a page stands: the steps of its path, and CIDs short enough to read."""

from __future__ import annotations

from html import escape

from gateway import paths
from gateway.mounts import Mount
from gateway.paths import ContentPath


def breadcrumb(path: ContentPath, mount: Mount) -> str:
    """Return the steps of a path as links."""
    crumbs = [f'<a href="{escape(mount.crumb(paths.join(path.namespace, path.root, ())))}">{escape(path.root)}</a>']
    for depth, segment in enumerate(path.segments, start=1):
        href = escape(mount.crumb(paths.join(path.namespace, path.root, path.segments[:depth])))
        crumbs.append(f'<a href="{href}">{escape(paths.display(segment))}</a>')
    return f"/{path.namespace}/{'/'.join(crumbs)}"


def short_cid(cid: str) -> str:
    """Shorten a CID for a column: its ends tell CIDs apart."""
    return cid if len(cid) <= 24 else f"{cid[:10]}\u2026{cid[-10:]}"
