from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path

from tests.e2e.running import running

DOCKERFILE = Path(__file__).parents[3] / "docker" / "Dockerfile"


def instruction(name: str) -> str:
    """The last instruction of that name, its continued lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    found: list[str] = re.findall(rf"^{name}\s+(.*)$", text, re.MULTILINE)
    return found[-1].strip()


def test_the_image_starts_a_network_as_another_user_than_root() -> None:
    """The start command is the documented one, in exec form so that signals reach it, and root does not run it."""
    words = json.loads(instruction("CMD"))
    assert words == ["fungistor", "up", "--gateway", "0.0.0.0:8480", "--home", "/data"]
    assert instruction("USER") not in ("root", "0")
    assert instruction("VOLUME") == "/data"
    assert instruction("STOPSIGNAL") == "SIGTERM"


def test_the_start_command_starts(tmp_path: Path) -> None:
    """The image's start command, given another home and port as its comment says, serves requests."""
    words = json.loads(instruction("CMD"))
    script = Path(sys.executable).with_name(words[0])
    with (
        running(tmp_path / "data", [], [str(script), *words[1:]]) as up,
        urllib.request.urlopen(f"{up.gateway}/-/health", timeout=30) as answer,
    ):
        assert answer.status == 200


def test_what_is_copied_is_there() -> None:
    """Every file that the image is built of exists in the repository."""
    root = DOCKERFILE.parents[1]
    for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE.read_text(), re.MULTILINE):
        for name in line.split()[:-1]:
            assert name == "README.md" or (root / name).exists(), name
