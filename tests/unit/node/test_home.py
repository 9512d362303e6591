from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fungistor.errors import FailedError, InvalidError, UnavailableError
from fungistor.node.home import HOME_VERSION, Home


def test_home_is_the_option_then_the_variable_then_the_data_folder() -> None:
    """--home wins over FUNGISTOR_HOME, which wins over XDG_DATA_HOME, which wins over ~/.local/share."""
    env = {"FUNGISTOR_HOME": "/b", "XDG_DATA_HOME": "/c", "HOME": "/d"}
    assert Home.resolve("/a", env).root == "/a"
    assert Home.resolve(None, env).root == "/b"
    del env["FUNGISTOR_HOME"]
    assert Home.resolve(None, env).root == "/c/fungistor"
    assert Home.resolve(None, {"XDG_DATA_HOME": "relative", "HOME": "/d"}).root == "/d/.local/share/fungistor"


def test_an_empty_home_is_refused() -> None:
    """`--home ""` is a script's unset variable and never the current folder."""
    with pytest.raises(InvalidError):
        Home.resolve("", {})


def test_prepare_makes_private_folders_whatever_the_umask(tmp_path: Path) -> None:
    """Every folder of a new home is 0700, and a second time changes nothing."""
    before = os.umask(0)
    try:
        home = Home(str(tmp_path / "deep" / "home"))
        assert home.prepare() is True
        assert home.prepare() is False
    finally:
        os.umask(before)
    for path in (home.root, home.keys, home.catalog, home.members, home.index, home.cache, home.journal, home.run):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700, path
    assert Path(home.version_file).read_text() == f"{HOME_VERSION}\n"


def test_an_open_home_is_closed(tmp_path: Path) -> None:
    """A folder made by hand with a usual umask becomes 0700."""
    tmp_path.chmod(0o755)
    Home(str(tmp_path)).prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("version", [str(HOME_VERSION + 1), "x", "", "9" * 70])
def test_a_newer_or_strange_version_is_refused(tmp_path: Path, version: str) -> None:
    """A home of a newer program, or a folder that is none, is never written to."""
    (tmp_path / "VERSION").write_text(version)
    with pytest.raises(InvalidError):
        Home(str(tmp_path)).prepare()
    assert not (tmp_path / "keys").exists()


def test_a_home_below_a_file_is_refused(tmp_path: Path) -> None:
    """A home that cannot be a folder is an error that names the file in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidError, match="file"):
        Home(str(tmp_path / "file" / "home")).prepare()


def test_the_second_lock_names_the_first_holder(tmp_path: Path) -> None:
    """One `up` a home: the second is refused with the pid of the first, and the end of the first frees the home."""
    home = Home(str(tmp_path))
    home.prepare()
    assert not home.is_running()
    lock = home.lock()
    assert home.is_running()
    with pytest.raises(FailedError, match=str(os.getpid())) as refused:
        home.lock()
    assert refused.value.exit_code == 1
    os.close(lock)
    assert not home.is_running()
    os.close(home.lock())


def test_asking_whether_it_runs_never_takes_the_lock(tmp_path: Path) -> None:
    """The question is answered from the lock's state, so it cannot refuse an `up` that starts meanwhile."""
    home = Home(str(tmp_path))
    home.prepare()
    os.close(home.lock())
    before = os.stat(home.lock_file).st_mtime_ns
    assert not home.is_running()
    assert os.stat(home.lock_file).st_mtime_ns == before


def test_no_network_is_unavailable_with_the_next_step(tmp_path: Path) -> None:
    """Commands on a home where nothing runs end with exit 3 and say how to start it."""
    home = Home(str(tmp_path / "none"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="network not running") as refused:
            home.require_running()
        assert refused.value.exit_code == 3
        assert "fungistor up" in refused.value.hint
        home.prepare()


def test_what_up_says_of_itself_is_read_only_while_it_runs(tmp_path: Path) -> None:
    """run/up.json left by a killed `up` is not believed; garbage in it is no crash."""
    home = Home(str(tmp_path))
    home.prepare()
    Path(home.running_file).write_text('{"pid": 7, "gateway": "http://x", "sync": false}')
    assert home.running() is None
    lock = home.lock()
    try:
        running = home.running()
        assert running is not None
        assert (running.pid, running.gateway, running.sync) == (7, "http://x", False)
        Path(home.running_file).write_text("{")
        assert home.running() is None
    finally:
        os.close(lock)
