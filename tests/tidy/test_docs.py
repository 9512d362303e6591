"""Documents that cannot go stale unnoticed: links, vectors, commands, words."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fungistor.errors import InvalidError
from fungistor.node.cli.options import build_parser
from tests.tidy.repository import ROOT, anchors, code_blocks, documents, files, links, shown

FORMATS = ROOT / "docs" / "formats"
COMMAND = re.compile(r"(\$ )?(\.venv/bin/)?fungistor ")
"""Not indented: what is, is a picture."""

HEX = re.compile(r"`([0-9a-f]{32,})`")

FORBIDDEN = [
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.~-])/(?:wo" + r"rk|ro" + r"ot)/\w",  # places of somebody's machine
        r"(?<![\w.~-])/ho" + r"me/(?!user\b|USER\b)\w",
        r"\bTO" + r"DO\b",
        r"\bFIX" + r"ME\b",
        r"\bXX" + r"X\b",
    )
]
"""Written in two parts each, so that this file does not find itself."""

LINES_MAX = 600
"""No Python file of the product is longer. Most are under 300."""


@pytest.mark.parametrize("page", documents(), ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A link to a file of the repository names one that is there, and a heading that it has."""
    broken = []
    for target in links(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        there = file.exists() and file.is_relative_to(ROOT)
        if not there or (fragment and fragment not in anchors(file.read_text())):
            broken.append(target)
    assert not broken


def test_every_document_is_on_the_map() -> None:
    """Every page of docs/ is linked from its folder's README or from the map."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in documents()
        if page.name == "README.md"
        for target in links(page.read_text())
        if ":" not in target
    }
    docs = {page for page in documents() if page.is_relative_to(ROOT / "docs") and page.name != "README.md"}
    assert sorted(map(shown, docs - linked)) == []


@pytest.mark.parametrize("page", sorted(FORMATS.glob("*.md")), ids=shown)
def test_a_format_page_names_its_module_and_quotes_stored_vectors(page: Path) -> None:
    """Long hexadecimal values on a format's page stand in its vector file, and the files it names exist."""
    text = page.read_text()
    for name in re.findall(r"`((?:fungistor|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    vectors = ROOT / "tests" / "vectors" / f"{page.stem}.json"
    _, _, quoted = text.partition("\n## Vectors")
    values = HEX.findall(quoted)
    assert vectors.exists() or not values
    stored = vectors.read_text() if values else ""
    assert [value for value in values if value not in stored] == []


@pytest.mark.parametrize("page", documents(), ids=shown)
def test_every_command_in_a_code_block_is_one(page: Path) -> None:
    """A command line of `fungistor` in a document is taken by its parser; what is not built yet is not shown."""
    for language, text in code_blocks(page.read_text()):
        if language not in ("", "sh", "bash", "console"):
            continue
        for line in text.splitlines():
            if not COMMAND.match(line):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            ends = [place for place, word in enumerate(words) if word in ("|", ">", "<", "&", "&&")]
            arguments = words[1 : min(ends, default=len(words))]
            if arguments[0] == "zdb":
                continue  # its own flags are held by the daemon's tests
            try:
                build_parser().parse_args(arguments)
            except InvalidError as error:
                pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=lambda pattern: pattern.pattern)
def test_no_file_holds_forbidden_words(pattern: re.Pattern[str]) -> None:
    """No path of somebody's machine, and no note of what is yet to be done, is in any file."""
    found = []
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{shown(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_no_product_file_is_too_long() -> None:
    """Every Python file below fungistor/ and gateway/ has at most LINES_MAX lines."""
    sources = [path for path in files() if path.suffix == ".py" and shown(path).startswith(("fungistor/", "gateway/"))]
    lengths = {shown(path): path.read_text().count("\n") for path in sources}
    assert sources
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}
