"""A UnixFS file, or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fungistor.dag.cid import CID
from fungistor.dag.reader import NodeInfo, read_file
from fungistor.dag.source import BlockSource
from fungistor.errors import FungiStorError
from gateway import content_types, headers
from gateway.errors import RefusedError
from gateway.formats import entity, preview
from gateway.formats.target import Target, save_as
from gateway.negotiation import Format
from gateway.requests import Answer, Buffer, Request


def answer(
    request: Request,
    target: Target,
    source: BlockSource,
    info: NodeInfo,
    *,
    index_name: str | None = None,
) -> Answer:
    """Answer with the file that `info` describes.

    For a directory's index file, `index_name` is its name and `target` the directory, whose entity tag it carries.
    """
    etag = f'"{target.cid}"'
    name = index_name or request.query.get("filename") or target.path.last_name
    content_type = _content_type(request, target, source, info, content_types.by_name(name))
    if "preview" in request.query and index_name is None and target.choice.format is Format.DEFAULT:
        return preview.answer(request, target, source, info, content_type() or content_types.OCTETS)
    fields = target.headers(etag, headers.IMMUTABLE)
    if index_name is None:
        fields |= save_as(request, target)

    def read(start: int, stop: int) -> Iterator[Buffer]:
        request.phase = "fetch"
        return read_file(source, info.cid, start, stop)

    modified_s = info.mtime.seconds if info.mtime is not None else None
    guard = _unguarded if request.mount.is_isolated else _guarded
    return entity.answer(request, entity.Entity(etag, info.size, fields, content_type, read, modified_s, guard))


def _guarded(media_type: str) -> dict[str, str]:
    """Under one origin with all other content, a page may run but gets no origin: nothing of the others is its own."""
    is_active = media_type.partition(";")[0] in content_types.ACTIVE
    return {"Content-Security-Policy": headers.SANDBOX} if is_active else {}


def _unguarded(_: str) -> dict[str, str]:
    return {}


def _content_type(
    request: Request, target: Target, source: BlockSource, info: NodeInfo, named: str | None
) -> Callable[[], str | None]:
    wants_json = target.choice.is_from_query and target.choice.format is Format.JSON

    def find() -> str | None:
        if named is not None:
            found: str | None = named
        else:
            try:
                found = _sniffed(source, info.cid, info.size)
            except FungiStorError:
                # Of a part elsewhere in the file only the type is then unknown: it needs no block it does not hold.
                if request.header("range") is None:
                    raise
                found = None
        if wants_json and found != content_types.JSON:
            raise RefusedError(406, f"this file is {found}, not JSON", hint="ask without ?format=json")
        return found

    return find


def _sniffed(source: BlockSource, cid: CID, size: int) -> str:
    head = b"".join(bytes(part) for part in read_file(source, cid, 0, min(size, content_types.SNIFF_BYTES)))
    return content_types.by_content(head, is_whole=size <= content_types.SNIFF_BYTES)
