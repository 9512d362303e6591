"""Contents and configurations that benchmarks make."""

from __future__ import annotations

import tomllib
import zlib
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.contents import random_file, tree
from benchmarks.figures import MIB
from benchmarks.processes import BenchmarkError, accepts, free_ports, run
from benchmarks.zstor import DATA, META, config_text


def test_a_seed_gives_the_same_bytes_which_nothing_compresses(tmp_path: Path) -> None:
    """Two files of a seed are equal, another seed's differs, and zlib finds nothing in them."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_file(tmp_path / name, 5 * MIB + 3, seed)
    first = (tmp_path / "a").read_bytes()
    assert len(first) == 5 * MIB + 3
    assert first == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    assert len(zlib.compress(first[:MIB])) >= MIB


def test_a_tree_has_the_files_and_about_the_bytes_that_were_asked_for(tmp_path: Path) -> None:
    """The number is exact, the bytes within a third, samples are files of it, and a seed repeats it."""
    made = tree(tmp_path / "one", 500, 4 * MIB, 7)
    again = tree(tmp_path / "two", 500, 4 * MIB, 7)
    files = [path for path in made.root.rglob("*") if path.is_file()]
    assert len(files) == made.files == 500
    assert sum(path.stat().st_size for path in files) == made.bytes
    assert 2 * MIB < made.bytes < 6 * MIB
    assert made.samples == again.samples
    assert all((made.root / name).read_bytes() == (again.root / name).read_bytes() for name in made.samples)


def test_zstor_is_told_of_every_place_once() -> None:
    """Its configuration is TOML with 4 metadata places and one group of 20."""
    text = config_text(list(range(1, META + 1)), list(range(100, 100 + DATA)), "ab" * 32)
    read = tomllib.loads(text)
    assert len(read["meta"]["config"]["backends"]) == META
    assert [len(group["backends"]) for group in read["groups"]] == [DATA]
    assert (read["minimal_shards"], read["expected_shards"]) == (16, 20)


def test_a_command_that_fails_is_an_error_with_its_words() -> None:
    """The exit code and the last words are in the message."""
    with pytest.raises(BenchmarkError, match="3: sorry"):
        run(["sh", "-c", "echo sorry >&2; exit 3"])


def test_free_ports_are_different_and_free() -> None:
    """No two are the same, and nobody listens there."""
    ports = free_ports(24)
    assert len(set(ports)) == 24
    assert not any(accepts(port) for port in ports[:3])


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names those there are."""
    with pytest.raises(SystemExit):
        main(["publsh"])
    assert "publsh; there are limits, up," in capsys.readouterr().err
