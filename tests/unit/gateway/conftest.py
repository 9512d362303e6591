from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fungistor.dag.cid import CID
from fungistor.dag.unixfs import Mtime
from fungistor.testing.memory_content import MemoryContent, Symlink
from tests.unit.gateway.live import Live, serving

MTIME_S = 1445412480


@dataclass(frozen=True, slots=True)
class Site:
    """A running gateway over one tree of everything."""

    live: Live
    root: CID
    big: bytes
    dated: CID

    @property
    def path(self) -> str:
        return f"/ipfs/{self.root}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    content = MemoryContent()
    big = b"".join(index.to_bytes(4, "big") for index in range(600_000))
    root = content.add_tree(
        {
            "hello.txt": b"hello world",
            "big.bin": big,
            "empty": b"",
            "data": b'{"a": 1}',
            "bar": Symlink(b"foo"),
            "ą": {"ę": {"file-źł.txt": b"x", "a%2Cb +=ñ": b"odd"}},
            "site": {"index.html": b"<h1>welcome</h1>"},
            "odd": {"index.html": {"x": b"1"}},
            "links": {"foo": Symlink(b"a"), "bar": Symlink(b"b")},
        }
    )
    dated = content.add_file(b"old news", mtime=Mtime(MTIME_S))
    with serving(content) as live:
        yield Site(live, root.cid, big, dated.cid)
