from __future__ import annotations

import array
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO

import pytest

from fungistor.dag.profiles import PROFILES as REAL_PROFILES
from fungistor.errors import NotFoundError
from fungistor.node.children import wait_until
from fungistor.node.cli.main import main
from fungistor.node.cli.options import PROFILES, build_parser, find_command
from fungistor.node.cli.output import Output, safe, seconds_text, size_text, table_lines
from fungistor.node.cli.progress import ProgressLine
from fungistor.objects.results import EntryLine, ObjectLine, PublishOutcome, VerifyReport

ROOT = Path(__file__).parents[3]
COMMANDS = (
    "up", "publish", "get", "cat", "ls", "stat", "car", "objects", "verify", "status", "member", "name", "gateway",
    "unpublish", "gc", "pin", "lock", "zdb", "version",
)  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fungistor.node", *words], capture_output=True, text=True, timeout=30, check=False
    )


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """Run a line that must be refused with exit 2, and give its error."""
    assert main(["--json", *words]) == 2, words
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    error: dict[str, str] = json.loads(line)["error"]
    assert set(error) == {"kind", "message", "hint"}
    return error


def test_common_options_stand_before_or_after_the_command() -> None:
    """--home and --json are taken in either place, also after a member's verb."""
    parser = build_parser()
    for words in (
        ["--home", "h", "--json", "status"],
        ["status", "--home", "h", "--json"],
        ["--json", "member", "stop", "m01", "--home", "h"],
        ["--home", "h", "member", "stop", "--json", "m01"],
    ):
        arguments = parser.parse_args(words)
        assert (arguments.home, arguments.json) == ("h", True), words


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["publish"],
        ["publish", "x", "--profile", "none"],
        ["publish", "x", "--only"],
        ["get", "CID"],
        ["verify"],
        ["verify", "CID", "--all"],
        ["member"],
        ["member", "stop"],
        ["member", "list", "m01"],
        ["up", "--members", "x"],
        ["up", "--members", "0"],
        ["status", "--home"],
        ["status", "--home", ""],
        ["zdb", "--no-such-flag"],
        ["--no-such-flag"],
        ["--home"],
        ["publish", "x", "--expires", "soon"],
        ["unpublish", "CID", "--grace", "1y"],
        ["unpublish", "CID", "--undo", "--dry-run"],
        ["lock", "CID"],
        ["lock", "CID", "--until", "tomorrow"],
        ["pin"],
    ],
)
def test_usage_errors_are_exit_2_and_one_json_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """A line that makes no command is refused as every other error is, with a message and no half words guessed."""
    assert refused(capsys, *words)["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["publish", "x"],
        ["get", "CID", "-o", "x"],
        ["cat", "CID"],
        ["ls", "CID"],
        ["stat", "CID"],
        ["objects"],
        ["verify", "--all"],
        ["status"],
        ["member", "list"],
        ["member", "stop", "m01"],
    ],
)
def test_without_a_network_commands_say_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    """Every command on the network ends with exit 3 where none runs, and makes no home by asking."""
    home = tmp_path / "home"
    assert main(["--json", "--home", str(home), *words]) == 3
    error = json.loads(capsys.readouterr().err)["error"]
    assert "network not running" in error["message"]
    assert "fungistor up" in error["hint"]
    assert not home.exists()


def test_every_command_has_help_with_an_example() -> None:
    """Each command of the page explains itself to a newcomer; the main help names all of them."""
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"    {command}" in done.stdout, command
        words = run(command, "--help")
        assert words.returncode == 0, words.stderr
        if command != "zdb":
            assert f"example:\n  fungistor {command}" in words.stdout


def test_the_page_tells_of_every_command_and_option() -> None:
    """docs/cli.md names every command and every option that the parser takes."""
    page = (ROOT / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        assert f"`{command}" in page, command
    parser = build_parser()
    for command in COMMANDS:
        if command in ("zdb", "version", "member"):
            continue
        text = run(command, "--help").stdout
        for word in text.replace(",", " ").replace("[", " ").replace("]", " ").split():
            if word.startswith("--") and word.strip("-") and word not in ("--help", "--json", "--home"):
                assert word in page, (command, word)
    assert parser.prog == "fungistor"


def test_version_names_the_engine() -> None:
    """`version --json` says which erasure engine runs."""
    done = run("version", "--json")
    assert set(json.loads(done.stdout)) == {"version", "python", "engine"}


def test_profiles_are_those_of_the_dag_room() -> None:
    """The names that the parser repeats are the profiles that there are."""
    assert set(PROFILES) == set(REAL_PROFILES)


def test_only_hash_needs_no_network(tmp_path: Path) -> None:
    """A CID can be had on a machine where nothing was ever started, and nothing is made there."""
    path = tmp_path / "f"
    path.write_text("hello world\n")
    done = run("--home", str(tmp_path / "home"), "publish", "--only-hash", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cid"].startswith("bafkrei")
    assert not (tmp_path / "home").exists()


def test_a_missing_file_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """One PATH that cannot be read: its error names it, the next PATH is done, exit 1."""
    path = tmp_path / "f"
    path.write_text("hello world\n")
    done = run("publish", "--only-hash", "--json", str(tmp_path / "absent"), str(path))
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    error = json.loads(done.stderr.splitlines()[0])
    assert error["path"] == str(tmp_path / "absent")


def test_ctrl_c_is_130_without_a_traceback() -> None:
    """A command that waits ends at once with exit 130 and one quiet line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fungistor.node", "publish", "--only-hash", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    assert wait_until(lambda: _unread_bytes(process.stdin) == 0, 30.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")


def _unread_bytes(pipe: IO[bytes] | None) -> int:
    """How much lies in a pipe: nothing once its reader is at work."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe or -1, termios.FIONREAD, count)
    return count[0]


def test_a_reader_that_leaves_is_no_failure(tmp_path: Path) -> None:
    """`fungistor ... | head -c0`: no traceback, no error, exit 0."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fungistor.node", "version", "--json"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_common_case_imports_little() -> None:
    """Help, usage and "not running" must not wait for the rooms that work needs."""
    code = "import sys; from fungistor.node.cli import main; main(['status']); print(*sys.modules)"
    environment = {"PATH": os.environ["PATH"], "FUNGISTOR_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, env=environment
    )
    loaded = set(done.stdout.split())
    assert "fungistor.node.cli.network" in loaded
    assert not loaded & {"rich", "asyncio", "sqlite3", "fungistor.pool", "fungistor.catalog", "cryptography", "uvloop"}


def test_the_command_is_found_behind_the_options() -> None:
    """`--home X zdb` is the daemon, whose own words are not for this parser."""
    assert find_command(["--home", "zdb", "zdb", "--port", "1"]) == 2
    assert find_command(["--json", "--home=x", "zdb"]) == 2
    assert find_command(["--home"]) == 1


def test_errors_are_told_to_people_and_to_programs() -> None:
    """A person gets the message and the next step, a program one JSON object; names are made harmless."""
    error = NotFoundError("nothing is called \x1b[31mred", hint="look again")
    person, program = io.StringIO(), io.StringIO()
    Output(as_json=False, out=io.StringIO(), err=person).error(error)
    Output(as_json=True, out=io.StringIO(), err=program).error(error)
    assert person.getvalue() == "error: nothing is called \\x1b[31mred\n  look again\n"
    assert json.loads(program.getvalue()) == {
        "error": {"kind": "not_found", "message": error.message, "hint": "look again"}
    }


def test_rows_are_lines_for_programs_and_a_table_for_people() -> None:
    """The same entries, sizes as bytes in JSON and as words in the table; a broken name cannot harm the terminal."""
    entries = [EntryLine("a\nb", "bafya", 2048, "file"), EntryLine("\udcff", "bafyb", 5, "file")]
    out = io.StringIO()
    Output(as_json=True, out=out).rows(iter(entries), ("SIZE", "NAME"), ("size:size", "name"))
    assert [json.loads(line)["size"] for line in out.getvalue().splitlines()] == [2048, 5]
    out = io.StringIO()
    Output(as_json=False, out=out).rows(iter(entries), ("SIZE", "NAME"), ("size:size", "name"))
    assert out.getvalue() == "   SIZE  NAME\n2.0 KiB  a\\nb\n    5 B  \\udcff\n"


def test_texts_are_those_people_read() -> None:
    """Sizes, times and empty tables as they are shown."""
    assert [size_text(n) for n in (0, 1023, 1024, 1536, 1023 * 1024, 10**12)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "931.3 GiB",
    ]
    assert [seconds_text(n) for n in (0.0123, 3.44, 125.0)] == ["12 ms", "3.4 s", "2 min 5 s"]
    assert table_lines(("A",), [], [False]) == []
    assert safe("plain ünï 🍄") == "plain ünï 🍄"


def test_results_have_the_contract_keys() -> None:
    """The JSON of results has the keys of docs/cli.md, and overhead is null where there is nothing to compare."""
    outcome = PublishOutcome("p", "c", "n", "f", 100, 90, 125, 125, 4, 0, 0, 7, 0.5)
    expected = "cid name profile size sealed stored new overhead survives owed skipped revision seconds"
    assert set(expected.split()) <= set(outcome.to_json())
    assert outcome.overhead == 1.25
    assert PublishOutcome("p", "c", "n", "f", 0, 0, 125, 125, 4, 0, 0, 7, 0.5).overhead is None
    assert list(ObjectLine("c", "n", 1, 2, 4, 0).to_json()) == [
        "cid",
        "name",
        "size",
        "stored",
        "survives",
        "published",
        "private",
    ]
    assert [
        VerifyReport("c", 20, good, 20 - good, 0, readable=readable).exit_code
        for good, readable in ((20, True), (19, True), (3, False))
    ] == [0, 1, 3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_silent_for_short_runs_and_where_nobody_looks() -> None:
    """Nothing is drawn in the first second, nor ever on what is no terminal."""
    for stream in (io.StringIO(), Terminal()):
        with ProgressLine(stream, enabled=True) as progress:
            progress(10, 100, "publish")
        assert stream.getvalue() == ""


def test_progress_shows_amount_rate_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second a terminal shows the name, how much and how fast; at the end the line is taken away."""
    monkeypatch.setattr("fungistor.node.cli.progress.QUIET_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressLine(stream, enabled=True) as progress:
        progress(10 << 20, 100 << 20, "publishing [bold]site")
        progress(20 << 20, 100 << 20, "publishing [bold]site")
    assert "[bold]site" in stream.getvalue()
    assert "MiB" in stream.getvalue()
