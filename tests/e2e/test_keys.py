"""Keys of a real network, from the command line: listed, taken out as shares, rotated, brought back."""

from __future__ import annotations

import json
from pathlib import Path

from fungistor.keys.files import load_node_keys
from tests.e2e.running import Line, fungistor, running


def _lines(home: Path, *words: str) -> list[Line]:
    done = fungistor(home, "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rotation_and_recovery_of_a_network(tmp_path: Path) -> None:
    """After both rotations, and with the root key back from shares, what was published reads, and names go on."""
    home, file = tmp_path / "home", tmp_path / "spores.txt"
    file.write_text("spores " * 40_000)
    with running(home) as up:
        (line,) = up.lines("publish", str(file))
        cid = str(line["cid"])
        (name,) = up.lines("name", "publish", "site", cid)
        assert up.command("keys", "rotate").returncode == 1  # it runs
        members = {path: path.stat().st_size for path in home.glob("members/*/data/**/*") if path.is_file()}
    before = load_node_keys(str(home / "keys" / "node.key"))
    (rotated,) = _lines(home, "keys", "rotate")
    assert (rotated["rotated"], rotated["keys"]) == ("tenant 0", 2)
    (rotated,) = _lines(home, "keys", "rotate", "--root")
    root = rotated["fingerprint"]
    assert {path: path.stat().st_size for path in members} == members

    shares = tmp_path / "shares"
    (told,) = _lines(home, "keys", "export", "--shares", "2/3", "-o", str(shares))
    assert (told["lines"], told["needed"], told["fingerprint"]) == (3, 2, root)
    assert shares.stat().st_mode & 0o077 == 0
    assert fungistor(home, "keys", "export", "--shares", "2/3", "-o", str(shares)).returncode == 2
    (home / "keys" / "root.key").unlink()
    assert fungistor(home, "keys", "export").returncode == 4
    two = tmp_path / "two"
    two.write_text("".join(shares.read_text().splitlines(keepends=True)[1:]))
    (back,) = _lines(home, "keys", "import", str(two))
    assert (back["fingerprint"], back["new"]) == (root, True)
    one = tmp_path / "one"
    one.write_text(shares.read_text().splitlines()[0])
    assert fungistor(home, "keys", "import", str(one)).returncode == 2
    words = [str(line["words"]) for line in _lines(home, "keys", "export")]
    assert [len(line.split()) for line in words] == [24, 24]

    listed = {str(line["key"]): line for line in _lines(home, "keys", "list")}
    assert listed["root"]["fingerprint"] == listed["node"]["fingerprint"] == root
    assert (listed["tenant 0"]["keys"], listed["tenant 0"]["held"]) == (2, True)
    assert before.tenant_keys != load_node_keys(str(home / "keys" / "node.key")).tenant_keys

    with running(home) as up:
        assert up.command("cat", cid).stdout == "spores " * 40_000
        (again,) = up.lines("name", "publish", "site", f"{cid}")
        assert (again["key"], again["sequence"], again["changed"]) == (name["key"], 1, False)
        up.lines("node", "add", "other", "-o", str(tmp_path / "other.key"))  # by the new root key
        (known,) = up.lines("publish", str(file))
        assert (known["cid"], known["new"]) == (cid, 0)
