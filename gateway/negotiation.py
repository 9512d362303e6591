"""What form of the content the client asked for.

``?format=`` wins over ``Accept`` (IPIP-523). In ``Accept`` the higher q wins, then a type that names one of the
formats over one that any answer satisfies, then the order given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gateway.errors import RefusedError


class Format(Enum):
    """A response format; the value is its name in ``?format=``."""

    DEFAULT = ""
    RAW = "raw"
    CAR = "car"
    TAR = "tar"
    ZIP = "zip"
    DAG_JSON = "dag-json"
    DAG_CBOR = "dag-cbor"
    JSON = "json"
    CBOR = "cbor"
    IPNS_RECORD = "ipns-record"


MEDIA_TYPES = {
    "application/vnd.ipld.raw": Format.RAW,
    "application/vnd.ipld.car": Format.CAR,
    "application/x-tar": Format.TAR,
    "application/zip": Format.ZIP,
    "application/vnd.ipld.dag-json": Format.DAG_JSON,
    "application/vnd.ipld.dag-cbor": Format.DAG_CBOR,
    "application/json": Format.JSON,
    "application/cbor": Format.CBOR,
    "application/vnd.ipfs.ipns-record": Format.IPNS_RECORD,
}

VERIFIABLE = frozenset((Format.RAW, Format.CAR, Format.IPNS_RECORD))
"""What a trustless gateway gives."""

_FAMILIES = ("application/vnd.ipld.", "application/vnd.ipfs.")

_BY_NAME = {wanted.value: wanted for wanted in Format if wanted is not Format.DEFAULT}

_ACCEPT_ITEMS_MAX = 64
"""Browsers send under ten; what lies beyond is ignored."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One item of ``Accept``."""

    type: str
    q: float
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Without q; names in lower case."""

    @property
    def is_wildcard(self) -> bool:
        return self.type.endswith("/*")


@dataclass(frozen=True, slots=True)
class Choice:
    """The format, whether the URL itself asked for it, and whether an ordinary answer would do as well."""

    format: Format
    is_from_query: bool
    takes_default: bool
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the item of ``Accept`` that names the format, also where ``?format=`` names it already."""


def parse_accept(text: str | None) -> tuple[MediaRange, ...]:
    """Read an ``Accept`` field; a missing one accepts everything, a malformed q counts as 0."""
    if text is None or not text.strip():
        return (MediaRange("*/*", 1.0),)
    ranges = []
    for item in text.split(",")[:_ACCEPT_ITEMS_MAX]:
        media_type, *parameters = (part.strip() for part in item.split(";"))
        if "/" in media_type:
            ranges.append(MediaRange(media_type.lower(), _q(parameters), _others(parameters)))
    return tuple(ranges)


def negotiate(query_format: str | None, accept: str | None) -> Choice:
    """Choose the format of the answer.

    Raises:
        RefusedError: 400 for a ``?format=`` that does not exist, 406 when nothing in ``Accept`` can be given.
    """
    ranges = parse_accept(accept)
    takes_default = any(_is_ordinary(media) for media in ranges if media.q > 0)
    if query_format:
        named = _BY_NAME.get(query_format.lower())
        if named is None:
            raise RefusedError(
                400, f"unknown format {query_format[:40]!r}", hint=f"formats: {', '.join(sorted(_BY_NAME))}"
            )
        parameters = next((media.parameters for media in ranges if MEDIA_TYPES.get(media.type) is named), {})
        return Choice(named, is_from_query=True, takes_default=False, parameters=parameters)
    best: tuple[float, bool, Format, Mapping[str, str]] | None = None
    for media in ranges:
        wanted = MEDIA_TYPES.get(media.type, Format.DEFAULT)
        if media.q <= 0 or (wanted is Format.DEFAULT and not _is_ordinary(media)):
            continue
        candidate = (media.q, wanted is not Format.DEFAULT, wanted, media.parameters)
        if best is None or candidate[:2] > best[:2]:
            best = candidate
    if best is None:
        raise RefusedError(406, f"nothing in Accept: {(accept or '')[:80]} can be given", hint="accept */*")
    return Choice(best[2], is_from_query=False, takes_default=takes_default, parameters=best[3])


def is_verifiable(query_format: str | None, accept: str | None) -> bool:
    """Tell whether what is asked for can be checked against its CID or key, and is nothing else."""
    if query_format:
        return _BY_NAME.get(query_format.lower()) in VERIFIABLE
    if accept is None:
        return False
    wanted = [media for media in parse_accept(accept) if media.q > 0]
    return bool(wanted) and all(MEDIA_TYPES.get(media.type) in VERIFIABLE for media in wanted)


def accepts(accept: str | None, media_type: str) -> float:
    """Return the q with which `media_type` is named itself, 0 when only a wildcard would cover it."""
    return max((media.q for media in parse_accept(accept) if media.type == media_type), default=0.0)


def _is_ordinary(media: MediaRange) -> bool:
    """Tell whether any file may answer this range: all types but the other formats of this protocol family."""
    return media.type not in MEDIA_TYPES and not media.type.startswith(_FAMILIES)


def _others(parameters: list[str]) -> dict[str, str]:
    pairs = (parameter.partition("=") for parameter in parameters)
    named = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    named.pop("q", None)
    return named


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                q = float(value)
            except ValueError:
                return 0.0
            return q if 0.0 <= q <= 1.0 else 0.0
    return 1.0
