"""Files of any length: holes cost nothing, and a read from the middle touches what it needs."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.running import Up, running
from tests.faults.test_lost_members import served_bytes
from tests.faults.test_memory import ABOVE_IDLE_BYTES, run_watched
from tests.faults.world import MIB, WAIT_S, random_file, seed

GIB = 1 << 30
READ_BYTES = 3 * MIB
TOUCHED_BYTES_MAX = 24 * MIB
"""Two stripes of content and the manifest's pages, read ahead and hedges; far from the rest."""


def ranged(up: Up, cid: str, start: int, count: int) -> bytes:
    request = urllib.request.Request(
        f"{up.gateway}/ipfs/{cid}", headers={"Range": f"bytes={start}-{start + count - 1}"}
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        assert answer.status == 206
        got: bytes = answer.read()
    return got


def check_file(up: Up, path: Path, size: int, expected: Callable[[int, int], bytes]) -> None:
    """Publish; then read at both ends and around the middle, counting what members send."""
    begun = time.monotonic()
    above = run_watched(up, "publish", str(path))
    taken = time.monotonic() - begun
    (line,) = [line for line in up.lines("objects") if line["name"] == path.name]
    assert line["size"] == size
    most = 0
    begun = time.monotonic()
    for start in (0, size // 2, size // 3, size - READ_BYTES):
        before = served_bytes(up)
        assert ranged(up, str(line["cid"]), start, READ_BYTES) == expected(start, READ_BYTES)
        most = max(most, served_bytes(up) - before)
    read = (time.monotonic() - begun) / 4
    print(
        f"{size // MIB} MiB: published in {taken:.1f} s, +{above // MIB} MiB above idle; "
        f"{READ_BYTES // MIB} MiB from anywhere in {read:.2f} s, members sent at most {most / MIB:.1f} MiB for it"
    )
    assert most <= TOUCHED_BYTES_MAX
    assert above <= ABOVE_IDLE_BYTES


def test_a_sparse_file_of_100_gib(tmp_path: Path) -> None:
    """Only its data is read and stored, and its middle is served without the rest."""
    size, rng = 100 * GIB, random.Random(seed())
    middle = rng.randbytes(2 * MIB)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2 + 12345)
        file.write(middle)

    def expected(start: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(count)

    with running(tmp_path / "home", ("--members", "20")) as up:
        check_file(up, path, size, expected)
        stored = int(str(up.lines("objects")[0]["stored"]))
        assert stored < 8 * MIB


@pytest.mark.soak
def test_a_full_file_of_4_gib(tmp_path: Path) -> None:
    """The same of a file without holes, of which every byte is stored."""
    size = 4 * GIB
    path = tmp_path / "full"
    random_file(path, size, random.Random(seed()))

    def expected(start: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(count)

    with running(tmp_path / "home", ("--members", "20")) as up:
        check_file(up, path, size, expected)
