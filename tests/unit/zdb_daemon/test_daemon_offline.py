"""The tools on closed folders, run as people run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fungistor.node.cli.main import main
from fungistor.zdb.daemon.format import MODE_SEQUENTIAL, MODE_USER
from fungistor.zdb.daemon.properties import DEFAULT
from tests.unit.zdb_daemon.compaction_world import build, check, open_store
from tests.unit.zdb_daemon.harness import daemon, is_root


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


VERBS = ("check", "compact", "rebuild-index", "dump")


@pytest.mark.parametrize("verb", VERBS)
def test_folders_named_by_mistake_are_refused_untouched(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two swapped, one folder twice, and folders of something else are exit 2, and nothing is made in them."""
    build(tmp_path, MODE_USER, 50, 24)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "photos").mkdir()
    before = _everything(tmp_path)
    for data, index in (("index", "data"), ("data", "data"), ("data", "./data"), ("one", "two")):
        words = ["zdb", verb, "--data", f"{tmp_path}/{data}", "--index", f"{tmp_path}/{index}"]
        assert main(words) == 2, (data, index)
        assert "error: " in capsys.readouterr().err
    assert _everything(tmp_path) == before


def _everything(home: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(home.rglob("*"))}


def test_garbage_is_told_and_never_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random bytes, a folder, and a pipe where files should be: check says damaged, the others end with words."""
    random = Random(25)
    for place, name in (("data", "d0"), ("index", "i0"), ("index", "zdb-namespace")):
        folder = tmp_path / place / "default"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.randbytes(3000))
    (tmp_path / "data" / "default" / "d1").mkdir()
    os.mkfifo(tmp_path / "data" / "default" / "d2")
    (row,) = _rows(capsys, tmp_path, "check", code=1)
    assert row["damaged"] == 3
    for verb in ("dump", "compact", "rebuild-index"):
        words = ["zdb", verb, "--data", f"{tmp_path}/data", "--index", f"{tmp_path}/index"]
        assert main(words) == 1
        assert "error: " in capsys.readouterr().err


def test_a_name_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Namespaces with control characters in their names are shown without them, in rows and in progress."""
    with daemon(tmp_path) as running:
        client = running.client()
        assert client.call("NSNEW", "red\x1b[31m") == b"OK"
        assert running.stop() == 0
    for verb in VERBS:
        assert main(["zdb", verb, "--data", f"{tmp_path}/data", "--index", f"{tmp_path}/index"]) == 0
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("mode", [MODE_USER, MODE_SEQUENTIAL], ids=["user", "sequential"])
def test_dump_changes_nothing(tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Of folders with a torn tail, a lost index and a lost checkpoint dump lists every live key and mends nothing."""
    world = build(tmp_path, mode, 60, 27)
    folder = tmp_path / "index" / "default"
    (folder / "fungistor-checkpoint").unlink()
    newest = max((tmp_path / "data" / "default").iterdir(), key=lambda path: int(path.name[1:]))
    os.truncate(folder / f"i{newest.name[1:]}", 0)
    with newest.open("ab") as file:
        file.write(b"torn")
    before = _everything(tmp_path)
    assert {bytes.fromhex(str(row["key"])) for row in _rows(capsys, tmp_path, "dump")} == set(world.values)
    assert _everything(tmp_path) == before


@pytest.mark.skipif(not is_root(), reason="needs to mount")
def test_check_and_dump_work_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a read-only file system check and dump read everything, and the tools that write end with the reason."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        world = build(disk, MODE_USER, 50, 26)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        (row,) = _rows(capsys, disk, "check")
        assert row["whole"] is True
        assert len(_rows(capsys, disk, "dump")) == len(world.values)
        for verb in ("compact", "rebuild-index"):
            assert main(["zdb", verb, "--data", f"{disk}/data", "--index", f"{disk}/index"]) == 1
            assert "read-only file system" in capsys.readouterr().err.lower()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("verb", ["compact", "rebuild-index"])
def test_an_end_in_the_middle_leaves_a_folder_that_opens(tmp_path: Path, verb: str, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and kill -9 while a tool writes: all values are there, and the tool can be run again."""
    world = build(tmp_path, MODE_USER, 400, 27)
    words = [sys.executable, "-m", "fungistor.node", "zdb", verb, "--data", f"{tmp_path}/data", "--index"]
    words += [f"{tmp_path}/index", *(["--percent", "1"] if verb == "compact" else [])]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(number)
        said = process.stderr.read()
    assert "Traceback" not in said
    assert process.returncode in (0, {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number])
    store = open_store(tmp_path)
    check(store.namespaces[DEFAULT], world)
    store.close()
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0
