"""The tools on closed folders, run as people run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fungistor.node.cli.main import main
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.store import DEFAULT
from tests.unit.zdb_daemon.compaction_world import build, check, open_store
from tests.unit.zdb_daemon.harness import daemon


def _rows(capsys: pytest.CaptureFixture[str], home: Path, *words: str, code: int = 0) -> list[dict[str, object]]:
    verb, *rest = words
    assert main(["zdb", verb, "--data", f"{home}/data", "--index", f"{home}/index", "--json", *rest]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("mode", [MODE_USER, MODE_SEQUENTIAL], ids=["user", "sequential"])
def test_compact_and_rebuild_keep_everything(tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    """check says whole before and after compact and rebuild-index, and all values are there each time."""
    world = build(tmp_path, mode, 300, 21)
    for verb in ("check", "compact", "check", "rebuild-index", "check"):
        (row,) = _rows(capsys, tmp_path, verb, *(["--percent", "1"] if verb == "compact" else []))
        assert row["namespace"] == "default"
        if verb == "check":
            assert row["whole"] is True, row
        elif verb == "compact":
            assert isinstance(row["dropped"], int) and row["dropped"] > 3
        else:
            assert row["entries"] == len(world.values)
        store = open_store(tmp_path)
        check(store.namespaces[DEFAULT], world)
        store.close()


def test_dump_lists_live_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """dump has a row for each live key with its length, and nothing else."""
    world = build(tmp_path, MODE_USER, 100, 22)
    rows = _rows(capsys, tmp_path, "dump")
    assert {row["key"]: row["bytes"] for row in rows} == {key.hex(): len(value) for key, value in world.values.items()}


def test_check_finds_damage_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped byte, a cut tail and a lost index record are told; no file is touched; the exit code is 1."""
    build(tmp_path, MODE_USER, 100, 23)
    path = tmp_path / "data" / "default" / "d0"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    newest = max((tmp_path / "index" / "default").glob("i*"), key=lambda file: int(file.name[1:]))
    newest.write_bytes(newest.read_bytes()[:-5])
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = [file.read_bytes() for file in files]
    (row,) = _rows(capsys, tmp_path, "check", code=1)
    assert row["whole"] is False
    assert row["damaged"] == 1
    assert row["unindexed"] == 1
    assert [file.read_bytes() for file in files] == before


def test_tools_do_not_run_beside_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders in use are exit 6, folders that are not there exit 2."""
    with daemon(tmp_path):
        for verb in ("check", "compact", "rebuild-index", "dump"):
            assert _rows(capsys, tmp_path, verb, code=6) == []
    assert _rows(capsys, tmp_path / "none", "check", code=2) == []
