"""Blocks of dag-json, dag-cbor, json and cbor: as they are, converted where the operator allows it, or as a page.

By default a block is given in its own codec only, since another form has another hash (IPIP-524).
"""

from __future__ import annotations

from collections.abc import Iterator

from fungistor.dag import ipld
from fungistor.dag.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON
from fungistor.dag.source import BlockSource, fetch
from fungistor.errors import CorruptError, InvalidError
from gateway import headers
from gateway.errors import RefusedError
from gateway.formats import entity
from gateway.formats.target import Target, save_as
from gateway.negotiation import Format, accepts
from gateway.pages import document as page
from gateway.requests import Answer, Buffer, Request, redirect

NAMES = {DAG_CBOR: "dag-cbor", DAG_JSON: "dag-json", CBOR: "cbor", JSON: "json", DAG_PB: "dag-pb"}

_MEDIA_TYPES = {
    Format.DAG_JSON: "application/vnd.ipld.dag-json",
    Format.DAG_CBOR: "application/vnd.ipld.dag-cbor",
    Format.JSON: "application/json",
    Format.CBOR: "application/cbor",
}
_OWN_FORMAT = {DAG_CBOR: Format.DAG_CBOR, DAG_JSON: Format.DAG_JSON, CBOR: Format.CBOR, JSON: Format.JSON}
_AS_IT_IS = {
    Format.DAG_JSON: (DAG_JSON,),
    Format.DAG_CBOR: (DAG_CBOR,),
    Format.JSON: (JSON, DAG_JSON),
    Format.CBOR: (CBOR, DAG_CBOR),
}
_TEXT = frozenset((Format.DAG_JSON, Format.JSON))
FORMATS = frozenset(_MEDIA_TYPES)


def answer(request: Request, target: Target, source: BlockSource, *, converts: bool) -> Answer:
    """Answer with the block at the end of the path in the asked form.

    Raises:
        RefusedError: 406 for a form that the block does not have, and conversion is not allowed.
    """
    wanted = target.choice.format
    if wanted is Format.DEFAULT and target.cid.codec in _OWN_FORMAT and accepts(request.accept, "text/html") > 0:
        return _page(request, target, source)
    form = _OWN_FORMAT.get(target.cid.codec, Format.DAG_JSON) if wanted is Format.DEFAULT else wanted
    is_converted = target.cid.codec not in _AS_IT_IS[form]
    if is_converted and not converts:
        raise refused(target.cid, form)
    etag = f'"{target.cid}.{form.value}"'
    fields = target.headers(etag, headers.IMMUTABLE)
    fields["X-Content-Type-Options"] = "nosniff"
    is_text = form in _TEXT
    fields |= save_as(
        request,
        target,
        kind="inline" if is_text else "attachment",
        filename=f"{target.cid}.{'json' if is_text else 'cbor'}",
    )
    if not target.choice.is_from_query and wanted is not Format.DEFAULT:
        fields["Content-Location"] = target.location(request, f"format={form.value}")
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    request.phase = "fetch"
    block = fetch(source, target.cid)
    body = convert(target.cid, block, form) if is_converted else block

    def read(start: int, stop: int) -> Iterator[Buffer]:
        yield memoryview(body)[start:stop]

    return entity.answer(request, entity.Entity(etag, len(body), fields, lambda: _MEDIA_TYPES[form], read))


def convert(cid: CID, block: bytes, form: Format) -> bytes:
    """Write a block in another form by way of the data model. Plain json and cbor are read as their dag- forms.

    Raises:
        RefusedError: 406 where the data model, or the form, does not hold what is in the block.
    """
    try:
        if cid.codec == DAG_PB:
            value = ipld.of_dag_pb(block)
        else:
            value = ipld.decode(DAG_CBOR if cid.codec in (CBOR, DAG_CBOR) else DAG_JSON, block)
        return ipld.encode(DAG_JSON if form in _TEXT else DAG_CBOR, value)
    except (CorruptError, InvalidError) as error:
        raise RefusedError(406, f"{cid} has no form {form.value!r}: {error}") from error


def refused(cid: CID, form: Format) -> RefusedError:
    """Say that a block has no such form."""
    own = NAMES.get(cid.codec, f"codec 0x{cid.codec:x}")
    return RefusedError(
        406,
        f"{cid} is {own}, and is not converted to {form.value}",
        hint=f"ask with ?format=raw, and convert the block on your side; or for {own} itself",
    )


def _page(request: Request, target: Target, source: BlockSource) -> Answer:
    if not target.path.is_slashed:
        return redirect(f"{request.mount.url_path(target.path.text)}/{request.suffix}")
    etag = page.etag(target.cid)
    fields = target.headers(etag, headers.GENERATED)
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    fields |= {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": headers.PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    request.phase = "fetch"
    block = fetch(source, target.cid)
    body = page.document_page(
        target.path, request.mount, target.cid, NAMES[target.cid.codec], _shown(target.cid, block), len(block)
    )
    answer = Answer.of_bytes(200, fields, body)
    if request.is_head:
        answer.chunks = iter(())
    return answer


def _shown(cid: CID, block: bytes) -> ipld.Value | None:
    try:
        return ipld.decode(DAG_CBOR if cid.codec in (CBOR, DAG_CBOR) else DAG_JSON, block)
    except CorruptError:
        return None
