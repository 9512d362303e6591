"""A UnixFS directory: a redirect to its slash, its index file, or a page that lists it."""

from __future__ import annotations

from collections.abc import Iterator

from fungistor.dag.reader import NodeInfo, describe
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import entries, lookup
from gateway import headers
from gateway.errors import RefusedError
from gateway.formats import entity, file
from gateway.formats.target import Target
from gateway.negotiation import Format
from gateway.pages import listing
from gateway.pages.listing_json import listing_json
from gateway.pages.paging import Paging
from gateway.requests import Answer, Buffer, Request, redirect

INDEX_NAME = "index.html"

_FIRST_BYTES = 96 * 1024
"""A page up to this long is made before the status line, so that it has a length and cannot fail half-way."""


def answer(request: Request, target: Target, source: BlockSource, info: NodeInfo) -> Answer:
    """Answer for the directory that `info` describes, at the end of the path.

    Raises:
        RefusedError: 422 where its index.html is no file, 406 for forms that a directory does not have.
    """
    if not target.path.is_slashed and request.query.get("go-get") != "1":
        return redirect(f"{request.mount.url_path(target.path.text)}/{request.suffix}")
    wants_listing = target.choice.is_from_query and target.choice.format is Format.JSON
    index = None if wants_listing else lookup(source, target.cid, INDEX_NAME.encode())
    if index is not None:
        page = describe(source, index)
        if page.type != "file":
            raise RefusedError(422, f"index.html of this directory is a {page.type}", hint="name an entry below it")
        return file.answer(request, target, source, page, index_name=INDEX_NAME)
    if target.choice.format is Format.JSON:
        return _json(request, target, source)
    if target.choice.format is not Format.DEFAULT and not target.choice.takes_default:
        raise RefusedError(406, f"a directory has no form {target.choice.format.value!r}", hint="accept text/html")
    return _listing(request, target, source, is_sharded=info.is_sharded)


def _json(request: Request, target: Target, source: BlockSource) -> Answer:
    paging = Paging.parse(request.query, None)
    etag = f'"DirJson-1{paging.tag}_CID-{target.cid}"'
    fields = target.headers(etag, headers.GENERATED)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    fields |= {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
    if not target.choice.is_from_query:
        fields["Content-Location"] = target.location(request, "format=json")
    if request.is_head:
        return Answer(200, fields)
    request.phase = "fetch"
    found = entries(source, target.cid, after=paging.after)
    return Answer(200, fields, listing_json(target.path, target.cid, found, paging), first_bytes=_FIRST_BYTES)


def _listing(request: Request, target: Target, source: BlockSource, *, is_sharded: bool) -> Answer:
    order = listing.Order.parse(request.query.get("sort"), request.query.get("order"))
    paging = Paging.parse(request.query, listing.SORT_ENTRIES_MAX)
    etag = listing.etag(target.cid, order, paging)
    fields = target.headers(etag, headers.GENERATED)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    fields |= {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": headers.PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    if request.is_head:
        return Answer(200, fields)

    def page() -> Iterator[Buffer]:
        request.phase = "fetch"
        found = entries(source, target.cid, after=paging.after)
        yield from listing.listing_page(
            target.path, target.cid, found, order, request.mount, paging, is_sharded=is_sharded
        )

    return Answer(200, fields, page(), first_bytes=_FIRST_BYTES)
