"""A network's catalog over years: the log is trimmed, machines are let in and shut out, programs differ in age."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import libipld

from fungistor.catalog.engines.sqlite import SqliteLog
from tests.e2e.running import Up, fungistor, running

MEMBERS = ("--members", "6")
WAIT_S = 60.0


def publish(up: Up, name: str) -> str:
    path = up.home.with_name(name)
    path.write_text(f"{name}, still here\n")
    (line,) = up.lines("publish", str(path))
    return str(line["cid"])


def readable(up: Up, cid: str, name: str) -> bool:
    """Whether a command started now and the gateway both give the content."""
    said = f"{name}, still here\n"
    return up.command("cat", cid).stdout == said and httpx.get(f"{up.gateway}/ipfs/{cid}", timeout=WAIT_S).text == said


def test_a_network_outlives_its_trimmed_log_and_a_lost_state(tmp_path: Path) -> None:
    """`catalog snapshot` trims the log; with state, index and the home's own snapshot gone everything is read from the
    members, and `fungistor log` still tells who did what since."""
    home = tmp_path / "home"
    with running(home, MEMBERS) as up:
        first = publish(up, "first")
        (taken,) = up.lines("catalog", "snapshot")
        assert taken["members"] == 6
        assert int(str(taken["trimmed"])) > 0
        second = publish(up, "second")
        (line,) = [line for line in up.lines("log") if line["cid"] == second]
        assert (line["kind"], line["verdict"], line["name"]) == ("publish", "applied", "second")
        assert line["who"] == up.lines("node", "list")[0]["name"]
    for gone in ("catalog/state.sqlite", "catalog/state.sqlite-wal", "catalog/state.sqlite-shm"):
        (home / gone).unlink(missing_ok=True)
    shutil.rmtree(home / "index")
    with running(home) as up:
        assert readable(up, first, "first")
        assert readable(up, second, "second")
        assert {line["cid"] for line in up.lines("objects")} == {first, second}
        assert up.lines("status")[0]["catalog_stopped"] is None


def test_a_command_of_a_later_program_stops_writing_and_nothing_else(tmp_path: Path) -> None:
    """A node that meets it reads on, in workers, commands and after a restart; `status` says why, publishing is refused
    with what to do."""
    home = tmp_path / "home"
    with running(home, MEMBERS) as up:
        first = publish(up, "first")
        log = SqliteLog(str(home / "catalog" / "log.sqlite"))
        try:
            log.append(log.epoch(), [libipld.encode_dag_cbor([0, bytes(16), 0, b"", b"", 200, []])])
        finally:
            log.close()
        assert readable(up, first, "first")
        assert "kind 200" in str(up.lines("status")[0]["catalog_stopped"])
        refused = up.command("publish", str(home.with_name("first")))
        assert refused.returncode == 1
        assert "update fungistor on this machine" in refused.stderr
    with running(home) as up:
        assert readable(up, first, "first")
        assert "the catalog stands still: a command of kind 200" in up.command("status").stdout


def test_machines_are_let_in_with_scopes_and_shut_out(tmp_path: Path) -> None:
    """A key file of `node add` publishes and does no more; after `node revoke` it is denied with exit 5. No root key,
    no `add`."""
    home = tmp_path / "home"
    with running(home, MEMBERS) as up:
        publish(up, "first")
        (added,) = up.lines("node", "add", "paris", "-o", str(tmp_path / "paris.key"), "--scopes", "publish")
        assert (added["scopes"], added["tenants"]) == (["publish"], [0])
        own = home / "keys" / "node.key"
        kept = own.read_bytes()
        own.write_bytes((tmp_path / "paris.key").read_bytes())
        second = publish(up, "second")
        (line,) = [line for line in up.lines("log") if line["cid"] == second]
        assert line["who"] == "paris"
        denied = up.command("catalog", "snapshot")
        assert denied.returncode == 5
        assert "node paris may not snapshot" in denied.stderr
        assert up.lines("node", "revoke", "paris")[0]["revoked"] is True
        (tmp_path / "third").write_text("third\n")
        denied = up.command("publish", str(tmp_path / "third"))
        assert denied.returncode == 5
        assert "node paris was revoked" in denied.stderr
        own.write_bytes(kept)
        assert {line["name"] for line in up.lines("objects")} == {"first", "second"}
    (home / "keys" / "root.key").rename(tmp_path / "root.key")
    refused = fungistor(home, "--json", "node", "add", "rome", "-o", str(tmp_path / "rome.key"))
    assert refused.returncode == 4
    assert json.loads(refused.stderr)["error"]["kind"] == "not_found"
    assert not (tmp_path / "rome.key").exists()
