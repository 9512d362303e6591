"""``?format=tar`` and ``?format=zip``: a file or a whole folder as one archive, made as it is sent."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack

from fungistor.dag.reader import NodeInfo, describe, read_file
from fungistor.dag.source import BlockSource
from gateway import headers
from gateway.errors import RefusedError
from gateway.formats import entity
from gateway.formats.target import Target, save_as
from gateway.formats.tree import Member, members
from gateway.formats.zip_stream import ZipMember, ZipStream
from gateway.negotiation import Format
from gateway.requests import Answer, Buffer, Request

_FIRST_BYTES = 128 * 1024
"""Made before the status line, so that a small archive with a bad name has a status, and a length."""

_PIECE_BYTES = 64 * 1024
_TAR_BLOCK = 512
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP_YEARS = (1980, 2107)
_MEDIA_TYPES = {Format.TAR: "application/x-tar", Format.ZIP: "application/zip"}


def answer(request: Request, target: Target, source: BlockSource, stack: ExitStack) -> Answer:
    """Answer with an archive of what is at the end of the path, under its CID's name.

    What it needs until it is sent is entered into `stack`.

    Raises:
        RefusedError: 406 for what is no file or folder, or has names that no archive should hold.
    """
    form = target.choice.format
    suffix = "x-tar" if form is Format.TAR else "zip"
    etag = f'W/"{target.cid}.{suffix}"'
    fields = target.headers(etag, headers.IMMUTABLE)
    fields |= {"Content-Type": _MEDIA_TYPES[form], "X-Content-Type-Options": "nosniff", "Accept-Ranges": "none"}
    fields |= save_as(request, target, kind="attachment", filename=f"{target.cid}.{form.value}")
    if not target.choice.is_from_query:
        fields["Content-Location"] = target.location(request, f"format={form.value}")
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    request.phase = "describe"
    info = describe(source, target.cid)
    if request.is_head:
        return Answer(200, fields)
    request.phase = "fetch"
    found = members(source, str(target.cid).encode(), info)
    if form is Format.TAR:
        return Answer(200, fields, _joined(tar_chunks(source, found)), first_bytes=_FIRST_BYTES)
    stream = ZipStream()
    stack.callback(stream.close)
    return Answer(200, fields, _joined(zip_chunks(source, found, stream)), first_bytes=_FIRST_BYTES)


def _joined(pieces: Iterator[Buffer]) -> Iterator[Buffer]:
    """Join small pieces: heads and small files by the million, each sent by itself, would cost more than all else."""
    parts: list[Buffer] = []
    size = 0
    for piece in pieces:
        if len(piece) < _PIECE_BYTES:
            parts.append(piece)
            size += len(piece)
        if parts and (size >= _PIECE_BYTES or len(piece) >= _PIECE_BYTES):
            yield b"".join(parts)
            parts, size = [], 0
        if len(piece) >= _PIECE_BYTES:
            yield piece
    if parts:
        yield b"".join(parts)


def tar_chunks(source: BlockSource, found: Iterator[Member]) -> Iterator[Buffer]:
    """Yield a POSIX tar (pax), with the times and modes that UnixFS has and no owners."""
    for member in found:
        entry = _tar_entry(member)
        yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.info.type == "file":
            yield from read_file(source, member.info.cid)
            yield bytes(-member.info.size % _TAR_BLOCK)
    yield bytes(2 * _TAR_BLOCK)


def _tar_entry(member: Member) -> tarfile.TarInfo:
    info = member.info
    entry = tarfile.TarInfo(member.name.decode("utf-8", "surrogateescape"))
    entry.mtime = info.mtime.seconds if info.mtime is not None and info.mtime.seconds >= 0 else 0
    if info.type == "directory":
        entry.type, entry.mode = tarfile.DIRTYPE, _mode(info, 0o755)
    elif info.type == "symlink":
        entry.type, entry.mode = tarfile.SYMTYPE, 0o777
        entry.linkname = _safe_target(member).decode("utf-8", "surrogateescape")
    else:
        entry.size, entry.mode = info.size, _mode(info, 0o644)
    return entry


def _mode(info: NodeInfo, default: int) -> int:
    """Without set-user-id and its like: nobody should get those from a network."""
    return default if info.mode is None else info.mode & 0o777


def _safe_target(member: Member) -> bytes:
    """Refuse a link out of the archive: a later member written through it would land outside."""
    target = member.info.target
    depth = member.name.count(b"/") - 1  # of the link's folder, below the top one
    if target.startswith(b"/") or b"\0" in target or not target:
        depth = -1
    for part in target.split(b"/"):
        if depth < 0:
            break
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
    if depth < 0:
        shown = target[:80].decode("utf-8", "backslashreplace")
        raise RefusedError(406, f"a symlink to {shown!r} leads out of the archive", hint="take it as ?format=car")
    return target


def zip_chunks(source: BlockSource, found: Iterator[Member], stream: ZipStream) -> Iterator[Buffer]:
    """Yield a ZIP of stored members: what is worth compressing is compressed already, and no CPU is anyone's lever."""
    for member in found:
        entry, content = _zip_entry(source, member)
        yield from stream.member(entry, content)
    yield from stream.end()


def _zip_entry(source: BlockSource, member: Member) -> tuple[ZipMember, Iterator[Buffer]]:
    info = member.info
    name, when = member.name.decode("utf-8", "replace"), _zip_time(info)
    if info.type == "directory":
        return ZipMember(name + "/", when, 0o040000 | _mode(info, 0o755), 0), iter(())
    if info.type == "symlink":
        target = _safe_target(member)
        return ZipMember(name, when, 0o120777, len(target)), iter((target,))
    return ZipMember(name, when, 0o100000 | _mode(info, 0o644), info.size), read_file(source, info.cid)


def _zip_time(info: NodeInfo) -> tuple[int, int, int, int, int, int]:
    if info.mtime is not None:
        try:
            when = time.gmtime(info.mtime.seconds)
        except (OverflowError, OSError, ValueError):
            return _ZIP_EPOCH
        if _ZIP_YEARS[0] <= when.tm_year <= _ZIP_YEARS[1]:
            return when[:6]
    return _ZIP_EPOCH
