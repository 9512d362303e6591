"""The checker of histories catches what it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.histories.checker import NOTHING, Logged, Op, problems

ORDER = [
    Logged("a", "x", "1", NOTHING),
    Logged("b", "x", "2", "1"),
    Logged("b", "x", "2", "1"),
    Logged("c", "x", "3", "1"),
    Logged("d", "y", "4", NOTHING),
]
HISTORY = [
    Op("a", "x", "1", 0, 1, NOTHING, "applied"),
    Op("b", "x", "2", 2, 4, "1", "applied"),
    Op("c", "x", "3", 2, 5, "1", "stands"),
    Op("d", "y", "4", 5, None),
    Op("", "x", "1", 1.5, 3),
    Op("", "x", "2", 2.5, 3.5),
    Op("", "x", "2", 6, 7),
    Op("", "y", NOTHING, 5.5, 6),
    Op("", "y", "4", 8, 9),
]
FINAL = {"x": "2", "y": "4"}


def test_a_linearizable_history_passes() -> None:
    """Concurrent publishes, one appended twice, one in doubt, and reads that overlap them are in order."""
    assert problems(HISTORY, ORDER, FINAL, 3) == []


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("not in the log", lambda: problems(HISTORY, ORDER[:1] + ORDER[3:], {"x": "3", "y": "4"}, 3)),
        ("changed the state", lambda: problems(HISTORY, ORDER, FINAL, 4)),
        ("the log gives", lambda: problems(HISTORY, ORDER, FINAL | {"x": "1"}, 3)),
        ("never gave", lambda: problems(HISTORY, ORDER, FINAL | {"z": "9"}, 3)),
        ("was told", lambda: problems([replace(HISTORY[2], outcome="applied")], ORDER, FINAL, 3)),
        ("had not begun", lambda: problems(HISTORY, [ORDER[4], *ORDER[:4]], FINAL, 3)),
        ("at no moment", lambda: problems([*HISTORY, Op("", "x", "1", 6, 7)], ORDER, FINAL, 3)),
        ("at no moment", lambda: problems([*HISTORY, Op("", "x", "2", 0.1, 0.2)], ORDER, FINAL, 3)),
        ("at no moment", lambda: problems([*HISTORY, Op("", "x", "1", 3.7, 3.9)], ORDER, FINAL, 3)),
    ],
)
def test_a_planted_bug_is_caught(words: str, change: object) -> None:
    """A lost commit, a double one, a wrong state, outcome or order, and stale, early and backward reads are named."""
    assert callable(change)
    assert any(words in problem for problem in change())
