"""The files of the repository, as its documents and checks see them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_MADE = re.compile(r"\..*|__pycache__|.*\.egg-info|build|dist|run")
_HIDDEN_KEPT = (".ci", ".github")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROSE_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)<>\s]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def files() -> list[Path]:
    """All files of the work tree but what is made there. Walked, not asked of git: a tarball has none."""
    found: list[Path] = []
    for folder, below, names in os.walk(ROOT):
        below[:] = sorted(name for name in below if name in _HIDDEN_KEPT or not _MADE.fullmatch(name))
        found += [Path(folder, name) for name in sorted(names) if not name.endswith(".pyc")]
    return found


def documents() -> list[Path]:
    """The Markdown files."""
    return [path for path in files() if path.suffix == ".md"]


def shown(path: Path) -> str:
    """A path as a person names it."""
    return str(path.relative_to(ROOT))


def links(page: str) -> Iterator[str]:
    """The targets of a page's links, those in code left out."""
    return (match[1] for match in _LINK.finditer(_PROSE_CODE.sub("", _FENCE.sub("", page))))


def code_blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and text of a page's fenced blocks."""
    return ((match[1], match[2]) for match in _FENCE.finditer(page))


def anchors(page: str) -> set[str]:
    """The fragments that a page's headings can be linked by, as GitHub makes them."""
    texts = (re.sub(r"[^\w\- ]", "", match[1].lower()) for match in _HEADING.finditer(_FENCE.sub("", page)))
    return {text.replace(" ", "-") for text in texts}
