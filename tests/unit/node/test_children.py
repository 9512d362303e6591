from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fungistor.errors import FailedError
from fungistor.node.children import Child, Children, wait_until
from fungistor.node.process import is_stopped, state_of
from fungistor.zdb.client import Client

WAIT_S = 20.0


@pytest.fixture
def ended() -> list[str]:
    """The names of children that ended, in that order."""
    return []


@pytest.fixture
def children(ended: list[str]) -> Iterator[Children]:
    """A zygote of this test's own."""
    owner = Children(lambda child: ended.append(child.name))
    yield owner
    owner.close()


def start_member(children: Children, folder: Path, name: str = "m01", **options: object) -> Child:
    config = {"data": str(folder / "data"), "index": str(folder / "index"), "port": 0, **options}
    return children.member(name, str(folder / f"{name}.log"), config)


def test_a_member_is_forked_serves_and_ends(children: Children, ended: list[str], tmp_path: Path) -> None:
    """A forked daemon tells its address when it serves, answers there, and SIGTERM ends it with status 0."""
    child = start_member(children, tmp_path)
    address = child.wait_ready(WAIT_S)
    with Client(address) as client:
        assert client.call("PING")
    assert state_of(child.pid) in ("S", "R")
    child.stop(WAIT_S)
    assert child.status == 0
    assert state_of(child.pid) is None
    assert wait_until(lambda: ended == ["m01"], WAIT_S)


def test_members_share_memory(children: Children, tmp_path: Path) -> None:
    """An idle member costs less than 8 MiB of its own: what twenty of them cost must fit beside other things."""
    forked = []
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        forked.append(start_member(children, folder, f"m{number}"))
    for child in forked:
        child.wait_ready(WAIT_S)
    sizes = [psutil.Process(child.pid).memory_full_info().pss for child in forked]
    assert max(sizes) < 8 << 20, sizes


def test_a_child_has_only_its_own_descriptors(children: Children, tmp_path: Path) -> None:
    """A child forked later inherits nothing of its sisters': a stopped member's port must refuse at once."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = start_member(children, tmp_path / "a", "m01")
    address = first.wait_ready(WAIT_S)
    second = start_member(children, tmp_path / "b", "m02")
    second.wait_ready(WAIT_S)
    opened = {file.path for file in psutil.Process(second.pid).open_files()}
    assert not any(str(tmp_path / "a") in path for path in opened), opened
    first.stop(WAIT_S)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1.0)


def test_children_stay_in_the_group_and_ignore_ctrl_c(children: Children, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of `up`, which alone decides in which order things end."""
    child = start_member(children, tmp_path)
    child.wait_ready(WAIT_S)
    assert os.getpgid(child.pid) == os.getpgid(0) == os.getpgid(children.zygote_pid)
    os.kill(children.zygote_pid, signal.SIGINT)
    os.kill(children.zygote_pid, signal.SIGTERM)
    other = start_member(children, tmp_path, "m02", data=str(tmp_path / "d2"), index=str(tmp_path / "i2"))
    other.wait_ready(WAIT_S)
    assert child.alive


def test_a_member_that_cannot_start_says_why(children: Children, tmp_path: Path) -> None:
    """The daemon's own words come back, so that `status` can show them."""
    (tmp_path / "data").write_text("no folder")
    child = start_member(children, tmp_path)
    with pytest.raises(FailedError) as failed:
        child.wait_ready(WAIT_S)
    assert "data" in failed.value.message
    assert child.wait_gone(WAIT_S)
    assert "data" in (tmp_path / "m01.log").read_text()


def test_pause_and_stop_of_a_paused_member(children: Children, tmp_path: Path) -> None:
    """SIGSTOP stops every thread; a paused member still ends cleanly when asked to."""
    child = start_member(children, tmp_path)
    child.wait_ready(WAIT_S)
    child.signal(signal.SIGSTOP)
    assert wait_until(lambda: is_stopped(child.pid), WAIT_S)
    child.stop(WAIT_S)
    assert child.status == 0


def test_kill_of_the_zygote_ends_every_child(children: Children, ended: list[str], tmp_path: Path) -> None:
    """Nothing outlives the zygote, and its death is noticed."""
    child = start_member(children, tmp_path)
    child.wait_ready(WAIT_S)
    os.kill(children.zygote_pid, signal.SIGKILL)
    assert wait_until(lambda: children.broken, WAIT_S)
    assert wait_until(lambda: _gone(child.pid), WAIT_S)
    assert ended == ["m01"]
    with pytest.raises(FailedError):
        start_member(children, tmp_path, "m02")


def test_a_program_gets_its_descriptors(children: Children) -> None:
    """A program is started with exactly the descriptors given along, under the numbers in its words."""
    reading, writing = os.pipe()
    try:
        code = "import os,sys; os.write(int(sys.argv[1]), repr(sorted(os.listdir('/proc/self/fd'))).encode())"
        child = children.program("program", [sys.executable, "-c", code, "{0}"], [writing])
        os.close(writing)
        assert child.wait_gone(WAIT_S)
        assert child.status == 0
        said = os.read(reading, 4096).decode()
    finally:
        os.close(reading)
    assert len(said.split(",")) == 5, said  # 0, 1, 2, the pipe, and the one that lists them


def test_the_end_of_the_owner_ends_the_zygote(tmp_path: Path) -> None:
    """kill -9 of the process that owns the zygote leaves nothing: neither it nor a member."""
    code = f"""
import os, signal
from fungistor.node.children import Children
children = Children(lambda child: None)
config = dict(data={str(tmp_path / "data")!r}, index={str(tmp_path / "index")!r}, port=0)
child = children.member("m01", {str(tmp_path / "log")!r}, config)
child.wait_ready(20)
print(children.zygote_pid, child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    zygote, member = map(int, done.stdout.split())
    assert done.returncode == -signal.SIGKILL
    assert wait_until(lambda: _gone(zygote) and _gone(member), WAIT_S)


def _gone(pid: int) -> bool:
    return state_of(pid) in (None, "Z")
