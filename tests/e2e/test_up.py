from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fungistor.node.children import wait_until
from fungistor.node.process import is_stopped
from tests.e2e.running import Up, fungistor, running, start

WAIT_S = 30.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One network of six members for the tests that leave it as they found it."""
    with running(tmp_path_factory.mktemp("up") / "home") as up:
        yield up


@pytest.fixture(scope="module")
def cid(up: Up) -> str:
    """The CID of a small published file."""
    path = up.home.with_name("hello.txt")
    path.write_text("hello from many places\n")
    (line,) = up.lines("publish", str(path))
    return str(line["cid"])


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def port_of(line: dict[str, object]) -> int:
    return int(str(line["address"]).rpartition(":")[2])


def test_the_ready_file_says_what_the_contract_says(up: Up) -> None:
    """The ready file has the contract's keys, true values, and members whose folders exist."""
    said = up.ready
    assert set(said) == {"version", "gateway", "admin", "home", "pid", "catalog", "members"}
    assert (said["version"], said["admin"], said["home"], said["pid"]) == (1, None, str(up.home), up.process.pid)
    assert str(said["catalog"]) == f"sqlite:{up.home}/catalog/log.sqlite"
    assert Path(str(said["catalog"]).partition(":")[2]).exists()
    members = said["members"]
    assert isinstance(members, list)
    assert [set(member) for member in members] == [{"id", "address", "folder", "zone"}] * 6
    assert all(Path(member["folder"], "data").is_dir() for member in members)


def test_keys_and_passwords_are_private(up: Up) -> None:
    """Home 0700; keys, pool file and the door 0600; and the first start said to back up the root key."""
    assert stat.S_IMODE(up.home.stat().st_mode) == 0o700
    for name in ("keys/root.key", "keys/node.key", "pool.toml", "run/control.sock"):
        assert stat.S_IMODE((up.home / name).stat().st_mode) == 0o600, name
    assert "back up" in up.log.read_text()
    arguments = " ".join(" ".join(process.cmdline()) for process in up.processes())
    for line in (up.home / "pool.toml").read_text().splitlines():
        if line.startswith("password"):
            assert line.split('"')[1] not in arguments


def test_everything_is_one_process_group(up: Up) -> None:
    """Members, workers and what starts them share the group of `up`, which is alone in naming it."""
    groups = {os.getpgid(process.pid) for process in up.processes()}
    assert groups == {up.process.pid}
    assert len(up.processes()) == 1 + 1 + 6 + 2


def test_a_second_up_is_refused_with_the_pid_of_the_first(up: Up) -> None:
    """Two networks never share a home; the first is not disturbed."""
    done = fungistor(up.home, "up", "--gateway", "127.0.0.1:0", "--json")
    assert done.returncode == 1
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert str(up.process.pid) in error["message"]
    assert up.ready_file.exists()
    assert up.lines("status")[0]["objects"] is not None


def test_a_taken_gateway_port_is_named(up: Up, tmp_path: Path) -> None:
    """A gateway that cannot listen is an error with the address, before any member is started."""
    address = up.gateway.removeprefix("http://")
    done = fungistor(tmp_path / "other", "up", "--gateway", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert not list((tmp_path / "other" / "members").iterdir())


def test_publish_and_fetch(up: Up, cid: str) -> None:
    """What is published is served by the gateway, and by the command line without it."""
    assert fetch(f"{up.gateway}/ipfs/{cid}") == (200, b"hello from many places\n")
    assert up.command("cat", cid).stdout == "hello from many places\n"
    assert fetch(f"{up.gateway}/-/ready")[0] == 200


def test_stop_and_start_return_when_it_is_so(up: Up, cid: str) -> None:
    """A stopped member's process is gone and its port refuses; a started one answers; reads go on meanwhile."""
    before = {line["id"]: line for line in up.lines("member", "list")}
    lines = up.lines("member", "stop", "m01", "m02")
    assert [(line["id"], line["state"], line["pid"]) for line in lines] == [
        ("m01", "down", None),
        ("m02", "down", None),
    ]
    for name in ("m01", "m02"):
        assert not psutil.pid_exists(int(str(before[name]["pid"])))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(before[name])), 1.0)
    assert up.command("cat", cid).returncode == 0
    (status,) = up.lines("status")
    members = status["members"]
    assert isinstance(members, list)
    assert [member["state"] for member in members] == ["down", "down", "up", "up", "up", "up"]
    assert members[0]["reason"] == "stopped by hand"
    assert [line["state"] for line in up.lines("member", "start", "m01", "m02")] == ["up", "up"]
    socket.create_connection(("127.0.0.1", port_of(before["m01"])), 1.0).close()


def test_pause_and_resume_return_when_it_is_so(up: Up, cid: str) -> None:
    """A paused member's process is stopped and it shows as paused; resumed, it is up."""
    (line,) = up.lines("member", "pause", "m03")
    assert line["state"] == "paused"
    assert is_stopped(int(str(line["pid"])))
    (status,) = up.lines("status")
    members = status["members"]
    assert isinstance(members, list)
    assert members[2]["state"] == "paused"
    assert up.command("cat", cid).returncode == 0
    assert up.lines("member", "resume", "m03")[0]["state"] == "up"


def test_an_unknown_member_is_not_found_and_nothing_is_done(up: Up) -> None:
    """One wrong name among several stops none of them."""
    done = up.command("--json", "member", "stop", "m01", "m77")
    assert done.returncode == 4
    assert json.loads(done.stderr)["error"]["kind"] == "not_found"
    assert {line["state"] for line in up.lines("member", "list")} == {"up"}


def test_workers_and_members_that_die_come_back(up: Up, cid: str) -> None:
    """kill -9 of a gateway worker and of a member: both are replaced, and the gateway answers all along."""
    worker = up.gateway_workers()[0]
    member = int(str(up.lines("member", "list")[0]["pid"]))
    worker.kill()
    os.kill(member, signal.SIGKILL)
    assert fetch(f"{up.gateway}/ipfs/{cid}")[0] == 200

    def back() -> bool:
        alive = up.gateway_workers()
        states = {line["state"] for line in up.lines("member", "list")}
        return len(alive) == 2 and worker not in alive and states == {"up"}

    assert wait_until(back, WAIT_S, 0.1), up.log.read_text()
    assert fetch(f"{up.gateway}/ipfs/{cid}")[0] == 200


def test_a_wiped_member_waits_for_its_reset(tmp_path: Path) -> None:
    """A wiped folder is noticed at the next start of `up`; --reset takes the member back under a new number."""
    home = tmp_path / "home"
    with running(home, ["--members", "6"]) as up:
        path = tmp_path / "f"
        path.write_bytes(os.urandom(100_000))
        cid = str(up.lines("publish", str(path))[0]["cid"])
    shutil.rmtree(home / "members" / "m02")
    with running(home, []) as up:
        line = next(line for line in up.lines("member", "list") if line["id"] == "m02")
        assert (line["state"], line["reason"]) == ("down", "wiped")
        done = up.command("member", "start", "m02")
        assert done.returncode == 6
        assert "--reset" in done.stderr
        assert up.lines("member", "start", "--reset", "m02")[0]["number"] == 7
        (status,) = up.lines("status")
        members = status["members"]
        assert isinstance(members, list)
        assert {member["state"] for member in members} == {"up"}
        assert fetch(f"{up.gateway}/ipfs/{cid}") == (200, path.read_bytes())
        again = tmp_path / "g"
        again.write_bytes(os.urandom(100_000))
        (line,) = up.lines("publish", str(again))
        assert line["owed"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end everything with exit 0, and take the ready file away; what was published stays."""
    home = tmp_path / "home"
    up = start(home, ["--members", "5"])
    path = tmp_path / "f"
    path.write_text("kept")
    cid = str(up.lines("publish", str(path))[0]["cid"])
    up.lines("member", "pause", "m05")
    processes = up.processes()
    os.killpg(up.process.pid, number)  # as a terminal does
    assert up.process.wait(WAIT_S) == 0, up.log.read_text()
    assert not up.ready_file.exists()
    assert not (home / "run" / "control.sock").exists()
    assert psutil.wait_procs(processes, timeout=0)[1] == []
    assert "Traceback" not in up.log.read_text()
    done = fungistor(home, "--json", "cat", cid)
    assert done.returncode == 3
    assert "not running" in json.loads(done.stderr)["error"]["message"]
    with running(home, []) as again:
        assert [member["id"] for member in _members(again)] == [member["id"] for member in _members(up)]
        assert again.command("cat", cid).stdout == "kept"


def _members(up: Up) -> list[dict[str, object]]:
    members = up.ready["members"]
    assert isinstance(members, list)
    return members


def test_kill_of_up_ends_every_process(tmp_path: Path) -> None:
    """kill -9 of `up`, with a member paused, leaves no process; the next `up` takes the home over."""
    home = tmp_path / "home"
    up = start(home, ["--members", "5"])
    up.lines("member", "pause", "m01")
    processes = up.processes()
    assert len(processes) == 9
    up.process.kill()
    up.process.wait(WAIT_S)
    _, left = psutil.wait_procs(processes, timeout=WAIT_S)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
    assert fungistor(home, "status").returncode == 3
    with running(home, []) as again:
        assert {line["state"] for line in again.lines("member", "list")} == {"up"}


@pytest.mark.parametrize("delay_s", [0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_a_signal_while_starting_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    """However far a start has come, SIGTERM ends it without traceback or process left, and the next one succeeds."""
    home = tmp_path / "home"
    log = tmp_path / "log"
    words = [sys.executable, "-m", "fungistor.node", "--home", str(home), "up", "--gateway", "127.0.0.1:0"]
    with log.open("wb") as file:
        process = subprocess.Popen([*words, "--members", "5"], stdout=file, stderr=file, start_new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(delay_s)
    process.terminate()
    assert process.wait(WAIT_S) in (0, 143, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text()
    assert wait_until(lambda: not _group_lives(process.pid), WAIT_S)
    with running(home, ["--members", "5"] if not (home / "pool.toml").exists() else []) as up:
        assert {line["state"] for line in up.lines("member", "list")} == {"up"}


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_too_few_members_are_refused(tmp_path: Path) -> None:
    """Any four members may die, so a network of four is refused before anything is made."""
    done = fungistor(tmp_path / "home", "up", "--members", "4", "--gateway", "127.0.0.1:0")
    assert done.returncode == 2
    assert not (tmp_path / "home").exists()


def test_the_death_of_the_fork_server_ends_up_with_an_error(tmp_path: Path) -> None:
    """Where its processes are killed behind its back, `up` says so and ends, rather than serve nothing."""
    up = start(tmp_path / "home", ["--members", "5"])
    zygote = next(process for process in up.processes() if "fungistor.node.zygote" in process.cmdline())
    zygote.kill()
    assert up.process.wait(WAIT_S) == 1
    assert "killed" in up.log.read_text()
    assert "Traceback" not in up.log.read_text()
    assert not up.ready_file.exists()


def test_no_sync_is_told(tmp_path: Path) -> None:
    """A network that waits for no disk says so in `status`."""
    with running(tmp_path / "home", ["--members", "5", "--no-sync"]) as up:
        assert up.lines("status")[0]["sync"] is False
        assert "--no-sync" in up.command("status").stdout
