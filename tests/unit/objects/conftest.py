"""A network in memory for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.testing.memory_network import MemoryNetwork, members


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for a network's files, away from what is published."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def network(home: Path) -> Iterator[MemoryNetwork]:
    """Twenty healthy members."""
    with MemoryNetwork(str(home), members(20)) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty folder to publish."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder
