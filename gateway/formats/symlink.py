"""A symbolic link: its target as text. It is never followed."""

from __future__ import annotations

from fungistor.dag.reader import NodeInfo
from gateway import content_types, headers
from gateway.formats import entity
from gateway.formats.target import Target
from gateway.requests import Answer, Request


def answer(request: Request, target: Target, info: NodeInfo) -> Answer:
    """Answer with the link's target."""
    etag = f'"{target.cid}"'
    fields = target.headers(etag, headers.IMMUTABLE)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    fields["Content-Type"] = content_types.SYMLINK
    body = iter(()) if request.is_head else iter((info.target,))
    return Answer(200, fields, body, len(info.target))
