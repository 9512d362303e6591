"""A network of members that run elsewhere, made and changed by a pool file, on real daemons."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import tomli_w

from tests.e2e.running import fungistor, running
from tests.unit.zdb_daemon.harness import Daemon, daemon

COUNT = 6
PASSWORD = "none of anybody's business"


def made(ending: ExitStack, folder: Path, number: int) -> dict[str, object]:
    """A daemon with the namespace of a member, and that member's table."""
    running_daemon = ending.enter_context(daemon(folder / f"daemon{number}", "--admin", "admin"))
    _make_namespace(running_daemon)
    return {
        "id": f"s{number}", "address": running_daemon.address, "namespace": "pool", "password": PASSWORD,
        "zone": f"nl/site{number}", "durable": True,
    }  # fmt: skip


def _make_namespace(running_daemon: Daemon) -> None:
    client = running_daemon.client()
    assert client.call("AUTH", "admin") == b"OK"
    assert client.call("NSNEW", "pool") == b"OK"
    assert client.call("NSSET", "pool", "password", PASSWORD) == b"OK"
    assert client.call("NSSET", "pool", "public", "0") == b"OK"


def write_pool(path: Path, members: list[dict[str, object]]) -> None:
    path.write_text(tomli_w.dumps({"member": members}))
    path.chmod(0o600)


def lines(home: Path, *words: str) -> list[dict[str, object]]:
    done = fungistor(home, "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_network_is_made_and_changed_by_a_pool_file(tmp_path: Path) -> None:
    """A plan first, and nothing of it done; then the network, which publishes and serves; then one member more and one
    drained, repaired, and left out. The same file again changes nothing."""
    home, file, content = tmp_path / "home", tmp_path / "pool.toml", os.urandom(300_000)
    (tmp_path / "content").write_bytes(content)
    with ExitStack() as ending:
        members = [made(ending, tmp_path, number) for number in range(1, COUNT + 1)]
        write_pool(file, members)
        [plan] = lines(home, "pool", "apply", str(file))
        assert (plan["layout"], plan["applied"], len(plan["added"])) == (1, False, COUNT)  # type: ignore[arg-type]
        assert not home.exists()
        assert lines(home, "pool", "apply", str(file), "--yes")[0]["applied"] is True
        assert lines(home, "pool", "apply", str(file), "--yes")[0]["unchanged"] is True
        [published] = lines(home, "publish", str(tmp_path / "content"))
        assert published["survives"] == 4

        members.append(made(ending, tmp_path, COUNT + 1))
        members[0]["weight"] = 0
        write_pool(file, members)
        [plan] = lines(home, "pool", "apply", str(file))
        assert (plan["added"], plan["changed"]) == (["s7"], ["s1"])
        lines(home, "pool", "apply", str(file), "--yes")
        write_pool(file, members[1:])
        held = fungistor(home, "pool", "apply", str(file), "--yes")
        assert (held.returncode, "repair" in held.stderr) == (6, True)
        assert lines(home, "repair")[0]["retired_layouts"] == 1
        assert lines(home, "pool", "apply", str(file), "--yes")[0]["removed"] == ["s1"]
        assert fungistor(home, "verify", "--all").returncode == 0

        with running(home, ("--no-sync",)) as up:
            assert len(up.ready["members"]) == COUNT  # type: ignore[arg-type]
            assert httpx.get(f"{up.gateway}/ipfs/{published['cid']}").content == content


def test_what_cannot_be_a_member_changes_nothing(tmp_path: Path) -> None:
    """A daemon that does not answer, one with a wrong password, and another network's member are named, and no network
    is made half."""
    file = tmp_path / "pool.toml"
    with ExitStack() as ending:
        members = [made(ending, tmp_path, number) for number in range(1, COUNT + 1)]
        write_pool(file, members)
        first, second = tmp_path / "first", tmp_path / "second"
        for change, code in (({"address": "127.0.0.1:1"}, 3), ({"password": "wrong"}, 3)):
            write_pool(file, [*members[:-1], members[-1] | change])
            refused = fungistor(first, "pool", "apply", str(file), "--yes")
            assert (refused.returncode, "s6" in refused.stderr, PASSWORD in refused.stderr) == (code, True, False)
        write_pool(file, members)
        lines(first, "pool", "apply", str(file), "--yes")
        taken = fungistor(second, "pool", "apply", str(file), "--yes")
        assert (taken.returncode, "another network" in taken.stderr) == (6, True)
        write_pool(file, members[:4])
        assert fungistor(tmp_path / "third", "pool", "apply", str(file), "--yes").returncode == 2


@pytest.mark.parametrize("words", [("pool", "apply"), ("pool", "apply", "/none")])
def test_a_file_that_is_not_there(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Usage and absent files are told."""
    assert fungistor(tmp_path / "home", *words).returncode in (1, 2)
