from __future__ import annotations

import json
import signal
import sys
import urllib.request
from pathlib import Path

from fungistor.node.children import wait_until
from tests.e2e.running import Up, running

SAMPLE = [sys.executable, "-m", "fungistor.node.sample", "--json"]


def said(up: Up) -> dict[str, str]:
    """What the sample wrote to stdout."""

    def lines() -> list[str]:
        return [line for line in up.log.read_text().splitlines() if line.startswith('{"cid"')]

    assert wait_until(lambda: bool(lines()), 30.0), up.log.read_text()
    found: dict[str, str] = json.loads(lines()[-1])
    return found


def test_the_sample_is_published_served_and_ended_by_ctrl_c(tmp_path: Path) -> None:
    """`make run`: a CID, a URL that a browser can open, pictures included, exit 0 at Ctrl-C, the same CID next time."""
    with running(tmp_path / "home", ["--members", "5"], SAMPLE) as up:
        sample = said(up)
        with urllib.request.urlopen(sample["url"], timeout=30) as page:
            assert page.headers["Content-Type"].startswith("text/html")
            assert b"twenty places" in page.read()
        with urllib.request.urlopen(sample["url"] + "pictures/mycelium.svg", timeout=30) as picture:
            assert picture.headers["Content-Type"].startswith("image/svg")
        assert up.end(signal.SIGINT) == 0, up.log.read_text()
    up.log.unlink()
    with running(tmp_path / "home", [], SAMPLE) as up:
        assert said(up)["cid"] == sample["cid"]
