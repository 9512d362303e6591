"""Answers made of bytes of a known length: conditions, ranges and HEAD are the same for every format that has one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway import conditions
from gateway.ranges import ByteRange, Multipart, parse_range
from gateway.requests import Answer, Buffer, Request


@dataclass(frozen=True, slots=True)
class Entity:
    """`size` bytes under `etag`. `content_type` is asked for only when it is told, since it may have to look inside;
    None when it could not look."""

    etag: str
    size: int
    headers: dict[str, str]
    content_type: Callable[[], str | None]
    read: Callable[[int, int], Iterator[Buffer]]
    modified_s: int | None = None
    fields_of_type: Callable[[str], dict[str, str]] = lambda _: {}


def answer(request: Request, entity: Entity) -> Answer:
    """Answer with the entity, a part of it, or 304.

    Raises:
        RefusedError: 416.
    """
    fields = dict(entity.headers)
    last_modified = None if entity.modified_s is None else conditions.http_date(entity.modified_s)
    if last_modified is not None:
        fields["Last-Modified"] = last_modified
    if is_not_modified(request, entity.etag, entity.modified_s):
        return Answer(304, fields)
    fields["Accept-Ranges"] = "bytes"
    ranges = _ranges(request, entity)
    if ranges is None:
        found = entity.content_type() or "application/octet-stream"
        fields |= {"Content-Type": found, **entity.fields_of_type(found)}
        body = iter(()) if request.is_head else entity.read(0, entity.size)
        return Answer(200, fields, body, entity.size)
    content_type = entity.content_type()
    if len(ranges) > 1:
        return _multipart(entity, fields, ranges, content_type or "application/octet-stream")
    (only,) = ranges
    fields["Content-Range"] = only.content_range(entity.size)
    if content_type is not None:
        fields |= {"Content-Type": content_type, **entity.fields_of_type(content_type)}
    return Answer(206, fields, entity.read(only.start, only.stop), only.size)


def is_not_modified(request: Request, etag: str, modified_s: int | None = None) -> bool:
    """Tell whether the client's copy is still good; dates count only where no tags were sent."""
    if_none_match = request.header("if-none-match")
    if if_none_match is not None:
        return conditions.matches_none(if_none_match, etag)
    since = request.header("if-modified-since")
    return since is not None and modified_s is not None and conditions.is_unmodified_since(since, modified_s)


def _ranges(request: Request, entity: Entity) -> tuple[ByteRange, ...] | None:
    text = request.header("range")
    if text is None or request.is_head:
        return None
    if_range = request.header("if-range")
    if if_range is not None and not conditions.holds_if_range(if_range, entity.etag, entity.modified_s):
        return None
    return parse_range(text, entity.size)


def _multipart(entity: Entity, fields: dict[str, str], ranges: tuple[ByteRange, ...], content_type: str) -> Answer:
    body = Multipart(ranges, entity.size, content_type, boundary=secrets.token_hex(12))
    fields["Content-Type"] = f"multipart/byteranges; boundary={body.boundary}"
    return Answer(206, fields, body.chunks(entity.read), body.length)
