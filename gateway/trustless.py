"""A host that gives nothing but what a client can check: blocks, CARs and IPNS records."""

from __future__ import annotations

from gateway.errors import RefusedError
from gateway.negotiation import Choice, Format
from gateway.paths import ContentPath

_CHECKABLE = frozenset((Format.RAW, Format.CAR, Format.IPNS_RECORD))


def check(path: ContentPath, choice: Choice) -> None:
    """Let only those requests pass whose answer proves itself.

    Raises:
        RefusedError: 406 for any other form, and for a single block below a path, which proves nothing of the path.
    """
    if choice.format not in _CHECKABLE:
        raise RefusedError(
            406,
            "this host gives only what can be verified",
            hint="ask with ?format=raw, ?format=car or ?format=ipns-record",
        )
    if choice.format is Format.RAW and path.segments:
        raise RefusedError(
            406,
            "a block does not prove the path to it",
            hint="ask with ?format=car&dag-scope=block for the proof as well",
        )
