"""A real zstor with our member daemons as its backends and its metadata store. Skipped where it is not on PATH."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.zdb_daemon.harness import Daemon, daemon

ZSTOR = shutil.which("zstor")
BACKENDS = 24
SPACES = ("zstor-meta-1", "zstor-meta-2", "zstor-meta-3", "zstor-meta-4")
"""Its metadata places are four by its own code: four namespaces with passwords of one daemon."""

CONFIG = """\
minimal_shards = 16
expected_shards = 20
redundant_groups = 0
redundant_nodes = 0
[encryption]
algorithm = "AES"
key = "{key}"
[compression]
algorithm = "snappy"
[meta]
type = "zdb"
[meta.config]
prefix = "test"
[meta.config.encryption]
algorithm = "AES"
key = "{key}"
"""
PLACE = '\n[[{table}]]\naddress = "{address}"\n'


@dataclass
class World:
    """Daemons, and zstor's configuration for them."""

    home: Path
    backends: list[Daemon]
    config: Path

    def zstor(self, *words: str) -> subprocess.CompletedProcess[str]:
        assert ZSTOR is not None
        argv = [ZSTOR, "--config", str(self.config), "--log_file", str(self.home / "zstor.log"), *words]
        return subprocess.run(argv, cwd=self.home, capture_output=True, text=True, timeout=120, check=False)

    def ok(self, *words: str) -> str:
        done = self.zstor(*words)
        assert done.returncode == 0, done.stdout + done.stderr + (self.home / "zstor.log").read_text()[-2000:]
        return done.stdout

    def entries(self) -> list[int]:
        """Live keys of each backend that runs."""
        return [_entries(place) for place in self.backends if place.process.poll() is None]


def _entries(place: Daemon) -> int:
    count = place.client().call("DBSIZE")
    assert isinstance(count, int)
    return count


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        backends = [stack.enter_context(daemon(tmp_path / f"b{n}", "--mode", "seq")) for n in range(BACKENDS)]
        meta = stack.enter_context(daemon(tmp_path / "meta", "--admin", "root"))
        client = meta.client()
        assert client.call("AUTH", "root") == b"OK"
        text = CONFIG.format(key=random.Random(3).randbytes(32).hex())
        for space in SPACES:
            for words in (("NSNEW", space), ("NSSET", space, "password", "pw"), ("NSSET", space, "public", "0")):
                assert client.call(*words) == b"OK"
            text += PLACE.format(table="meta.config.backends", address=meta.address)
            text += f'namespace = "{space}"\npassword = "pw"\n'
        text += "\n[[groups]]\n" + "".join(PLACE.format(table="groups.backends", address=b.address) for b in backends)
        config = tmp_path / "zstor.toml"
        config.write_text(text)
        yield World(tmp_path, backends, config)


@pytest.mark.soak
@pytest.mark.skipif(ZSTOR is None, reason="zstor is not on PATH")
def test_zstor_stores_retrieves_checks_and_rebuilds(world: World) -> None:
    """16 + 4 over our daemons: files come back bit for bit, also with four backends that hold shards killed; a rebuild
    then puts all twenty on those that live, and four more may be lost."""
    chance = random.Random(1)
    files = world.home / "files"
    files.mkdir()
    contents = {files / f"f{size}": chance.randbytes(size) for size in (1, 4096, 1_000_000, 30_000_000)}
    for path, content in contents.items():
        path.write_bytes(content)
        world.ok("store", "--file", str(path))
        assert world.ok("check", "--file", str(path)).strip()
        path.unlink()
    assert sum(world.entries()) >= 20 * len(contents)

    def retrieve_all() -> None:
        for path, content in contents.items():
            world.ok("retrieve", "--file", str(path))
            assert path.read_bytes() == content
            path.unlink()

    retrieve_all()
    for _ in range(2):
        living = [place for place in world.backends if place.process.poll() is None]
        for place in sorted(living, key=_entries)[-4:]:
            place.kill()
        retrieve_all()
        if len(living) == BACKENDS:
            for path in contents:
                world.ok("rebuild", "--file", str(path))
    assert len(world.entries()) == BACKENDS - 8
