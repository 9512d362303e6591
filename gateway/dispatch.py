"""From a path and the root it starts at to the one format that answers for what is at its end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from fungistor.dag.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from fungistor.dag.reader import describe
from fungistor.dag.source import BlockSource
from fungistor.dag.walk import resolve
from gateway.errors import RefusedError
from gateway.formats import archive, car, directory, document, file, raw, symlink
from gateway.formats.target import Target
from gateway.names import Lifetime
from gateway.negotiation import Choice, Format
from gateway.paths import ContentPath
from gateway.requests import Answer, Request
from gateway.symlinks import resolve_following

_UNIXFS_CODECS = frozenset((RAW, DAG_PB))
_DOCUMENT_CODECS = frozenset((DAG_CBOR, DAG_JSON, CBOR, JSON))
_IPLD_FORMATS = frozenset((Format.DAG_JSON, Format.DAG_CBOR))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a path starts: a root, the path below it that a name stands for, and for how long that holds."""

    root: CID
    site: tuple[bytes, ...]
    lifetime: Lifetime | None
    choice: Choice


def answer_path(request: Request, path: ContentPath, start: Start, source: BlockSource, stack: ExitStack) -> Answer:
    """Answer with what stands at the path. What the body needs until it is sent is entered into `stack`."""
    segments, choice = (*start.site, *path.segments), start.choice
    if choice.format is Format.CAR:
        return car.answer(request, car.Walk(path, start.root, segments, choice, start.lifetime), source, stack)
    if request.forms.follow_symlinks and choice.format is not Format.RAW:
        resolution = resolve_following(source, start.root, segments)
    else:
        resolution = resolve(source, start.root, segments)
    target = Target(path, resolution.cid, tuple(resolution.roots), choice, start.lifetime)
    if choice.format is Format.RAW:
        return raw.answer(request, target, source)
    if choice.format in (Format.TAR, Format.ZIP):
        return archive.answer(request, target, source, stack)
    if target.cid.codec in _DOCUMENT_CODECS or choice.format in _IPLD_FORMATS:
        return document.answer(request, target, source, converts=request.forms.convert)
    if target.cid.codec not in _UNIXFS_CODECS:
        raise RefusedError(
            406,
            f"blocks of codec 0x{target.cid.codec:x} have no form but their own",
            hint="?format=raw gives the block itself",
        )
    return _answer_unixfs(request, target, source)


def _answer_unixfs(request: Request, target: Target, source: BlockSource) -> Answer:
    request.phase = "describe"
    info = describe(source, target.cid)
    if info.type == "directory":
        return directory.answer(request, target, source, info)
    if info.type == "symlink":
        return symlink.answer(request, target, info)
    return file.answer(request, target, source, info)
