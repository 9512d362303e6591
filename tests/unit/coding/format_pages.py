"""Reads what a page of docs/formats quotes, so that page, vectors and code cannot drift apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]
_ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| `(?P<value>[^`]*)` \|$", re.MULTILINE)


def stored(name: str) -> dict[str, Any]:
    """The frozen vectors tests/vectors/<name>.json."""
    loaded: dict[str, Any] = json.loads((_ROOT / "tests" / "vectors" / f"{name}.json").read_text())
    return loaded


def quoted(name: str) -> dict[str, str]:
    """The rows of the table under "## Vectors" of docs/formats/<name>.md."""
    page = (_ROOT / "docs" / "formats" / f"{name}.md").read_text()
    _, _, section = page.partition("\n## Vectors\n")
    return {match["name"]: match["value"] for match in _ROW.finditer(section)}


def flat(vectors: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Vectors as a page quotes them: nested names joined by dots, values as text."""
    rows: dict[str, str] = {}
    for key, value in vectors.items():
        if isinstance(value, dict):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return rows
