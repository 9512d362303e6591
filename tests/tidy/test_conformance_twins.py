"""Each case of the official conformance suite has a twin among our own tests, which need no suite to run."""

from __future__ import annotations

import ast
import json
import re

from tests.tidy.repository import ROOT

ROOM = ROOT / "tests" / "unit" / "gateway"
TWINS = json.loads((ROOM / "conformance_twins.json").read_text())
CASES = 274
"""What the suite counts in the version that the table names."""


def _tests() -> set[str]:
    return {
        f"{path.stem}::{node.name}"
        for path in ROOM.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_case_names_tests_that_are_there() -> None:
    """The table has all cases, and each names at least one test that exists."""
    cases = {f"{group}/{case}": twins for group, each in TWINS["cases"].items() for case, twins in each.items()}
    assert len(cases) == CASES
    there = _tests()
    lost = {case: twins for case, twins in cases.items() if not twins or not there.issuperset(twins)}
    assert lost == {}


def test_what_the_suite_leaves_open_is_tested_here() -> None:
    """So has each behaviour that the suite asserts nothing of."""
    there = _tests()
    assert len(TWINS["unasserted"]) > 20
    assert {what for what, twins in TWINS["unasserted"].items() if not twins or not there.issuperset(twins)} == set()


def test_the_page_counts_the_same_cases() -> None:
    """The groups on the clients' page add up to the table's cases."""
    page = (ROOT / "docs" / "gateway-clients.md").read_text()
    rows = [(int(passed), int(of)) for passed, of in re.findall(r"\| (\d+) of (\d+) \|", page)]
    assert rows[-1] == (CASES, CASES)
    assert sum(of for _, of in rows[:-1]) == CASES
