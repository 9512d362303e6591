"""``?preview``: a page that shows a file rather than giving it: a picture, a film, sound, or the start of a text."""

from __future__ import annotations

from fungistor.dag.reader import NodeInfo, read_file
from fungistor.dag.source import BlockSource
from gateway import headers
from gateway.formats import entity
from gateway.formats.target import Target
from gateway.pages import preview as page
from gateway.requests import Answer, Request

_POLICY = headers.PAGE_POLICY.replace("img-src data:", "img-src 'self' data:; media-src 'self'")


def answer(request: Request, target: Target, source: BlockSource, info: NodeInfo, media_type: str) -> Answer:
    """Answer with the page. Of the file at most SHOWN_BYTES are read."""
    etag = page.etag(target.cid)
    fields = target.headers(etag, headers.GENERATED)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    fields |= {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    request.phase = "fetch"
    kind = page.kind_of(media_type)
    text = b""
    if kind is page.Kind.TEXT and not request.is_head:
        text = b"".join(bytes(part) for part in read_file(source, info.cid, 0, page.SHOWN_BYTES))
    shown = page.Shown(target.cid, info.size, media_type, kind, text)
    made = Answer.of_bytes(200, fields, page.preview_page(target.path, request.mount, shown))
    if request.is_head:
        made.chunks, made.length = iter(()), None
    return made
