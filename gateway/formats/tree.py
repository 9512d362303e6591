"""A DAG of UnixFS as files with names, for archives. No name leads out of the archive's one top folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fungistor.dag.reader import NodeInfo, describe
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import entries
from fungistor.errors import InvalidError
from gateway.errors import RefusedError

DEPTH_MAX = 128
NAME_BYTES_MAX = 4096
"""Longer paths are no file's on any system that unpacks archives."""

ENTRIES_MAX = 1_000_000
"""A DAG of a few blocks can list more files than there is disk on Earth; whoever has more takes a CAR."""


@dataclass(frozen=True, slots=True)
class Member:
    """One thing in an archive; `name` begins with the top folder's name, or is it."""

    name: bytes
    info: NodeInfo


def members(source: BlockSource, top: bytes, info: NodeInfo) -> Iterator[Member]:
    """Yield what lies at and below a node, folders before what is in them.

    Raises:
        RefusedError: a name that leads out of the top folder, or no file system could hold; too much of it.
    """
    yield Member(top, info)
    if info.type != "directory":
        return
    count = 0
    pending = [(top, entries(source, info.cid))]
    while pending:
        folder, below = pending[-1]
        entry = next(below, None)
        if entry is None:
            pending.pop()
            continue
        count += 1
        if count > ENTRIES_MAX:
            raise RefusedError(501, f"more than {ENTRIES_MAX} entries in one archive", hint="take it as ?format=car")
        name = _name_below(top, folder, entry.name)
        try:
            found = describe(source, entry.cid)
        except InvalidError as error:
            raise RefusedError(406, f"an archive holds files, and {entry.cid} is none: {error}") from error
        yield Member(name, found)
        if found.type == "directory":
            if len(pending) == DEPTH_MAX:
                raise RefusedError(501, f"folders nested deeper than {DEPTH_MAX}", hint="take it as ?format=car")
            pending.append((name, entries(source, found.cid)))


def _name_below(top: bytes, folder: bytes, name: bytes) -> bytes:
    """Join as a file system would, with ``.`` and ``..`` resolved here rather than by whoever unpacks."""
    parts: list[bytes] = []
    for part in (*folder.split(b"/"), *name.split(b"/")):
        if part == b"..":
            if not parts:
                break
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    joined = b"/".join(parts)
    if not joined.startswith(top + b"/") or b"\0" in joined or len(joined) > NAME_BYTES_MAX:
        shown = name[:80].decode("utf-8", "backslashreplace")
        raise RefusedError(406, f"the name {shown!r} leads out of the archive", hint="take it as ?format=car")
    return joined
