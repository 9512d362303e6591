"""A directory as JSON for programs, made as it is sent: one entry a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from fungistor.dag.cid import CID, RAW
from fungistor.dag.walk import DirEntry
from gateway import paths
from gateway.pages.paging import Paging
from gateway.paths import ContentPath

_CHUNK_CHARS = 32_000


def listing_json(path: ContentPath, directory: CID, found: Iterable[DirEntry], paging: Paging) -> Iterator[bytes]:
    """Yield the document in chunks. `next` is the query of the next page, null on the last."""
    head = {"cid": str(directory), "path": path.text}
    buffer = [json.dumps(head, ensure_ascii=False)[:-1], ', "entries": [']
    length, mark = 0, "\n"
    page = paging.cut(found)
    for entry in page:
        text = mark + json.dumps(_entry(entry), ensure_ascii=False)
        mark = ",\n"
        buffer.append(text)
        length += len(text)
        if length >= _CHUNK_CHARS:
            yield "".join(buffer).encode("utf-8", "replace")
            buffer, length = [], 0
    buffer.append(f'\n], "next": {json.dumps(page.next_query)}}}\n')
    yield "".join(buffer).encode("utf-8", "replace")


def _entry(entry: DirEntry) -> dict[str, object]:
    """`size` is what the directory records of all blocks below; `type` is told where it is known without a fetch."""
    told: dict[str, object] = {"name": paths.display(entry.name), "cid": str(entry.cid), "size": entry.tsize}
    if entry.cid.codec == RAW:
        told["type"] = "file"
    try:
        entry.name.decode()
    except UnicodeDecodeError:
        told["name_bytes"] = entry.name.hex()
    return told
