"""The directory page in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from fungistor.testing.memory_content import MemoryContent
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
NAMES = ["README.md", "zażółć gęślą.txt", "a&b<c>.html", "sub folder", "日本.txt"]


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        assert not os.environ.get("CI"), "CI must have chromium: without it no test looks at the pages"
        pytest.skip("CHROMIUM IS MISSING: nobody looked at the directory page")
    return found


def _dump(url: str, profile: Path) -> str:
    result = subprocess.run(
        [_chromium(), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url],
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
