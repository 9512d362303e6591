"""The directory page in a real browser."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from fungistor.dag import ipld
from fungistor.dag.cid import DAG_CBOR
from fungistor.testing.memory_content import MemoryContent, Tree
from tests.unit.gateway.browser import browsing, chromium
from tests.unit.gateway.formats_site import put
from tests.unit.gateway.live import serving

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--virtual-time-budget=5000",
)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
NAMES = ["README.md", "zażółć gęślą.txt", "a&b<c>.html", "sub folder", "日本.txt"]


def _dump(url: str, profile: Path) -> str:
    result = subprocess.run(
        [chromium(), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        timeout=90,
        check=True,
    )
    return result.stdout.decode()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_directory_page_in_a_browser(tmp_path: Path) -> None:
    """Chromium shows every entry as a link to it, sorted as asked, and asks for nothing but the page."""
    content = MemoryContent()
    tree = {name: b"x" * (100 * index + 1) for index, name in enumerate(NAMES) if name != "sub folder"}
    root = content.add_tree({"top": {**tree, "sub folder": {"y": b"1"}}})
    with serving(content) as live:
        page = f"{live.url}/ipfs/{root.cid}/top/"
        dom = _dump(page, tmp_path / "first")
        shown = [unescape(name) for name in re.findall(r'<td class="name[^"]*"><a href="[^"]*">([^<]*)</a>', dom)]
        assert shown == ["..", "a&b<c>.html", "README.md", "sub folder", "zażółć gęślą.txt", "日本.txt"]
        assert "Index of top" in dom
        opened = content.opened
        by_size = _dump(f"{page}?sort=size&order=desc", tmp_path / "second")
        assert re.findall(r'title="(\d+) bytes"', by_size)[0] == "401"
        assert content.opened == opened + 1


def test_the_page_needs_nothing_else() -> None:
    """The page has no script and refers to nothing outside itself but its links."""
    content = MemoryContent()
    root = content.add_tree({"a": b"x"})
    with serving(content) as live:
        text = live.get(f"/ipfs/{root.cid}/").text
    assert "<script" not in text
    assert not re.findall(r"(?:src|url)\s*[=(]", text)
    assert set(re.findall(r'<link rel="(\w+)" href="(\w+):', text)) == {("icon", "data")}


@pytest.mark.slow
def test_pages_by_keyboard_and_in_a_small_window(tmp_path: Path) -> None:
    """Every page can be used with the keyboard alone, fits a small window, and asks for nothing from elsewhere."""
    content = MemoryContent()
    tree: Tree = {
        "notes.txt": b"line of text that is long enough to need scrolling " * 200,
        "picture.png": PNG,
        "a-name-without-a-break-" + "x" * 120 + ".bin": b"1",
        "zażółć": {"inner.txt": b"1"},
    }
    root = content.add_tree({"top": tree})
    document = put(content, DAG_CBOR, ipld.encode(DAG_CBOR, {"link": root.cid, "text": "<b>" * 300}))
    with serving(content) as live, browsing(tmp_path / "profile") as browser:
        page = f"{live.url}/ipfs/{root.cid}/top/"
        broken = f"{live.url}/ipfs/{root.cid}/nothing-here"
        for width in (320, 1200):
            for url in (page, f"{page}notes.txt?preview", f"{page}picture.png?preview", broken):
                browser.size(width, 640)
                browser.open(url)
                assert browser.value("document.documentElement.scrollWidth <= innerWidth"), (url, width)
        browser.call("Network.setExtraHTTPHeaders", headers={"Accept": "text/html"})
        browser.open(f"{live.url}/ipfs/{document}/")
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        assert browser.value("document.querySelector('pre a').textContent") == str(root.cid)
        browser.open(f"{page}picture.png?preview")
        assert browser.value("document.querySelector('figure img').naturalWidth") == 1
        browser.open(page)
        seen = []
        for _ in range(40):
            browser.press("Tab")
            seen.append(browser.value("document.activeElement.textContent"))
            if seen[-1] == "notes.txt":
                break
        assert {"Name", "Size", ".."} <= set(seen)
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press("Tab")
        assert browser.value("document.activeElement.getAttribute('aria-label')") == "preview notes.txt"
        browser.press("Enter")
        browser.wait_for("document.querySelector('pre.document') !== null")
        assert all(url.startswith((live.url, "data:")) for url in browser.requested)
