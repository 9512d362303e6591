"""``?format=car``: the blocks that prove a path and what lies at its end, in the order in which a reader needs them.

The body is made block by block: a CAR of millions of them holds a few. A block that cannot be had breaks the answer
off; it never ends as if it were whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from fungistor.dag.car import encode_header, section_head
from fungistor.dag.cid import CID, DAG_PB, RAW
from fungistor.dag.reader import describe, read_file
from fungistor.dag.source import BlockSource, fetch
from fungistor.dag.walk import entries, resolve
from fungistor.errors import InvalidError
from fungistor.objects.export_car import dag_blocks
from fungistor.objects.seen import SeenCids
from gateway import headers
from gateway.formats import entity
from gateway.formats.car_query import CarQuery, Scope, read_query
from gateway.formats.target import Target, save_as
from gateway.names import Lifetime
from gateway.negotiation import Choice
from gateway.paths import ContentPath, display
from gateway.requests import Answer, Buffer, Request
from gateway.sources import TracingSource

DUPLICATES_MAX = 100_000
"""A DAG of a few blocks can have more repeats than there are atoms; no client asks for those in earnest."""

_PIECE_BYTES = 64 * 1024
_FIRST_BYTES = 64 * 1024
"""Made before the status line, so that a missing block near the start has a status."""

Blocks = Iterator[tuple[CID, bytes]]


@dataclass(frozen=True, slots=True)
class Walk:
    """A path as it was asked, and the way that it stands for: from a root by names."""

    path: ContentPath
    root: CID
    segments: tuple[bytes, ...]
    choice: Choice
    lifetime: Lifetime | None


def answer(request: Request, walk: Walk, source: BlockSource, stack: ExitStack) -> Answer:
    """Answer with a CAR of the path's blocks and of the wanted part of what it leads to.

    Raises:
        RefusedError: the query is not understood.
        NotFoundError: the path does not exist.
    """
    query = read_query(request.query, walk.choice.parameters)
    tracing = TracingSource(source)
    resolution = resolve(tracing, walk.root, walk.segments)
    target = Target(walk.path, resolution.cid, tuple(resolution.roots), walk.choice, walk.lifetime)
    etag = _etag(target, query)
    fields = target.headers(etag, headers.IMMUTABLE)
    fields |= {"X-Content-Type-Options": "nosniff", "Accept-Ranges": "none", "Content-Type": query.media_type}
    fields |= save_as(request, target, kind="attachment", filename=_name(target))
    if not walk.choice.is_from_query:
        fields["Content-Location"] = target.location(request, query.url_parameters)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    terminal = resolution.cid
    fetch(source, terminal)  # what is not here at all has a status of its own
    if request.is_head:
        return Answer(200, fields)
    request.phase = "fetch"
    seen = SeenCids()
    stack.callback(seen.close)
    body = _body(terminal, _blocks(tracing, terminal, query), query, seen)
    return Answer(200, fields, body, first_bytes=_FIRST_BYTES)


def _etag(target: Target, query: CarQuery) -> str:
    about = f"{target.path.text.rstrip('/')}|{query.tag}".encode()
    return f'W/"{target.cid}.car.{hashlib.blake2b(about, digest_size=8).hexdigest()}"'


def _name(target: Target) -> str:
    last = f"_{display(target.path.segments[-1])}" if target.path.segments else ""
    return f"{target.roots[0]}{last}.car"


def _blocks(tracing: TracingSource, terminal: CID, query: CarQuery) -> Blocks:
    yield from tracing.take()
    if query.scope is Scope.BLOCK:
        yield terminal, fetch(tracing, terminal)
    elif query.scope is Scope.ALL:
        for block in dag_blocks(tracing, terminal, repeated=query.has_duplicates):
            tracing.take()
            yield block
    else:
        yield from _entity_blocks(tracing, terminal, query)


def _entity_blocks(tracing: TracingSource, terminal: CID, query: CarQuery) -> Blocks:
    """The blocks of one file, of one directory without what its names lead to, or of anything else the one block."""
    for _ in _read(tracing, terminal, query):
        yield from tracing.take()
    yield from tracing.take()


def _read(tracing: TracingSource, terminal: CID, query: CarQuery) -> Iterator[object]:
    kind, size = _kind(tracing, terminal)
    tracing.take()
    if kind == "directory":
        yield from entries(tracing, terminal)
    elif kind == "file":
        start, stop = (0, size) if query.entity_bytes is None else query.entity_bytes.within(size)
        yield from read_file(tracing, terminal, start, stop)
    else:
        fetch(tracing, terminal)


def _kind(tracing: TracingSource, terminal: CID) -> tuple[str, int]:
    if terminal.codec not in (DAG_PB, RAW):
        return "block", 0
    try:
        info = describe(tracing, terminal)
    except InvalidError:  # dag-pb that is no UnixFS has no parts
        return "block", 0
    return info.type, info.size


def _body(terminal: CID, blocks: Blocks, query: CarQuery, seen: SeenCids) -> Iterator[Buffer]:
    parts: list[bytes] = [encode_header([terminal])]
    size = repeats = 0
    for cid, block in blocks:
        if cid.is_identity:
            continue
        if query.may_repeat and not seen.add(cid):
            repeats += 1
            if not query.has_duplicates:
                continue
            if repeats > DUPLICATES_MAX:
                raise InvalidError(f"more than {DUPLICATES_MAX} repeated blocks", hint="ask with dups=n")
        parts += (section_head(cid, len(block)), block)
        size += len(block)
        if size >= _PIECE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
