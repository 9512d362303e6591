"""Trees of many tiny files: published, listed, read by path and published again, in bounded memory."""

from __future__ import annotations

import os
import random
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.running import Up, running
from tests.faults.test_memory import ABOVE_IDLE_BYTES, run_watched
from tests.faults.world import MIB, WAIT_S, seed

FILE_BYTES = 100


def content(folder: int, number: int) -> bytes:
    """What a file holds: no two the same."""
    return (b"file %d of folder %d, a tiny one\n" % (number, folder) * 8)[:FILE_BYTES]


def tiny_files(root: Path, sizes: Sequence[int]) -> None:
    """A folder `d0003` for each size, holding so many files `f000000` and on."""
    root.mkdir()
    for folder, files in enumerate(sizes):
        path = root / f"d{folder:04}"
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number in range(files):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                file = os.open(f"f{number:06}", flags, dir_fd=descriptor)
                os.write(file, content(folder, number))
                os.close(file)
        finally:
            os.close(descriptor)


def check_tree(up: Up, root: Path, sizes: Sequence[int]) -> None:
    tiny_files(root, sizes)
    last, size = len(sizes) - 1, FILE_BYTES * sum(sizes)
    begun = time.monotonic()
    above = {"publish": run_watched(up, "publish", str(root))}
    taken = time.monotonic() - begun
    (line,) = up.lines("objects")
    assert line["size"] == size
    cid = str(line["cid"])
    assert [entry["name"] for entry in up.lines("ls", cid)] == [f"d{folder:04}" for folder in range(len(sizes))]
    listed = {str(entry["name"]) for entry in up.lines("ls", f"{cid}/d{last:04}")}
    assert listed == {f"f{number:06}" for number in range(sizes[-1])}
    above["ls"] = run_watched(up, "ls", f"{cid}/d{last:04}")
    rng = random.Random(seed())
    for _ in range(20):
        folder = rng.randrange(len(sizes))
        number = rng.randrange(sizes[folder])
        url = f"{up.gateway}/ipfs/{cid}/d{folder:04}/f{number:06}"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            assert answer.read() == content(folder, number)
    out = root.with_name("one")
    above["get"] = run_watched(up, "get", f"{cid}/d{last:04}/f{sizes[-1] - 1:06}", "-o", str(out))
    assert out.read_bytes() == content(last, sizes[-1] - 1)
    (root / "d0000" / "f000000").write_bytes(b"changed")
    begun = time.monotonic()
    above["again"] = run_watched(up, "publish", str(root))
    again = time.monotonic() - begun
    assert sorted(int(str(line["size"])) for line in up.lines("objects")) == [size - FILE_BYTES + len(b"changed"), size]
    print(
        f"{sum(sizes)} files in {len(sizes)} folders: published in {taken:.1f} s, with one changed in {again:.1f} s; "
        + ", ".join(f"{what} +{count // MIB}" for what, count in above.items())
        + " MiB above idle"
    )
    assert max(above.values()) <= ABOVE_IDLE_BYTES


def test_a_tree_of_tiny_files(tmp_path: Path) -> None:
    """Small folders and a large, sharded one: every path reads, within 150 MiB above idle."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_tree(up, tmp_path / "tree", (*(300,) * 10, 6000))


@pytest.mark.soak
@pytest.mark.parametrize("sizes", [(1000,) * 1000, (200_000,)], ids=["a-million", "one-folder"])
def test_a_tree_of_very_many_tiny_files(tmp_path: Path, sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The long form: a million files in a thousand folders, and 200,000 in one."""
    monkeypatch.setattr("tests.e2e.running.COMMAND_S", 3600.0)
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_tree(up, tmp_path / "tree", sizes)
