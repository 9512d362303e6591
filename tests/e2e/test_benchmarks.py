"""The benchmarks as they are run, on contents so small that only their working is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.repository import ROOT


@pytest.mark.slow
def test_a_quick_run_measures_everything_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    """Without peers a quick run ends well, fills every series of ours, judges the aims, and clears its folder."""
    report, place = tmp_path / "report.md", tmp_path / "place"
    place.mkdir()
    names = ["limits", "up", "small", "publish", "fetch", "tree", "memory"]
    argv = [sys.executable, "-m", "benchmarks", *names, "--quick", "--no-peers", "--report", str(report)]
    environment = {"TMPDIR": str(place), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(report.with_suffix(".json").read_text())
    measured = {line["benchmark"] for line in read["series"] if line["contender"] == "fungistor --no-sync"}
    assert measured == {"up", "small", "publish", "fetch, healthy", "fetch, 4 dead", "tree", "memory"}
    of_others = ("warm,", "wire,", "catalog on ")  # which need a peer's client, and were not asked for
    unjudged = [aim["aim"] for aim in read["aims"] if aim["met"] is None and not aim["aim"].startswith(of_others)]
    assert [aim for aim in unjudged if "Kubo" not in aim and "zstor" not in aim] == []
    assert "## Aims" in report.read_text()
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_quick_run_of_many_objects_measures_every_engine_that_is_there(tmp_path: Path) -> None:
    """`catalog` and `many` fill their series on SQLite, on etcd where it is installed, and judge the log's bytes."""
    report = tmp_path / "report.md"
    argv = [sys.executable, "-m", "benchmarks", "catalog", "many", "--quick", "--no-peers", "--report", str(report)]
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(report.with_suffix(".json").read_text())
    measured = {(line["benchmark"], line["contender"]) for line in read["series"]}
    assert measured >= {("catalog", "sqlite"), ("many", "fungistor")}
    [judged] = [aim["met"] for aim in read["aims"] if aim["aim"].startswith("catalog on sqlite, an object in the log")]
    assert judged is True
