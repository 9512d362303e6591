"""name import, list, history; gateway check; the table of hosts that `up` is given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fungistor.node.cli.main import main
from tests.unit.names.signing import Signer

KEY = Signer(9)
FAR = 4_000_000_000

Line = dict[str, object]
Run = Callable[..., tuple[int, list[Line]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, list[Line]]:
        code = main(["--json", "--home", str(tmp_path / "home"), *words])
        captured = capsys.readouterr()
        text = captured.out if code == 0 else captured.err
        return code, [json.loads(line) for line in text.splitlines()]

    return command


def _file(tmp_path: Path, sequence: int, value: str = "/ipfs/bafkqaaa", expires_s: int = FAR) -> str:
    path = tmp_path / f"{sequence}.record"
    path.write_bytes(KEY.encode(value, sequence=sequence, expires_s=expires_s))
    return str(path)


def test_import_list_history(run: Run, tmp_path: Path) -> None:
    """Records come in by any form of their name; the newest is listed, all are its history."""
    code, (line,) = run("name", "import", KEY.text, _file(tmp_path, 1))
    assert (code, line["name"], line["value"], line["sequence"], line["new"]) == (
        0,
        KEY.text,
        "/ipfs/bafkqaaa",
        1,
        True,
    )
    assert run("name", "import", f"/ipns/{KEY.text}", _file(tmp_path, 1))[1][0]["new"] is False
    assert run("name", "import", KEY.text, _file(tmp_path, 3, "/ipns/a.org"))[0] == 0
    assert run("name", "import", KEY.text, _file(tmp_path, 2))[0] == 6
    assert [line["value"] for line in run("name", "list")[1]] == ["/ipns/a.org"]
    assert [line["sequence"] for line in run("name", "history", KEY.text)[1]] == [3, 1]
    assert (tmp_path / "home" / "catalog" / "names.sqlite").stat().st_mode & 0o077 == 0


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    """What is no record of the name leaves nothing behind, and says why."""
    good = _file(tmp_path, 1)
    (tmp_path / "long").write_bytes(b"x" * 20_000)
    (tmp_path / "empty").write_bytes(b"")
    for name, file, code in (
        (Signer(8).text, good, 2),
        ("example.org", good, 2),
        (KEY.text, str(tmp_path / "long"), 2),
        (KEY.text, str(tmp_path / "empty"), 2),
        (KEY.text, str(tmp_path / "nothing"), 2),
        (KEY.text, str(tmp_path), 2),
        (KEY.text, _file(tmp_path, 2, expires_s=1_000_000), 2),
    ):
        assert run("name", "import", name, file)[0] == code, (name, file)
    assert run("name", "list") == (0, [])
    assert run("name", "history", KEY.text)[0] == 4


def test_gateway_check(tmp_path: Path) -> None:
    """What each Host would do is printed; a Host that gives nothing makes it end with 1."""
    table = tmp_path / "hosts.json"
    table.write_text('{"gw.example": {"UseSubdomains": true}, "blocks.example": {"DeserializedResponses": false}}')
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('[dns]\n"." = "off"\n')

    def check(*hosts: str) -> tuple[int, list[Line]]:
        words = ["gateway", "check", "--json", "--home", str(tmp_path / "home"), "--gateway-hosts", str(table), *hosts]
        done = subprocess.run(
            [sys.executable, "-m", "fungistor.node", *words],
            capture_output=True, text=True, timeout=30, check=False, env={"IPFS_NS_MAP": "a.org:/ipfs/bafkqaaa"},
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    code, lines = check()
    found = {(line["host"], line["path"]): line for line in lines}
    assert code == 0
    assert found["gw.example", "/ipfs/bafkqaaa"]["location"] == "http://bafkqaaa.ipfs.gw.example/"
    assert found["bafkqaaa.ipfs.gw.example", "/"]["does"] == "gives /ipfs/bafkqaaa/ (subdomain of a gateway)"
    assert found["blocks.example", "/ipfs/bafkqaaa"]["trustless"] is True
    assert found["a.org", "/"]["does"] == "gives /ipns/a.org/ (DNSLink website)"
    assert check("nonsense.ipfs.gw.example")[0] == 1


@pytest.mark.parametrize("table", ["nonsense", '{"a.org": {"Typo": 1}}', None])
def test_up_reads_its_table_first(run: Run, tmp_path: Path, table: str | None) -> None:
    """A table with a mistake, or none, is refused with exit 2 before anything is started."""
    path = tmp_path / "hosts.json"
    if table is not None:
        path.write_text(table)
    code, (error,) = run("up", "--gateway-hosts", str(path))
    assert code == 2
    assert str(path) in str(error["error"])
    assert not (tmp_path / "home").exists()
