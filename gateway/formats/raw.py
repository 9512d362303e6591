"""``?format=raw``: one block's bytes, which the client can check against the CID itself."""

from __future__ import annotations

from collections.abc import Iterator

from fungistor.dag.source import BlockSource, fetch
from gateway import headers
from gateway.formats import entity
from gateway.formats.target import Target, save_as
from gateway.requests import Answer, Buffer, Request

MEDIA_TYPE = "application/vnd.ipld.raw"


def answer(request: Request, target: Target, source: BlockSource) -> Answer:
    """Answer with the block at the end of the path, of any codec."""
    etag = f'"{target.cid}.raw"'
    fields = target.headers(etag, headers.IMMUTABLE)
    fields["X-Content-Type-Options"] = "nosniff"
    fields |= save_as(request, target, kind="attachment", filename=f"{target.cid}.bin")
    if not target.choice.is_from_query:
        fields["Content-Location"] = f"{request.mount.url_path(target.path.text)}?format=raw"
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    request.phase = "fetch"
    block = fetch(source, target.cid)

    def read(start: int, stop: int) -> Iterator[Buffer]:
        yield memoryview(block)[start:stop]

    return entity.answer(request, entity.Entity(etag, len(block), fields, lambda: MEDIA_TYPE, read))
