"""The member daemon by itself, by `redis-benchmark`: beside the original 0-db, and redis as the client's limit."""

from __future__ import annotations

import contextlib
import csv
import functools
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import KIB, MIB, rotated, size_text
from benchmarks.million_keys import MillionKeys
from benchmarks.network import command
from benchmarks.processes import BenchmarkError, accepts, end, free_ports, run, serve, wait_ready
from benchmarks.record import OURS, ZDB, ZDB_NODELAY, Key, Record
from benchmarks.setting import Setting

NEW_KEYS = 1_000_000_000
"""SETs draw from so many that each is a key of its own: 0-db and ours write nothing where the value is there already,
and `redis-benchmark` sends the same value always."""
ANSWER_S = 60.0

Words = list[str | Path]


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask: some seconds at most each."""

    size: int
    requests: int
    keys: int
    """GETs ask for these, all of which are there."""
    pipeline: int = 1
    clients: int = 50

    @property
    def text(self) -> str:
        """What a case is called behind its verb."""
        return f", {self.pipeline} at once" if self.pipeline > 1 else ""


LOADS = (
    Load(512, 60_000, 7_500),
    Load(4 * KIB, 30_000, 5_000),
    Load(64 * KIB, 5_000, 1_000),
    Load(MIB, 300, 60),
    Load(512, 40_000, 7_500, 16),
    Load(64 * KIB, 5_000, 1_000, 16),
)
SYNCED = Load(512, 2_000, 0, 1, 20)


class Wire:
    """`wire`."""

    name = "wire"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._divided = 20 if setting.quick else 1
        self._keys = MillionKeys(setting)

    def round(self, run: int, record: Record) -> None:
        if "redis-benchmark" not in self._setting.peers:
            record.note("`wire` needs redis-benchmark on PATH: not measured.")
            return
        for name in rotated(list(self._servers(Path(), 0)), run):
            with self._served(name, ()) as port:
                for load in LOADS:
                    self._rates(name, port, load, record)
            if name in (OURS, ZDB):
                with self._served(name, ("--sync",)) as port:
                    rate = self._ask("set", port, SYNCED, NEW_KEYS)
                case = f"{size_text(SYNCED.size)} SET, --sync, {SYNCED.clients} clients"
                record.add(Key("wire", case, name, "rate"), rate, "requests/s")
        self._keys.round(record)

    @contextlib.contextmanager
    def _served(self, name: str, flags: tuple[str, ...]) -> Iterator[int]:
        """Have a server on a new folder, and give its port."""
        folder = self._setting.folder / "wire"
        (port,) = free_ports(1)
        folder.mkdir()
        with contextlib.ExitStack() as ending:
            ending.callback(shutil.rmtree, folder)
            server = serve([*self._servers(folder, port, flags)[name]], folder / "log", cwd=folder)
            ending.callback(end, [server])
            wait_ready(functools.partial(accepts, port), [server], folder / "log")
            yield port

    def _servers(self, folder: Path, port: int, flags: tuple[str, ...] = ()) -> dict[str, Words]:
        peers = self._setting.peers
        place: Words = ["--data", folder / "data", "--index", folder / "index", "--port", str(port)]
        found: dict[str, Words] = {OURS: [*command(), "zdb", *place, *(flags or ("--no-sync",))]}
        for name, program in ((ZDB, "zdb"), (ZDB_NODELAY, "zdb-nodelay")):
            if program in peers:
                found[name] = [peers[program], *place, "--listen", "127.0.0.1", *flags]
        if "redis-server" in peers:
            words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            found["redis, in memory"] = [peers["redis-server"], *words]
        return found

    def _rates(self, name: str, port: int, load: Load, record: Record) -> None:
        keys = max(1, load.keys // self._divided)
        size = size_text(load.size)
        for verb in ("set", "get"):
            if verb == "get":
                fill(port, load.size, keys)
            rate = self._ask(verb, port, load, NEW_KEYS if verb == "set" else keys)
            record.add(Key("wire", f"{size} {verb.upper()}{load.text}", name, "rate"), rate, "requests/s")

    def _ask(self, verb: str, port: int, load: Load, keys: int) -> float:
        """Have clients ask, and give how many requests a second were answered."""
        requests = max(load.clients, load.requests // self._divided)
        words = ["-p", port, "-c", load.clients, "-n", requests, "-r", keys, "-d", load.size, "-P", load.pipeline]
        ran = run([self._setting.peers["redis-benchmark"], *map(str, words), "-t", verb, "--csv"])
        rates = [float(row[1]) for row in csv.reader(ran.output.splitlines()) if row[:1] == [verb.upper()]]
        if len(rates) != 1:
            raise BenchmarkError(f"redis-benchmark: {ran.output[-400:]}")
        return rates[0]


def fill(port: int, size: int, keys: int) -> None:
    """Store the keys that `redis-benchmark -r` asks for.

    Raises: BenchmarkError where one is refused.
    """
    value = bytes(size)
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as client, client.makefile("rb") as answers:
        for number in range(keys):
            client.sendall(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%b\r\n" % (number, size, value))
            answer = answers.readline()
            if answer.startswith(b"$") and answer != b"$-1\r\n":
                answers.readline()
            elif answer[:1] not in (b"+", b"$"):
                raise BenchmarkError(f"SET: {answer!r}")
