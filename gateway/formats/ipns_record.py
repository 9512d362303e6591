"""``?format=ipns-record``: the signed record of a key, which the client can check against the name itself."""

from __future__ import annotations

import hashlib

from gateway import conditions, headers
from gateway.backend import Content
from gateway.formats import entity
from gateway.names import Names, record_for
from gateway.paths import ContentPath
from gateway.requests import Answer, Request

MEDIA_TYPE = "application/vnd.ipfs.ipns-record"


def answer(request: Request, path: ContentPath, names: Names, content: Content) -> Answer:
    """Answer with the record.

    Raises: InvalidError where the name is no key; NotFoundError, NameFailedError (expired), CorruptError.
    """
    record = record_for(names, content, path.root, request.reader)
    etag = f'"{hashlib.sha256(record.encoded).hexdigest()[:32]}.ipns-record"'
    filename = request.query.get("filename") or f"{path.root}.ipns-record"
    fields = {
        "Etag": etag,
        "Cache-Control": f"public, max-age={int(names.remaining_s(record))}",
        "Content-Type": MEDIA_TYPE,
        "Content-Disposition": headers.disposition("attachment", filename),
        "X-Content-Type-Options": "nosniff",
        "X-Ipfs-Path": path.text,
    }
    expires = conditions.http_date(int(record.expires_s))
    if expires is not None:
        fields["Expires"] = expires
    if "format" not in request.query:
        fields |= {"Vary": "Accept", "Content-Location": f"{request.mount.url_path(path.text)}?format=ipns-record"}
    if entity.is_not_modified(request, etag):
        return Answer(304, fields)
    body = iter(()) if request.is_head else iter((record.encoded,))
    return Answer(200, fields, body, len(record.encoded))
