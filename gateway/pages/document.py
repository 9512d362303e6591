"""The page that shows a document of linked data: its values, and its links as links."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources

from fungistor.dag.cid import CID
from fungistor.dag.ipld import Value
from gateway import paths
from gateway.mounts import Mount
from gateway.pages.crumbs import breadcrumb, short_cid
from gateway.pages.layout import HEAD, TAIL, asset_hash, human_size
from gateway.paths import ContentPath

SHOWN_CHARS_MAX = 256_000
"""What a person may want to scroll through; the download has the rest."""

_INDENT = "  "
_BYTES_SHOWN = 64


def etag(cid: CID) -> str:
    """Return the page's entity tag."""
    return f'"DagIndex-{_ASSETS}_CID-{cid}"'


def document_page(
    path: ContentPath, mount: Mount, cid: CID, codec: str, value: Value | None, block_bytes: int
) -> bytes:
    """Render one block; `value` None if it is not readable as what its codec says."""
    title = escape(paths.display(b"/".join((b"", path.namespace.encode(), path.root.encode(), *path.segments))))
    labels = {codec: codec, "raw": "raw block", "car": "CAR"}
    formats = " ".join(f'<a href="?format={name}">{label}</a>' for name, label in labels.items())
    if value is None and block_bytes:
        shown = '<p class="empty">This block cannot be shown; it can be downloaded.</p>'
    else:
        shown = f'<pre class="document" tabindex="0">{_cut(_render(value, ""))}</pre>'
    return (
        f"{HEAD}<title>{title}</title>\n</head>\n<body>\n<header>\n"
        f"<h1>{escape(path.last_name or short_cid(path.root))}</h1>\n"
        f'<p class="path">{breadcrumb(path, mount)}</p>\n'
        f'<p class="meta">CID <span translate="no">{cid}</span> \u00b7 {escape(codec)} \u00b7 '
        f"{human_size(block_bytes)} \u00b7 {formats}</p>\n</header>\n<main>\n{shown}\n</main>\n{TAIL}"
    ).encode("utf-8", "replace")


def _cut(parts: Iterator[str]) -> str:
    out: list[str] = []
    length = 0
    for part in parts:
        out.append(part)
        length += len(part)
        if length > SHOWN_CHARS_MAX:
            out.append("\n\u2026 and more: the download has it all")
            break
    return "".join(out)


def _render(value: Value, indent: str) -> Iterator[str]:
    inner = indent + _INDENT
    match value:
        case CID():
            yield f'<a href="/ipfs/{value}">{value}</a>'
        case bytes():
            more = "\u2026" if len(value) > _BYTES_SHOWN else ""
            yield f'<span class="bytes">{len(value)} bytes: {value[:_BYTES_SHOWN].hex()}{more}</span>'
        case dict() if value:
            yield "{\n"
            for position, (key, item) in enumerate(value.items()):
                yield f"{inner}{escape(json.dumps(key, ensure_ascii=False), quote=False)}: "
                yield from _render(item, inner)
                yield "\n" if position == len(value) - 1 else ",\n"
            yield f"{indent}}}"
        case list() if value:
            yield "[\n"
            for position, item in enumerate(value):
                yield inner
                yield from _render(item, inner)
                yield "\n" if position == len(value) - 1 else ",\n"
            yield f"{indent}]"
        case _:
            yield escape(json.dumps(value, ensure_ascii=False), quote=False)


_ASSETS = asset_hash(resources.files("gateway.pages").joinpath("document.py").read_text(encoding="utf-8"))
