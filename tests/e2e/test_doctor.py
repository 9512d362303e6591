"""`fungistor doctor` on a real network: clean where all is well; what is broken is found, with its remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fungistor.keys.files import save_root_key
from fungistor.node.doctor.members import Told, look_at_clocks, look_at_members
from fungistor.objects.results import MemberLine
from tests.e2e.running import Line, fungistor, running


def _examine(home: Path) -> tuple[int, list[Line]]:
    """Exit code and lines, without the disk's: how full it is says nothing of the program."""
    done = fungistor(home, "--json", "doctor")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert done.returncode == (1 if any(line["ok"] is False for line in lines) else 0)
    assert all(line["next"] for line in lines if line["ok"] is False)
    return done.returncode, [line for line in lines if line["area"] != "disk"]


def _wrong(home: Path) -> dict[str, str]:
    return {str(line["finding"]): str(line["next"]) for line in _examine(home)[1] if line["ok"] is False}


def test_a_network_before_and_after_things_break(tmp_path: Path) -> None:
    """A running network has no findings; stopped members, open keys, lost keys and torn files have one each."""
    home = tmp_path / "home"
    assert "there is no network" in next(iter(_wrong(home)))
    (tmp_path / "file").write_bytes(os.urandom(30_000))
    with running(home) as up:
        up.lines("publish", str(tmp_path / "file"))
        up.lines("name", "publish", "site", "bafkqaaa")
        lines = _examine(home)[1]
        assert [line for line in lines if line["ok"] is False] == []
        assert {str(line["area"]) for line in lines} == {"formats", "catalog", "keys", "members", "clocks"}
        assert "all 1 objects and 1 names have their key" in [line["finding"] for line in lines]
        up.lines("member", "stop", "m02")
        ((seen, step),) = _wrong(home).items()
        assert seen.startswith("m02 is down")
        assert "member start m02" in step

    root = home / "keys" / "root.key"
    root.chmod(0o640)
    assert f"chmod 600 {root}" in " ".join(_wrong(home).values())
    root.chmod(0o600)
    save_root_key(str(root), b"x" * 32)
    assert any("is not the one of node.key" in seen for seen in _wrong(home))
    root.unlink()
    assert not any("root key" in seen for seen in _wrong(home))
    (home / "keys").chmod(0o750)
    done = fungistor(home, "doctor")
    assert f"{home / 'keys'} is open to other users" in done.stdout

    names = home / "catalog" / "names.sqlite"
    for aside in (names, home / "catalog" / "names.sqlite-wal"):
        if aside.exists():
            aside.write_bytes(b"torn" * 1024)
    assert any(f"{names} is damaged" in seen for seen in _wrong(home))
    for file in home.glob("catalog/keys.sqlite*"):
        file.unlink()
    assert any("the key table is gone" in seen for seen in _wrong(home))
    (home / "VERSION").write_text("99\n")
    assert "use the newer fungistor" in " ".join(_wrong(home).values())


def test_clocks_and_words_of_members() -> None:
    """A clock that is far off is named, on either side; a newer format and a member that waits for no disk as well."""
    told = [Told("m01", {"data_version": "99", "durability": "none"}, 0.2), Told("m02", {}, -3600.0)]
    clocks = [finding.seen for finding in look_at_clocks(told, 2e9 + 60, 2e9)]
    assert clocks == [
        "something was committed 60 s in the future of this clock",
        "the clock of m02 differs by -3600 s from this one",
    ]
    assert [finding.is_good for finding in look_at_clocks(told[:1], None, 2e9)] == [True]
    assert [finding.is_good for finding in look_at_clocks([], None, 1e9)] == [False, None]
    lines = [MemberLine("m01", "a", "z", "up"), MemberLine("m02", "a", "z", "down", "wiped")]
    found = {finding.seen: finding.next_step for finding in look_at_members(lines, told)}
    assert list(found) == [
        "m02 is down (wiped)",
        "m01 write a newer format than this program knows",
        "m01 wait for no disk: a power cut takes what they acknowledged",
    ]
    assert "--reset m02" in found["m02 is down (wiped)"]
