from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.dag.cid import CID
from fungistor.dag.hamt import hash_name
from fungistor.dag.walk import DirEntry
from gateway.pages import listing
from gateway.pages.layout import human_size
from gateway.pages.listing import Order, SortKey
from gateway.paths import ContentPath, display, encode_segment

EMPTY = CID.parse("bafkqaaa")
DIRECTORY = CID.parse("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
TOP = ContentPath("ipfs", "bafkqaaa", (b"top",), is_slashed=True)


def _page(entries: list[DirEntry], order: Order | None = None) -> str:
    return b"".join(listing.listing_page(TOP, DIRECTORY, entries, order or Order())).decode()


def _names(page: str) -> list[str]:
    return [unescape(name) for name in re.findall(r'<td class="name[^"]*"><a href="[^"]*">([^<]*)</a>', page)][1:]


@given(st.lists(st.binary(min_size=1, max_size=20), unique=True, max_size=8))
@settings(deadline=None)
def test_any_names(names: list[bytes]) -> None:
    """Any bytes as names show as text, link by their exact bytes, and cannot add markup."""
    page = _page([DirEntry(name, EMPTY, 1) for name in names])
    assert sorted(_names(page)) == sorted(display(name) for name in names)
    for name in names:
        assert f'href="/ipfs/bafkqaaa/top/{encode_segment(name).replace("&", "&amp;")}"' in page
    assert page.count("<tr>") == len(names) + 2


@pytest.mark.parametrize(
    ("sort", "order", "wanted"),
    [
        (None, None, ["a", "B", "c"]),
        ("name", "desc", ["c", "B", "a"]),
        ("size", "desc", ["B", "a", "c"]),
        ("size", "asc", ["c", "a", "B"]),
        ("nonsense", "desc", ["a", "B", "c"]),
    ],
)
def test_order(sort: str | None, order: str | None, wanted: list[str]) -> None:
    """Entries are sorted as the link clicked says, names without regard to case."""
    entries = [DirEntry(b"B", EMPTY, 30), DirEntry(b"a", EMPTY, 20), DirEntry(b"c", EMPTY, 10)]
    assert _names(_page(entries, Order.parse(sort, order))) == wanted


def test_headings_offer_the_other_order() -> None:
    """The current column is marked, its link turns the order round, and size starts with the largest."""
    page = _page([DirEntry(b"a", EMPTY, 1)])
    assert '<th class="name" aria-sort="ascending"><a href="?sort=name&amp;order=desc">' in page
    assert '<a href="?sort=size&amp;order=desc">Size</a>' in page


def test_tags_differ_by_order() -> None:
    """Each order is its own entity."""
    orders = [Order(key, descending) for key in SortKey for descending in (False, True)]
    tags = {listing.etag(DIRECTORY, order) for order in orders}
    assert len(tags) == len(orders)
    assert all(re.fullmatch(r'"DirIndex-[-\w]+_CID-' + str(DIRECTORY) + '"', tag) for tag in tags)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (117 << 10, "117 KiB"),
        (5 << 40, "5.00 TiB"),
        (1 << 70, "1048576 PiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Sizes show three digits that matter in binary units."""
    assert human_size(size) == text


class _Walk:
    """Entries in the order in which a sharded directory is walked; `taken` counts them."""

    def __init__(self, length: int) -> None:
        names = [b"name %06d" % number for number in range(length)]
        self._names = sorted(names, key=hash_name)
        self.taken = 0

    def __iter__(self) -> Iterator[DirEntry]:
        for name in self._names:
            self.taken += 1
            yield DirEntry(name, EMPTY, 1)


@pytest.mark.parametrize(
    ("length", "rows_before", "is_sorted"),
    [
        (20_000, listing.SAMPLE_ENTRIES, False),
        (listing.SORT_ENTRIES_MAX + 1, 0, False),
        (listing.SORT_ENTRIES_MAX, 0, True),
        (listing.SAMPLE_ENTRIES + 1, 0, True),
    ],
)
def test_a_long_walk_is_shown_as_it_goes(length: int, rows_before: int, is_sorted: bool) -> None:
    """The head of a sharded directory's page waits for a sample of it alone; its rows, too, where it is surely long."""
    walk = _Walk(length)
    sent: list[bytes] = []
    rows = 0
    chunks = listing.listing_page(TOP, DIRECTORY, walk, Order(), is_sharded=True)
    for chunk in chunks:
        if walk.taken > listing.SAMPLE_ENTRIES:
            break
        sent.append(chunk)
        rows = b"".join(sent).count(b'class="name"><a ')
    assert b"Index of" in sent[0]
    assert rows_before / 2 <= rows <= rows_before
    page = b"".join((*sent, chunk, *chunks)).decode()
    names = _names(page)
    assert sorted(names) == sorted(name.decode() for name in walk._names)
    assert (names == sorted(names)) == is_sorted
    assert ("too many to sort" in page) != is_sorted


def test_a_short_walk_is_one_piece() -> None:
    """A sharded directory no longer than the sample, and any basic one, is not told in parts that wait."""
    walk = _Walk(listing.SAMPLE_ENTRIES - 1)
    assert b"" not in list(listing.listing_page(TOP, DIRECTORY, walk, Order(), is_sharded=True))
    assert b"" not in list(listing.listing_page(TOP, DIRECTORY, _Walk(2000), Order()))
