"""A network in memory for each test, with two folders published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fungistor.testing.memory_network import MemoryNetwork, members
from tests.unit.objects.trees import noise, write


@pytest.fixture
def network(tmp_path: Path) -> Iterator[MemoryNetwork]:
    """Twenty healthy members."""
    home = tmp_path / "home"
    home.mkdir()
    with MemoryNetwork(str(home), members(20)) as made:
        yield made


@pytest.fixture
def published(network: MemoryNetwork, tmp_path: Path) -> dict[str, bytes]:
    """Contents by CID."""
    contents = {}
    for name, size in (("large", 9 << 20), ("middle", 300_000), ("small", 20_000), ("tiny", 100)):
        data = noise(len(name), size)
        write(tmp_path, name, data)
        contents[network.publish(str(tmp_path / name)).cid] = data
    return contents
