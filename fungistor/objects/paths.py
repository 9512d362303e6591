"""`CID[/path]` as people write it: with or without `/ipfs/`, names as they are and never percent-decoded."""

from __future__ import annotations

from dataclasses import dataclass

from fungistor.dag.cid import CID
from fungistor.errors import InvalidError

SEGMENTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class CidPath:
    """A root and the names to follow from it."""

    cid: CID
    segments: tuple[str, ...]


def parse_cid_path(text: str) -> CidPath:
    """Take `CID[/path]` apart.

    Raises:
        InvalidError: the first part is no CID, or the path is too long.
    """
    rest = text.removeprefix("ipfs://").removeprefix("/ipfs/").lstrip("/")
    first, *names = rest.split("/")
    if not first:
        raise InvalidError("a CID is missing", hint="give CID or CID/path, as `fungistor objects` lists them")
    segments = tuple(name for name in names if name)
    if len(segments) > SEGMENTS_MAX:
        raise InvalidError(f"a path of {len(segments)} names is longer than {SEGMENTS_MAX}")
    try:
        return CidPath(CID.parse(first), segments)
    except InvalidError as error:
        raise InvalidError(
            f"{first!r} is no CID: {error.message}", hint="give CID or CID/path, as `fungistor objects` lists them"
        ) from error
