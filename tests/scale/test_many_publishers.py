"""Many processes publish at once: every object is there, and the catalog counted each once."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.running import Up, running
from tests.faults.world import object_cids, seed, status


def publish_many(up: Up, folder: Path, number: int, count: int, rng: random.Random) -> list[tuple[str, int]]:
    """What one publisher does, a process a file: sizes from a few bytes to some blocks. CID and revision of each."""
    answers = []
    for turn in range(count):
        path = folder / f"file-{number}-{turn}"
        path.write_bytes(rng.randbytes(rng.choice((10, 5_000, 100_000, 1_500_000))))
        done = up.command("--json", "publish", str(path))
        assert done.returncode == 0, done.stderr
        line = json.loads(done.stdout)
        answers.append((str(line["cid"]), int(line["revision"])))
    return answers


def check_publishers(up: Up, folder: Path, publishers: int, count: int) -> None:
    chosen = seed()
    before = int(str(status(up)["revision"]))
    begun = time.monotonic()
    with ThreadPoolExecutor(publishers) as pool:
        runs = [
            pool.submit(publish_many, up, folder, number, count, random.Random(chosen * 1000 + number))
            for number in range(publishers)
        ]
        answers = [answer for run in runs for answer in run.result()]
    taken = time.monotonic() - begun
    print(f"{publishers} processes x {count} publishes in {taken:.1f} s: {publishers * count / taken:.1f} a second")
    assert object_cids(up) == {cid for cid, _ in answers}
    assert len(answers) == len({cid for cid, _ in answers}) == publishers * count
    assert sorted(revision for _, revision in answers) == list(range(before + 1, before + 1 + len(answers)))
    assert status(up)["revision"] == before + len(answers)


def test_four_publishers_at_once(tmp_path: Path) -> None:
    """4 processes x 6 publishes are 24 objects, and their revisions have no gap and no double."""
    with running(tmp_path / "home", ("--members", "6")) as up:
        check_publishers(up, tmp_path, 4, 6)


@pytest.mark.soak
def test_eight_publishers_at_once(tmp_path: Path) -> None:
    """The long form: 8 processes x 50 publishes, 400 objects."""
    with running(tmp_path / "home", ("--members", "20")) as up:
        check_publishers(up, tmp_path, 8, 50)
