"""Directories for programs and for readers of long ones, symlinks that are followed, and hosts that need no trust."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.dag.importer import Link
from fungistor.testing.memory_content import MemoryContent, Symlink
from gateway.operations.desk import DeskFiles
from tests.unit.gateway.formats_site import JSON_TEXT, MULTI, SMALL, Site, directory_of, formats_site
from tests.unit.gateway.live import serving


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with formats_site() as made:
        yield made


@pytest.mark.parametrize("by", ["query", "accept"])
def test_json(site: Site, by: str) -> None:
    """A directory is JSON for programs: names, CIDs, recorded sizes, and the type where it is known."""
    target = f"{site.path}/api/"
    if by == "query":
        answer = site.live.get(f"{target}?format=json")
    else:
        answer = site.live.get(target, Accept="application/json")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert (told["cid"], told["path"], told["next"]) == (str(site.at(site.tree, "api")), target, None)
    cid = str(site.at(site.tree, "api/data.json"))
    assert told["entries"][0] == {"name": "data.json", "cid": cid, "size": len(JSON_TEXT), "type": "file"}
    assert answer.headers["etag"].startswith('"DirJson-')
    again = site.live.get(f"{target}?format=json", If_None_Match=answer.headers["etag"])
    assert again.status_code == 304
    assert site.live.request("HEAD", f"{target}?format=json").content == b""


def test_json_beside_an_index() -> None:
    """?format=json lists a directory that has an index.html, too."""
    content = MemoryContent()
    root = content.add_tree({"index.html": b"<h1>hi</h1>", "other": b"x"})
    with serving(content) as live:
        told = live.get(f"/ipfs/{root.cid}/?format=json").json()
        assert [entry["name"] for entry in told["entries"]] == ["index.html", "other"]
        assert live.get(f"/ipfs/{root.cid}/").text == "<h1>hi</h1>"


def test_names_that_are_no_text() -> None:
    """A name that is not UTF-8 is told by its bytes as well."""
    content = MemoryContent()
    file = content.add_file(b"x")
    root = directory_of(content, Link(b"\xff\xfe", file.cid, 1))
    with serving(content) as live:
        (entry,) = live.get(f"/ipfs/{root}/?format=json").json()["entries"]
        assert entry["name_bytes"] == "fffe"
        assert live.get(f"/ipfs/{root}/%FF%FE").content == b"x"


@pytest.mark.parametrize("which", ["sharded", "basic"])
@pytest.mark.parametrize("limit", [1, 7, 39, 40, 1000])
def test_json_pages(site: Site, which: str, limit: int) -> None:
    """Pages of any length give every name once, and the last one says that it is the last."""
    root = site.sharded
    if which == "basic":
        root = directory_of(
            site.content, *(Link(name.encode(), site.at(site.sharded, name), 7) for name in site.sharded_names)
        )
    found: list[str] = []
    query = f"?limit={limit}"
    while query:
        told = site.live.get(f"/ipfs/{root}/{query}&format=json").json()
        assert len(told["entries"]) <= limit
        found += [entry["name"] for entry in told["entries"]]
        query = told["next"]
    assert len(found) == 40
    assert set(found) == set(site.sharded_names)


def test_a_page_asks_for_its_own_shards(site: Site) -> None:
    """A late page of a sharded directory does not read the shards before it."""
    names = [entry["name"] for entry in site.live.get(f"/ipfs/{site.sharded}/?format=json").json()["entries"]]

    def asked(query: str) -> int:
        before = len(site.content.asked)
        assert site.live.get(f"/ipfs/{site.sharded}/?format=json&{query}").status_code == 200
        return len(site.content.asked) - before

    assert asked(f"after={names[-3]}") < asked("limit=all")


def test_pages_for_people(site: Site) -> None:
    """The page of a part says where the rest is, and leads through all of it."""
    found: set[str] = set()
    query = "?limit=15"
    for _ in range(3):
        answer = site.live.get(f"/ipfs/{site.sharded}/{query}")
        found |= set(re.findall(r">(\d{3}\.txt)</a>", answer.text))
        following = re.search(r'rel="next" href="([^"]*)"', answer.text)
        query = following.group(1).replace("&amp;", "&") if following else ""
    assert not query
    assert found == set(site.sharded_names)


@pytest.mark.parametrize("limit", ["0", "-1", "x", "9999999", "1e3", "%D9%A3"])
def test_refused_limits(site: Site, limit: str) -> None:
    """A limit that is none is 400."""
    assert site.live.get(f"/ipfs/{site.sharded}/?limit={limit}").status_code == 400


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("link", 200, MULTI),
        ("up/link", 200, b"hello application/vnd.ipld.raw\n"),
        ("round/a", 422, None),
        ("out", 404, None),
        ("dangling", 404, None),
        ("absolute", 200, MULTI),
        ("folder/multi.bin", 200, MULTI),
    ],
)
def test_followed_symlinks(path: str, status: int, body: bytes | None, tmp_path: Path) -> None:
    """Where the operator lets them be, symlinks are followed: within the root, and not for ever."""
    content = MemoryContent()
    root = content.add_tree(
        {
            "ascii.txt": b"hello application/vnd.ipld.raw\n",
            "subdir": {"multi.bin": MULTI},
            "link": Symlink(b"subdir/multi.bin"),
            "up": {"link": Symlink(b"../ascii.txt")},
            "round": {"a": Symlink(b"b"), "b": Symlink(b"a")},
            "out": Symlink(b"../../etc/passwd"),
            "dangling": Symlink(b"nope"),
            "absolute": Symlink(b"/subdir/multi.bin"),
            "folder": Symlink(b"./subdir/"),
        },
        SMALL,
    )
    rules = tmp_path / "gateway.toml"
    rules.write_text("[forms]\nfollow_symlinks = true\n")
    with serving(content, files=DeskFiles(str(rules))) as live:
        answer = live.get(f"/ipfs/{root.cid}/{path}")
    assert answer.status_code == status
    assert body is None or answer.content == body


def test_symlinks_as_they_are(site: Site) -> None:
    """Unless they are followed, a symlink is its target's text."""
    answer = site.live.get(f"{site.path}/link")
    assert (answer.headers["content-type"], answer.text) == ("inode/symlink", "subdir/multi.bin")


@pytest.mark.parametrize(
    ("name", "body", "is_sandboxed"),
    [
        ("page.html", b"<script>1</script>", True),
        ("picture.svg", b"<svg/>", True),
        ("feed.xml", b"<?xml version='1.0'?><a/>", True),
        ("noname", b"<!doctype html><script>1</script>", True),
        ("text.txt", b"<script>1</script>", False),
        ("photo.png", b"\x89PNG\r\n\x1a\n", False),
    ],
)
def test_active_content_has_no_origin(name: str, body: bytes, is_sandboxed: bool) -> None:
    """On a path gateway a page that could run gets no origin, whole or in part; what cannot run is left alone."""
    content = MemoryContent()
    root = content.add_tree({name: body})
    with serving(content) as live:
        for answer in (live.get(f"/ipfs/{root.cid}/{name}"), live.get(f"/ipfs/{root.cid}/{name}", Range="bytes=0-3")):
            policy = answer.headers.get("content-security-policy", "")
            assert policy.startswith("sandbox ") == is_sandboxed
            assert "allow-same-origin" not in policy


@pytest.mark.parametrize(
    ("name", "body", "shown"),
    [
        ("a.txt", b"<b>& plain", "&lt;b&gt;&amp; plain"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "<img src="),
        ("a.mp4", b"x", "<video src="),
        ("a.mp3", b"ID3", "<audio src="),
        ("a.bin", b"\0\1", "no preview"),
        ("a.svg", b"<svg onload='1'/>", "<img src="),
    ],
)
def test_preview(name: str, body: bytes, shown: str) -> None:
    """A preview shows what a browser can show, runs nothing of it, and has a tag of its own."""
    content = MemoryContent()
    root = content.add_tree({name: body})
    with serving(content) as live:
        answer = live.get(f"/ipfs/{root.cid}/{name}?preview")
        assert shown in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script" not in answer.headers["content-security-policy"]
        assert answer.headers["etag"].startswith('"Preview-')
        head = live.request("HEAD", f"/ipfs/{root.cid}/{name}?preview")
        assert (head.status_code, head.content) == (200, b"")
        assert live.get(f"/ipfs/{root.cid}/{name}").content == body
