"""The page that shows one file: what a browser can show by itself, and text, without running anything of the file's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from html import escape
from importlib import resources

from fungistor.dag.cid import CID
from gateway import paths
from gateway.mounts import Mount
from gateway.pages.crumbs import breadcrumb, short_cid
from gateway.pages.layout import HEAD, TAIL, asset_hash, human_size
from gateway.paths import ContentPath

SHOWN_BYTES = 64 * 1024
"""Of a text: some 1,500 lines. The rest is a click away."""


class Kind(Enum):
    """How a file can be shown."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    NONE = "none"


_TEXT_TYPES = ("application/json", "application/xml", "application/toml", "application/yaml", "application/sql")
_TEXT_ENDINGS = ("+json", "+xml")


def kind_of(media_type: str) -> Kind:
    """Tell how a type can be shown. An SVG is shown as a picture, in which no script of it runs."""
    bare = media_type.partition(";")[0]
    family = bare.partition("/")[0]
    if family in ("image", "video", "audio"):
        return Kind(family)
    if family == "text" or bare in _TEXT_TYPES or bare.endswith(_TEXT_ENDINGS):
        return Kind.TEXT
    return Kind.NONE


@dataclass(frozen=True, slots=True)
class Shown:
    """The file; `text` is its start where it is one."""

    cid: CID
    size: int
    media_type: str
    kind: Kind
    text: bytes


def etag(cid: CID) -> str:
    """Return the page's entity tag."""
    return f'"Preview-{_ASSETS}_CID-{cid}"'


def preview_page(path: ContentPath, mount: Mount, shown: Shown) -> bytes:
    """Render the page."""
    name = escape(path.last_name or short_cid(path.root))
    href = escape(mount.url_path(paths.join(path.namespace, path.root, path.segments)))
    return (
        f"{HEAD}<title>{name}</title>\n</head>\n<body>\n<header>\n<h1>{name}</h1>\n"
        f'<p class="path">{breadcrumb(path, mount)}</p>\n'
        f'<p class="meta">CID <span translate="no">{shown.cid}</span> \u00b7 {escape(shown.media_type)} \u00b7 '
        f'{human_size(shown.size)} \u00b7 <a href="{href}">open</a> <a href="{href}?download=true">download</a></p>\n'
        f"</header>\n<main>\n{_body(href, name, shown)}\n</main>\n{TAIL}"
    ).encode("utf-8", "replace")


def _body(href: str, name: str, shown: Shown) -> str:
    match shown.kind:
        case Kind.IMAGE:
            return f'<figure><img src="{href}" alt="{name}"></figure>'
        case Kind.VIDEO:
            return f'<figure><video src="{href}" controls preload="metadata"></video></figure>'
        case Kind.AUDIO:
            return f'<figure><audio src="{href}" controls preload="metadata"></audio></figure>'
        case Kind.TEXT:
            text = escape(shown.text.decode("utf-8", "replace"), quote=False)
            is_cut = shown.size > len(shown.text)
            more = f'\n<p class="note">The first {human_size(len(shown.text))} are shown.</p>' if is_cut else ""
            return f'<pre class="document" tabindex="0">{text}</pre>{more}'
        case Kind.NONE:
            return '<p class="empty">There is no preview of this kind of file.</p>'


_ASSETS = asset_hash(resources.files("gateway.pages").joinpath("preview.py").read_text(encoding="utf-8"))
