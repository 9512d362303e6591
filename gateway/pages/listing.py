"""The directory page, made as it is sent.

Some of its markup is fixed by what IPFS tools look for: ``Index of``, the breadcrumb, the ``..`` link and the CID link.
The size is what the directory itself records; nothing below it is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from html import escape
from importlib import resources
from itertools import chain, islice
from urllib.parse import quote

from fungistor.dag import hamt
from fungistor.dag.cid import CID, RAW
from fungistor.dag.walk import DirEntry
from gateway import paths
from gateway.content_types import by_name
from gateway.mounts import PATH_MOUNT, Mount
from gateway.pages.crumbs import breadcrumb, short_cid
from gateway.pages.layout import HEAD, TAIL, asset_hash, human_size
from gateway.pages.paging import Paging
from gateway.pages.preview import Kind, kind_of
from gateway.paths import ContentPath

ALL = Paging()

SORT_ENTRIES_MAX = 10_000
"""A directory up to this long is gathered (a few MiB) and sorted; a longer one streams in the order it is stored."""

SAMPLE_ENTRIES = 512
"""What the length of a sharded directory is told from, before the rest of it is looked at."""

SURELY_LONG_ENTRIES = 12_500
"""An estimate from the sample above this means more than can be sorted: five times the error that it has beyond it."""

_CHUNK_CHARS = 32_000
_TAKES_A_WHILE = ""
"""Among the texts of a page: what stands before it need not wait for what comes after."""

_SYMLINK_BYTES = 44
"""A folder with one entry has a link of 36 bytes and more."""


class SortKey(Enum):
    """A column to sort by; the value is its name in ``?sort=``."""

    NAME = "name"
    SIZE = "size"
    CID = "cid"


@dataclass(frozen=True, slots=True)
class Order:
    """How the entries are sorted."""

    key: SortKey = SortKey.NAME
    is_descending: bool = False

    @classmethod
    def parse(cls, sort: str | None, order: str | None) -> Order:
        """Read ``?sort=`` and ``?order=``; what is not known is the default."""
        try:
            key = SortKey(sort or "name")
        except ValueError:
            return cls()
        return cls(key, order == "desc")

    @property
    def tag(self) -> str:
        """The part of the page's entity tag that tells orders apart, empty for the default."""
        return "" if self == Order() else f"-{self.key.value}{'-desc' if self.is_descending else ''}"


def etag(directory: CID, order: Order, paging: Paging = ALL) -> str:
    """Return the page's entity tag: it changes with the directory, the order, the page, and the gateway's look."""
    return f'"DirIndex-{_ASSETS}{order.tag}{paging.tag}_CID-{directory}"'


def listing_page(
    path: ContentPath,
    directory: CID,
    entries: Iterable[DirEntry],
    order: Order,
    mount: Mount = PATH_MOUNT,
    paging: Paging = ALL,
    *,
    is_sharded: bool = False,
) -> Iterator[bytes]:
    """Yield the page in chunks of about 32 KB, holding at most SORT_ENTRIES_MAX entries.

    After an empty chunk the next one will take a while. `is_sharded`: the entries come in the order of their hashes.
    """
    buffer: list[str] = []
    length = 0
    for text in _page(path, directory, entries, order, mount, paging, is_sharded=is_sharded):
        buffer.append(text)
        length += len(text)
        if length >= _CHUNK_CHARS or text is _TAKES_A_WHILE:
            yield "".join(buffer).encode("utf-8", "replace")
            buffer.clear()
            length = 0
        if text is _TAKES_A_WHILE:
            yield b""
    yield "".join(buffer).encode("utf-8", "replace")


def _page(
    path: ContentPath,
    directory: CID,
    entries: Iterable[DirEntry],
    order: Order,
    mount: Mount,
    paging: Paging,
    *,
    is_sharded: bool,
) -> Iterator[str]:
    cut = paging.cut(entries)
    remaining = iter(cut)
    # Failures that come this early still have a status.
    gathered = list(islice(remaining, SAMPLE_ENTRIES))
    base = mount.url_path(paths.join(path.namespace, path.root, path.segments)).rstrip("/")
    title = escape(paths.display(b"/".join((b"", path.namespace.encode(), path.root.encode(), *path.segments))))
    yield (
        f"{HEAD}<title>Index of {title}</title>\n</head>\n<body>\n<header>\n"
        f"<h1>Index of {escape(path.last_name or short_cid(path.root))}</h1>\n"
        f'<p class="path">{breadcrumb(path, mount)}</p>\n'
        f'<p class="meta">CID <span translate="no">{directory}</span></p>\n'
        "</header>\n<main>\n"
    )
    if paging.after is None and not (is_sharded and _is_surely_long(gathered)):
        if is_sharded and len(gathered) == SAMPLE_ENTRIES:
            yield _TAKES_A_WHILE
        gathered += islice(remaining, SORT_ENTRIES_MAX + 1 - len(gathered))
    is_whole = len(gathered) <= SORT_ENTRIES_MAX and cut.is_last and paging.after is None
    if not gathered and not path.segments and paging.after is None:
        yield f'<p class="empty">This directory is empty.</p>\n</main>\n{TAIL}'
        return
    yield f"<table>\n<thead><tr>{_heading(order, is_sorted=is_whole)}</tr></thead>\n<tbody>\n"
    if path.segments:
        yield (
            f'<tr><td class="name up"><a href="{escape(base)}/..">..</a></td>'
            '<td class="hash"></td><td class="size"></td></tr>\n'
        )
    count = total = 0
    for entry in _sorted(gathered, order) if is_whole else chain(gathered, remaining):
        count += 1
        total += entry.tsize
        yield _row(base, entry, mount)
    yield (
        f"</tbody>\n</table>\n{_turns(paging, cut.next_query)}</main>\n"
        f"<footer>{_summary(count, total, is_sorted=is_whole)}</footer>\n{TAIL}"
    )


def _is_surely_long(sample: Sequence[DirEntry]) -> bool:
    """Tell whether a sharded directory has more entries than are sorted, from how far its first ones reach.

    Names are spread evenly over all hashes, so what the sample covers of them tells how many there are. Who chooses
    names that are not has a page in another order, no more.
    """
    if len(sample) < SAMPLE_ENTRIES:
        return False
    return len(sample) > SURELY_LONG_ENTRIES * hamt.share_up_to(sample[-1].name)


def _turns(paging: Paging, next_query: str | None) -> str:
    """The way to the pages beside this one; the way back is the browser's."""
    if next_query is None and paging.after is None:
        return ""
    steps = []
    if paging.after is not None:
        steps.append('<a href="?">first page</a>')
    if next_query is not None:
        steps.append(f'<a rel="next" href="{escape(next_query)}">next page</a>')
        steps.append('<a href="?limit=all">all on one page</a>')
    return f'<nav class="turns">{" ".join(steps)}</nav>\n'


_SORT_KEYS: dict[SortKey, Callable[[DirEntry], tuple[str | int, bytes]]] = {
    SortKey.NAME: lambda entry: (paths.display(entry.name).casefold(), entry.name),
    SortKey.SIZE: lambda entry: (entry.tsize, entry.name),
    SortKey.CID: lambda entry: (str(entry.cid), entry.name),
}


def _sorted(entries: list[DirEntry], order: Order) -> Iterator[DirEntry]:
    entries.sort(key=_SORT_KEYS[order.key], reverse=order.is_descending)
    return iter(entries)


_COLUMNS = ((SortKey.NAME, "Name", "name"), (SortKey.CID, "CID", "hash"), (SortKey.SIZE, "Size", "size"))


def _heading(order: Order, *, is_sorted: bool) -> str:
    cells = []
    for key, label, css in _COLUMNS:
        if not is_sorted:
            cells.append(f'<th class="{css}">{label}</th>')
            continue
        is_current = key is order.key
        is_next_descending = not order.is_descending if is_current else key is SortKey.SIZE
        state = f' aria-sort="{"descending" if order.is_descending else "ascending"}"' if is_current else ""
        target = f"?sort={key.value}&amp;order={'desc' if is_next_descending else 'asc'}"
        cells.append(f'<th class="{css}"{state}><a href="{target}">{label}</a></th>')
    return "".join(cells)


def _row(base: str, entry: DirEntry, mount: Mount) -> str:
    encoded = paths.encode_segment(entry.name)
    cid = str(entry.cid)
    # Encoded twice, as the other gateways do it and their tools expect.
    filename = quote(encoded, safe="-_.~")
    kind = " many" if _is_likely_directory(entry) else ""
    name = escape(paths.display(entry.name))
    href = f"{escape(base)}/{escape(encoded)}"
    look = f' <a class="look" href="{href}?preview" aria-label="preview {name}">preview</a>' if _is_shown(entry) else ""
    return (
        f'<tr><td class="name{kind}"><a href="{href}">{name}</a>{look}</td><td class="hash">'
        f'<a class="ipfs-hash" translate="no" {mount.cid_link(cid, filename)}>{short_cid(cid)}</a></td>'
        f'<td class="size" title="{entry.tsize} bytes">{human_size(entry.tsize)}</td></tr>\n'
    )


def _is_shown(entry: DirEntry) -> bool:
    return kind_of(by_name(paths.display(entry.name)) or "") is not Kind.NONE


def _is_likely_directory(entry: DirEntry) -> bool:
    """Guess for the icon alone, since to know would take a fetch an entry. Symlinks are short."""
    return entry.cid.codec != RAW and b"." not in entry.name and entry.tsize > _SYMLINK_BYTES


def _summary(count: int, total: int, *, is_sorted: bool) -> str:
    entries = "1 entry" if count == 1 else f"{count:,} entries"
    told = f"{entries}, {human_size(total)} with all that lies below"
    return told if is_sorted else f"{told}; there are too many to sort, so they stand in the order they are stored"


_ASSETS = asset_hash(resources.files("gateway.pages").joinpath("listing.py").read_text(encoding="utf-8"))
