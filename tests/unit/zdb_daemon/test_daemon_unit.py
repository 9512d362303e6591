"""The service unit of the operators' page: systemd takes it, and its command line is one that the daemon takes."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fungistor.zdb.daemon.arguments import parse_arguments
from fungistor.zdb.daemon.files import write_all

PAGE = Path(__file__).parents[3] / "docs" / "operating.md"


def _unit() -> str:
    found = re.search(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_its_command_line_is_understood(tmp_path: Path) -> None:
    """Every flag of ExecStart is one of ours, with the password from a credential."""
    (line,) = [line for line in _unit().splitlines() if line.startswith("ExecStart=")]
    (tmp_path / "admin").write_text("secret\n")
    words = shlex.split(line.replace("%S", "/var/lib").replace("%d", str(tmp_path)))
    config = parse_arguments(words[2:])
    assert (config.admin, config.protect, config.listen) == ("secret", True, "::")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_it(tmp_path: Path) -> None:
    """systemd finds nothing wrong in it."""
    unit = tmp_path / "zdb.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", _unit()))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_long_writes_are_whole_however_they_are_cut(tmp_path: Path) -> None:
    """Parts of any lengths, at and around the longest write, lie in the file one after the other."""
    longest = 128 << 10
    chance = random.Random(5)
    around = ((longest,), (longest + 1,), (1, longest), (longest - 1, 1, 1))
    for lengths in (*around, (7, 3 * longest, 9, 2 * longest), (0, longest, 0, 5)):
        parts = [chance.randbytes(length) for length in lengths]
        path = tmp_path / "file"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(fd, parts, 28)
        finally:
            os.close(fd)
        assert path.read_bytes() == bytes(28) + b"".join(parts)
