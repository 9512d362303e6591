"""zstor beside us: 16+4 over 20 local 0-dbs, its metadata on 4 more, one command a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from benchmarks.contenders import Published
from benchmarks.network import LOST
from benchmarks.processes import BenchmarkError, Ran, accepts, end, free_ports, run, serve, tree_of, wait_ready
from benchmarks.record import ZSTOR

DATA = 20
META = 4
"""The number of metadata places is fixed in its code."""

_CONFIG = """\
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
prefix = "benchmark"

[meta.config.encryption]
algorithm = "AES"
key = "{key}"
"""


def config_text(meta_ports: list[int], data_ports: list[int], key: str) -> str:
    """Its configuration: all data places in one group, since its search for a layout takes no more."""
    meta = "".join(f'\n[[meta.config.backends]]\naddress = "127.0.0.1:{port}"\n' for port in meta_ports)
    data = "".join(f'\n[[groups.backends]]\naddress = "127.0.0.1:{port}"\n' for port in data_ports)
    return f"{_CONFIG.format(key=key)}{meta}\n[[groups]]\n{data}"


class Zstor:
    """24 0-dbs in a temporary folder, and the command without a daemon of its own."""

    name = ZSTOR
    has_trees = False
    has_gateway = False

    def __init__(self, folder: Path, program: str, zdb: str) -> None:
        self._program = program
        self._zdb = zdb
        self._folder = folder / "zstor"
        self._files = self._folder / "files"
        self._ports: list[int] = []
        self._places: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.mkdir(parents=True)
        self._ports = free_ports(DATA + META)
        key = os.urandom(32).hex()
        (self._folder / "zstor.toml").write_text(config_text(self._ports[DATA:], self._ports[:DATA], key))
        self._start()

    def end(self) -> None:
        end(self._places)
        self._places = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self, path: Path) -> Published:
        # It knows content by its path alone, and gives it back at that path: so each content gets one below `files`.
        mine = self._files / path.name
        os.link(path, mine)
        try:
            ran = self._run("store", "--file", mine)
        finally:
            mine.unlink()
        return Published(path.name, ran)

    def restart(self) -> None:
        end(self._places)
        self._start()

    def lose_four(self) -> bool:
        lost = self._places[:DATA][:: DATA // LOST]
        for process in lost:
            process.kill()
            process.wait()
        return True

    def fetch(self, name: str, size: int) -> Ran:
        target = self._files / name
        ran = self._run("retrieve", "--file", target)
        if target.stat().st_size != size:
            raise BenchmarkError(f"zstor retrieved {target.stat().st_size} bytes of {size}")
        target.unlink()
        return ran

    def get(self, name: str, target: Path) -> Ran:
        ran = self._run("retrieve", "--file", self._files / name)
        os.rename(self._files / name, target)
        return ran

    def url(self, name: str) -> str:
        raise BenchmarkError(f"zstor has no gateway to serve {name}")

    def processes(self) -> list[psutil.Process]:
        return [each for process in self._places for each in tree_of(process.pid)]

    def words(self, *words: str | Path) -> list[str]:
        """The command line of a command on this store."""
        log = self._folder / "zstor.log"
        return [self._program, "--config", str(self._folder / "zstor.toml"), "--log_file", str(log), *map(str, words)]

    def _run(self, *words: str | Path) -> Ran:
        return run(self.words(*words), cwd=self._folder)

    def _start(self) -> None:
        log = self._folder / "zdb.log"
        self._places = []
        for number, port in enumerate(self._ports):
            place = self._folder / f"place-{number:02d}"
            (place / "data").mkdir(parents=True, exist_ok=True)
            (place / "index").mkdir(exist_ok=True)
            mode = "seq" if number < DATA else "user"
            words: list[str | Path] = [self._zdb, "--data", place / "data", "--index", place / "index", "--mode", mode]
            self._places.append(serve([*words, "--listen", "127.0.0.1", "--port", str(port)], log))
        wait_ready(lambda: all(accepts(port) for port in self._ports), self._places, log)
