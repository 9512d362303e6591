"""How torn, foreign, newer, locked and full files are told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.catalog.index import BlockIndex
from fungistor.catalog.log import START
from fungistor.catalog.state import State
from fungistor.errors import CorruptError, FailedError, FungiStorError, InvalidError, UnavailableError

Use = Callable[[str], object]


def use_log(path: str) -> object:
    log = SqliteLog(path)
    try:
        log.append(0, [b"payload"])
        return [entry.payload for entry in log.read(START)]
    finally:
        log.close()


def use_state(path: str) -> object:
    state = State(path)
    try:
        return (state.progress(), list(state.records()), state.owed(), state.layouts())
    finally:
        state.close()


def use_index(path: str) -> object:
    index = BlockIndex(path)
    try:
        return index.holders(bytes(16)), list(index.indexed())
    finally:
        index.close()


FILES = [
    pytest.param(use_log, "restore", id="log"),
    pytest.param(use_state, "delete", id="state"),
    pytest.param(use_index, "delete", id="index"),
]


@pytest.mark.parametrize(("use", "remedy"), FILES)
def test_a_file_of_garbage_is_corrupt_and_the_remedy_is_named(use: Use, remedy: str, tmp_path: Path) -> None:
    """The error names the file; state and index may be deleted, the log must be restored."""
    path = tmp_path / "file.db"
    path.write_bytes(b"this is no database, whatever its name says" * 200)
    with pytest.raises(CorruptError, match=r"file\.db") as caught:
        use(str(path))
    assert remedy in caught.value.hint


@pytest.mark.parametrize(("use", "remedy"), FILES)
def test_a_torn_page_is_corrupt(use: Use, remedy: str, tmp_path: Path) -> None:
    """Any page overwritten is either told as damage or does not concern what is read; nothing else is raised."""
    path = tmp_path / "file.db"
    use(str(path))
    good = path.read_bytes()
    damage = 0
    for offset in range(0, len(good), 4096):
        start = offset + (100 if offset == 0 else 0)
        path.write_bytes(good[:start] + b"\xff" * (offset + 4096 - start) + good[offset + 4096 :])
        try:
            use(str(path))
        except CorruptError as error:
            assert remedy in error.hint
            damage += 1
    assert damage >= 1


@pytest.mark.parametrize(("use", "remedy"), FILES)
def test_a_newer_schema_is_refused(use: Use, remedy: str, tmp_path: Path) -> None:
    """A file of a later program is InvalidError with both numbers, and stays as it is."""
    path = tmp_path / "file.db"
    use(str(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(InvalidError, match=r"schema 999, this program knows \d+") as caught:
        use(str(path))
    assert "update" in caught.value.hint
    assert path.read_bytes() == before


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A state put in the log's place is not taken for a log."""
    use_state(str(tmp_path / "file.db"))
    with pytest.raises(InvalidError, match="is not a catalog log"):
        use_log(str(tmp_path / "file.db"))


def test_a_lock_is_waited_for_no_longer_than_the_bound(tmp_path: Path) -> None:
    """A writer behind a lock that never goes ends with UnavailableError in time, and nothing is appended."""
    path = str(tmp_path / "log.db")
    use_log(path)
    holder = SqliteLog(path)
    log = SqliteLog(path, busy_timeout_s=0.1)
    with holder._database.write():
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=r"locked by another process for 0\.1 s"):
            log.append(0, [b"late"])
        assert time.monotonic() - begun < 5
    assert [entry.payload for entry in log.read(START)] == [b"payload"]
    log.close()
    holder.close()


FILL = """
import resource, signal, sys
from fungistor.catalog.engines.sqlite import SqliteLog
from fungistor.errors import FailedError
log = SqliteLog(sys.argv[1])
log.append(0, [b"first"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for _ in range(100):
        log.append(0, [bytes(10_000)])
except FailedError as error:
    print("failed:", error, "|", error.__cause__)
print(sum(1 for _ in log.read(b"")))
"""


def test_a_full_disk_fails_with_its_cause_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """When the file can grow no more, the append is FailedError, earlier entries stay and reads go on."""
    path = str(tmp_path / "log.db")
    done = subprocess.run([sys.executable, "-c", FILL, path], capture_output=True, text=True, timeout=60, check=True)
    failed, count = done.stdout.splitlines()
    assert failed.startswith(f"failed: {path}")
    log = SqliteLog(path)
    assert sum(1 for _ in log.read(START)) == int(count) > 1
    log.append(0, [b"room again"])
    log.close()


def test_a_file_in_the_folder_s_place_fails(tmp_path: Path) -> None:
    """A home whose catalog folder is a file is FailedError, not a crash."""
    (tmp_path / "catalog").write_text("a file")
    with pytest.raises(FailedError, match=r"catalog/log\.db cannot be made"):
        use_log(str(tmp_path / "catalog" / "log.db"))


def test_many_openers_at_once_make_one_file(tmp_path: Path) -> None:
    """Threads that all find no file agree on one log, without an error."""
    path = str(tmp_path / "log.db")
    found: list[bytes] = []
    errors: list[FungiStorError] = []
    gate = threading.Barrier(8)

    def opener() -> None:
        log = SqliteLog(path)
        gate.wait(30)
        try:
            found.append(log.identity())
        except FungiStorError as error:
            errors.append(error)
        log.close()

    threads = [threading.Thread(target=opener) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (errors, len(found), len(set(found))) == ([], 8, 1)


def test_a_closed_log_is_unavailable(tmp_path: Path) -> None:
    """Use after close is an error of ours."""
    log = SqliteLog(str(tmp_path / "log.db"))
    log.epoch()
    log.close()
    with pytest.raises(UnavailableError, match="closed"):
        log.epoch()


def test_a_state_of_an_older_layout_is_filled_anew(tmp_path: Path) -> None:
    """A state file of an earlier program is emptied and follows its log from the start; a later one is refused."""
    path = tmp_path / "state.db"
    use_state(str(path))
    with closing(sqlite3.connect(path)) as older:
        older.execute("UPDATE progress SET applied = 7, revision = 7")
        older.execute("DROP TABLE owed")
        older.execute("PRAGMA user_version=0")
        older.commit()
    state = State(str(path))
    assert (state.progress().applied, state.owed()) == (0, [])
    state.close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version=1000")
    with pytest.raises(InvalidError, match="schema 1000"):
        use_state(str(path))
